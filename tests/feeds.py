"""The feed of changes, as soon as it has settled: the snapshots of other tests' transactions hold it up."""

from __future__ import annotations

import asyncio

from gateway.platform.changes import Change, Place, read_changes
from gateway.platform.postgres import AsyncConnection

SETTLED_S_MAX = 30.0
"""A transaction of another test holds the feed up while it runs: snapshots are the server's."""


async def settled_changes(connection: AsyncConnection, after: Place, count: int) -> list[Change]:
    """Read so many changes as soon as they have settled."""
    async with asyncio.timeout(SETTLED_S_MAX):
        while True:
            changes = await read_changes(connection, after, limit=count)
            if len(changes) == count:
                return changes
            await asyncio.sleep(0.05)
