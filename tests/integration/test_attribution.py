"""Readings of a shared scale find their owners in the real database, whatever order they come in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import LiteralString

import numpy as np
import pytest

from api.corrections import Author, Period, claim, history, list_worklist
from api.erasure import erase
from api.resident_merge import merge
from gateway.errors import UsageError
from gateway.measurement import Measurement
from gateway.platform.changes import START
from gateway.platform.postgres import AsyncConnection, connect, connect_blocking
from gateway.quantity import Quantity
from gateway.stored import FLAG_CLAIMED, FLAG_INFERRED
from ingest.attribution import model
from ingest.attribution.model import Household, Settled
from ingest.attribution.settle import SettledSlots, settle_due, settle_shared
from ingest.batches import hub_homes, read_messages, reference_ms
from ingest.ledger import read_ledger
from ingest.registry import load_registry
from ingest.store import Store, prepare
from ingest.verdicts import judge, tables_of
from tests.archives import public_id
from tests.feeds import settled_changes
from tests.worlds import NOON, a_message, a_weight, enter_registry, query, some_batch_ids

pytestmark = pytest.mark.integration

TABLES = tables_of()
DAY = timedelta(days=1)
SHARED = (
    "INSERT INTO shared_link (device_id, user_slot, resident_id, during, usual)"
    " VALUES (12, 255, 101, '(,)', 82), (12, 255, 102, '(,)', 61)"
)


@pytest.fixture
async def worker(database: str) -> AsyncIterator[AsyncConnection]:
    enter_registry(database)
    query(database, SHARED)
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        yield session


def a_month() -> list[Measurement]:
    """Two people, 82 and 61 kg, most days; a stranger of 45 once; one of 71 whom nobody knows."""
    generator = np.random.default_rng(5)
    readings = []
    for day in range(30):
        for level, hour, often in ((82.0, 0, 0.9), (61.0, 1, 0.6)):
            if generator.random() < often:
                at = NOON + DAY * day + timedelta(hours=hour, minutes=int(generator.integers(30)))
                kg = generator.normal(level + 0.01 * day, 0.35)
                readings.append(a_weight(f"{kg:.3f}", at=at, slot=None))
    readings.append(a_weight("45.000", at=NOON + DAY * 12 + timedelta(hours=3), slot=None))
    readings.append(a_weight("71.000", at=NOON + DAY * 15 + timedelta(hours=4), slot=None))
    return readings


async def stored(worker: AsyncConnection, *measurements: Measurement) -> None:
    registry = await load_registry(worker)
    rows = await worker.execute("SELECT count(*) + 1 FROM batch")
    ((sequence,),) = await rows.fetchall()
    flush = read_messages([a_message(*measurements, sequence=sequence)], registry)
    now_ms = time.time_ns() // 1_000_000
    judged = judge(
        flush.records, reference_ms(flush), hub_homes(flush), registry, TABLES, now_ms + 10**11
    )
    await Store(worker).commit(prepare(flush, judged, registry, some_batch_ids(flush), now_ms))


def owners(database: str) -> list[tuple[float, int, int]]:
    return [
        (kg, owner, flags)
        for kg, owner, flags in query(
            database, "SELECT body_weight_kg, resident_id, flags FROM measurement ORDER BY 1"
        )
    ]


def expected(kg: float) -> int:
    return 101 if kg > 75 else 102 if 55 < kg < 65 else 0


async def test_each_reading_finds_its_owner_and_strangers_wait(
    worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *a_month())
    assert {owner for _kg, owner, _flags in owners(database)} == {0}
    done = await settle_due(worker)
    found = owners(database)
    assert [owner for _kg, owner, _flags in found] == [expected(kg) for kg, *_ in found]
    assert {flags for _kg, owner, flags in found if owner} == {FLAG_INFERRED}
    assert (done.slots, done.unassigned) == (1, 2)
    assert read_ledger(database).balanced


async def test_the_model_is_asked_beside_the_loop_that_reads_the_lanes(
    worker: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 500 readings of each of four members it thinks for a minute or two."""
    asked_in: list[threading.Thread] = []

    def settle(household: Household, quantity: Quantity) -> Settled:
        asked_in.append(threading.current_thread())
        return model.settle(household, quantity)

    monkeypatch.setattr("ingest.attribution.settle.settle", settle)
    await stored(worker, *a_month())
    await settle_due(worker)
    assert asked_in
    assert threading.current_thread() not in asked_in


