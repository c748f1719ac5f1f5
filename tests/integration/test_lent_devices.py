"""A lent device: what another home's hub had long before is nobody's, whichever hub's word comes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from api.corrections import Author, Period, claim, list_worklist, reassign
from gateway.measurement import Measurement, device_address
from gateway.platform.changes import START
from gateway.platform.postgres import connect, connect_blocking
from gateway.stored import FLAG_ELSEWHERE, FLAG_INFERRED
from gateway.vital_sign import NO_USER_SLOT
from ingest.attribution.settle import settle_due
from ingest.ledger import read_ledger
from ingest.quarantine import ActedBy, Filter, replay
from ingest.registry import load_registry
from ingest.store import Store
from ingest.verdicts import Verdict
from tests.archives import public_id
from tests.feeds import settled_changes
from tests.flushes import committed, prepared
from tests.worlds import (
    CUFF,
    HUB,
    NOON,
    OTHER_HUB,
    OTHER_RESIDENT,
    RESIDENT,
    a_message,
    a_pressure,
    a_weight,
    enter_registry,
    query,
)

pytestmark = pytest.mark.integration

DAY = timedelta(days=1)
THERE = [a_pressure(Decimal(150 + n), at=NOON + timedelta(minutes=n)) for n in range(2)]
"""What the neighbours' hub heard at once."""
BACK = [replace(one, received_at=NOON + DAY) for one in THERE]
"""The same, as the cuff's own hub had it a day later."""
OWN = a_pressure(Decimal(131), at=NOON + timedelta(hours=5))
AUTHOR = Author(actor="cli:nurse", origin=None, reason="asked them")


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    enter_registry(database)
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        yield Store(session)


def owners(database: str) -> list[tuple[int, int, int]]:
    return [
        (int(systolic), owner, flags)
        for systolic, owner, flags in query(
            database,
            "SELECT systolic_mmhg, resident_id, flags FROM measurement WHERE sign = 1 ORDER BY 1",
        )
    ]


WAITING = [(131, RESIDENT, 0), (150, 0, FLAG_ELSEWHERE), (151, 0, FLAG_ELSEWHERE)]


@pytest.mark.parametrize("order", ["there first", "home first", "together"])
async def test_what_another_home_measured_with_a_lent_device_is_nobodys_in_any_order(
    store: Store, database: str, order: str
) -> None:
    """Back at home the cuff sends its memory; the neighbours' hub had heard it at once."""
    there, home = a_message(*THERE, hub=OTHER_HUB), a_message(*BACK, OWN, hub=HUB)
    flushes = {
        "there first": [[there], [home]],
        "home first": [[home], [there]],
        "together": [[home, there]],
    }
    for flush in flushes[order]:
        await committed(store, *flush)
    await settle_due(store.connection)
    assert owners(database) == WAITING
    ledger = read_ledger(database)
    assert ledger.balanced
    assert (ledger.total("stored"), ledger.total("quarantined")) == (3, 2)
    assert query(database, "SELECT DISTINCT reason FROM quarantine") == [
        (Verdict.DEVICE_ELSEWHERE,)
    ]


async def test_of_two_workers_at_once_the_later_sees_the_earlier(
    store: Store, database: str
) -> None:
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        other = Store(session)
        there = await prepared(session, [a_message(*THERE, hub=OTHER_HUB)])
        home = await prepared(store.connection, [a_message(*BACK, OWN, hub=HUB)])
        await asyncio.gather(store.commit(home), other.commit(there))
    assert owners(database) == WAITING


async def test_what_is_taken_back_is_kept_audited_and_told(store: Store, database: str) -> None:
    await committed(store, a_message(*BACK, OWN, hub=HUB))
    await committed(store, a_message(*THERE, hub=OTHER_HUB))
    kept = query(
        database,
        "SELECT a.resident_id, next_resident_id, kind, actor, readings FROM attribution AS a"
        " JOIN correction USING (correction_id)",
    )
    assert [tuple(row[:4]) for row in kept] == [(RESIDENT, 0, "elsewhere", "service:ingest")] * 2
    assert query(
        database,
        "SELECT action, resident_id, detail ->> 'lost' FROM audit WHERE actor = 'service:ingest'",
    ) == [("attribution.elsewhere", RESIDENT, "2")]
    told = (await settled_changes(store.connection, START, 2))[-1].changed
    assert (told.resident.tolist(), told.oldest_ms.tolist()) == (
        [RESIDENT],
        [int(NOON.timestamp() * 1000)],
    )
    assert query(database, "SELECT DISTINCT resident_id FROM baseline_due") == [(RESIDENT,)]
    # and once: the neighbours' hub sends it again
    await committed(store, a_message(*THERE, hub=OTHER_HUB, sequence=2))
    assert query(database, "SELECT count(*) FROM correction") == [(1,)]


