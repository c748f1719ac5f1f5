"""The collector: talks to the devices that are heard, and keeps what they say.

Whom to talk to and when is decided by edge.roster, whether at all by edge.heard; here it is done.
Each session is a task of its own in the process's TaskGroup.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from functools import partial

from edge.adverts import Adverts
from edge.bluez import Bluez
from edge.central import (
    BondLostError,
    Central,
    CentralSettings,
    Link,
    LinkError,
    PairingError,
)
from edge.counts import Counts
from edge.heard import Heard, is_talkative
from edge.hub_clock import HubClock, Trust, hub_clock
from edge.roster import Outcome, Roster
from edge.session import Pace, Session
from edge.storage import Storage
from edge.troubles import Troubles
from gateway import wire
from gateway.errors import UnavailableError
from gateway.measurement import device_id
from gateway.platform.logs import get_logger

SESSIONS_MAX = 5
"""Links at a time over one adapter; many controllers manage seven. Further devices wait: they
advertise on, and are heard again."""
CLOCK_CHECK_S = 1.0
"""How often it is looked whether the hub knows the time, until it does."""
REFUSAL_CHECK_S = 5.0
"""How often it is looked whether there is room again, where devices are left alone for want of it."""
DATING_CHECK_S = 5.0
"""How often it is looked whether something waits for the time although it is known: a session that
began before counts from the machine's start to its end. So often at most it is tried in vain, too."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorSettings:
    """Whose devices, over which adapters (None: the first), by which clock, how long to wait."""

    hub: int
    zone: tzinfo
    listed: frozenset[int] = frozenset()
    accepts_any: bool = True
    adapters: tuple[str | None, ...] = (None,)
    central: CentralSettings = field(default_factory=CentralSettings)
    pace: Pace = field(default_factory=Pace)
    clock: HubClock = field(default_factory=lambda: hub_clock(Trust.SYSTEM))


class Collector:
    """The devices of one hub. `start` starts its tasks."""

    def __init__(
        self,
        settings: CollectorSettings,
        bluez: Bluez,
        storage: Storage,
        counts: Counts,
        tasks: asyncio.TaskGroup,
        troubles: Troubles,
    ) -> None:
        self._settings = settings
        self._troubles = troubles
        self._storage = storage
        self._counts = counts
        self._tasks = tasks
        self._adverts = Adverts(storage, counts, settings.zone, settings.clock)
        self._roster = Roster(settings.pace.rest_s)
        self._bell = asyncio.Event()
        self._connecting: set[str] = set()
        """Adapters over which a connection is being made: one at a time."""
        self._sessions: Counter[str] = Counter()
        self._centrals = {
            name or "": Central(
                bluez,
                replace(settings.central, adapter=name),
                counts,
                partial(self._hear, name or ""),
            )
            for name in settings.adapters
        }
        self._log = _log.bind(hub=wire.hub_name(settings.hub))

    @property
    def is_scanning(self) -> bool:
        """Whether devices can be heard, over any adapter."""
        return any(central.is_scanning for central in self._centrals.values())

    @property
    def refusal(self) -> str | None:
        """Why nothing is taken from devices now; None when all is well."""
        return self._storage.refusal

    def start(self) -> None:
        """Start to scan, to talk and to keep."""
        for central in self._centrals.values():
            self._tasks.create_task(central.run())
        self._tasks.create_task(self._adverts.run())
        self._tasks.create_task(self._date())
        self._tasks.create_task(self._run())

    def _hear(self, adapter: str, heard: Heard) -> None:
        """Take an advertisement: readings in it, and whether there is something to connect to."""
        device = device_id(heard.address)
        is_listed = device in self._settings.listed
        if not (is_listed or self._settings.accepts_any):
            return
        if heard.service_data:
            self._adverts.hear(device, heard)
        if is_talkative(heard, is_listed=is_listed):
            self._roster.hear(heard.address, adapter, _now_s())
            self._bell.set()

    async def _date(self) -> None:
        """Once the hub knows the time, place what was read before, and in sessions from before."""
        clock = self._settings.clock
        with suppress(UnavailableError):
            await self._storage.recall_start(clock)
        while not clock.is_known:  # noqa: ASYNC110 - the kernel tells nobody when it knows
            await asyncio.sleep(CLOCK_CHECK_S)
        is_noted = False
        while True:
            waiting = self._storage.undated
            try:
                if waiting or not is_noted:
                    await self._storage.date(clock, self._settings.zone)
                    is_noted = True
            except UnavailableError as error:
                self._log.warning("dating_put_off", why=str(error))
            if self._storage.undated >= waiting:  # none waits, or there is no room
                await asyncio.sleep(DATING_CHECK_S)

    async def _run(self) -> None:
        """Begin sessions as devices are heard and adapters are free, until cancelled."""
        while True:
            self._bell.clear()
            refusal = self.refusal
            if refusal is None:
                self._begin_sessions()
            wake_s = self._roster.wake_s(_now_s())
            if refusal is not None:
                wake_s = _now_s() + REFUSAL_CHECK_S
            try:
                async with asyncio.timeout_at(wake_s):
                    await self._bell.wait()
            except TimeoutError:
                continue

    def _begin_sessions(self) -> None:
        while True:
            free = [
                name
                for name, central in self._centrals.items()
                if central.is_scanning
                and name not in self._connecting
                and self._sessions[name] < SESSIONS_MAX
            ]
            chosen = self._roster.next(_now_s(), free)
            if chosen is None:
                return
            address, adapter = chosen
            self._roster.begin(address, _now_s())
            self._connecting.add(adapter)
            self._sessions[adapter] += 1
            self._tasks.create_task(self._talk(address, adapter))

    async def _talk(self, address: str, adapter: str) -> None:
        """Have one session with a device; whatever becomes of it, the next one is arranged."""
        outcome = Outcome.STOPPED
        session: Session | None = None
        began_s = _now_s()
        try:
            async with self._centrals[adapter].connect(address) as link:
                self._connecting.discard(adapter)
                self._bell.set()
                session = self._session_over(link, device_id(address))
                outcome = await session.run()
        except PairingError as error:
            outcome = Outcome.REFUSED
            self._log.error("pairing_refused", device=address, why=str(error))
        except BondLostError as error:
            outcome = Outcome.BOND_LOST
            self._log.warning("session_failed", device=address, why=str(error))
        except LinkError as error:
            outcome = Outcome.BROKEN if session else Outcome.UNREACHABLE
            self._log.info("session_failed", device=address, why=str(error))
        except UnavailableError as error:
            self._log.warning("session_stopped", device=address, why=str(error))
        finally:
            if session:
                session.close()
            self._connecting.discard(adapter)
            self._sessions[adapter] -= 1
            self._counts.sessions[outcome] += 1
            self._troubles.session_ended(device_id(address), outcome)
            self._roster.end(address, outcome, _now_s())
            self._bell.set()
            seconds = round(_now_s() - began_s, 1)
            self._log.info("session", device=address, outcome=outcome.value, seconds=seconds)

    def _session_over(self, link: Link, device: int) -> Session:
        return Session(
            link,
            device,
            self._storage,
            self._counts,
            zone=self._settings.zone,
            pace=self._settings.pace,
            hub_clock=self._settings.clock,
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
