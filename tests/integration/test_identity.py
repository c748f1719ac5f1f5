"""One reading is one row: however often, by whatever way, in whatever order it comes.

What hubs send is made by the hub's own code from a device's payload (edge.payloads), so that a
corrected clock, another hub and another zone are what they are there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.clock import Pair, TimeLine, with_pair
from edge.payloads import Decoded, Payload, decode_indicated, measured
from gateway.gatt import bthome
from gateway.gatt.times import local_device_time
from gateway.measurement import Measurement, TimeQuality
from gateway.platform.postgres import AsyncConnection, connect
from gateway.quantity import Absent
from gateway.vital_sign import Reading
from gateway.vitals import BY_NAME
from ingest.attribution.settle import settle_due
from ingest.ledger import read_ledger
from ingest.store import Store
from tests.flushes import committed, prepared
from tests.worlds import (
    CUFF,
    HUB,
    NOON,
    OTHER_HUB,
    a_message,
    a_pressure,
    a_weight,
    enter_registry,
    query,
)

pytestmark = pytest.mark.integration

CHINA, URUMQI_BY_CUSTOM = ZoneInfo("Asia/Shanghai"), ZoneInfo("Asia/Urumqi")
BERLIN = ZoneInfo("Europe/Berlin")
PRESSURE, BOTTLE = BY_NAME["blood_pressure"], BY_NAME["water_intake"]
NEW_HUB = 0x00C0FFEE00C0FF99


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    enter_registry(database)
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        yield Store(session)


def as_read(
    shown: datetime,
    *,
    received_at: datetime,
    lines: Sequence[TimeLine] = (),
    zone: ZoneInfo = CHINA,
    systolic: int = 128,
) -> Measurement:
    """What a hub makes of a cuff's payload whose time-stamp is `shown`, a wall time."""
    (source,) = PRESSURE.gatt
    values = (Decimal(systolic), Decimal(82), Absent.NOT_A_NUMBER, Decimal(71))
    reading = Reading(values=values, device_time=local_device_time(shown.replace(tzinfo=UTC)))
    payload = Payload(
        device=CUFF,
        source=source.characteristic,
        data=source.encode(reading),
        received_at=received_at,
    )
    decoded = decode_indicated(payload)
    assert isinstance(decoded, Decoded)
    item = measured(decoded, lines=lines, zone=zone)
    assert isinstance(item, Measurement)
    return item


def line(behind: timedelta, at: datetime) -> tuple[TimeLine, ...]:
    """What a hub knows of a clock that it has read once, so far behind the time in China."""
    shown = local_device_time((at - behind).astimezone(CHINA))
    return with_pair((), Pair(shown=shown, at=at))


WALL = (NOON - timedelta(hours=2)).astimezone(CHINA).replace(tzinfo=None)
"""What the cuff's clock showed when the reading was taken; it is ten minutes behind."""
BEHIND = timedelta(minutes=10)


def rows(database: str) -> int:
    ((count,),) = query(database, "SELECT count(*) FROM measurement")
    return int(count)


async def test_a_record_sent_again_after_its_clock_was_corrected_is_one_row(
    store: Store, database: str
) -> None:
    first = as_read(WALL, received_at=NOON, lines=line(BEHIND, NOON))
    set_at = NOON + timedelta(minutes=5)
    right = local_device_time(set_at.astimezone(CHINA))
    lines = with_pair(line(BEHIND, NOON), Pair(shown=right, at=set_at), set_at=set_at)
    again = as_read(WALL, received_at=NOON + timedelta(days=1), lines=lines)
    assert first.time_quality != again.time_quality
    await committed(store, a_message(first, sequence=1))
    (outcome,) = (await committed(store, a_message(again, sequence=2))).outcomes
    assert (outcome.stored, outcome.duplicate, rows(database)) == (0, 1, 1)


async def test_a_record_placed_anew_with_a_better_known_drift_is_one_row(
    store: Store, database: str
) -> None:
    first = as_read(WALL, received_at=NOON, lines=line(BEHIND, NOON))
    (known,) = line(BEHIND, NOON)
    better = replace(known, drift_ppm=60.0, observed=timedelta(days=20))
    again = as_read(WALL, received_at=NOON + timedelta(days=1), lines=(better,))
    assert first.measured_at != again.measured_at
    await committed(store, a_message(first, sequence=1))
    await committed(store, a_message(again, sequence=2))
    assert rows(database) == 1


