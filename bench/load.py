"""Load on an HTTP server from a process of its own: connections that ask one request after the other.

    python -m bench.load ADDRESS PORT CONNECTIONS SECONDS < JSON lines of paths

Prints one JSON object: requests, seconds, and the milliseconds of each request sorted. It speaks just
enough HTTP/1.1 (RFC 9112) for answers with a Content-Length, so that it costs the server's cores little.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator


async def ask(
    host: str, port: int, requests: Iterator[bytes], until: float, took_ms: list[float]
) -> None:
    """Ask on one connection until the time is up.

    Raises:
        ValueError: an answer was not 200.
    """
    reader, writer = await asyncio.open_connection(host, port)
    while (began := time.perf_counter()) < until:
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(head.partition(b"\r\n")[0].decode())
        at = head.lower().index(b"content-length:") + len(b"content-length:")
        await reader.readexactly(int(head[at : head.index(b"\r", at)]))
        took_ms.append((time.perf_counter() - began) * 1000)
    writer.close()


async def run(host: str, port: int, connections: int, seconds: float, paths: list[str]) -> None:
    """Ask on several connections at once and print what it took."""
    token = os.environ["HEARTH_BENCH_TOKEN"]
    rendered = [
        f"GET {path} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        for path in paths
    ]
    requests = itertools.cycle(rendered)
    took_ms: list[float] = []
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(ask(host, port, requests, began + seconds, took_ms))
    document = {
        "requests": len(took_ms),
        "seconds": time.perf_counter() - began,
        "ms": sorted(took_ms),
    }
    sys.stdout.write(json.dumps(document))


if __name__ == "__main__":
    _, host_, port_, connections_, seconds_ = sys.argv
    lines = [json.loads(line) for line in sys.stdin]
    asyncio.run(run(host_, int(port_), int(connections_), float(seconds_), lines))
