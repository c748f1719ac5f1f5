"""What the audit costs a reader: reads that begin with access.begin, alone and eight at once.

Each read is a transaction of the API's role: decide, audit (one chained row), read nothing, commit. Held
against the same transactions where all rows go into one chain, which is what one chain for all costs, and
against those while nobody notes the chains' heads outside the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from bench.result import Result, compare
from gateway.platform.audit import Notary
from gateway.platform.audit_witness import WITNESS_S
from gateway.platform.postgres import (
    connect,
    connect_blocking,
    dsn_with,
    sql,
)
from ingest.migrations import migrate

GOAL_CHAINS = 1.0
"""Many chains carry at least as many readers at once as one chain does."""
READERS = 8
"""As many as the API has connections."""
_DATABASE = "hearth_bench_audit"
_READER, _RESIDENT = UUID(int=1), UUID(int=2)
_BEGIN = sql.SQL(
    "SELECT admitted FROM access.begin(%s, NULL, 'measurement.read', 'values', %s, NULL, NULL)"
)
_ONE_CHAIN = sql.SQL("SELECT pg_advisory_xact_lock(18506, 64)")
"""Taken first, it makes all readers wait for each other's commit, as a single chain would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is measured."""

    rounds: int
    reads: int
    """By each reader in a round."""


def bench_audit(server: str, *, quick: bool, progress: Callable[[str], None]) -> list[Result]:
    """Measure in a database of its own on `server`, which is dropped afterwards."""
    load = Load(rounds=3, reads=200) if quick else Load(rounds=9, reads=1_000)
    with _own_database(server) as dsn:
        return asyncio.run(_measure(dsn, load, progress))


@contextmanager
def _own_database(server: str) -> Iterator[str]:
    name = sql.Identifier(_DATABASE)
    with connect_blocking(server, application="hearth-bench", autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            dsn = dsn_with(server, dbname=_DATABASE)
            migrate(dsn)
            with connect_blocking(dsn, application="hearth-bench") as connection:
                connection.execute("INSERT INTO resident (public_id) VALUES (%s)", [_RESIDENT])
                connection.execute(
                    "INSERT INTO account (public_id, login, role, scopes)"
                    " VALUES (%s, 'bench', 'service', '{system/*.rs}')",
                    [_READER],
                )
            yield dsn
        finally:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


async def _measure(dsn: str, load: Load, progress: Callable[[str], None]) -> list[Result]:
    await _rate(dsn, 1, load.reads, one_chain=False)  # warm
    alone, many, one, unwitnessed = [], [], [], []
    for number in range(load.rounds):
        async with _witnessed(dsn):
            alone.append(await _rate(dsn, 1, load.reads, one_chain=False))
            many.append(await _rate(dsn, READERS, load.reads, one_chain=False))
            one.append(await _rate(dsn, READERS, load.reads, one_chain=True))
        unwitnessed.append(await _rate(dsn, READERS, load.reads, one_chain=False))
        progress(f"round {number + 1}/{load.rounds}")
    return [
        compare(
            "audited reads, 8 readers", "reads/s", many, "the same in one chain", one,
            goal=GOAL_CHAINS,
        ),
        compare("audited reads, 8 readers", "reads/s", many, "1 reader", alone, goal=None),
        compare(
            "audited reads, 8 readers", "reads/s", many, "heads not noted", unwitnessed, goal=None
        ),
    ]  # fmt: skip


@asynccontextmanager
async def _witnessed(dsn: str) -> AsyncIterator[None]:
    """Note the chains' heads meanwhile, as often as the API's service does."""

    async def note() -> None:
        while True:
            await asyncio.to_thread(notary.witness, connection)
            await asyncio.sleep(WITNESS_S)

    with (
        TemporaryDirectory() as home,
        connect_blocking(dsn, application="hearth-bench") as connection,
    ):
        notary = Notary(Path(home))
        noting = asyncio.create_task(note())
        try:
            yield
        finally:
            noting.cancel()


async def _rate(dsn: str, readers: int, reads: int, *, one_chain: bool) -> float:
    """Return how many audited reads a second so many readers make together."""
    connections = [await connect(dsn, application="hearth-bench") for _ in range(readers)]

    async def read(number: int) -> None:
        connection = connections[number]
        for _ in range(reads):
            async with connection.transaction():
                if one_chain:
                    await connection.execute(_ONE_CHAIN, prepare=True)
                await connection.execute(_BEGIN, [_READER, [_RESIDENT]], prepare=True)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(readers):
            group.create_task(read(number))
    seconds = time.perf_counter() - started
    for connection in connections:
        await connection.close()
    return readers * reads / seconds
