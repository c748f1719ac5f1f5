"""Flushes of messages into the real database, as a worker makes them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.platform.postgres import AsyncConnection
from ingest.batches import Message, hub_homes, read_messages, reference_ms
from ingest.registry import load_registry
from ingest.store import Committed, Prepared, Store, prepare
from ingest.verdicts import judge, tables_of
from tests.worlds import some_batch_ids

TABLES = tables_of()
_LATER_MS = 10**9
"""So that times of the test worlds, which may lie ahead of this machine's clock, are no future."""


async def prepared(connection: AsyncConnection, messages: Sequence[Message]) -> Prepared:
    """Judge and encode messages by the registry as it is now."""
    registry = await load_registry(connection)
    flush = read_messages(messages, registry)
    judged = judge(
        flush.records,
        reference_ms(flush),
        hub_homes(flush),
        registry,
        TABLES,
        time.time_ns() // 1_000_000 + _LATER_MS,
    )
    return prepare(flush, judged, registry, some_batch_ids(flush), time.time_ns() // 1_000_000)


async def committed(store: Store, *messages: Message) -> Committed:
    """Commit messages as one flush."""
    return await store.commit(await prepared(store.connection, messages))