async def test_a_neighbours_hub_that_hears_through_the_wall_takes_nothing(
    store: Store, database: str
) -> None:
    await committed(store, a_message(OWN, hub=OTHER_HUB))
    await committed(store, a_message(OWN, hub=HUB))
    await committed(store, a_message(OWN, hub=OTHER_HUB, sequence=2))
    assert owners(database) == [(131, RESIDENT, 0)]


@pytest.mark.parametrize(
    "order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
)
async def test_what_its_own_home_had_at_once_is_its_owners_although_it_came_again_late(
    store: Store, database: str, order: tuple[int, ...]
) -> None:
    """The neighbours heard it through the wall, and the cuff sent its memory again days later."""
    again = replace(OWN, received_at=NOON + 3 * DAY, stored_record=True)
    messages = [
        a_message(OWN, hub=HUB),
        a_message(again, hub=HUB, sequence=2),
        a_message(OWN, hub=OTHER_HUB),
    ]
    for place in order:
        await committed(store, messages[place])
    await settle_due(store.connection)
    assert owners(database) == [(131, RESIDENT, 0)]
    assert query(database, "SELECT received_after_s FROM measurement") == [(1.0,)]


@pytest.mark.parametrize("late", [False, True])
async def test_what_a_person_has_decided_stays(store: Store, database: str, *, late: bool) -> None:
    """Claimed or reassigned, before the neighbours' hub could send or after."""
    await committed(store, a_message(*BACK, hub=HUB))
    if late:
        await committed(store, a_message(*THERE, hub=OTHER_HUB))
    first, second = query(database, "SELECT measured_at FROM measurement ORDER BY 1")
    with connect_blocking(database, application="hearth-tests", autocommit=True) as connection:
        period = Period(
            device=device_address(CUFF),
            user_slot=NO_USER_SLOT,
            from_at=first[0],
            until_at=second[0] + DAY,
        )
        if late:
            waiting = list_worklist(connection, author=AUTHOR)
            them = public_id(database, OTHER_RESIDENT)
            claim(connection, [each.reading for each in waiting], them, AUTHOR)
        reassign(connection, period, public_id(database, OTHER_RESIDENT), AUTHOR)
    await committed(store, a_message(*THERE, hub=OTHER_HUB, sequence=9))
    await settle_due(store.connection)
    assert {owner for _systolic, owner, _flags in owners(database)} == {OTHER_RESIDENT}


async def test_a_new_link_does_not_name_whose_they_are(store: Store, database: str) -> None:
    await committed(store, a_message(*THERE, hub=OTHER_HUB))
    await committed(store, a_message(*BACK, OWN, hub=HUB))
    query(database, "UPDATE link SET superseded_at = now() WHERE device_id = 11")
    query(
        database,
        "INSERT INTO link (device_id, user_slot, resident_id, during) VALUES (11, 255, 102, '(,)')",
    )
    await settle_due(store.connection)
    assert owners(database) == WAITING


async def test_a_shared_slots_history_does_not_name_them_either(
    store: Store, database: str
) -> None:
    query(database, "UPDATE link SET superseded_at = now() WHERE device_id = 11")
    query(
        database,
        "INSERT INTO shared_link (device_id, user_slot, resident_id, during, usual)"
        " VALUES (11, 255, 101, '(,)', 150)",
    )
    usual = [a_pressure(Decimal(150), at=NOON - DAY * n) for n in range(1, 10)]
    await committed(store, a_message(*usual, hub=HUB))
    await committed(store, a_message(*BACK, hub=HUB, sequence=2))
    await settle_due(store.connection)
    assert {flags for *_, flags in owners(database)} == {FLAG_INFERRED}
    await committed(store, a_message(*THERE, hub=OTHER_HUB))
    await settle_due(store.connection)
    late = query(
        database,
        "SELECT resident_id, flags FROM measurement WHERE received_after_s > 3600",
    )
    assert late == [(0, FLAG_ELSEWHERE)] * 2
    assert query(database, "SELECT count(*) FROM posterior") == [(0,)]


