"""The API as a service: one event loop, alone or one of several processes (`api.processes`).

It speaks plain HTTP, for loopback or a reverse proxy that ends TLS.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import httpx
from fastapi import FastAPI

from api.app import create_app
from api.archive import CONNECTIONS_MAX, Archive, open_archive
from api.auth import OwnTokens
from api.auth_foreign import ForeignTokens
from api.enrolment import Office
from api.fhir.export import Exports
from api.fhir.subscriptions import Subscriptions
from api.fhir.webhooks import Webhooks, open_webhooks
from api.http_server import HttpServer, listening
from api.idempotency import forget_old_answers
from api.issuer.issuer import Issuer
from api.issuer.keys import KeyRing, Keys
from api.issuer.passwords import Vault
from api.issuer.store import IssuerStore
from api.issuer.tokens import AUDIENCE, Signer
from api.known_tokens import KnownTokens
from api.limits import RATE_PER_S
from api.live import Feed
from api.origin import trusted_proxies
from api.vault import IdentityVault, open_vault
from gateway.errors import UnavailableError, UsageError
from gateway.platform.audit import ANCHOR_S, Notary
from gateway.platform.audit_witness import WITNESS_S
from gateway.platform.logs import get_logger
from gateway.platform.postgres import Connection, connect_blocking
from gateway.platform.pruning import PRUNE_S
from gateway.platform.secret_files import read_private
from gateway.platform.service import run_until_signalled
from gateway.platform.settings import Settings

CANCEL_AGAIN_S = 0.5
"""Work in the background that has not ended this long after its cancellation is cancelled again."""
CONNECTIONS_MIN = 4
"""Each of several processes has its part of the `CONNECTIONS_MAX`, and not less than this."""
GARBAGE_MIN = 20_000
"""The collector looks after so many objects: a page of a year's readings is some thousands, none a cycle."""
SCRAPE_TOKEN_CHARS_MIN = 32
"""A shorter scrape token is refused at the start."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which of the processes over one socket this is (`api.processes`); by itself, the only one."""

    listener: int | None = None
    """The descriptor of the socket, which another process has opened; None: it is to be opened."""
    number: int = 1
    """From 1; the first also does what one process has to do for all."""
    of: int = 1


ALONE = Share()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """What the service needs to know. `port` 0: any free one. The DSN may hold a password.

    `issuer`: an OpenID Connect issuer of one's own; None: the built-in one, which signs with `key`
    and opens second factors with `vault`. `url` is its name; None: http:// and where it listens.
    """

    dsn: str
    host: str
    port: int
    key: Keys
    vault: Vault
    audience: str = AUDIENCE
    url: str | None = None
    issuer: str | None = None
    notary: Notary | None = None
    """Anchors the audit and notes its heads; None: somebody else does."""
    office: Office | None = None
    """None: hubs are not enrolled here."""
    exports: Path | None = None
    """The folder for bulk exports; None: there are none."""
    identities: IdentityVault | None = None
    """Opens the residents' names and numbers; None: they stay sealed here."""
    webhooks: Webhooks | None = None
    """Tells subscribers of FHIR; None: nobody subscribes here."""
    rate_per_s: float = RATE_PER_S
    proxies: Sequence[str] = ()
    """Addresses and networks of the reverse proxies whose X-Forwarded-For is believed."""
    scrape_token: str | None = field(default=None, repr=False)
    """Opens /metrics for Prometheus; None: only an account does."""
    share: Share = ALONE


def config_of(
    settings: Settings,
    dsn: str,
    *,
    host: str | None,
    port: int | None,
    office: Office | None = None,
    share: Share = ALONE,
) -> ApiConfig:
    """Return what the settings say; `host` and `port` take the place of theirs where given."""
    return ApiConfig(
        dsn=dsn,
        host=settings.api_host if host is None else host,
        port=settings.api_port if port is None else port,
        key=KeyRing(settings.home),
        vault=Vault(settings.home),
        audience=settings.oidc_audience,
        url=settings.api_url,
        issuer=settings.oidc_issuer,
        notary=Notary(settings.home),
        office=office,
        exports=settings.home / "exports",
        identities=open_vault(settings.home),
        webhooks=open_webhooks(settings.home, settings.webhook_hosts),
        rate_per_s=settings.api_rate_per_s,
        proxies=trusted_proxies(settings.api_trusted_proxies),
        scrape_token=_scrape_token(settings.metrics_token_file),
        share=share,
    )


def _scrape_token(path: Path | None) -> str | None:
    """Read the token that Prometheus bears.

    Raises:
        UsageError: others may read the file, or what it holds can be guessed.
    """
    if path is None:
        return None
    token = read_private(path, "HEARTH_METRICS_TOKEN_FILE")
    if len(token) < SCRAPE_TOKEN_CHARS_MIN or not token.isascii():
        raise UsageError(
            f"HEARTH_METRICS_TOKEN_FILE: 至少 {SCRAPE_TOKEN_CHARS_MIN} 个字符 / at least so many "
            "characters, such as of `openssl rand -hex 32`"
        )
    return token


