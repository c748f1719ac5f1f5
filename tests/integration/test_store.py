"""Flushes in the real database: one row a reading, everything accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from bench.ingest import Still
from gateway import wire
from gateway.errors import Fault
from gateway.measurement import TimeQuality, Undecoded
from gateway.platform.postgres import AsyncConnection, connect
from ingest.batches import Flush, Message
from ingest.ledger import Gap, read_ledger
from ingest.newest import Newest
from ingest.pipeline import Pipeline
from ingest.quarantine import ActedBy, Filter, discard, replay
from ingest.registry import load_registry, update_registry
from ingest.store import Store
from ingest.verdicts import Verdict
from ingest.writing import Outcome
from tests.fixtures.workers import eventually
from tests.flushes import committed, prepared
from tests.worlds import (
    CUFF,
    EPOCH,
    HUB,
    NOON,
    OTHER_HUB,
    STRANGER,
    a_message,
    a_pressure,
    a_weight,
    as_message,
    enter_registry,
    query,
)

pytestmark = pytest.mark.integration


@pytest.fixture
async def connection(database: str) -> AsyncIterator[AsyncConnection]:
    enter_registry(database)
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        yield session


@pytest.fixture
def store(connection: AsyncConnection) -> Store:
    return Store(connection)


def rows(database: str) -> int:
    ((count,),) = query(database, "SELECT count(*) FROM measurement")
    return int(count)


def test_the_registry_reads_back_what_was_entered(database: str) -> None:
    enter_registry(database)

    async def load() -> None:
        async with await connect(database, application="hearth-tests") as session:
            registry = await load_registry(session)
        assert registry.find_hub(HUB) == (1, 1)
        assert registry.find_hub(0xDEAD) is None
        assert registry.devices.base.keys.tolist() == sorted([CUFF, 0xC026DA040506])

    asyncio.run(load())


async def test_a_measurement_arrives_with_every_digit(store: Store, database: str) -> None:
    await committed(store, a_message(a_pressure(), a_weight("70.050")))
    ((systolic, mean, pulse, digits, quality, offset),) = query(
        database,
        "SELECT systolic_mmhg, mean_arterial_mmhg, pulse_rate_per_min, digits, time_quality,"
        " utc_offset FROM measurement WHERE sign = 1",
    )
    assert (systolic, mean, pulse, quality, offset) == (128.0, None, 71.0, 2, 32)
    assert digits >> 40 & 0xFFFFF == 0x10100  # the third and the fifth value are NOT_SENT
    ((kg, exponents),) = query(
        database, "SELECT body_weight_kg, digits FROM measurement WHERE sign = 3"
    )
    assert kg == 70.05
    assert (exponents & 0xFF) - 256 == -3


async def test_times_arrive_as_they_were_placed(store: Store, database: str) -> None:
    await committed(store, a_message(a_pressure()))
    ((measured_at, identity, received_after_s),) = query(
        database, "SELECT measured_at, identity_time, received_after_s FROM measurement"
    )
    assert measured_at == NOON
    assert identity == (NOON + timedelta(hours=8)).replace(tzinfo=None)
    assert received_after_s == 1.0


async def test_a_redelivered_batch_changes_nothing_and_gets_its_receipt_again(
    store: Store, database: str
) -> None:
    message = a_message(a_pressure(), a_pressure(Decimal(999), at=NOON + timedelta(minutes=1)))
    first, second = await committed(store, message), await committed(store, message)
    for outcome in (*first.outcomes, *second.outcomes):
        assert (outcome.stored, outcome.duplicate, outcome.quarantined) == (1, 0, 1)
    assert [second.outcomes[0].again, rows(database)] == [True, 1]
    assert read_ledger(database).balanced
    assert read_ledger(database).total("published") == 2


async def test_a_device_that_sends_its_memory_again_adds_no_row(
    store: Store, database: str
) -> None:
    memory = [a_pressure(at=NOON + timedelta(minutes=m)) for m in range(10)]
    await committed(store, a_message(*memory, sequence=1))
    (outcome,) = (await committed(store, a_message(*memory, sequence=2))).outcomes
    assert (outcome.stored, outcome.duplicate) == (0, 10)
    assert rows(database) == 10


async def test_a_corrected_clock_adds_no_row(store: Store, database: str) -> None:
    await committed(store, a_message(a_pressure(), sequence=1))
    moved = replace(a_pressure(), measured_at=NOON + timedelta(seconds=90))
    (outcome,) = (await committed(store, a_message(moved, sequence=2))).outcomes
    assert (outcome.stored, outcome.duplicate, rows(database)) == (0, 1, 1)


async def test_a_memory_sent_again_in_pieces_to_a_new_worker_adds_no_row(
    store: Store, database: str
) -> None:
    """The first piece is looked up; the others are later than all of it, and stored all the same."""
    memory = [a_pressure(at=NOON + timedelta(minutes=m)) for m in range(4)]
    await committed(store, a_message(*memory, a_weight(at=NOON + timedelta(minutes=9)), sequence=1))
    again = [replace(one, measured_at=one.measured_at + timedelta(seconds=1)) for one in memory]
    new_worker = Store(store.connection)
    for sequence, one in enumerate(again, 2):
        (outcome,) = (await committed(new_worker, a_message(one, sequence=sequence))).outcomes
        assert (outcome.stored, outcome.duplicate) == (0, 1)
    fresh = a_message(a_pressure(at=NOON + timedelta(minutes=5)), sequence=9)
    done = await committed(new_worker, fresh)
    assert (done.outcomes[0].stored, done.looked_up, rows(database)) == (1, 0, 6)


async def test_what_a_replay_has_stored_is_known_when_it_comes_again(
    connection: AsyncConnection, database: str
) -> None:
    """The worker's memory of the device ends before it: who replays is another connection."""
    registry = await load_registry(connection)
    newest = Newest()
    worker = Store(connection, newest)
    late = a_weight(slot=2, at=NOON + timedelta(minutes=1))
    await committed(worker, a_message(a_weight(), late, sequence=1))
    query(database, "INSERT INTO link (device_id, user_slot, resident_id, during)"
                    " VALUES (12, 2, 102, '(,)')")  # fmt: skip
    linked, _changes = await update_registry(connection, registry)
    assert (await replay(connection, linked, Filter(), ActedBy(actor="test"))).stored == 1
    _registry, changes = await update_registry(connection, linked)
    newest.forget(changes.known)
    again = replace(late, measured_at=late.measured_at + timedelta(seconds=1))
    (outcome,) = (await committed(worker, a_message(again, sequence=2))).outcomes
    assert (outcome.stored, outcome.duplicate, rows(database)) == (0, 1, 2)


