"""Links do not change under a transaction that attributes readings.

A transaction that stores or attributes readings holds a shared advisory lock until it ends. Whoever
changes links, or re-attributes stored readings, takes the same lock exclusively (the triggers of
the link tables do it): it waits for the open flushes, and its rows then include theirs. A flush
behind it sees, under the lock, that links changed since it was judged, and is judged again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gateway.errors import UnavailableError
from gateway.platform.postgres import AsyncConnection, Int4s, load_queries
from ingest.registry import Ids, Registry

BUCKETS = 64
"""Locks on devices, shared by those whose key has the same remainder."""
_NONE = np.empty(0, np.int32)
_QUERIES = load_queries(Path(__file__).parent / "sql" / "guard.sql")


class StaleRegistryError(UnavailableError):
    """Links of these devices changed since their readings were judged."""


async def hold_links(connection: AsyncConnection, registry: Registry, device_ids: Ids) -> None:
    """Hold the links still until the connection's transaction ends.

    Raises:
        StaleRegistryError: what `registry` says of these devices' links holds no more; the
            transaction must end and its readings be judged again, with a newer registry.
    """
    await hold(connection)
    rows = await connection.execute(_QUERIES["changed_behind"], {"snapshot": registry.snapshot})
    for (key,) in await rows.fetchall():
        if key is None or np.any(device_ids == key):
            raise StaleRegistryError("关联刚刚改变 / links changed meanwhile: 请重试 / try again")


async def hold_devices(
    connection: AsyncConnection, *, late: Ids = _NONE, heard: Ids = _NONE
) -> None:
    """Take turns until the transaction ends: late readings of devices, and what other homes heard.

    Whoever brings records that another home's hub heard is alone with these devices' bucket.
    """
    alone = np.unique(heard % BUCKETS)
    buckets = np.union1d(late % BUCKETS, alone)
    if len(buckets):
        given = {"buckets": Int4s(buckets), "alone": np.isin(buckets, alone).tolist()}
        await connection.execute(_QUERIES["hold_devices"], given)


async def hold(connection: AsyncConnection) -> None:
    """Hold the links still; for one who reads them from the store behind this."""
    await connection.execute(_QUERIES["hold_links"])