async def test_a_replay_of_what_was_kept_apart_looks_as_well(store: Store, database: str) -> None:
    """The link was entered late; the neighbours' hub had them long before."""
    query(database, "UPDATE link SET superseded_at = now() WHERE device_id = 11")
    await committed(store, a_message(*BACK, OWN, hub=HUB))
    await committed(store, a_message(*THERE, hub=OTHER_HUB))
    assert owners(database) == []
    query(
        database,
        "INSERT INTO link (device_id, user_slot, resident_id, during) VALUES (11, 255, 101, '(,)')",
    )
    registry = await load_registry(store.connection)
    await replay(store.connection, registry, Filter(), ActedBy(actor="service:ingest"))
    assert owners(database) == WAITING
    assert read_ledger(database).balanced


def a_month_at_home() -> list[Measurement]:
    """A cuff that is heard at once, twice a day, and was away for two days; a scale, every day."""
    cuff = [
        a_pressure(Decimal(120 + n % 9), at=NOON - 20 * DAY + n * timedelta(hours=12))
        for n in range(34)
    ]
    scale = [a_weight(at=NOON - 20 * DAY + n * timedelta(hours=6)) for n in range(90)]
    return [*cuff, *scale]


AWAY = [
    a_pressure(Decimal(160 + n), at=NOON - 3 * DAY + (n + 1) * timedelta(hours=6)) for n in range(7)
]
BROUGHT = [replace(one, received_at=NOON + timedelta(hours=3)) for one in AWAY]
"""It measured where no hub was, and was read when it was back."""


def owners_above(database: str, systolic: int) -> set[int]:
    rows = owners(database)
    return {owner for value, owner, _flags in rows if value >= systolic}


@pytest.mark.parametrize("parts", [1, 3])
async def test_what_a_device_measured_while_it_was_away_waits_for_a_person(
    store: Store, database: str, parts: int
) -> None:
    arrivals = [*a_month_at_home(), *BROUGHT]
    for part in range(parts):
        await committed(store, a_message(*arrivals[part::parts], sequence=part + 1))
        await settle_due(store.connection)
    await settle_due(store.connection)
    assert owners_above(database, 160) == {0}
    assert {owner for value, owner, _flags in owners(database) if value < 160} == {RESIDENT}


async def test_a_hub_that_was_off_holds_nothing(store: Store, database: str) -> None:
    heard = [m for m in a_month_at_home() if m.measured_at < NOON - 3 * DAY]
    await committed(store, a_message(*heard, *BROUGHT))
    await settle_due(store.connection)
    assert owners_above(database, 0) == {RESIDENT}


async def test_who_claims_what_was_measured_on_a_journey_is_asked_once(
    store: Store, database: str
) -> None:
    await committed(store, a_message(*a_month_at_home(), *BROUGHT))
    await settle_due(store.connection)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as connection:
        waiting = list_worklist(connection, author=AUTHOR)
        assert len(waiting) == len(AWAY)
        claim(connection, [waiting[0].reading], public_id(database, RESIDENT), AUTHOR)
    await settle_due(store.connection)
    assert owners_above(database, 160) == {RESIDENT}


async def test_a_period_that_was_reassigned_is_not_held_again(store: Store, database: str) -> None:
    await committed(store, a_message(*a_month_at_home(), *BROUGHT))
    await settle_due(store.connection)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as connection:
        period = Period(
            device=device_address(CUFF),
            user_slot=NO_USER_SLOT,
            from_at=AWAY[0].measured_at,
            until_at=AWAY[-1].measured_at + timedelta(seconds=1),
        )
        reassign(connection, period, public_id(database, OTHER_RESIDENT), AUTHOR)
    late = replace(AWAY[3], received_at=NOON + DAY)
    await committed(store, a_message(late, sequence=2))
    query(database, "INSERT INTO attribution_due (device_id, user_slot) VALUES (11, 255)")
    await settle_due(store.connection)
    assert owners_above(database, 160) == {OTHER_RESIDENT}


async def test_another_period_that_was_reassigned_says_nothing_of_this_one(
    store: Store, database: str
) -> None:
    await committed(store, a_message(*a_month_at_home()))
    with connect_blocking(database, application="hearth-tests", autocommit=True) as connection:
        period = Period(
            device=device_address(CUFF),
            user_slot=NO_USER_SLOT,
            from_at=NOON - 15 * DAY,
            until_at=NOON - 14 * DAY,
        )
        reassign(connection, period, public_id(database, OTHER_RESIDENT), AUTHOR)
    await committed(store, a_message(*BROUGHT, sequence=2))
    await settle_due(store.connection)
    assert owners_above(database, 160) == {0}