async def test_a_record_that_a_second_hub_of_the_home_hears_too_is_one_row(
    store: Store, database: str
) -> None:
    """Each has read the device's clock for itself, to a second or so."""
    query(database, "UPDATE hub SET home_id = 1")
    here = as_read(WALL, received_at=NOON, lines=line(BEHIND, NOON))
    there = as_read(
        WALL,
        received_at=NOON + timedelta(seconds=9),
        lines=line(BEHIND + timedelta(seconds=1.2), NOON),
    )
    await committed(store, a_message(here, hub=HUB))
    (outcome,) = (await committed(store, a_message(there, hub=OTHER_HUB))).outcomes
    assert (outcome.duplicate, rows(database)) == (1, 1)


async def test_a_memory_sent_again_to_a_new_hub_is_the_same_rows(
    store: Store, database: str
) -> None:
    """The old hub broke; the new one has another id and knows nothing of the device's clock."""
    walls = [WALL + timedelta(minutes=minute) for minute in range(20)]
    old = [as_read(wall, received_at=NOON, lines=line(BEHIND, NOON)) for wall in walls]
    await committed(store, a_message(*old, hub=HUB))
    query(database, "UPDATE hub SET revoked_at = now() WHERE hub_id = 1")
    query(
        database,
        "INSERT INTO hub (hub_id, name, home_id) OVERRIDING SYSTEM VALUE"
        " VALUES (3, '00c0ffee00c0ff99', 1)",
    )
    days_later = NOON + timedelta(days=3)
    slower = line(BEHIND + timedelta(seconds=40), days_later)  # the clock has drifted since
    new = [as_read(wall, received_at=days_later, lines=slower) for wall in walls]
    message = a_message(*new, hub=NEW_HUB, epoch=99)
    (outcome,) = (await committed(store, message)).outcomes
    assert (outcome.stored, outcome.duplicate, rows(database)) == (0, 20, 20)
    # and a worker that has just been started and remembers nothing says the same
    again = a_message(*new, hub=NEW_HUB, epoch=99, sequence=2)
    (outcome,) = (await committed(Store(store.connection), again)).outcomes
    assert (outcome.duplicate, rows(database)) == (20, 20)
    assert read_ledger(database).balanced


@pytest.mark.parametrize(
    ("before", "after"),
    [(CHINA, URUMQI_BY_CUSTOM), (CHINA, BERLIN), (BERLIN, CHINA)],
    ids=["two hours west", "to Europe", "to China"],
)
async def test_a_record_sent_again_after_the_hub_changed_its_zone_is_one_row(
    store: Store, database: str, before: ZoneInfo, after: ZoneInfo
) -> None:
    """Without a clock that can be read, a local time is placed by the zone of the hub."""
    at = NOON.astimezone(before).replace(tzinfo=None) - timedelta(seconds=30)
    first = as_read(at, received_at=NOON, zone=before)
    known = with_pair((), Pair(shown=local_device_time(at.replace(tzinfo=UTC)), at=NOON))
    again = as_read(at, received_at=NOON + timedelta(days=1), zone=after, lines=known)
    await committed(store, a_message(first, sequence=1))
    (outcome,) = (await committed(store, a_message(again, sequence=2))).outcomes
    assert (outcome.duplicate, rows(database)) == (1, 1)


def a_drink(heard_at: datetime, number: int) -> Measurement:
    reading = BOTTLE.advertised[0].decode(
        bthome.encode_objects({bthome.PACKET_ID: number, 0x48: 250})
    )
    return replace(
        a_pressure(at=heard_at),
        sign=BOTTLE.code,
        reading=reading,
        time_quality=TimeQuality.RECEPTION,
    )


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("later_s", [-40, 0.7, 40])
async def test_a_drink_without_a_time_that_two_hubs_hear_is_one_row(
    store: Store, database: str, later_s: float, *, together: bool
) -> None:
    """It is known by the number of its broadcast."""
    query(database, "UPDATE hub SET home_id = 1")
    messages = [
        a_message(a_drink(NOON + timedelta(seconds=later), 7), hub=hub)
        for hub, later in ((HUB, 0), (OTHER_HUB, later_s))
    ]
    for flush in [messages] if together else [[message] for message in messages]:
        await committed(store, *flush)
    assert rows(database) == 1
    assert read_ledger(database).total("duplicate") == 1


