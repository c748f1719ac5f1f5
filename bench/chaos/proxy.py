"""A loopback network that can be cut, delayed and throttled: a TCP proxy.

What it carries stays in order and whole, as TCP promises, so only what a network can do is done:
bytes late, bytes slow, connections that end, connections that fall silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.platform.settings import LOOPBACK

CHUNK_BYTES = 64 << 10
"""Read at once; while throttled a sixteenth of it, so that the rate is smooth."""
POLL_S = 0.02
"""How often a silent connection looks whether the network is back."""


@dataclass(slots=True, kw_only=True)
class Weather:
    """What the network does now."""

    is_silent: bool = False
    """Bytes stay where they are; connections stand."""
    is_refusing: bool = False
    """New connections end at once."""
    delay_s: float = 0.0
    bytes_per_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Traffic:
    """What has happened so far; each only grows."""

    connections: int = 0
    bytes: int = 0
    bytes_delayed: int = 0
    bytes_throttled: int = 0
    cut: int = 0
    """Connections that were ended or refused by us."""


@dataclass(slots=True)
class Network:
    """One way between two parts. `target`: the port that is listened on at the other end, now."""

    target: Callable[[], int]
    weather: Weather = field(default_factory=Weather)
    traffic: Traffic = field(default_factory=Traffic)
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen for the block."""
        server = await asyncio.start_server(self._serve, LOOPBACK, self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        """End every connection at once, as a pulled cable and a time-out do together."""
        for writer in tuple(self._writers):
            self.traffic.cut += 1
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.traffic.connections += 1
        if self.weather.is_refusing:
            self.traffic.cut += 1
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self.target())
        except OSError:
            writer.transport.abort()  # the part itself is down
            return
        self._writers |= {writer, far_writer}
        pumps = {
            asyncio.ensure_future(self._pump(reader, far_writer)),
            asyncio.ensure_future(self._pump(far_reader, writer)),
        }
        try:
            # One side has ended: what the other has sent until now is of no use to anybody.
            _done, pending = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pending:
                pump.cancel()
            await asyncio.wait(pumps)
        finally:
            self._writers -= {writer, far_writer}
            for pump in pumps:
                pump.cancel()
            writer.transport.abort()
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(self._chunk_bytes()):
                await self._hold_back(len(data))
                writer.write(data)
                await writer.drain()
                self.traffic.bytes += len(data)
        except OSError:
            pass  # one side is gone

    def _chunk_bytes(self) -> int:
        return CHUNK_BYTES if self.weather.bytes_per_s is None else CHUNK_BYTES // 16

    async def _hold_back(self, size: int) -> None:
        weather = self.weather
        if weather.delay_s:
            self.traffic.bytes_delayed += size
            await asyncio.sleep(weather.delay_s)
        if weather.bytes_per_s:
            self.traffic.bytes_throttled += size
            await asyncio.sleep(size / weather.bytes_per_s)
        while weather.is_silent:  # noqa: ASYNC110 - a condition of three networks, rarely true
            await asyncio.sleep(POLL_S)
