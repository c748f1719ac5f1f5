"""Keeps a worker's registry up with the store: told by NOTIFY, certain by the change log.

A notification says only that there is something new; what it is stands in the change log, so one that
is lost costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.errors import UnavailableError
from gateway.platform.backoff import Backoff
from gateway.platform.logs import get_logger
from gateway.platform.postgres import AsyncConnection, connect, translated
from ingest.registry import Changes, Registry, forget_changes, load_registry, update_registry

LOOK_S_MAX = 60.0
"""The change log is looked at at least this often, should a notification have been lost."""
CHANGES_KEPT_S = 86_400.0
"""Changes are forgotten after a day."""
AWAY_S_MAX = CHANGES_KEPT_S / 2
"""A worker that has not looked for longer (its database was away) reads everything again."""
NEWER_WAIT_S_MAX = 5.0
"""Who waits for a newer registry looks again at what there is after this."""
BACKOFF = Backoff(first_s=0.2, longest_s=5.0)

_log = get_logger(__name__)


class Follower:
    """The registry as it is now; `changed` is called with what is different in each new state."""

    def __init__(self, dsn: str, changed: Callable[[Changes], None]) -> None:
        self._dsn = dsn
        self._tell = changed
        self._registry: Registry | None = None
        self._looked_at_s = 0.0
        self._is_new = asyncio.Event()
        self.ready = asyncio.Event()

    def current(self) -> Registry:
        """Return the state of now; `ready` must have been awaited."""
        assert self._registry is not None  # noqa: S101 - lanes start after it is loaded
        return self._registry

    async def newer_than(self, registry: Registry) -> None:
        """Wait until `current` is another, for `NEWER_WAIT_S_MAX` at most."""
        try:
            async with asyncio.timeout(NEWER_WAIT_S_MAX):
                while self._registry is registry:
                    await self._is_new.wait()
        except TimeoutError:
            return

    async def follow_forever(self) -> None:
        """Load the registry, then take up each change."""
        failures = 0
        while True:
            try:
                async with await connect(
                    self._dsn, application="hearth-ingest-registry", autocommit=True
                ) as connection:
                    with translated():
                        await self._follow(connection)
            except UnavailableError as error:
                failures += 1
                _log.warning("registry_lost", why=str(error))
                await asyncio.sleep(BACKOFF.wait_s(failures))

    async def _follow(self, connection: AsyncConnection) -> None:
        await connection.execute("LISTEN hearth_registry")
        forgotten_at_s = -CHANGES_KEPT_S
        while True:
            await self._look(connection)
            if time.monotonic() - forgotten_at_s > CHANGES_KEPT_S / 24:
                forgotten_at_s = time.monotonic()
                await forget_changes(connection, CHANGES_KEPT_S)
            async for _ in connection.notifies(timeout=LOOK_S_MAX, stop_after=1):
                pass

    async def _look(self, connection: AsyncConnection) -> None:
        now_s = time.monotonic()
        before = self._registry
        if before is None or now_s - self._looked_at_s > AWAY_S_MAX:
            self._registry = await load_registry(connection)
            changes = Changes(devices=None, known=None, residents=None)
        else:
            self._registry, changes = await update_registry(connection, before)
        self._looked_at_s = now_s
        self._tell(changes)
        self.ready.set()
        self._is_new.set()
        self._is_new = asyncio.Event()
        if changes.devices is None:
            _log.info(
                "registry_loaded",
                hubs=len(self._registry.hubs),
                devices=len(self._registry.devices),
                links=len(self._registry.links),
            )