async def test_other_values_with_the_same_identity_are_kept_not_dropped(
    store: Store, database: str
) -> None:
    await committed(store, a_message(a_pressure(Decimal(128)), sequence=1))
    other = a_message(a_pressure(Decimal(131)), sequence=2)
    (outcome,) = (await committed(store, other)).outcomes
    assert (outcome.stored, outcome.quarantined) == (0, 1)
    assert query(database, "SELECT reason FROM quarantine") == [(Verdict.CONFLICT,)]


async def test_a_later_reading_needs_no_look_up(store: Store) -> None:
    first = await committed(store, a_message(a_pressure(), sequence=1))
    later = a_message(a_pressure(at=NOON + timedelta(minutes=1)), sequence=2)
    earlier = a_message(a_pressure(at=NOON - timedelta(minutes=1)), sequence=3)
    assert first.looked_up == 1
    assert (await committed(store, later)).looked_up == 0
    assert (await committed(store, earlier)).looked_up == 1


async def test_a_worker_that_remembers_wrongly_still_adds_no_row(
    store: Store, database: str
) -> None:
    """The unique index objects, and then it is looked up: memory is a hint, not the guard."""
    await committed(store, a_message(a_pressure(), sequence=1))
    newest = Newest()
    everybody, longest_ago = np.arange(100, dtype=np.int32), np.full(100, -(1 << 62))
    newest.learn(everybody, longest_ago, newest.forgotten)  # as if all were older
    deceived = Store(store.connection, newest)
    (outcome,) = (await committed(deceived, a_message(a_pressure(), sequence=2))).outcomes
    assert (outcome.duplicate, rows(database)) == (1, 1)


