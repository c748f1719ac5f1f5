"""Starts again what died: after a back-off, so often in a row; then it is broken and the owner ends.

The owner calls `look` again and again; nothing happens in between, so a part that dies is noticed
at the next look. `keep` is that for asynchronous code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import UnavailableError
from gateway.platform.backoff import Backoff
from gateway.platform.logs import get_logger

DEATHS_MAX = 5
"""A part that dies so often in a row is broken, not unlucky: its owner ends, with its name."""
STEADY_S = 60.0
"""A part that has run so long since it came back begins a new row."""
BACKOFF = Backoff(first_s=0.25, longest_s=10.0)
LOOK_S = 0.25
"""How often `keep` looks."""

log = get_logger(__name__)


class Part(Protocol):
    """Something that runs."""

    @property
    def name(self) -> str:
        """For logs and errors."""

    def needs_restart(self) -> bool:
        """Tell whether it has ended and nobody wanted it to."""

    def restart(self) -> None:
        """Start it again; waits for nothing that another part has to give.

        Raises:
            UnavailableError: it does not start.
        """


class Supervisor:
    """Keeps parts running. They are looked at in the order given: a part after what it needs."""

    def __init__(
        self, parts: Iterable[Part], *, backoff: Backoff = BACKOFF, deaths_max: int = DEATHS_MAX
    ) -> None:
        self._watched = [_Watched(part=part) for part in parts]
        self._backoff = backoff
        self._deaths_max = deaths_max

    @property
    def restarts(self) -> int:
        """How many times a part was brought back."""
        return sum(watched.restarts for watched in self._watched)

    def look(self, now_s: float) -> None:
        """Bring back what has died and whose back-off is over; `now_s` is of any steady clock.

        Raises:
            UnavailableError: a part died too often, or does not come up again.
        """
        for watched in self._watched:
            if watched.retry_at_s is not None:
                if now_s >= watched.retry_at_s:
                    self._restart(watched, now_s)
            elif watched.part.needs_restart():
                log.warning("part_died", part=watched.part.name)
                self._died(watched, now_s)
            elif now_s - watched.back_at_s >= STEADY_S:
                watched.deaths = 0

    def _restart(self, watched: _Watched, now_s: float) -> None:
        try:
            watched.part.restart()
        except UnavailableError as error:
            log.warning("part_not_restarted", part=watched.part.name, deaths=watched.deaths)
            self._died(watched, now_s, error)
            return
        watched.restarts += 1
        watched.back_at_s, watched.retry_at_s = now_s, None
        log.warning("part_restarted", part=watched.part.name, restarts=watched.restarts)

    def _died(self, watched: _Watched, now_s: float, error: UnavailableError | None = None) -> None:
        watched.deaths += 1
        if watched.deaths > self._deaths_max:
            raise UnavailableError(
                f"{watched.part.name}: 反复退出 / ended {watched.deaths} times in a row"
                + (f": {error}" if error else "")
            ) from error
        watched.retry_at_s = now_s + self._backoff.wait_s(watched.deaths)


async def keep(supervisor: Supervisor) -> None:
    """Look until cancelled; a restart that is under way then is brought to its end first.

    Raises:
        UnavailableError: a part died too often.
    """
    while True:
        looking = asyncio.ensure_future(asyncio.to_thread(supervisor.look, time.monotonic()))
        try:
            await asyncio.shield(looking)
        except asyncio.CancelledError:
            await asyncio.gather(looking, return_exceptions=True)
            raise
        await asyncio.sleep(LOOK_S)


@dataclass(slots=True, kw_only=True)
class _Watched:
    part: Part
    restarts: int = 0
    deaths: int = 0
    """In a row."""
    retry_at_s: float | None = None
    """When it is to be started again; None while it runs."""
    back_at_s: float = 0.0
