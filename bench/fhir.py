"""FHIR over a big archive: a page of 100 Observations, $lastn of all signs, bulk export.

Pages and $lastn: whole requests through the application, without a network, one client; beside them
the same SQL in a bare loop on one connection, as the same role, after the same access.begin. Export:
Observations as NDJSON into memory; the cores are the CPU time of this process and of the server's.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx

from api.access import Principal, Role
from api.app import create_app
from api.archive import Archive
from api.fhir.export import lines_of
from api.fhir.observations import Wanted
from api.fhir.parts import PARTS, PARTS_OF
from api.fhir.search import Search
from api.fhir.store import LAST, PAGE, FhirStore, last_parameters, page_parameters
from api.measurement_rows import Order
from bench.archive_rows import QUICK, WHOLE, Size, fill
from bench.databases import own_database
from bench.result import Result, compare
from gateway.platform.postgres import (
    AsyncConnection,
    TupleRow,
    connect_blocking,
    dsn_with,
    open_pool,
)

GOAL_PAGE_MS = 50.0
"""p99 of a page of 100."""
GOAL_LAST_MS = 30.0
"""p99 of $lastn of all signs."""
GOAL_EXPORT = 20_000.0
"""Resources a second and core."""
_DATABASE = "hearth_bench_fhir"
_SESSION = "-c role=hearth_api -c timezone=UTC"
_READER = Principal(user=UUID(int=1), role=Role.SERVICE, scopes=frozenset({"system/*.rs"}))
_EXPORTED = 40
"""Residents of a round of the export."""
_TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is measured."""

    size: Size
    rounds: int
    requests: int


class _OneReader:
    """Takes every token for the bench's account; to check a token is no part of the figures."""

    async def principal(self, _token: str) -> Principal:
        return _READER


def bench_fhir(server: str, *, quick: bool, progress: Callable[[str], None]) -> list[Result]:
    """Measure in a database of its own on `server`, which is dropped afterwards."""
    load = Load(
        size=QUICK if quick else WHOLE, rounds=3 if quick else 5, requests=100 if quick else 400
    )
    with own_database(server, _DATABASE) as dsn:
        fill(dsn, load.size, progress)
        with connect_blocking(dsn, application="hearth-bench") as connection:
            connection.execute(
                "INSERT INTO account (public_id, login, role, scopes)"
                " VALUES (%s, 'bench', 'service', '{system/*.rs}')",
                [_READER.user],
            )
        return asyncio.run(_measure(dsn, load, progress))


async def _measure(dsn: str, load: Load, progress: Callable[[str], None]) -> list[Result]:
    async with _opened(dsn) as (archive, connection, client):
        residents = [
            row[0]
            for row in await (
                await connection.execute("SELECT public_id FROM resident ORDER BY resident_id")
            ).fetchall()
        ]
        await connection.execute("SET ROLE hearth_api")
        chosen = random.Random(7)  # noqa: S311 - no secret
        page: list[float] = []
        page_sql: list[float] = []
        last: list[float] = []
        last_sql: list[float] = []
        exported: list[float] = []
        exported_wall: list[float] = []
        for number in range(load.rounds + 1):
            whom = [chosen.choice(residents) for _ in range(load.requests)]

            async def get_page(resident: UUID) -> None:
                await _get(client, f"/fhir/Observation?patient={resident}&_count=100")

            async def get_last(resident: UUID) -> None:
                await _get(client, f"/fhir/Observation/$lastn?patient={resident}")

            async def run_page(resident: UUID) -> None:
                search = Search(parts=PARTS, resident=resident)
                parameters = page_parameters(resident, search, 101)
                await _run(connection, resident, PAGE[Order.DESC], parameters)

            async def run_last(resident: UUID) -> None:
                search = Search(parts=PARTS, resident=resident)
                await _run(connection, resident, LAST, last_parameters(resident, search))

            figures = (
                (page, await _p99_ms(whom, get_page)),
                (page_sql, await _p99_ms(whom, run_page)),
                (last, await _p99_ms(whom, get_last)),
                (last_sql, await _p99_ms(whom, run_last)),
            )
            a_core, a_second = await _export(archive, whom[:_EXPORTED])
            if number == 0:
                continue  # warm: caches, prepared statements, templates
            for values, figure in figures:
                values.append(figure)
            exported.append(a_core)
            exported_wall.append(a_second)
            progress(f"round {number}/{load.rounds}")
    same_sql = "the same SQL in a bare loop"
    return [
        _within("fhir page of 100, p99", "ms", page, GOAL_PAGE_MS),
        compare("fhir page of 100, p99", "ms", page, same_sql, page_sql, goal=None),
        _within("fhir $lastn of all, p99", "ms", last, GOAL_LAST_MS),
        compare("fhir $lastn of all, p99", "ms", last, same_sql, last_sql, goal=None),
        compare(
            "fhir export", "resources/s a core", exported, "goal",
            [GOAL_EXPORT] * len(exported), goal=1.0,
        ),
        compare(
            "fhir export", "resources/s", exported_wall, "the same a core of both processes",
            exported, goal=None,
        ),
    ]  # fmt: skip