async def test_two_workers_at_once_store_a_reading_once(
    connection: AsyncConnection, database: str
) -> None:
    readings = [a_pressure(at=NOON + timedelta(seconds=30 * i)) for i in range(200)]
    flushes = [
        await prepared(connection, [a_message(*readings, sequence=sequence)]) for sequence in (1, 2)
    ]
    async with (
        await connect(database, application="hearth-tests", autocommit=True) as one,
        await connect(database, application="hearth-tests", autocommit=True) as other,
    ):
        done = await asyncio.gather(Store(one).commit(flushes[0]), Store(other).commit(flushes[1]))
    assert sum(outcome.stored for each in done for outcome in each.outcomes) == 200
    assert sum(outcome.duplicate for each in done for outcome in each.outcomes) == 200
    assert rows(database) == 200
    assert read_ledger(database).balanced


async def test_two_hubs_of_a_home_that_hear_one_device_at_once_make_one_row(
    connection: AsyncConnection, database: str
) -> None:
    """Each maps the device's clock a little differently, so no unique index could object."""
    query(database, "UPDATE hub SET home_id = 1")
    heard = [a_pressure(at=NOON + timedelta(seconds=30 * i)) for i in range(100)]
    heard_otherwise = [
        replace(m, measured_at=m.measured_at + timedelta(milliseconds=700)) for m in heard
    ]
    flushes = [
        await prepared(connection, [a_message(*heard, hub=HUB)]),
        await prepared(connection, [a_message(*heard_otherwise, hub=OTHER_HUB)]),
    ]
    async with (
        await connect(database, application="hearth-tests", autocommit=True) as one,
        await connect(database, application="hearth-tests", autocommit=True) as other,
    ):
        await asyncio.gather(Store(one).commit(flushes[0]), Store(other).commit(flushes[1]))
    assert rows(database) == 100
    assert read_ledger(database).total("duplicate") == 100


async def test_a_flush_with_readings_of_an_open_one_waits_for_it(
    connection: AsyncConnection, database: str
) -> None:
    """The two hubs' mapping differs, so that no index would object: it must see the other's rows."""
    newest = Newest()
    await committed(Store(connection, newest), a_message(a_pressure(at=NOON - timedelta(hours=1))))
    heard = a_pressure()
    again = replace(heard, measured_at=heard.measured_at + timedelta(milliseconds=700))
    later = a_pressure(at=NOON + timedelta(hours=1))
    first = await prepared(connection, [a_message(heard, sequence=2)])
    others = [
        await prepared(connection, [a_message(reading, sequence=sequence)])
        for sequence, reading in ((3, again), (4, later))
    ]
    ended = asyncio.Event()
    async with (
        await connect(database, application="hearth-tests", autocommit=True) as one,
        await connect(database, application="hearth-tests", autocommit=True) as other,
    ):
        store = Store(other, newest)
        async with one.transaction():
            await Store(one, newest).commit(first)  # still open: only a part of this transaction
            waiting = asyncio.create_task(store.commit(others[0], ended.wait))
            done, _ = await asyncio.wait([waiting], timeout=0.3)
            assert not done
        ended.set()
        assert [outcome.duplicate for outcome in (await waiting).outcomes] == [1]
        passing = await store.commit(others[1], _never)
    assert [outcome.stored for outcome in passing.outcomes] == [1]
    assert rows(database) == 3


async def _never() -> None:
    raise AssertionError("a flush of later readings passes")


