"""`hearth admin device retime`: what could not be placed in time is, afterwards, and audited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from typer.testing import CliRunner

from gateway.cli.admin import app
from gateway.errors import UsageError
from gateway.measurement import TimeQuality, device_address
from gateway.platform.postgres import AsyncConnection, connect
from ingest.ledger import read_ledger
from ingest.retime import Anchor, Choice, LaterFacts, Slow
from ingest.store import Store
from ingest.verdicts import Verdict
from tests.flushes import committed
from tests.retiming import BEHIND, CHINA, as_shown, retimed, unplaced
from tests.worlds import CUFF, NOON, a_message, a_pressure, enter_registry, query

pytestmark = pytest.mark.integration


@pytest.fixture
async def connection(database: str) -> AsyncIterator[AsyncConnection]:
    enter_registry(database)
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        yield session


def stored(database: str) -> list[tuple[datetime, int]]:
    rows = query(database, "SELECT measured_at, time_quality FROM measurement ORDER BY 1")
    return [(at, quality) for at, quality in rows]


HOURS = [NOON + timedelta(hours=hour) for hour in range(3)]


async def test_a_person_says_how_slow_the_clock_was(
    connection: AsyncConnection, database: str
) -> None:
    readings = [unplaced(at) for at in HOURS]
    await committed(Store(connection), a_message(*readings))
    done = await retimed(connection, Slow(by=BEHIND, zone=CHINA))
    assert (done.chosen, done.unplaced, done.replayed.stored) == (3, 0, 3)
    assert stored(database) == [(at, TimeQuality.RETIMED) for at in HOURS]
    ledger = read_ledger(database)
    assert (ledger.balanced, ledger.total("stored"), ledger.total("quarantined")) == (True, 3, 0)


async def test_a_person_says_when_one_record_was_measured_and_the_others_follow(
    connection: AsyncConnection, database: str
) -> None:
    await committed(Store(connection), a_message(*[unplaced(at) for at in HOURS]))
    ((number,),) = query(database, "SELECT max(quarantine_id) FROM quarantine")
    done = await retimed(connection, Anchor(quarantine_id=number, measured_at=HOURS[2]))
    assert done.replayed.stored == 3
    assert [at for at, _quality in stored(database)] == HOURS


async def test_a_record_without_a_time_of_its_own_is_placed_alone(
    connection: AsyncConnection, database: str
) -> None:
    """The hub did not know the time when it came, and was switched off before it did."""
    lost = [
        replace(
            measurement,
            reading=replace(measurement.reading, device_time=None),
            time_quality=TimeQuality.HUB_UNSYNCHRONISED,
        )
        for measurement in (unplaced(at) for at in HOURS)
    ]
    await committed(Store(connection), a_message(*lost))
    reasons = query(database, "SELECT DISTINCT reason FROM quarantine")
    assert reasons == [(Verdict.HUB_TIME_UNKNOWN,)]
    ((number,),) = query(database, "SELECT min(quarantine_id) FROM quarantine")
    done = await retimed(connection, Anchor(quarantine_id=number, measured_at=HOURS[0]))
    assert (done.chosen, done.unplaced, done.replayed.stored) == (3, 2, 1)
    assert [at for at, _quality in stored(database)] == HOURS[:1]


async def test_a_later_reading_of_the_same_clock_tells_the_time_of_the_earlier_ones(
    connection: AsyncConnection, database: str
) -> None:
    store = Store(connection)
    await committed(store, a_message(*[unplaced(at) for at in HOURS], sequence=1))
    fact = as_shown(NOON + timedelta(days=2), systolic=131)  # mapped: the hub has read the clock
    await committed(store, a_message(fact, sequence=2))
    done = await retimed(connection, LaterFacts())
    assert done.replayed.stored == 3
    assert [at for at, _quality in stored(database)] == [*HOURS, NOON + timedelta(days=2)]
    assert read_ledger(database).balanced


async def test_a_reading_of_another_time_line_tells_nothing(
    connection: AsyncConnection, database: str
) -> None:
    """Since then the clock was set right: by its new line the old records would be years old."""
    store = Store(connection)
    await committed(store, a_message(*[unplaced(at) for at in HOURS], sequence=1))
    await committed(store, a_message(a_pressure(at=NOON + timedelta(days=2)), sequence=2))
    done = await retimed(connection, LaterFacts())
    assert (done.unplaced, done.replayed.stored) == (3, 0)
    assert len(stored(database)) == 1


async def test_a_range_of_the_devices_own_time_chooses(
    connection: AsyncConnection, database: str
) -> None:
    await committed(Store(connection), a_message(*[unplaced(at) for at in HOURS]))
    own = [(at - BEHIND + timedelta(hours=8)).replace(tzinfo=None) for at in HOURS]
    choice = Choice(device=CUFF, from_time=own[1], to_time=own[2])
    done = await retimed(connection, Slow(by=BEHIND, zone=CHINA), choice=choice)
    assert (done.chosen, done.replayed.stored) == (1, 1)
    assert [at for at, _quality in stored(database)] == HOURS[1:2]


async def test_a_range_chooses_among_more_records_than_are_placed_at_once(
    connection: AsyncConnection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the refusal of too many says: with a range. It may begin behind the first so many."""
    monkeypatch.setattr("ingest.retime.RECORDS_MAX", 1)
    await committed(Store(connection), a_message(*[unplaced(at) for at in HOURS]))
    own = [(at - BEHIND + timedelta(hours=8)).replace(tzinfo=None) for at in HOURS]
    with pytest.raises(UsageError, match="--from"):
        await retimed(connection, Slow(by=BEHIND, zone=CHINA))
    last = Choice(device=CUFF, from_time=own[2])
    done = await retimed(connection, Slow(by=BEHIND, zone=CHINA), choice=last)
    assert (done.chosen, done.replayed.stored) == (1, 1)
    assert [at for at, _quality in stored(database)] == HOURS[2:]


