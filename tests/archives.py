"""Archives for tests: registered homes, measurements stored by the real ingest, the API over it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from api.app import create_app
from api.archive import open_archive
from api.server import ApiConfig, serving
from gateway.measurement import Measurement
from gateway.platform.postgres import connect
from gateway.platform.settings import LOOPBACK
from ingest.batches import hub_homes, read_messages, reference_ms
from ingest.registry import load_registry
from ingest.store import Store, prepare
from ingest.verdicts import judge, tables_of
from tests.fixtures.database import as_api
from tests.worlds import NOON, RESIDENT, a_message, query, some_batch_ids

TOKEN = "a-token-for-tests-that-is-long-enough"  # noqa: S105 - it guards nothing
BEARER = {"Authorization": f"Bearer {TOKEN}"}
API = "/api/v1"


async def store(dsn: str, *measurements: Measurement, sequence: int = 1) -> None:
    """Store measurements as ingest does, in one batch of `tests.worlds.HUB`."""
    async with await connect(dsn, application="hearth-tests", autocommit=True) as connection:
        registry = await load_registry(connection)
        flush = read_messages([a_message(*measurements, sequence=sequence)], registry)
        judged = judge(
            flush.records,
            reference_ms(flush),
            hub_homes(flush),
            registry,
            tables_of(),
            int(NOON.timestamp() * 1000) + 3_600_000,
        )
        batch_ids = some_batch_ids(flush)
        now_ms = time.time_ns() // 1_000_000
        prepared = prepare(flush, judged, registry, batch_ids, now_ms)
        committed = await Store(connection).commit(prepared)
    assert [outcome.stored for outcome in committed.outcomes] == [len(measurements)]


def public_id(dsn: str, resident_id: int = RESIDENT) -> UUID:
    """Return the public id of a resident of `tests.worlds`."""
    rows = query(dsn, "SELECT resident_id, public_id FROM resident")
    return UUID(str(dict(rows)[resident_id]))


@asynccontextmanager
async def api_over(dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application over a database; the client speaks to it without a network."""
    async with open_archive(as_api(dsn)) as archive:
        transport = httpx.ASGITransport(create_app(archive, TOKEN))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://api", headers=BEARER
        ) as client:
            yield client


@asynccontextmanager
async def served(dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the API on a free port; the client speaks real HTTP to it."""
    config = ApiConfig(dsn=as_api(dsn), token=TOKEN, host=LOOPBACK, port=0)
    async with (
        serving(config) as port,
        httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", headers=BEARER) as client,
    ):
        yield client


def routes_of(app: FastAPI) -> Iterator[Route]:
    """Yield every route of an application, those of its included routers too."""
    yield from _routes(app.routes)


def _routes(routes: list[BaseRoute]) -> Iterator[Route]:
    for route in routes:
        if isinstance(route, Route):
            yield route
        else:
            yield from _routes(route.original_router.routes)  # type: ignore[attr-defined]  # FastAPI's