async def test_what_is_settled_is_not_due_and_settling_again_changes_nothing(
    worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *a_month())
    await settle_due(worker)
    before = query(database, "SELECT * FROM measurement ORDER BY measured_at")
    assert await settle_due(worker) == SettledSlots()
    assert (await settle_shared(worker)).changed == 0
    assert query(database, "SELECT * FROM measurement ORDER BY measured_at") == before


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_any_order_of_arrival_settled_at_each_step_ends_the_same(
    worker: AsyncConnection, database: str, seed: int
) -> None:
    readings = a_month()
    order = np.random.default_rng(seed).permutation(len(readings))
    for part in np.array_split(order, 6):
        await stored(worker, *(readings[place] for place in part))
        await settle_due(worker)
    state: LiteralString = "SELECT measured_at, resident_id, flags FROM measurement ORDER BY 1"
    stepwise = query(database, state)
    posteriors: LiteralString = (
        "SELECT measured_at, resident_id, probability FROM posterior ORDER BY 1, 2"
    )
    kept = query(database, posteriors)
    query(database, "DELETE FROM posterior")
    query(database, "UPDATE measurement SET resident_id = 0, flags = 0")
    await settle_shared(worker)
    assert query(database, state) == stepwise
    assert query(database, posteriors) == kept


async def test_an_unassigned_reading_keeps_how_likely_each_was(
    worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *a_month())
    await settle_due(worker)
    ((owner, probability),) = query(
        database,
        "SELECT resident_id, probability FROM posterior"
        " WHERE measured_at = (SELECT measured_at FROM measurement WHERE body_weight_kg = 45)",
    )
    assert owner == 0
    assert probability > 0.9


async def test_a_persons_word_stands_and_teaches(worker: AsyncConnection, database: str) -> None:
    """Twice 71 kg: nobody known, until somebody says whose it is; then the other is theirs too."""
    again_at = NOON + DAY * 16 + timedelta(hours=4)
    await stored(worker, *a_month(), a_weight("71.100", at=again_at, slot=None))
    query(database, "UPDATE shared_link SET usual = NULL WHERE resident_id = 102")
    query(database, "DELETE FROM measurement WHERE body_weight_kg BETWEEN 55 AND 65")
    await settle_shared(worker)
    heavy: LiteralString = "SELECT resident_id FROM measurement WHERE body_weight_kg BETWEEN 70.5 AND 72 ORDER BY measured_at"
    assert query(database, heavy) == [(0,), (0,)]
    query(database, "UPDATE measurement SET resident_id = 102, flags = 8 WHERE body_weight_kg = 71")
    await settle_shared(worker)
    assert query(database, heavy) == [(102,), (102,)]


async def test_what_settling_does_is_kept_and_told(worker: AsyncConnection, database: str) -> None:
    await stored(worker, *a_month())
    await settle_due(worker)
    (change,) = await settled_changes(worker, START, 1)  # what is nobody's changes nobody's archive
    assert change.changed.resident.tolist() == [101, 102]
    kept = query(database, "SELECT DISTINCT resident_id FROM attribution")
    assert kept == [(0,)]
    moved = query(database, "SELECT kind, actor, readings FROM correction")
    total = query(database, "SELECT count(*) FROM attribution")
    assert moved == [("settle", "service:ingest", total[0][0])]
    assert query(database, "SELECT count(*) FROM audit") == [(0,)]


async def test_a_reading_of_a_linked_and_shared_slot_that_fits_another_better_is_held(
    worker: AsyncConnection, database: str
) -> None:
    query(database, "INSERT INTO link (device_id, user_slot, resident_id, during)"
                    " VALUES (12, 255, 101, '(,)')")  # fmt: skip
    await stored(worker, *a_month())
    await settle_due(worker)
    found = owners(database)
    assert [owner for _kg, owner, _flags in found] == [
        101 if expected(kg) == 101 else 0 for kg, *_ in found
    ]


async def test_a_new_link_takes_up_what_was_nobodys(worker: AsyncConnection, database: str) -> None:
    await stored(worker, *a_month())
    query(database, "UPDATE shared_link SET superseded_at = now()")
    await settle_due(worker)
    assert {owner for _kg, owner, _flags in owners(database)} == {0}
    query(database, "INSERT INTO link (device_id, user_slot, resident_id, during)"
                    " VALUES (12, 255, 101, '(,)')")  # fmt: skip
    await settle_due(worker)
    assert {(owner, flags) for _kg, owner, flags in owners(database)} == {(101, 0)}


