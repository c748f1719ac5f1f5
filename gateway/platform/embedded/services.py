"""Database and broker of a process: a person's own where settings name them, else embedded ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from gateway.errors import UsageError
from gateway.platform.broker_address import BrokerAccess
from gateway.platform.embedded.apt import Progress
from gateway.platform.embedded.broker import Broker, ForHubs
from gateway.platform.embedded.database import SUPERUSER, Database
from gateway.platform.embedded.packages import Packages, ensure_packages, find_packages
from gateway.platform.settings import Settings

_HOW_TO_HAVE = (
    "请运行 / run `hearth services run` in another terminal, or set HEARTH_DATABASE_URL and "
    "HEARTH_MQTT_URL"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Where database and broker are."""

    database_url: str
    """The DSN of the schema's owner; it may hold a password."""
    mqtt: BrokerAccess
    """How ingest connects to the broker."""
    database: Database | None
    """None: it is a person's own, not ours to stop or kill."""
    broker: Broker | None
    """None: it is a person's own."""

    @property
    def maintenance_url(self) -> str:
        """The DSN of one who may make and drop databases, for measurements in one of their own."""
        if self.database is None:
            return self.database_url
        return self.database.url(SUPERUSER, SUPERUSER)


@contextmanager
def start_services(settings: Settings, progress: Progress) -> Iterator[Services]:
    """Start what the settings do not name, for the block.

    Raises:
        UsageError: an embedded server runs already, or the machine lacks something.
        UnavailableError: something does not start, or cannot be downloaded.
    """
    database, broker = embedded_servers(settings, lambda: _prepared(settings, progress))
    with ExitStack() as stack:
        for server in (database, broker):
            if server is not None:
                progress(f"启动 / starting {server.title}")
                stack.enter_context(server)
        yield _services(settings, database, broker)


@asynccontextmanager
async def running_services(settings: Settings, progress: Progress) -> AsyncIterator[Services]:
    """Do what `start_services` does without holding up the event loop."""
    context = start_services(settings, progress)
    services = await asyncio.to_thread(context.__enter__)
    try:
        yield services
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def find_services(settings: Settings) -> Services:
    """Return the services that run already, started by another process or a person's own.

    Raises:
        UsageError: there are none; the text says how to have them.
    """
    database, broker = embedded_servers(settings, lambda: _found(settings))
    for server in (database, broker):
        if server is not None and server.pid is None:
            raise UsageError(f"{server.title}: 未运行 / does not run: {_HOW_TO_HAVE}")
    return _services(settings, database, broker)


def embedded_servers(
    settings: Settings, packages: Callable[[], Packages]
) -> tuple[Database | None, Broker | None]:
    """Return the servers that the settings leave to us; `packages` is asked only if need be."""
    database = None if settings.database_url else Database(settings.home, packages())
    broker = None if settings.mqtt_url else embedded_broker(settings, packages())
    return database, broker


def embedded_broker(settings: Settings, packages: Packages) -> Broker:
    """Return the embedded broker as the settings want it."""
    known_as = urlsplit(settings.hub_mqtt_url or "").hostname
    for_hubs = ForHubs(
        host=settings.mqtt_host,
        port=settings.mqtt_port,
        names=(known_as,) if known_as else (),
        bytes_per_s=settings.mqtt_hub_bytes_per_s,
    )
    return Broker(settings.home, packages, for_hubs)


def _services(settings: Settings, database: Database | None, broker: Broker | None) -> Services:
    return Services(
        database_url=_database_url(settings.database_url, database),
        mqtt=_own_broker(settings) if broker is None else broker.access(),
        database=database,
        broker=broker,
    )


def _database_url(own: SecretStr | None, server: Database | None) -> str:
    if server is not None:
        return server.url()
    assert own is not None, "one of the two is there"  # noqa: S101 - see embedded_servers
    return own.get_secret_value()


def _own_broker(settings: Settings) -> BrokerAccess:
    assert settings.mqtt_url is not None  # noqa: S101 - see embedded_servers
    return BrokerAccess(
        url=settings.mqtt_url.get_secret_value(),
        ca_file=settings.mqtt_ca_file,
        cert_file=settings.mqtt_cert_file,
        key_file=settings.mqtt_key_file,
    )


def _prepared(settings: Settings, progress: Progress) -> Packages:
    return ensure_packages(settings.home, progress, settings.debian_mirror)


def _found(settings: Settings) -> Packages:
    packages = find_packages(settings.home)
    if packages is None:
        raise UsageError(f"没有数据库和消息代理 / there is no database or broker: {_HOW_TO_HAVE}")
    return packages