async def test_what_is_placed_but_still_unlinked_keeps_its_time_for_its_link(
    connection: AsyncConnection, database: str
) -> None:
    query(database, "UPDATE link SET superseded_at = now() WHERE device_id = 11")
    await committed(Store(connection), a_message(unplaced(NOON)))
    done = await retimed(connection, Slow(by=BEHIND, zone=CHINA))
    assert (done.replayed.stored, done.replayed.still_waiting) == (0, 1)
    waiting = query(database, "SELECT reason, measured_at, placed_quality FROM quarantine")
    assert waiting == [(Verdict.UNLINKED, NOON, TimeQuality.RETIMED)]
    assert read_ledger(database).balanced


async def test_a_rehearsal_changes_nothing(connection: AsyncConnection, database: str) -> None:
    await committed(Store(connection), a_message(unplaced(NOON)))
    done = await retimed(connection, Slow(by=BEHIND, zone=CHINA), dry_run=True)
    assert done.replayed.stored == 1
    assert stored(database) == []
    assert query(database, "SELECT count(*) FROM audit") == [(0,)]


async def test_who_retimed_what_and_why_is_audited_without_a_value(
    connection: AsyncConnection, database: str
) -> None:
    await committed(Store(connection), a_message(unplaced(NOON)))
    await retimed(connection, Slow(by=BEHIND, zone=CHINA))
    acts = query(
        database,
        "SELECT actor, action, reason, detail FROM audit WHERE action = 'device.retime'",
    )
    assert acts == [
        (
            "cli:nurse",
            "device.retime",
            "battery changed",
            {
                "device": device_address(CUFF),
                "slow_by_s": BEHIND.total_seconds(),
                "chosen": 1,
                "stored": 1,
                "duplicate": 0,
            },
        )
    ]


async def test_nothing_to_retime_is_said_with_where_to_look(connection: AsyncConnection) -> None:
    with pytest.raises(UsageError, match="quarantine list"):
        await retimed(connection, LaterFacts())


def test_the_command_places_by_later_readings(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTH_DATABASE_URL", database)
    enter_registry(database)

    async def fill() -> None:
        async with await connect(database, application="hearth-tests", autocommit=True) as session:
            store = Store(session)
            await committed(store, a_message(unplaced(NOON), sequence=1))
            await committed(store, a_message(as_shown(NOON + timedelta(days=1)), sequence=2))

    asyncio.run(fill())
    address = device_address(CUFF)
    result = CliRunner().invoke(app, ["device", "retime", address, "--by-later-readings", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["replayed"]["stored"] == 1


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--slow-by", "1", "--by-later-readings"],
        ["--record", "1"],
        ["--slow-by", "1", "--zone", "Nowhere/Land"],
    ],
)
def test_one_way_to_tell_the_time_is_asked_for(options: list[str]) -> None:
    result = CliRunner().invoke(app, ["device", "retime", device_address(CUFF), *options])
    assert isinstance(result.exception, UsageError)
