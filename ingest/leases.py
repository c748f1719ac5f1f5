"""Which worker reads which lane: advisory locks in PostgreSQL.

A lane belongs to the worker that holds its lock. A worker that dies loses its locks with its
connection, and the others take its lanes within a period. Each worker holds a shared lock besides,
by which the workers are counted, and takes no more than its share. Safety does not hang on this
(the ledger and the unique index see to that); it only keeps a lane's batches in order. A worker that
reaches the database and not the broker would keep its lanes from the others: it leaves (`Worker`).
"""

from __future__ import annotations

from pathlib import Path

from gateway import wire
from gateway.platform.postgres import AsyncConnection, connect, load_queries, translated

PERIOD_S = 1.0
"""How often a worker looks whether its share has changed."""
BROKER_AWAY_S_MAX = 10.0
"""A worker none of whose lanes has been connected for so long leaves its lanes to the others, where there are
any, until it reaches the broker again."""

_QUERIES = load_queries(Path(__file__).parent / "sql" / "leases.sql")


class Leases:
    """The lanes that this worker holds, over a connection of its own."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.held: set[int] = set()

    @classmethod
    async def open(cls, dsn: str) -> Leases:
        """Connect and enter as a worker.

        Raises:
            UnavailableError: the database is down.
        """
        connection = await connect(dsn, application="hearth-ingest-leases", autocommit=True)
        with translated():
            await connection.execute(_QUERIES["enter"])
        return cls(connection)

    async def close(self) -> None:
        """Give everything back."""
        await self._connection.close()

    async def has_company(self) -> bool:
        """Tell whether there are other workers."""
        return await self._workers() > 1

    async def surplus(self) -> set[int]:
        """Return the lanes to give up because other workers lack their share."""
        share = await self._share()
        return set(sorted(self.held)[share:])

    async def release(self, lane: int) -> None:
        """Give a lane back; its reading must have ended."""
        with translated():
            await self._connection.execute(_QUERIES["release"], {"lane": lane})
        self.held.discard(lane)

    async def acquire(self) -> set[int]:
        """Take free lanes up to this worker's share and return the new ones."""
        share = await self._share()
        new: set[int] = set()
        with translated():
            for lane in range(wire.LANES):
                if len(self.held) >= share:
                    break
                if lane in self.held:
                    continue
                row = await self._connection.execute(_QUERIES["acquire"], {"lane": lane})
                if (await row.fetchall())[0][0]:
                    self.held.add(lane)
                    new.add(lane)
        return new

    async def _share(self) -> int:
        return -(-wire.LANES // max(await self._workers(), 1))

    async def _workers(self) -> int:
        with translated():
            rows = await self._connection.execute(_QUERIES["count_workers"])
            ((workers,),) = await rows.fetchall()
        return int(workers)
