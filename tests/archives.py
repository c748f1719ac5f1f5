"""Archives for tests: registered homes, measurements stored by the real ingest, the API over it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from api.access import Role
from api.app import create_app
from api.archive import Archive, open_archive
from api.auth import OwnTokens
from api.enrolment import Office
from api.fhir.webhooks import Webhooks
from api.issuer.issuer import Issuer
from api.issuer.keys import key_of
from api.issuer.passwords import Vault
from api.issuer.store import IssuerStore
from api.issuer.tokens import AUDIENCE, Account, Signer
from api.server import ApiConfig, serving
from api.vault import IdentityVault
from gateway.measurement import Measurement
from gateway.platform.postgres import connect
from gateway.platform.settings import LOOPBACK
from gateway.platform.webhook_hosts import WebhookHosts
from ingest.batches import hub_homes, read_messages, reference_ms
from ingest.registry import load_registry
from ingest.store import Store, prepare
from ingest.verdicts import judge, tables_of
from tests.fixtures.database import as_api
from tests.worlds import NOON, RESIDENT, a_message, query, some_batch_ids

API = "/api/v1"
IDENTITIES = IdentityVault({1: bytes(32)}, bytes(32))
"""With keys that everybody knows."""
WEBHOOKS = Webhooks(bytes(32), WebhookHosts(["127.0.0.0/8"]))
"""Endpoints of tests are on this machine."""
ISSUER = "http://api"
KEY = key_of("a key for tests")
SERVICE = Account(id=UUID(int=1), login="tests", role=Role.SERVICE)
"""The template of the test databases has its account (tests.fixtures.database)."""
SIGNER = Signer(key=KEY, issuer=ISSUER, audience=AUDIENCE)
VERIFIER = OwnTokens(key=KEY, issuer=ISSUER, audience=AUDIENCE)


def a_token(
    account: Account,
    session: UUID | None = None,
    scope: str = "",
    lifetime: timedelta = timedelta(days=1),
) -> str:
    """A token of the tests' issuer."""
    return SIGNER.access_token(
        account, datetime.now(UTC), session=session, client="tests", scope=scope, lifetime=lifetime
    )


TOKEN = a_token(SERVICE, scope="system/*.rs hearth/operations hearth/links hearth/targets")
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def an_issuer(archive: Archive) -> Issuer:
    """The built-in issuer, as the application has it."""
    return Issuer(IssuerStore(archive.pool), SIGNER, a_vault())


def a_vault() -> Vault:
    """The same at every call."""
    return Vault(Path(_VAULT.name))


_VAULT = tempfile.TemporaryDirectory(prefix="hearth-vault-")


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
async def api_over(
    dsn: str, rate_per_s: float = 0, scrape_token: str | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application over a database; the client speaks to it without a network."""
    async with open_archive(as_api(dsn)) as archive:
        app = create_app(
            archive,
            VERIFIER,
            an_issuer(archive),
            identities=IDENTITIES,
            webhooks=WEBHOOKS,
            rate_per_s=rate_per_s,
            scrape_token=scrape_token,
        )
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://api", headers=BEARER
        ) as client:
            yield client


def a_config(
    dsn: str, *, host: str = LOOPBACK, port: int = 0, exports: Path | None = None
) -> ApiConfig:
    """What the service is started with, so that the tests' tokens are good."""
    return ApiConfig(
        dsn=dsn,
        host=host,
        port=port,
        key=KEY,
        vault=a_vault(),
        url=ISSUER,
        identities=IDENTITIES,
        webhooks=WEBHOOKS,
        exports=exports,
    )


@asynccontextmanager
async def served(
    dsn: str,
    exports: Path | None = None,
    rate_per_s: float = 0,
    office: Office | None = None,
    proxies: Sequence[str] = (),
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the API on a free port; the client speaks real HTTP to it."""
    config = a_config(as_api(dsn), exports=exports)
    config = replace(config, rate_per_s=rate_per_s, office=office, proxies=proxies)
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