async def test_the_next_drink_of_the_same_size_is_another_row(store: Store, database: str) -> None:
    query(database, "UPDATE hub SET home_id = 1")
    drinks = [a_drink(NOON + timedelta(seconds=20 * n), n) for n in range(3)]
    round_again = a_drink(NOON + timedelta(days=4), 0)
    await committed(store, a_message(*drinks, hub=HUB))
    await committed(store, a_message(*drinks[1:], round_again, hub=OTHER_HUB))
    assert rows(database) == 4


@pytest.mark.parametrize("day", [datetime(2026, 3, 29), datetime(2025, 10, 26)])  # noqa: DTZ001 - a wall time
async def test_a_record_sent_again_across_a_change_to_or_from_summer_time_is_one_row(
    store: Store, database: str, day: datetime
) -> None:
    wall = day - timedelta(hours=3)
    received_at = (wall + timedelta(seconds=20)).replace(tzinfo=BERLIN).astimezone(UTC)
    known = with_pair((), Pair(shown=local_device_time(wall.replace(tzinfo=UTC)), at=received_at))
    first = as_read(wall, received_at=received_at, zone=BERLIN, lines=known)
    after_at = received_at + timedelta(days=1)
    shown = local_device_time(after_at.astimezone(BERLIN))
    lines = with_pair(known, Pair(shown=shown, at=after_at), set_at=after_at)
    again = as_read(wall, received_at=after_at, zone=BERLIN, lines=lines)
    await committed(store, a_message(first, sequence=1))
    (outcome,) = (await committed(store, a_message(again, sequence=2))).outcomes
    assert (outcome.duplicate, rows(database)) == (1, 1)


async def test_the_hour_that_comes_twice_holds_two_readings(store: Store, database: str) -> None:
    """02:30 in summer time and 02:30 in winter time: the device's own time is the same."""
    summer = datetime(2025, 10, 26, 0, 30, tzinfo=UTC)
    winter = summer + timedelta(hours=1)
    wall = summer.astimezone(BERLIN).replace(tzinfo=None)
    readings = [
        as_read(
            wall,
            received_at=at + timedelta(seconds=5),
            zone=BERLIN,
            lines=with_pair((), Pair(shown=local_device_time(wall.replace(tzinfo=UTC)), at=at)),
            systolic=systolic,
        )
        for at, systolic in ((summer, 128), (winter, 131))
    ]
    await committed(store, a_message(*readings))
    kept = query(database, "SELECT measured_at FROM measurement ORDER BY 1")
    assert [at for (at,) in kept] == [summer, winter]


# Late and out of order: what a month of two hubs brings, in any order, in any batches, by any worker.


BEGAN = NOON - timedelta(days=60)


