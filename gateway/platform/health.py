"""/metrics, /healthz and /readyz of a service, answered by its own event loop.

That the loop answers is part of the health: a service that hangs fails its probe. Only GET, only
these paths, every limit named; it listens on loopback.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from gateway.platform.settings import LOOPBACK

REQUEST_BYTES_MAX = 8192
"""A longer request head is cut off and its connection closed."""
REQUEST_S_MAX = 5.0
"""A client that takes longer for its request is disconnected."""

Readiness = Callable[[], str | None]
"""Returns None when ready, else why not; no patient data in it."""


@asynccontextmanager
async def serve_health(port: int, not_ready: Readiness) -> AsyncIterator[int]:
    """Serve until the context ends; yields the port, chosen by the system where `port` is 0."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_respond(head, not_ready))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # a probe that breaks off concerns nobody
        finally:
            writer.close()

    server = await asyncio.start_server(answer, LOOPBACK, port, limit=REQUEST_BYTES_MAX)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _respond(head: bytes, not_ready: Readiness) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method != b"GET":
        return _response(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n")
    match path:
        case b"/healthz":
            return _response(HTTPStatus.OK, b"ok\n")
        case b"/readyz":
            reason = not_ready()
            if reason is None:
                return _response(HTTPStatus.OK, b"ready\n")
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n".encode())
        case b"/metrics":
            return _response(HTTPStatus.OK, generate_latest(REGISTRY), CONTENT_TYPE_LATEST)
        case _:
            return _response(HTTPStatus.NOT_FOUND, b"/metrics, /healthz, /readyz\n")


def _response(status: HTTPStatus, body: bytes, content_type: str = "text/plain") -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