async def test_a_flush_that_overtakes_another_is_answered_behind_it(
    connection: AsyncConnection, database: str
) -> None:
    """Messages are acknowledged in the order in which they came, whatever commits first."""
    waiting: asyncio.Queue[list[Message]] = asyncio.Queue()
    answers: asyncio.Queue[int] = asyncio.Queue()

    def answer(_flush: Flush, outcomes: Sequence[Outcome]) -> None:
        answers.put_nowait(outcomes[0].batch.header.sequence)

    pipeline = Pipeline(database, waiting.get, Still(await load_registry(connection)), answer)
    tasks = [
        asyncio.create_task(pipeline.prepare_forever()),
        asyncio.create_task(pipeline.commit_forever()),
    ]
    waiting.put_nowait([a_message(a_pressure(at=NOON - timedelta(hours=1)), sequence=1)])
    assert await answers.get() == 1
    async with connection.transaction(force_rollback=True):
        await connection.execute(
            "INSERT INTO batch SELECT 0, epoch, 2, reference_at, committed_at, hub_id, 0, 0, 0, 0,"
            " decoder, kind FROM batch"
        )  # the next flush's batch: it waits for what becomes of this one
        waiting.put_nowait([a_message(a_pressure(), sequence=2)])
        waiting.put_nowait([a_message(a_pressure(at=NOON + timedelta(hours=1)), sequence=3)])
        await asyncio.to_thread(eventually, lambda: rows(database) == 2)
        assert answers.empty()
    assert [await answers.get(), await answers.get()] == [2, 3]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert rows(database) == 3


async def test_bad_measurements_never_cost_their_neighbours(store: Store, database: str) -> None:
    (outcome,) = (
        await committed(
            store,
            a_message(
                a_pressure(),
                a_pressure(Decimal(999), at=NOON + timedelta(minutes=1)),
                a_pressure(device=STRANGER),
                a_weight(slot=9),
                a_weight(),
            ),
        )
    ).outcomes
    assert (outcome.stored, outcome.quarantined) == (2, 3)
    reasons = {Verdict(reason) for (reason,) in query(database, "SELECT reason FROM quarantine")}
    assert reasons == {Verdict.IMPLAUSIBLE, Verdict.DEVICE_UNKNOWN, Verdict.UNLINKED}
    assert read_ledger(database).balanced


async def test_a_hub_at_the_end_of_time_costs_its_neighbours_nothing(
    store: Store, database: str
) -> None:
    """Another home's record of a known device is looked for around its reception."""
    header = wire.Header(
        hub=OTHER_HUB,
        epoch=EPOCH,
        sequence=1,
        kind=wire.Kind.MEASUREMENTS,
        count=1,
        reference_at=datetime(9999, 12, 31, tzinfo=UTC),
    )
    body = wire.encode_record(a_pressure(), header.reference_at)
    last = as_message(wire.encode_batch(header, body), hub=OTHER_HUB)
    await committed(store, last, a_message(a_pressure()))
    assert rows(database) == 1
    assert query(database, "SELECT reason FROM quarantine") == [(Verdict.NO_BATCH,)]
    assert read_ledger(database).balanced


async def test_a_record_from_before_our_era_stands_in_no_replays_way(
    store: Store, connection: AsyncConnection, database: str
) -> None:
    """No date of Python's is so early; a stranger's device may become known and linked."""
    body = bytearray(wire.encode_record(a_pressure(device=STRANGER), NOON))
    body[16:24] = (-65_000_000_000_000).to_bytes(8, "little", signed=True)  # measured in 91 BC
    header = wire.Header(
        hub=HUB,
        epoch=EPOCH,
        sequence=1,
        kind=wire.Kind.MEASUREMENTS,
        count=1,
        reference_at=NOON,
    )
    await committed(
        store,
        as_message(wire.encode_batch(header, bytes(body))),
        a_message(a_pressure(device=STRANGER), sequence=2),
    )
    query(
        database,
        "INSERT INTO device (device_id, address, home_id) OVERRIDING SYSTEM VALUE"
        " VALUES (13, 'C0:26:DA:0F:0F:0F', 1)",
    )
    query(database, "INSERT INTO link (device_id, user_slot, resident_id, during)"
                    " VALUES (13, 255, 102, '(,)')")  # fmt: skip
    registry = await load_registry(connection)
    done = await replay(connection, registry, Filter(linked=True), ActedBy(actor="test"))
    assert (done.stored, rows(database)) == (1, 1)
    assert query(
        database, "SELECT reason, measured_at FROM quarantine WHERE state = 'waiting'"
    ) == [(Verdict.RECORD_INVALID, None)]
    assert read_ledger(database).balanced