def _backlog() -> list[tuple[int, Measurement]]:
    """Readings over three weeks, some twice, some that cannot be stored; each with its hub."""
    readings = [
        a_pressure(Decimal(110 + day % 40), at=BEGAN + timedelta(days=day // 2, minutes=7 * day))
        for day in range(40)
    ]
    weights = [a_weight(f"{60 + day}.050", at=BEGAN + timedelta(days=day)) for day in range(20)]
    again = [
        replace(m, received_at=m.received_at + timedelta(days=9), stored_record=True)
        for m in (*readings[5:15], *weights[:5])
    ]
    implausible = [
        a_pressure(Decimal(999), at=BEGAN + timedelta(days=3, hours=day)) for day in range(3)
    ]
    unlinked = [a_weight(at=BEGAN + timedelta(days=day), slot=9) for day in range(3)]
    here = [*readings, *weights, *again, *implausible, *unlinked]
    return [*((HUB, each) for each in here), *_lent()]


def _lent() -> list[tuple[int, Measurement]]:
    """A cuff that was at the neighbours', whose readings come home days later, and once at once."""
    at = [BEGAN + timedelta(days=30, hours=n) for n in range(4)]
    measured = [a_pressure(Decimal(150 + n), at=when) for n, when in enumerate(at)]
    back = [
        replace(m, received_at=BEGAN + timedelta(days=33), stored_record=True) for m in measured
    ]
    through_the_wall = measured[3]
    return [
        *((OTHER_HUB, each) for each in measured),
        *((HUB, each) for each in back),
        (HUB, through_the_wall),
    ]


BACKLOG = _backlog()
STORED = 64
TERMS = {"published": 90, "stored": STORED, "duplicate": 16, "quarantined": 10}

arrivals = st.tuples(
    st.permutations(range(len(BACKLOG))),
    st.lists(st.integers(1, len(BACKLOG) - 1), max_size=9, unique=True).map(sorted),
    st.lists(st.integers(0, 2), min_size=10, max_size=10),
    st.lists(st.booleans(), min_size=10, max_size=10),
)
"""Order, cuts into batches, which of three workers takes each batch, whether with the next at once."""


def test_whatever_the_order_of_arrival_the_archive_ends_the_same(database: str) -> None:
    enter_registry(database)
    expected: list[object] = []

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(arrivals)
    def arrive(arrival: tuple[list[int], list[int], list[int], list[bool]]) -> None:
        query(database, "TRUNCATE measurement, batch, quarantine, attribution_due")
        asyncio.run(_arrive(database, *arrival))
        asyncio.run(_settle(database))
        ledger = read_ledger(database)
        assert ledger.balanced
        assert {term: ledger.total(term) for term in TERMS} == TERMS
        state = [query(database, _STATE), query(database, _LATEST), query(database, _APART)]
        expected[:] = expected or state
        assert state == expected

    arrive()
    assert len(expected) == 3
    nobodys = query(
        database, "SELECT systolic_mmhg FROM measurement WHERE resident_id = 0 ORDER BY 1"
    )
    assert nobodys == [(150,), (151,), (152,)]


_STATE = """
SELECT device_id, user_slot, sign, measured_at, identity_time, resident_id, digits, content_hash,
    time_quality, utc_offset, flags, received_after_s, systolic_mmhg, body_weight_kg
FROM measurement ORDER BY 1, 2, 3, 4
"""
_LATEST = """
SELECT DISTINCT ON (resident_id, sign) resident_id, sign, measured_at, systolic_mmhg, body_weight_kg
FROM measurement ORDER BY resident_id, sign, measured_at DESC
"""
_APART = "SELECT reason, device, measured_at FROM quarantine ORDER BY 1, 2, 3"


async def _arrive(
    database: str, order: list[int], cuts: list[int], workers: list[int], at_once: list[bool]
) -> None:
    """Let three workers, each with a memory of its own, store the batches; some at the same time."""
    bounds = [0, *cuts, len(order)]
    batches = [
        [BACKLOG[place] for place in order[start:end]] for start, end in itertools.pairwise(bounds)
    ]
    async with AsyncExitStack() as stack:
        stores = [Store(await stack.enter_async_context(await _session(database))) for _ in "123"]
        pending: list[tuple[Store, int, list[tuple[int, Measurement]]]] = []
        for sequence, (batch, worker, joins) in enumerate(
            zip(batches, workers, at_once, strict=False), start=1
        ):
            pending.append((stores[worker], sequence, batch))
            if joins and len({id(each) for each, *_rest in pending}) == len(pending):
                continue
            await _store(pending)
            pending = []
        await _store(pending)


async def _session(database: str) -> AsyncConnection:
    return await connect(database, application="hearth-tests", autocommit=True)


async def _settle(database: str) -> None:
    async with await _session(database) as session:
        await settle_due(session)


async def _store(batches: Sequence[tuple[Store, int, list[tuple[int, Measurement]]]]) -> None:
    by_store: dict[int, list[tuple[Store, int, list[tuple[int, Measurement]]]]] = {}
    for each in batches:
        by_store.setdefault(id(each[0]), []).append(each)

    async def one_after_the_other(
        own: Sequence[tuple[Store, int, list[tuple[int, Measurement]]]],
    ) -> None:
        for store, sequence, batch in own:
            messages = [
                a_message(*(m for hub, m in batch if hub == which), hub=which, sequence=sequence)
                for which in (HUB, OTHER_HUB)
            ]
            await store.commit(await prepared(store.connection, messages))

    await asyncio.gather(*map(one_after_the_other, by_store.values()))


async def test_hubs_that_were_offline_for_weeks_bring_their_backlogs_at_once(
    store: Store, database: str
) -> None:
    """Newest first, in one flush with live readings of another device: "latest" is by measurement."""
    live = a_weight("71.050", at=BEGAN + timedelta(days=22))
    late = [a_pressure(at=BEGAN + timedelta(days=day)) for day in range(21, -1, -1)]
    await committed(store, a_message(live, sequence=1), a_message(*late, sequence=2))
    latest = query(database, _LATEST)
    assert [(sign, at) for _resident, sign, at, *_values in latest] == [
        (1, BEGAN + timedelta(days=21)),
        (3, BEGAN + timedelta(days=22)),
    ]
    assert query(database, "SELECT count(*) FROM quarantine") == [(0,)]
