"""The API as a service: one process, one event loop, HTTP/1.1 by uvicorn and h11.

It speaks plain HTTP, for loopback or a reverse proxy that ends TLS.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import h11
import httpx
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.app import create_app
from api.archive import Archive, open_archive
from api.auth import OwnTokens
from api.auth_foreign import ForeignTokens
from api.enrolment import Office
from api.fhir.export import Exports
from api.fhir.subscriptions import Subscriptions
from api.fhir.webhooks import Webhooks, open_webhooks
from api.idempotency import forget_old_answers
from api.issuer.issuer import Issuer
from api.issuer.keys import KeyRing, Keys
from api.issuer.passwords import Vault
from api.issuer.store import IssuerStore
from api.issuer.tokens import AUDIENCE, Signer
from api.known_tokens import KnownTokens
from api.limits import RATE_PER_S
from api.live import FOLLOWERS_MAX, Feed
from api.origin import trusted_proxies
from api.vault import IdentityVault, open_vault
from gateway.errors import UnavailableError, UsageError
from gateway.platform.audit import ANCHOR_S, Notary
from gateway.platform.audit_witness import WITNESS_S
from gateway.platform.logs import get_logger
from gateway.platform.postgres import Connection, connect_blocking
from gateway.platform.secret_files import read_private
from gateway.platform.service import run_until_signalled
from gateway.platform.settings import Settings

HEAD_BYTES_MAX = 16 * 1024
"""A request whose head is longer is refused (400) and its connection closed."""
HEAD_S_MAX = 10.0
"""A connection on which a request's head takes longer is closed, one without a request too."""
IDLE_S_MAX = 30
"""A connection without a further request is closed after this."""
CANCEL_AGAIN_S = 0.5
"""Work in the background that has not ended this long after its cancellation is cancelled again."""
FORGET_S = 3600
"""How often answers that nobody asks for again are removed."""
CLIENTS_MAX = FOLLOWERS_MAX + 512
"""More connections than this are answered 503 and closed."""
GARBAGE_MIN = 20_000
"""The collector looks after so many objects: a page of a year's readings is some thousands, none a cycle."""
BACKLOG_MAX = 128
"""Connections that wait to be accepted; further ones are the kernel's to refuse."""
SCRAPE_TOKEN_CHARS_MIN = 32
"""A shorter scrape token is refused at the start."""
STOP_S_MAX = 10
"""When the service ends, requests under way have so long; then they are cut off."""

_log = get_logger(__name__)


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


def config_of(
    settings: Settings,
    dsn: str,
    *,
    host: str | None,
    port: int | None,
    office: Office | None = None,
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
        _log.info("api_started", host=config.host, port=port)
        await run_until_signalled(lambda _group: None)
    _log.info("api_stopped")


@asynccontextmanager
async def serving(config: ApiConfig) -> AsyncIterator[int]:
    """Serve until the context ends; yields the port, at which connections are accepted by now.

    Raises:
        UsageError: the address is taken or is none of this machine's.
    """
    with _listen(config.host, config.port) as listener:
        if not ip_address(listener.getsockname()[0]).is_loopback:
            _log.warning("plain_http_beyond_this_machine", host=config.host)
        async with (
            open_archive(config.dsn) as archive,
            httpx.AsyncClient(follow_redirects=False) as client,
        ):
            app = _application(config, archive, client, listener)
            if config.exports is not None:
                app.state.exports = Exports(archive, config.exports)
            feed: Feed = app.state.feed
            server = _Server(
                uvicorn.Config(
                    app,
                    http=_BoundedH11,
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    proxy_headers=bool(config.proxies),
                    forwarded_allow_ips=[*config.proxies],
                    h11_max_incomplete_event_size=HEAD_BYTES_MAX,
                    limit_concurrency=CLIENTS_MAX,
                    timeout_keep_alive=IDLE_S_MAX,
                    timeout_graceful_shutdown=STOP_S_MAX,
                )
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(server.serve(sockets=[listener]))
                base = f"{config.url or url_of(*listener.getsockname()[:2])}/fhir"
                group.create_task(feed.run())
                work = [
                    group.create_task(_watch_audit(config)),
                    group.create_task(_forget_answers(archive)),
                ]
                if config.webhooks is not None:
                    subscriptions = Subscriptions(archive, config.webhooks)
                    work.append(group.create_task(subscriptions.run_forever(base)))
                if config.exports is not None:
                    work.append(group.create_task(app.state.exports.run_forever()))
                try:
                    yield listener.getsockname()[1]
                finally:
                    feed.end()
                    server.should_exit = True
                    await _cancelled(work)


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
        await asyncio.sleep(FORGET_S)
        try:
            await forget_old_answers(archive.pool)
        except UnavailableError as error:
            _log.warning("old_answers_stay", why=str(error))


class _Server(uvicorn.Server):
    """uvicorn's server, leaving the signals to whoever composes the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _BoundedH11(H11Protocol):
    """uvicorn's protocol, with a bound on how long a request's head may take."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S_MAX, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG_MAX)
    except OSError as error:
        raise UsageError(_cannot_listen(host, port, error)) from error
    with listener:
        yield listener


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"端口被占用 / port {port} is taken: 请停止占用它的程序, 或用 HEARTH_API_PORT 另选一个 / "
                "stop the program that holds it, or choose another with HEARTH_API_PORT (0: any)"
            )
        case errno.EACCES:
            return (
                f"无权使用端口 / port {port} is the system's: 请用 HEARTH_API_PORT 选 1024 以上的端口 / "
                "choose one above 1024 with HEARTH_API_PORT"
            )
        case _:
            return (
                f"地址有误 / cannot listen on {host} (HEARTH_API_HOST): {error.strerror or error}"
            )
