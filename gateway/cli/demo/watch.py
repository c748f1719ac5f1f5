"""How long a reading takes from the device's indication to the API: seen from outside.

The devices' journal says when an indication was confirmed (or a bottle advertised for the first
time); the API is asked for the residents of devices whose readings are on their way, until they are
there. A reading that was kept apart never comes; it is given up after a while.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

POLL_S = 0.1
"""How often the API is asked while readings are on their way; part of every latency told."""
GIVEN_UP_S = 10.0
"""A reading that is not visible by then was kept apart, or waits for something; not counted."""
EARLIER = timedelta(hours=1)
"""A device's clock may have placed a reading so much before it was truly taken."""
PAGE = 500
_DELIVERED = frozenset({"confirmed", "advertised"})


@dataclass(slots=True)
class Watch:
    """Follows one run. `latencies_s` of what became visible; `delivered` counts the indications."""

    journal: Path
    url: str
    token: Callable[[], str]
    """A token that is good now; asked for anew when the API does not take the last one."""
    residents_of: Callable[[str], tuple[UUID, ...]]
    latencies_s: list[float] = field(default_factory=list)
    delivered: int = 0
    _on_their_way: list[_Delivered] = field(default_factory=list)
    _taken_at: dict[tuple[str, int], datetime] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with httpx.AsyncClient(base_url=self.url, auth=_Bearer(self.token)) as client:
            with self.journal.open(encoding="utf-8") as lines:
                while True:
                    self._read(lines.readlines())
                    await self._look(client)
                    await asyncio.sleep(POLL_S)

    def _read(self, lines: list[str]) -> None:
        for line in lines:
            event = json.loads(line)
            device, record = event["device"], event["record"]
            if event["event"] == "taken":
                self._taken_at[device, record] = datetime.fromisoformat(event["taken_at"])
            elif event["event"] in _DELIVERED:
                self.delivered += 1
                self._on_their_way.append(
                    _Delivered(
                        device=device,
                        at=datetime.fromtimestamp(event["wall_ns"] / 1e9, UTC),
                        taken_at=self._taken_at.pop((device, record), datetime.now(UTC)),
                    )
                )

    async def _look(self, client: httpx.AsyncClient) -> None:
        now = datetime.now(UTC)
        self._on_their_way = [
            reading
            for reading in self._on_their_way
            if (now - reading.at).total_seconds() < GIVEN_UP_S
        ]
        since: dict[UUID, datetime] = defaultdict(lambda: now)
        for reading in self._on_their_way:
            for resident in self.residents_of(reading.device):
                since[resident] = min(since[resident], reading.taken_at - EARLIER)
        for resident, earliest in since.items():
            try:
                response = await client.get(
                    f"/api/v1/residents/{resident}/measurements",
                    params={"from": earliest.isoformat(), "limit": PAGE},
                )
            except httpx.TransportError:
                return  # it is being started again, and the clock of each latency runs on
            if response.is_server_error:
                return  # the same, of the database
            response.raise_for_status()
            self._recognise(response.json()["items"])

    def _recognise(self, measurements: list[dict[str, Any]]) -> None:
        """Take what is visible now off the list: of a device, in the order of reception."""
        visible_at = time.time()
        new = [entry for entry in measurements if entry["id"] not in self._seen]
        self._seen.update(entry["id"] for entry in new)
        for entry in sorted(new, key=lambda entry: str(entry["received_at"])):
            received_at = datetime.fromisoformat(entry["received_at"])
            reading = _nearest(self._on_their_way, entry["device"], received_at)
            if reading is not None:
                self._on_their_way.remove(reading)
                self.latencies_s.append(visible_at - reading.at.timestamp())


class _Bearer(httpx.Auth):
    """A bearer token, and a fresh one where it is refused."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._new = token
        self._token = token()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request, again with a fresh token where the first one has expired."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._token = self._new()
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivered:
    device: str
    at: datetime
    taken_at: datetime


NEAR = timedelta(seconds=5)
"""The hub stamps a reading this close to the moment its device had it confirmed."""


def _nearest(readings: list[_Delivered], device: str, received_at: datetime) -> _Delivered | None:
    near = [
        reading
        for reading in readings
        if reading.device == device and abs(reading.at - received_at) < NEAR
    ]
    return min(near, key=lambda reading: abs(reading.at - received_at), default=None)
