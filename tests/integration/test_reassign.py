"""Whose readings are, put right in the real database: the rows, the past, the audit, the races."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from api.corrections import Author, Period, history, list_corrections, reassign, undo
from api.records import Correction, Link, Registration
from api.registry import end_link, list_links, register
from gateway.errors import UsageError
from gateway.gatt.times import ms_since_epoch
from gateway.measurement import Measurement, device_address
from gateway.platform.changes import START
from gateway.platform.postgres import AsyncConnection, Connection, connect, connect_blocking
from ingest.batches import Message, hub_homes, read_messages, reference_ms
from ingest.guard import StaleRegistryError
from ingest.ledger import read_ledger
from ingest.quarantine import ActedBy, Filter, replay
from ingest.registry import Registry, load_registry
from ingest.store import Committed, Prepared, Store, prepare
from ingest.verdicts import Verdict, judge, tables_of
from tests.archives import api_over, public_id
from tests.feeds import settled_changes
from tests.worlds import (
    CUFF,
    NOON,
    OTHER_RESIDENT,
    RESIDENT,
    a_message,
    a_pressure,
    enter_registry,
    query,
    some_batch_ids,
)

pytestmark = pytest.mark.integration

CUFF_ADDRESS = device_address(CUFF)
TABLES = tables_of()
BY = Author(actor="cli:nurse", origin="ward", reason="lent to a neighbour")
BY_TEST = ActedBy(actor="cli:test", why="a test")
HOUR = timedelta(hours=1)


@pytest.fixture
def admin(database: str) -> Iterator[Connection]:
    enter_registry(database)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as session:
        yield session


@pytest.fixture
async def worker(admin: Connection, database: str) -> AsyncIterator[AsyncConnection]:
    assert not admin.closed
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        yield session


def hourly(count: int) -> list[Measurement]:
    return [a_pressure(at=NOON + HOUR * hour) for hour in range(count)]


def judged_with(registry: Registry, *messages: Message) -> Prepared:
    now_ms = time.time_ns() // 1_000_000
    flush = read_messages(messages, registry)
    judged = judge(
        flush.records, reference_ms(flush), hub_homes(flush), registry, TABLES, now_ms + 10**10
    )
    return prepare(flush, judged, registry, some_batch_ids(flush), now_ms)


async def stored(
    worker: AsyncConnection, *measurements: Measurement, sequence: int = 1
) -> Committed:
    registry = await load_registry(worker)
    message = a_message(*measurements, sequence=sequence)
    return await Store(worker).commit(judged_with(registry, message))


def period(from_at: datetime | None, until_at: datetime | None, slot: int = 255) -> Period:
    return Period(device=CUFF_ADDRESS, user_slot=slot, from_at=from_at, until_at=until_at)


def move(
    admin: Connection,
    who: int | None = OTHER_RESIDENT,
    from_at: datetime | None = NOON,
    until_at: datetime | None = None,
) -> Correction:
    database = admin.info.dsn
    owner = None if who is None else public_of(admin, who)
    assert database
    return reassign(admin, period(from_at, until_at), owner, BY)


def public_of(admin: Connection, resident_id: int) -> UUID:
    row = admin.execute(
        "SELECT public_id FROM resident WHERE resident_id = %s", [resident_id]
    ).fetchone()
    assert row is not None
    return UUID(str(row[0]))


def owners(database: str) -> list[int]:
    return [
        who
        for (who,) in query(database, "SELECT resident_id FROM measurement ORDER BY measured_at")
    ]


async def test_a_period_is_another_residents_and_times_and_values_stay(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(6))
    untouched = "SELECT measured_at, identity_time, received_after_s, batch_id, digits, systolic_mmhg, time_quality, content_hash FROM measurement ORDER BY 1"
    before = query(database, untouched)
    done = move(admin, from_at=NOON + HOUR * 2, until_at=NOON + HOUR * 4)
    assert done.readings == 2
    assert owners(database) == [101, 101, 102, 102, 101, 101]
    assert query(database, untouched) == before
    assert read_ledger(database).balanced


async def test_the_api_shows_it_at_once(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(2))
    old, new = public_id(database), public_id(database, OTHER_RESIDENT)
    async with api_over(database) as client:
        latest = f"/api/v1/residents/{old}/latest"
        assert "blood_pressure" in (await client.get(latest)).json()
        move(admin)
        assert (await client.get(latest)).json() == {}
        moved = (await client.get(f"/api/v1/residents/{new}/latest")).json()
    assert moved["blood_pressure"]["latest"]["measured_at"] == "2026-11-20T13:00:00.000+08:00"


async def test_each_owner_has_an_audit_row(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(3))
    done = move(admin)
    rows = query(
        database, "SELECT resident_id, actor, action, reason, origin, detail FROM audit ORDER BY 1"
    )
    assert rows == [
        (RESIDENT, "cli:nurse", "device.reassign", BY.reason, "ward",
         {"correction": done.correction_id, "lost": 3, "gained": 0}),
        (OTHER_RESIDENT, "cli:nurse", "device.reassign", BY.reason, "ward",
         {"correction": done.correction_id, "lost": 0, "gained": 3}),
    ]  # fmt: skip


async def test_a_correction_of_no_readings_is_audited_too(admin: Connection, database: str) -> None:
    assert move(admin).readings == 0
    assert query(database, "SELECT resident_id FROM audit ORDER BY 1") == [(101,), (102,)]


async def test_what_was_believed_on_a_day_can_be_told(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(1))
    move(admin)
    ((first_stored_at, corrected_at),) = query(
        database, "SELECT believed_from, believed_until FROM attribution"
    )

    def believed(as_of: datetime) -> list[UUID | None]:
        beliefs = history(admin, period(None, None), any_slot=True, as_of=as_of, author=BY)
        return [belief.resident for belief in beliefs]

    old, new = public_of(admin, RESIDENT), public_of(admin, OTHER_RESIDENT)
    assert believed(first_stored_at) == [old]
    assert believed(corrected_at - timedelta(microseconds=1)) == [old]
    assert believed(corrected_at) == [new]
    assert believed(first_stored_at - timedelta(seconds=1)) == []


async def test_links_say_the_same_and_what_they_said_is_kept(
    admin: Connection, database: str
) -> None:
    move(admin, from_at=NOON, until_at=NOON + HOUR)
    links = [
        (link.resident, link.starts_at, link.ends_at)
        for link in list_links(admin, device=CUFF_ADDRESS)
    ]
    old, new = public_of(admin, RESIDENT), public_of(admin, OTHER_RESIDENT)
    assert links == [(old, None, NOON), (new, NOON, NOON + HOUR), (old, NOON + HOUR, None)]
    assert query(database, "SELECT count(*) FROM link WHERE superseded_by IS NOT NULL") == [(1,)]


async def test_a_late_reading_of_the_period_is_the_new_owners(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    move(admin, from_at=NOON, until_at=NOON + HOUR)
    await stored(worker, a_pressure(at=NOON + HOUR / 2), a_pressure(at=NOON + HOUR * 2))
    assert owners(database) == [102, 101]


async def test_nobodys_readings_wait_on_the_worklist_and_late_ones_in_quarantine(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(2))
    assert move(admin, None).resident is None
    assert owners(database) == [0, 0]
    await stored(worker, a_pressure(at=NOON + HOUR / 2), sequence=2)
    assert query(database, "SELECT reason FROM quarantine") == [(Verdict.UNLINKED,)]
    assert read_ledger(database).balanced


async def test_undo_gives_links_and_readings_back_and_late_ones_too(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(3))
    links = list_links(admin, device=CUFF_ADDRESS)
    done = move(admin, from_at=NOON + HOUR)
    await stored(worker, a_pressure(at=NOON + HOUR * 1.5), sequence=2)
    assert owners(database) == [101, 102, 102, 102]
    undone = undo(admin, done.correction_id, BY)
    assert undone.readings == 3
    assert owners(database) == [101, 101, 101, 101]
    assert list_links(admin, device=CUFF_ADDRESS) == links
    assert [c.undone_by for c in list_corrections(admin)] == [None, undone.correction_id]


async def test_undo_goes_from_the_last_correction_to_the_first(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(2))
    first, second = move(admin), move(admin, None, NOON + HOUR)
    with pytest.raises(UsageError, match=f"device undo {second.correction_id}"):
        undo(admin, first.correction_id, BY)
    undo(admin, second.correction_id, BY)
    assert owners(database) == [102, 102]
    undo(admin, first.correction_id, BY)
    assert owners(database) == [101, 101]
    with pytest.raises(UsageError, match="was undone"):
        undo(admin, first.correction_id, BY)


async def test_undo_is_refused_when_a_link_was_entered_since(admin: Connection) -> None:
    done = move(admin, None)
    again = Link(device=CUFF_ADDRESS, user_slot=255, resident=public_of(admin, 102), starts_at=NOON)
    register(admin, Registration(links=[again]))
    with pytest.raises(UsageError, match="link list"):
        undo(admin, done.correction_id, BY)


async def test_undo_is_refused_when_what_it_left_of_a_link_was_changed_since(
    admin: Connection,
) -> None:
    """It would say the whole link again: an owner who gave the device back had it for ever."""
    done = move(admin, from_at=NOON, until_at=NOON + HOUR)
    end_link(admin, CUFF_ADDRESS, 255, NOON + HOUR * 24)
    links = list_links(admin, device=CUFF_ADDRESS)
    with pytest.raises(UsageError, match="link list"):
        undo(admin, done.correction_id, BY)
    assert list_links(admin, device=CUFF_ADDRESS) == links


async def test_undo_is_refused_when_what_it_left_of_a_link_was_reassigned_since(
    admin: Connection,
) -> None:
    first = move(admin, from_at=NOON, until_at=NOON + HOUR)
    second = move(admin, from_at=NOON + HOUR * 24, until_at=NOON + HOUR * 25)
    with pytest.raises(UsageError, match=f"device undo {second.correction_id}"):
        undo(admin, first.correction_id, BY)
    undo(admin, second.correction_id, BY)
    undo(admin, first.correction_id, BY)


@pytest.mark.parametrize(
    ("wanted", "who", "says"),
    [
        (Period(device="0" * 12, user_slot=255, from_at=NOON, until_at=None), None, "device list"),
        (period(NOON, NOON), None, "before it began"),
        (period(NOON, None), UUID(int=1), "resident add"),
    ],
)
def test_what_cannot_be_is_refused(
    admin: Connection, wanted: Period, who: UUID | None, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        reassign(admin, wanted, who, BY)


async def test_ten_thousand_readings_move_in_one_correction(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    minutes = [a_pressure(at=NOON - timedelta(minutes=m)) for m in range(10_000)]
    for sequence, start in enumerate(range(0, len(minutes), 1000), start=1):
        await stored(worker, *minutes[start : start + 1000], sequence=sequence)
    done = move(admin, from_at=None)
    assert done.readings == 10_000
    assert query(database, "SELECT resident_id, count(*) FROM measurement GROUP BY 1") == [
        (102, 10_000)
    ]
    assert query(database, "SELECT count(*) FROM attribution WHERE resident_id = 101") == [
        (10_000,)
    ]
    assert undo(admin, done.correction_id, BY).readings == 10_000


async def test_a_worker_with_the_old_links_is_refused_and_judges_again(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    """The reassignment commits between the judgement and the commit of a flush."""
    before = await load_registry(worker)
    message = a_message(*hourly(2))
    prepared = judged_with(before, message)
    move(admin)
    with pytest.raises(StaleRegistryError):
        await Store(worker).commit(prepared)
    assert owners(database) == []
    await Store(worker).commit(judged_with(await load_registry(worker), message))
    assert owners(database) == [102, 102]


async def test_a_change_of_other_devices_links_refuses_nothing(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    prepared = judged_with(await load_registry(worker), a_message(*hourly(2)))
    end_link(admin, "C0:26:DA:04:05:06", 1, NOON)
    await Store(worker).commit(prepared)
    assert owners(database) == [101, 101]


async def test_a_reassignment_waits_for_an_open_flush_and_moves_its_rows(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    """The flush has its rows in an open transaction when the reassignment comes."""
    prepared = judged_with(await load_registry(worker), a_message(*hourly(3)))
    store = Store(worker)
    async with worker.transaction():
        await store._commit_once(prepared, asked=prepared.places)
        moving = asyncio.create_task(asyncio.to_thread(move, admin))
        await asyncio.to_thread(wait_for_a_lock, database)
        assert not moving.done()
    assert (await moving).readings == 3
    assert owners(database) == [102, 102, 102]


async def test_a_flush_waits_for_an_open_reassignment_and_then_judges_again(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    prepared = judged_with(await load_registry(worker), a_message(*hourly(2)))
    with admin.transaction():
        move(admin)
        committing = asyncio.create_task(Store(worker).commit(prepared))
        await asyncio.to_thread(wait_for_a_lock, database)
    with pytest.raises(StaleRegistryError):
        await committing
    assert owners(database) == []


async def test_a_reading_that_comes_again_after_the_reassignment_stays_one_row(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(3))
    move(admin)
    again = await stored(worker, *hourly(3), sequence=2)
    assert [outcome.duplicate for outcome in again.outcomes] == [3]
    assert owners(database) == [102, 102, 102]


async def test_a_reading_that_comes_again_under_old_links_makes_no_wrong_owner(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(3))
    before = await load_registry(worker)
    move(admin)
    with pytest.raises(StaleRegistryError):
        await Store(worker).commit(judged_with(before, a_message(*hourly(3), sequence=2)))
    assert owners(database) == [102, 102, 102]


async def test_a_replay_with_old_links_is_refused(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    move(admin, None)
    await stored(worker, *hourly(2))
    linked = Link(
        device=CUFF_ADDRESS, user_slot=255, resident=public_of(admin, 101), starts_at=NOON
    )
    register(admin, Registration(links=[linked]))
    registry = await load_registry(worker)
    end_link(admin, CUFF_ADDRESS, 255, NOON + HOUR)
    with pytest.raises(StaleRegistryError):
        await replay(worker, registry, Filter(), BY_TEST)
    done = await replay(worker, await load_registry(worker), Filter(), BY_TEST)
    assert (done.stored, done.still_waiting) == (1, 1)
    assert owners(database) == [101]


async def test_many_flushes_and_reassignments_at_once_leave_every_reading_with_its_owner(
    admin: Connection, database: str
) -> None:
    """Links and rows agree in the end, however they were interleaved; nothing is lost or doubled."""
    pieces = [
        [a_pressure(at=NOON + timedelta(minutes=10 * n + m)) for m in range(10)] for n in range(12)
    ]

    async def work(mine: Sequence[int]) -> None:
        async with await connect(database, application="hearth-tests", autocommit=True) as own:
            store = Store(own)
            for number in mine:
                message = a_message(*pieces[number], sequence=number + 1)
                while True:
                    prepared = judged_with(await load_registry(own), message)
                    try:
                        await store.commit(prepared)
                        break
                    except StaleRegistryError:
                        continue

    def correct() -> None:
        for turn in range(6):
            move(admin, (102, 101)[turn % 2], NOON + timedelta(minutes=7 * turn), NOON + HOUR)

    await asyncio.gather(work(range(0, 12, 2)), work(range(1, 12, 2)), asyncio.to_thread(correct))
    wrong = query(database, "SELECT count(*) FROM measurement m JOIN link l USING (device_id, user_slot)"
                            " WHERE l.superseded_at IS NULL AND l.during @> m.measured_at"
                            " AND l.resident_id <> m.resident_id")  # fmt: skip
    assert wrong == [(0,)]
    assert len(owners(database)) == 120
    assert read_ledger(database).balanced


async def test_whoever_follows_along_reads_of_both_owners(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(2))
    (first,) = await settled_changes(worker, START, 1)
    move(admin)
    (change,) = await settled_changes(worker, first.place, 1)
    ms = ms_since_epoch(NOON)
    assert change.changed.resident.tolist() == [101, 102]
    assert change.changed.oldest_ms.tolist() == [ms, ms]
    assert change.changed.newest_ms.tolist() == [ms + 3_600_000] * 2
    at = query(database, "SELECT DISTINCT extract(epoch FROM stored_at) * 1000 FROM measurement")
    assert at == [(change.stored_at_ms,)]
    due = query(database, "SELECT DISTINCT resident_id, sign FROM baseline_due ORDER BY 1")
    assert due == [(101, 1), (102, 1)]


async def test_the_same_reading_with_other_values_is_a_conflict_after_a_reassignment_too(
    admin: Connection, worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *hourly(1))
    move(admin)
    other = replace(a_pressure(Decimal(140)), measured_at=NOON)
    await stored(worker, other, sequence=2)
    assert query(database, "SELECT reason FROM quarantine") == [(Verdict.CONFLICT,)]
    assert owners(database) == [102]


def wait_for_a_lock(database: str) -> None:
    deadline = time.monotonic() + 20
    while not query(database, "SELECT 1 FROM pg_locks WHERE NOT granted"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
