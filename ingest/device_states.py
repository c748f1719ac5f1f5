"""What hubs tell of their devices on their state topics, kept in a table: a hub's last word stands.

Beside the way of the readings: nothing waits for it, and nothing is acknowledged. States are retained,
so what is lost here comes again when a lane connects the next time, and else with the hub's next word.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

from gateway import wire
from gateway.errors import DecodeError, UnavailableError
from gateway.hub_state import DeviceStates, decode_device_states
from gateway.measurement import device_address
from gateway.platform.backoff import Backoff
from gateway.platform.logs import get_logger
from gateway.platform.postgres import AsyncConnection, connect, load_queries, translated
from ingest import metrics

HUBS_HELD_MAX = 4096
"""Hubs whose word is not written yet; at the bound the oldest word goes, counted."""
WRITE_S = 2.0
"""Rest between two writes; a hub tells no more than one state a minute."""
BACKOFF = Backoff(first_s=0.2, longest_s=5.0)

_QUERIES = load_queries(Path(__file__).parent / "sql" / "device_states.sql")
_log = get_logger(__name__)


class StateBook:
    """Takes states from the lanes and writes them."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._waiting: OrderedDict[int, DeviceStates] = OrderedDict()
        self._has_news = asyncio.Event()

    def take(self, hub: int, payload: bytes) -> None:
        """Take a message of a hub's state topic; what is none is counted and let go."""
        try:
            states = decode_device_states(payload)
        except DecodeError as error:
            metrics.STATES.labels("unreadable").inc()
            _log.warning("state_unreadable", hub=wire.hub_name(hub), why=str(error))
            return
        if states is None or not states.devices:
            return
        metrics.STATES.labels("taken").inc()
        self._waiting[hub] = states
        self._waiting.move_to_end(hub)
        if len(self._waiting) > HUBS_HELD_MAX:
            self._waiting.popitem(last=False)
            metrics.STATES.labels("dropped").inc()
        self._has_news.set()

    async def write_forever(self) -> None:
        """Write what was taken, while there is a database."""
        failures = 0
        while True:
            await self._has_news.wait()
            try:
                async with await connect(
                    self._dsn, application="hearth-ingest-states", autocommit=True
                ) as connection:
                    while True:
                        await self._has_news.wait()
                        await self._write(connection)
                        failures = 0
                        await asyncio.sleep(WRITE_S)
            except UnavailableError as error:
                failures += 1
                _log.warning("states_put_off", why=str(error))
                await asyncio.sleep(BACKOFF.wait_s(failures))

    async def _write(self, connection: AsyncConnection) -> None:
        self._has_news.clear()
        waiting = dict(self._waiting)
        try:
            await write_states(connection, waiting)
        except UnavailableError:
            self._has_news.set()
            raise
        for hub, states in waiting.items():
            if self._waiting.get(hub) is states:
                del self._waiting[hub]


async def write_states(connection: AsyncConnection, told: dict[int, DeviceStates]) -> None:
    """Write what hubs tell, by hub; of devices that are in the hub's home, and only what is newer.

    Raises:
        UnavailableError: the database is down.
    """
    rows = [
        (wire.hub_name(hub), device_address(device), trouble and str(trouble), states)
        for hub, states in told.items()
        for device, trouble in states.devices.items()
    ]
    with translated():
        await connection.execute(
            _QUERIES["put"],
            {
                "hub": [hub for hub, *_rest in rows],
                "device": [device for _hub, device, *_rest in rows],
                "trouble": [trouble for *_rest, trouble, _states in rows],
                "started_at": [states.started_at for *_rest, states in rows],
                "uptime_s": [states.uptime_s for *_rest, states in rows],
            },
        )