async def test_two_who_settle_at_once_do_it_once(worker: AsyncConnection, database: str) -> None:
    await stored(worker, *a_month())
    async with (
        await connect(database, application="hearth-tests", autocommit=True) as one,
        await connect(database, application="hearth-tests", autocommit=True) as other,
    ):
        await asyncio.gather(settle_due(one), settle_due(other))
    assert query(database, "SELECT count(*) FROM correction") == [(1,)]


BY = Author(actor="cli:nurse", origin="ward", reason="asked them")


async def test_the_worklist_shows_what_waits_and_how_likely_each_is(
    worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *a_month())
    await settle_due(worker)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as admin:
        waiting = list_worklist(admin, author=BY)
        assert list_worklist(admin, author=BY, device="0" * 12) == []
    assert [entry.values["body_weight_kg"] for entry in waiting] == [71.0, 45.0]
    assert [entry.candidates[0].resident for entry in waiting] == [None, None]
    read = query(database, "SELECT actor, detail FROM audit WHERE action = 'worklist.read'")
    assert read == [("cli:nurse", {"readings": 2}), ("cli:nurse", {"readings": 0})]


async def test_a_claim_gives_the_reading_its_owner_and_takes_it_off_the_worklist(
    worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *a_month())
    await settle_due(worker)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as admin:
        of_71, of_45 = (entry.reading for entry in list_worklist(admin, author=BY))
        done = claim(admin, [of_71], public_id(database, 102), BY)
        claim(admin, [of_45], None, BY)
        assert list_worklist(admin, author=BY) == []
    assert (done.kind, done.readings) == ("claim", 1)
    claimed = query(
        database,
        "SELECT resident_id, flags FROM measurement WHERE body_weight_kg IN (45, 71) ORDER BY body_weight_kg",
    )
    assert claimed == [(0, FLAG_CLAIMED), (102, FLAG_CLAIMED)]
    audited = query(
        database, "SELECT resident_id, reason FROM audit WHERE action = 'worklist.claim' ORDER BY 1"
    )
    assert audited == [(102, "asked them"), (None, "asked them")]
    await settle_due(worker)
    assert query(database, "SELECT count(*) FROM measurement WHERE flags = 8") == [(2,)]


async def test_a_wrong_attribution_is_put_right_by_a_claim(
    worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *a_month())
    await settle_due(worker)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as admin:
        period = Period(device="C0:26:DA:04:05:06", user_slot=255, from_at=None, until_at=None)
        beliefs = history(admin, period, any_slot=False, as_of=None, author=BY)
        theirs = next(b for b in beliefs if b.resident == public_id(database, 101))
        claim(admin, [theirs.reading], public_id(database, 102), BY)
    await settle_shared(worker)
    kept = query(database, "SELECT count(*) FROM measurement WHERE flags = 8 AND resident_id = 102")
    assert kept == [(1,)]


async def test_only_stored_readings_are_claimed(worker: AsyncConnection, database: str) -> None:
    await stored(worker, a_weight(slot=None))
    with connect_blocking(database, application="hearth-tests", autocommit=True) as admin:
        (entry,) = list_worklist(admin, author=BY)
        other = entry.reading[:-1] + ("0" if entry.reading[-1] != "0" else "1")
        for wrong in ("no token", other):
            with pytest.raises(UsageError, match="worklist list"):
                claim(admin, [entry.reading, wrong], public_id(database, 102), BY)
    assert query(database, "SELECT resident_id FROM measurement") == [(0,)]


async def test_an_erasure_leaves_no_attribution_of_the_resident(
    worker: AsyncConnection, database: str
) -> None:
    await stored(worker, *a_month())
    await settle_due(worker)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as admin:
        erase(admin, public_id(database, 101), "asked for")
    left = query(
        database,
        "SELECT (SELECT count(*) FROM posterior WHERE resident_id = 101),"
        " (SELECT count(*) FROM attribution WHERE 101 IN (resident_id, next_resident_id))",
    )
    assert left == [(0, 0)]
    assert query(database, "SELECT resident_id FROM shared_link WHERE superseded_at IS NULL") == [
        (102,)
    ]
    assert (await settle_shared(worker)).slots == 1


async def test_a_double_entry_that_shares_a_device_is_not_merged(
    worker: AsyncConnection, database: str
) -> None:
    assert not worker.closed
    with connect_blocking(database, application="hearth-tests", autocommit=True) as admin:
        kept, gone = public_id(database, 102), public_id(database, 101)
        with pytest.raises(UsageError, match="link unshare"):
            merge(admin, kept, gone, "entered twice")