async def test_the_bytes_of_what_is_kept_apart_are_those_that_came(
    store: Store, database: str
) -> None:
    bad = a_pressure(Decimal(999))
    await committed(store, a_message(bad))
    ((content,),) = query(database, "SELECT content FROM quarantine")
    assert wire.decode_record(content, bad.received_at).reading.values[0] == Decimal(999)


async def test_undecoded_payloads_are_kept_and_accounted_for(store: Store, database: str) -> None:
    await committed(store, an_undecoded_message(b"\x1f\x00"))
    assert query(database, "SELECT kind, reason, content FROM quarantine") == [
        (2, Verdict.UNDECODED, b"\x1f\x00")
    ]
    assert read_ledger(database).balanced
    assert read_ledger(database).total("quarantined") == 1


async def test_a_message_that_is_no_batch_is_kept_once_and_counted(
    store: Store, database: str
) -> None:
    rubbish = as_message(b"rubbish")
    await committed(store, rubbish, a_message(a_pressure()))
    await committed(store, rubbish, as_message(bytes(10_000_000)))
    kept = query(database, "SELECT seen, content_bytes, length(content) FROM quarantine ORDER BY 2")
    assert kept == [(2, 7, 7), (1, 10_000_000, 256 * 1024)]
    assert rows(database) == 1
    assert read_ledger(database).rejected == 3


async def test_what_waited_for_a_link_is_stored_at_its_own_time(
    store: Store, connection: AsyncConnection, database: str
) -> None:
    await committed(store, a_message(a_weight(slot=2)))
    query(database, "INSERT INTO link (device_id, user_slot, resident_id, during)"
                    " VALUES (12, 2, 102, '(,)')")  # fmt: skip
    registry = await load_registry(connection)
    done = await replay(connection, registry, Filter(linked=True), ActedBy(actor="test"))
    assert (done.stored, done.still_waiting) == (1, 0)
    assert query(database, "SELECT resident_id, measured_at FROM measurement") == [(102, NOON)]
    ledger = read_ledger(database)
    assert (ledger.balanced, ledger.total("stored"), ledger.total("quarantined")) == (True, 1, 0)


async def test_a_replay_of_what_is_stored_meanwhile_is_a_duplicate(
    store: Store, connection: AsyncConnection, database: str
) -> None:
    reading = a_weight(slot=2)
    await committed(store, a_message(reading, sequence=1))
    query(database, "INSERT INTO link (device_id, user_slot, resident_id, during)"
                    " VALUES (12, 2, 102, '(,)')")  # fmt: skip
    await committed(store, a_message(reading, sequence=2))
    registry = await load_registry(connection)
    done = await replay(connection, registry, Filter(), ActedBy(actor="test"))
    assert (done.stored, done.duplicate, rows(database)) == (0, 1, 1)
    assert read_ledger(database).balanced


async def test_a_replay_leaves_what_is_still_wrong(
    store: Store, connection: AsyncConnection, database: str
) -> None:
    await committed(store, a_message(a_pressure(Decimal(999))))
    registry = await load_registry(connection)
    done = await replay(connection, registry, Filter(), ActedBy(actor="test"))
    assert (done.looked_at, done.still_waiting) == (1, 1)
    assert read_ledger(database).balanced


async def test_a_payload_is_replayed_by_a_decoder_that_reads_it(
    store: Store, connection: AsyncConnection, database: str
) -> None:
    """128/82/97 mmHg at 2026-11-20T11:59:55, as if the hub's older decoder had refused it."""
    payload = bytes.fromhex("02800052006100ea070b140b3b37")
    await committed(store, an_undecoded_message(payload))
    registry = await load_registry(connection)
    done = await replay(connection, registry, Filter(), ActedBy(actor="test"))
    assert done.stored == 1
    stored = query(database, "SELECT systolic_mmhg, measured_at, time_quality FROM measurement")
    assert stored == [(128.0, NOON - timedelta(seconds=5), TimeQuality.MAPPED)]
    assert read_ledger(database).balanced