async def run(config: ApiConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UsageError: the address is taken or is none of this machine's.
    """
    async with serving(config) as port:
        gc.freeze()  # what is there for good, the collector need not look at again
        gc.set_threshold(GARBAGE_MIN)
        _log.info("api_started", host=config.host, port=port, process=config.share.number)
        await run_until_signalled(lambda _group: None)
    _log.info("api_stopped")


@asynccontextmanager
async def serving(config: ApiConfig) -> AsyncIterator[int]:
    """Serve until the context ends; yields the port, at which connections are accepted by now.

    Raises:
        UsageError: the address is taken or is none of this machine's.
    """
    connections_max = max(CONNECTIONS_MAX // config.share.of, CONNECTIONS_MIN)
    with _listener(config) as listener:
        if not ip_address(listener.getsockname()[0]).is_loopback:
            _log.warning("plain_http_beyond_this_machine", host=config.host)
        async with (
            open_archive(config.dsn, connections_max) as archive,
            httpx.AsyncClient(follow_redirects=False) as client,
        ):
            app = _application(config, archive, client, listener)
            if config.exports is not None:
                app.state.exports = Exports(archive, config.exports)
            feed: Feed = app.state.feed
            server = HttpServer(
                app, listener, proxies=config.proxies, is_shared=config.share.of > 1
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(server.serve())
                base = f"{config.url or url_of(*listener.getsockname()[:2])}/fhir"
                group.create_task(feed.run())
                work = []
                if config.exports is not None:
                    work.append(group.create_task(app.state.exports.run_forever()))
                if config.share.number == 1:
                    work.append(group.create_task(_watch_audit(config)))
                    work.append(group.create_task(_forget_answers(archive)))
                    if config.webhooks is not None:
                        subscriptions = Subscriptions(archive, config.webhooks)
                        work.append(group.create_task(subscriptions.run_forever(base)))
                try:
                    yield listener.getsockname()[1]
                finally:
                    feed.end()
                    server.should_exit = True
                    await _cancelled(work)


def _listener(config: ApiConfig) -> AbstractContextManager[socket.socket]:
    if config.share.listener is None:
        return listening(config.host, config.port)
    return socket.socket(fileno=config.share.listener)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once is not always enough: psycopg, cancelled while it waits for an answer that comes just then,
    returns the answer and forgets the cancellation.
    """
    while waiting := [task for task in tasks if not task.done()]:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=CANCEL_AGAIN_S)


async def _watch_audit(config: ApiConfig) -> None:
    """Note the audit's heads every `WITNESS_S` and anchor them every `ANCHOR_S`, from the start on.

    What the database refuses now waits.
    """
    if config.notary is None:
        return
    watch = _AuditWatch(config.dsn, config.notary)
    try:
        while True:
            try:
                await asyncio.to_thread(watch.look)
            except (UnavailableError, OSError) as error:
                _log.warning("audit_not_witnessed", why=type(error).__name__)
            await asyncio.sleep(WITNESS_S)
    finally:
        watch.close()


class _AuditWatch:
    """Looks at the audit's chains by a connection of its own, which no reader waits for."""

    def __init__(self, dsn: str, notary: Notary) -> None:
        self._dsn = dsn
        self._notary = notary
        self._connection: Connection | None = None
        self._anchor_at_s = time.monotonic() + ANCHOR_S

    def look(self) -> None:
        """Note the heads; anchor them where it is time.

        Raises:
            UnavailableError: the database is not there now.
            OSError: the file cannot be written.
        """
        try:
            if self._connection is None:
                self._connection = connect_blocking(self._dsn, application="hearth-api-audit")
            for chain in self._notary.witness(self._connection):
                _log.error("audit_chain_went_back", chain=chain)
            if time.monotonic() >= self._anchor_at_s:
                self._notary.anchor(self._connection)
                self._anchor_at_s = time.monotonic() + ANCHOR_S
        except UnavailableError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next look opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _application(
    config: ApiConfig, archive: Archive, client: httpx.AsyncClient, listener: socket.socket
) -> FastAPI:
    if config.issuer is not None:
        foreign = ForeignTokens(
            client, archive.account_of, issuer=config.issuer, audience=config.audience
        )
        return create_app(
            archive,
            KnownTokens(foreign),
            office=config.office,
            identities=config.identities,
            webhooks=config.webhooks,
            rate_per_s=config.rate_per_s,
            scrape_token=config.scrape_token,
        )
    url = config.url or url_of(*listener.getsockname()[:2])
    signer = Signer(key=config.key, issuer=url, audience=config.audience)
    issuer = Issuer(IssuerStore(archive.pool), signer, config.vault)
    own = OwnTokens(key=config.key, issuer=url, audience=config.audience)
    return create_app(
        archive,
        KnownTokens(own),
        issuer,
        config.office,
        identities=config.identities,
        webhooks=config.webhooks,
        rate_per_s=config.rate_per_s,
        scrape_token=config.scrape_token,
    )


def url_of(host: str, port: int) -> str:
    """Return the address of a host and port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _forget_answers(archive: Archive) -> None:
    while True:
        await asyncio.sleep(PRUNE_S)
        try:
            await forget_old_answers(archive.pool)
        except UnavailableError as error:
            _log.warning("old_answers_stay", why=str(error))
