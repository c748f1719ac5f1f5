"""Unusual readings are marked in the real database, the same ones whatever order readings come in."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta

import numpy as np
import pytest

from api.corrections import Author, Period, reassign
from gateway.measurement import Measurement
from gateway.platform.postgres import AsyncConnection, connect, connect_blocking
from ingest.baselines.evaluate import Baselines, evaluate_all, evaluate_due
from ingest.batches import hub_homes, read_messages, reference_ms
from ingest.registry import load_registry
from ingest.store import Store, prepare, ready
from ingest.verdicts import Verdict, judge, tables_of
from tests.archives import api_over, public_id
from tests.worlds import (
    NOON,
    OTHER_RESIDENT,
    a_message,
    a_weight,
    enter_registry,
    query,
    some_batch_ids,
)

pytestmark = pytest.mark.integration

TABLES = tables_of()
DAY = timedelta(days=1)
ODD_DAYS = (12, 25)


@pytest.fixture
async def worker(database: str) -> AsyncIterator[AsyncConnection]:
    enter_registry(database)
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        yield session


@pytest.fixture
async def baselines(worker: AsyncConnection, database: str) -> AsyncIterator[Baselines]:
    assert not worker.closed
    opened = Baselines(database)
    yield opened
    await opened.close()


def a_month() -> list[Measurement]:
    generator = np.random.default_rng(3)
    return [
        a_weight(
            f"{generator.normal(70, 0.3) + (9 if day in ODD_DAYS else 0):.3f}", at=NOON + DAY * day
        )
        for day in range(30)
    ]


async def stored(
    worker: AsyncConnection, *measurements: Measurement, baselines: Baselines | None = None
) -> None:
    registry = await load_registry(worker)
    rows = await worker.execute("SELECT count(*) + 1 FROM batch")
    ((sequence,),) = await rows.fetchall()
    flush = read_messages([a_message(*measurements, sequence=sequence)], registry)
    now_ms = time.time_ns() // 1_000_000
    judged = judge(
        flush.records, reference_ms(flush), hub_homes(flush), registry, TABLES, now_ms + 10**11
    )
    if baselines is not None:
        places = np.flatnonzero(judged.verdict == Verdict.STORED)
        await baselines.load(ready(flush.records, judged, places))
    memory = None if baselines is None else baselines.memory
    ids = some_batch_ids(flush)
    await Store(worker).commit(prepare(flush, judged, registry, ids, now_ms, memory))


def marked(database: str) -> list[int]:
    rows = query(
        database, "SELECT measured_at FROM measurement WHERE flags & 2 <> 0 ORDER BY measured_at"
    )
    return [(at - NOON).days for (at,) in rows]


async def test_far_off_readings_are_stored_and_marked(
    worker: AsyncConnection, baselines: Baselines, database: str
) -> None:
    await stored(worker, *a_month(), baselines=baselines)
    assert marked(database) == list(ODD_DAYS)
    assert query(database, "SELECT count(*) FROM measurement") == [(30,)]
    assert query(database, "SELECT count(*) FROM baseline_due") == [(0,)]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_any_order_of_arrival_marks_the_same(
    worker: AsyncConnection, baselines: Baselines, database: str, seed: int
) -> None:
    readings = a_month()
    order = np.random.default_rng(seed).permutation(len(readings))
    for part in np.array_split(order, 5):
        await stored(worker, *(readings[place] for place in part), baselines=baselines)
        baselines.memory.forget(None)  # as the pipeline does of those that came late
    await evaluate_due(worker)
    assert marked(database) == list(ODD_DAYS)
    assert await evaluate_all(worker) == 0


async def test_a_new_worker_loads_what_is_usual(
    worker: AsyncConnection, baselines: Baselines, database: str
) -> None:
    month = a_month()
    await stored(worker, *month[:20], baselines=baselines)
    baselines.memory.forget(None)
    await stored(worker, *month[20:], baselines=baselines)
    assert marked(database) == list(ODD_DAYS)


async def test_more_readings_than_are_looked_at_at_once_are_looked_at_in_turn(
    worker: AsyncConnection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.baselines.evaluate.READINGS_MAX", 8)
    await stored(worker, *a_month())
    await evaluate_due(worker)
    while (await evaluate_due(worker))[0]:
        pass
    assert marked(database) == list(ODD_DAYS)
    assert query(database, "SELECT count(*) FROM baseline_due") == [(0,)]


async def test_what_is_unusual_for_one_may_be_usual_for_another(
    worker: AsyncConnection, database: str
) -> None:
    """The readings go to somebody whose 79 kg are usual: then those of 70 are not."""
    heavy = [a_weight("79.000", at=NOON - DAY * day, slot=2) for day in range(1, 20)]
    query(database, "INSERT INTO link (device_id, user_slot, resident_id, during)"
                    " VALUES (12, 2, 102, '(,)')")  # fmt: skip
    await stored(worker, *a_month(), *heavy)
    await evaluate_due(worker)
    assert marked(database) == list(ODD_DAYS)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as admin:
        period = Period(device="C0:26:DA:04:05:06", user_slot=1, from_at=NOON, until_at=NOON + DAY)
        by = Author(actor="cli:test", origin=None, reason="a test")
        reassign(admin, period, public_id(database, OTHER_RESIDENT), by)
    await evaluate_due(worker)
    assert marked(database) == [0, *ODD_DAYS]


async def test_the_api_says_so(
    worker: AsyncConnection, baselines: Baselines, database: str
) -> None:
    await stored(worker, *a_month(), baselines=baselines)
    async with api_over(database) as client:
        page = await client.get(
            f"/api/v1/residents/{public_id(database)}/measurements", params={"order": "asc"}
        )
    items = page.json()["items"]
    assert [day for day, item in enumerate(items) if item["unusual"]] == list(ODD_DAYS)
    assert {item["attribution"] for item in items} == {"linked"}