async def test_what_is_discarded_keeps_its_bytes_and_its_account(
    store: Store, connection: AsyncConnection, database: str
) -> None:
    await committed(store, a_message(a_pressure(Decimal(999))))
    ((quarantine_id,),) = query(database, "SELECT quarantine_id FROM quarantine")
    nurse = ActedBy(actor="nurse", why="cuff broken")
    assert await discard(connection, Filter(ids=(quarantine_id,)), nurse) == [quarantine_id]
    assert await discard(connection, Filter(ids=(quarantine_id,)), nurse) == []
    assert query(database, "SELECT state, resolved_by, length(content) FROM quarantine") == [
        ("discarded", "nurse", 64)
    ]
    assert query(database, "SELECT actor, action, reason, detail FROM audit") == [
        ("nurse", "quarantine.discard", "cuff broken", {"entries": [quarantine_id]})
    ]
    assert read_ledger(database).balanced


async def test_filters_choose_what_is_discarded(
    store: Store, connection: AsyncConnection, database: str
) -> None:
    await committed(store, a_message(a_pressure(Decimal(999)), a_pressure(device=STRANGER)))
    by = ActedBy(actor="nurse", why="a test")
    nobody = Filter(until=NOON)
    assert await discard(connection, nobody, by) == []
    assert len(await discard(connection, Filter(reasons=(Verdict.IMPLAUSIBLE,)), by)) == 1
    assert await discard(connection, Filter(device=CUFF), by) == []
    assert len(await discard(connection, Filter(hub=wire.hub_name(HUB), since=NOON), by)) == 1
    assert read_ledger(database).balanced


async def test_the_ledger_knows_a_missing_batch(store: Store, database: str) -> None:
    await committed(store, a_message(a_pressure(), sequence=1))
    await committed(store, a_message(a_weight(), sequence=3))
    ledger = read_ledger(database)
    assert ledger.total("missing") == 1
    assert not ledger.balanced
    assert ledger.gaps == (Gap(hub=wire.hub_name(HUB), epoch=EPOCH, first=2, last=2),)


async def test_the_ledger_proves_what_was_committed_since_a_time(
    store: Store, database: str
) -> None:
    await committed(store, a_message(a_pressure(), sequence=1))
    query(database, "DELETE FROM measurement")
    assert not read_ledger(database, since=datetime.now(UTC) - timedelta(hours=1)).balanced
    assert read_ledger(database, since=datetime.now(UTC) + timedelta(hours=1)).balanced


async def test_the_ledger_finds_rows_of_no_batch(store: Store, database: str) -> None:
    await committed(store, a_message(a_pressure(), sequence=1))
    query(database, "DELETE FROM batch")
    ledger = read_ledger(database)
    assert (ledger.orphans, ledger.balanced) == (1, False)


async def test_the_ledger_finds_a_row_that_was_taken_away(store: Store, database: str) -> None:
    await committed(store, a_message(a_pressure(), a_weight()))
    query(database, "DELETE FROM measurement WHERE sign = 1")
    ledger = read_ledger(database)
    assert not ledger.balanced
    assert ledger.disagreeing == ((wire.hub_name(HUB), 7, 1),)


def an_undecoded_message(*payloads: bytes) -> Message:
    entries = [
        Undecoded(
            device=CUFF,
            source=0x2A35,
            fault=Fault.TRUNCATED,
            payload=payload,
            received_at=NOON,
            clock_offset_ms=-8 * 3_600_000,
            utc_offset_min=480,
        )
        for payload in payloads
    ]
    header = wire.Header(
        hub=HUB,
        epoch=7,
        sequence=1,
        kind=wire.Kind.UNDECODED,
        count=len(entries),
        reference_at=NOON,
    )
    body = b"".join(wire.encode_undecoded(entry, NOON) for entry in entries)
    return as_message(wire.encode_batch(header, body))


async def test_what_a_flush_stores_is_in_the_feed_of_changes_and_repeats_are_not(
    store: Store, database: str
) -> None:
    await committed(store, a_message(a_pressure(), a_weight()))
    await committed(store, a_message(a_pressure(), a_weight(), sequence=2))
    changes = query(database, "SELECT stored_at, resident_id, sign, oldest_ms FROM change")
    ((stored_at,),) = query(database, "SELECT DISTINCT stored_at FROM measurement")
    noon_ms = round(NOON.timestamp() * 1000)
    assert changes == [(stored_at, [101, 101], [1, 3], [noon_ms, noon_ms])]