def _within(name: str, unit: str, values: list[float], goal: float) -> Result:
    return compare(name, unit, values, "goal", [goal] * len(values), goal=1.0, lower_is_better=True)


@asynccontextmanager
async def _opened(
    dsn: str,
) -> AsyncIterator[tuple[Archive, AsyncConnection[TupleRow], httpx.AsyncClient]]:
    """Open the archive as the API's role, a bare connection, and a client of the application."""
    as_api = dsn_with(dsn, options=_SESSION)
    async with (
        open_pool(as_api, application="hearth-bench", size_max=2, autocommit=True) as pool,
        await AsyncConnection.connect(dsn, autocommit=True) as connection,
    ):
        archive = Archive(pool)
        transport = httpx.ASGITransport(create_app(archive, _OneReader()))
        headers = {"Authorization": "Bearer any"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://bench", headers=headers
        ) as client:
            yield archive, connection, client


async def _get(client: httpx.AsyncClient, url: str) -> None:
    response = await client.get(url)
    assert response.status_code == 200, response.text  # noqa: S101, PLR2004 - else nothing is measured


async def _run(
    connection: AsyncConnection[TupleRow],
    resident: UUID,
    query: bytes,
    parameters: dict[str, object],
) -> None:
    async with connection.transaction(), connection.cursor(binary=True) as cursor:
        await cursor.execute(
            "SELECT access.begin(%s, NULL, 'bench.read', 'values', %s, NULL, NULL)",
            [_READER.user, [resident]],
        )
        await cursor.execute(query, parameters, prepare=True)
        assert await cursor.fetchall()  # noqa: S101 - else nothing is measured


async def _p99_ms(whom: list[UUID], act: Callable[[UUID], Awaitable[None]]) -> float:
    taken_ms = []
    for resident in whom:
        started = time.perf_counter()
        await act(resident)
        taken_ms.append((time.perf_counter() - started) * 1000)
    return statistics.quantiles(taken_ms, n=100)[98]


async def _export(archive: Archive, whom: list[UUID]) -> tuple[float, float]:
    """Return (resources a second of CPU, of this process and the server's; resources a second)."""
    store, wanted = FhirStore(archive), Wanted(parts=PARTS_OF)
    count, server_s = 0, 0.0
    cpu_s, started = time.process_time(), time.perf_counter()
    for resident in whom:
        async with archive.reading(_READER, action="bench.export", resident=resident) as connection:
            backend = connection.info.backend_pid
        before_s = _cpu_s(backend)
        async with store.everything(_READER, resident, None, "observation.export") as batches:
            async for rows in batches:
                count += lines_of(rows, wanted)[1]
        server_s += _cpu_s(backend) - before_s
    elapsed_s = time.perf_counter() - started
    return count / (time.process_time() - cpu_s + server_s), count / elapsed_s


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process of this machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_S
