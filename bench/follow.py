"""Clients that follow live events, many in one process of their own.

    python -m bench.follow ADDRESS PORT, then one line on standard input: a JSON array of paths

When all are connected it says so in a line; at the next line of input it prints one JSON object: for each
event, the milliseconds from the measurement's stored_at to its arrival, sorted; and how many streams
ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from datetime import datetime

CONNECTING_MAX = 16
"""So many connect at once: a listener's backlog is bounded."""


class Clients:
    """All streams of the process."""

    def __init__(self) -> None:
        self.took_ms: list[float] = []
        self.ready = 0
        self.ended = 0
        self._gate = asyncio.Semaphore(CONNECTING_MAX)

    async def follow(self, host: str, port: int, path: str, token: str) -> None:
        """Read one stream until it ends."""
        async with self._gate:
            reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            )
            while (line := await reader.readline()) and line != b"event: ready\n":
                pass
        self.ready += 1
        while line := await reader.readline():
            if line.startswith(b'data: {"resident'):
                self._count(line)
        self.ended += 1
        writer.close()

    def _count(self, line: bytes) -> None:
        now = time.time()
        at = line.index(b'"stored_at":"') + len(b'"stored_at":"')
        stored_at = datetime.fromisoformat(line[at : line.index(b'"', at)].decode())
        self.took_ms.append((now - stored_at.timestamp()) * 1000)


async def run(host: str, port: int, paths: list[str]) -> None:
    """Follow until the next line of standard input, then tell."""
    token = os.environ["HEARTH_BENCH_TOKEN"]
    clients = Clients()
    streams = [asyncio.ensure_future(clients.follow(host, port, path, token)) for path in paths]
    while clients.ready < len(paths):  # noqa: ASYNC110 - a count, not one event
        await asyncio.sleep(0.05)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    document = {"ms": sorted(clients.took_ms), "ended": clients.ended}
    sys.stdout.write(json.dumps(document) + "\n")
    for stream in streams:
        stream.cancel()


if __name__ == "__main__":
    _, host_, port_ = sys.argv
    asyncio.run(run(host_, int(port_), json.loads(sys.stdin.readline())))
