"""The unique keys are a guard of their own: without them the same scenario doubles readings.

The other two safeties that readings hang on are taken away in tests/acceptance/test_chaos.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest

from gateway.platform.postgres import connect
from ingest.batches import Message, hub_homes, read_messages, reference_ms
from ingest.ledger import read_ledger
from ingest.newest import Newest
from ingest.registry import Registry, load_registry
from ingest.store import Prepared, Store, prepare
from ingest.verdicts import judge, tables_of
from tests.worlds import (
    NOON,
    a_message,
    a_pressure,
    enter_registry,
    query,
    some_batch_ids,
)

pytestmark = pytest.mark.integration

READINGS = 50
TABLES = tables_of()


async def test_with_the_unique_keys_workers_at_once_store_a_reading_once(database: str) -> None:
    assert await rows_after_two_workers(database) == READINGS
    assert read_ledger(database).balanced


async def test_without_the_unique_key_of_readings_they_are_doubled(database: str) -> None:
    """Safety removed: no unique key."""
    enter_registry(database)
    query(database, "DROP INDEX measurement_identity")
    assert await rows_after_two_workers(database, enter=False) == 2 * READINGS


async def test_without_the_unique_key_of_batches_a_redelivery_is_booked_twice(
    database: str,
) -> None:
    """Safety removed: the ledger takes a batch twice, so its terms are no longer the hub's."""
    enter_registry(database)
    query(database, "DROP INDEX measurement_identity")  # else that one objects, and it is noticed
    query(database, "ALTER TABLE batch DROP CONSTRAINT batch_hub_id_epoch_sequence_key")
    await rows_after_two_workers(database, enter=False, sequences=(1, 1))
    assert read_ledger(database).total("published") == 2 * READINGS


async def test_with_the_unique_key_of_batches_a_redelivery_is_booked_once(database: str) -> None:
    await rows_after_two_workers(database, sequences=(1, 1))
    assert read_ledger(database).total("published") == READINGS


async def rows_after_two_workers(
    database: str, *, enter: bool = True, sequences: tuple[int, int] = (1, 2)
) -> int:
    """Let two workers, neither of which knows of the other, store the same readings at once."""
    if enter:
        enter_registry(database)
    readings = [a_pressure(at=NOON + timedelta(seconds=30 * i)) for i in range(READINGS)]
    async with (
        await connect(database, application="hearth-tests", autocommit=True) as one,
        await connect(database, application="hearth-tests", autocommit=True) as other,
    ):
        registry = await load_registry(one)
        flushes = [
            prepared([a_message(*readings, sequence=sequence)], registry) for sequence in sequences
        ]
        stores = Store(one, all_seen()), Store(other, all_seen())  # neither looks anything up
        await asyncio.gather(
            *(store.commit(flush) for store, flush in zip(stores, flushes, strict=True))
        )
    ((count,),) = query(database, "SELECT count(*) FROM measurement")
    return int(count)


def all_seen() -> Newest:
    """Return the belief that all readings of the first devices were old ones."""
    newest = Newest()
    longest_ago = np.full(100, -(1 << 62))
    newest.learn(np.arange(100, dtype=np.int32), longest_ago, newest.forgotten)
    return newest


def prepared(messages: Sequence[Message], registry: Registry) -> Prepared:
    flush = read_messages(messages, registry)
    now_ms = time.time_ns() // 1_000_000 + 10**9
    judged = judge(flush.records, reference_ms(flush), hub_homes(flush), registry, TABLES, now_ms)
    return prepare(flush, judged, registry, some_batch_ids(flush), now_ms)
