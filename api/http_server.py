"""HTTP/1.1 by uvicorn and h11, with bounds, over a socket that several processes may share."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.live import FOLLOWERS_MAX
from gateway.errors import UsageError
from gateway.platform.logs import get_logger

HEAD_BYTES_MAX = 16 * 1024
"""A request whose head is longer is refused (400) and its connection closed."""
HEAD_S_MAX = 10.0
"""A connection on which a request's head takes longer is closed, one without a request too."""
IDLE_S_MAX = 30
"""A connection without a further request is closed after this."""
CLIENTS_MAX = FOLLOWERS_MAX + 512
"""More connections of one process than this are answered 503 and closed."""
BACKLOG_MAX = 128
"""Connections that wait to be accepted; further ones are the kernel's to refuse."""
STOP_S_MAX = 10
"""When the service ends, requests under way have so long; then they are cut off."""
YIELD_S = 0.001
"""Who has accepted a connection leaves the next to the other processes for so long."""
EXHAUSTED_S = 1.0
"""What the system refuses now (it has no descriptor left) is tried again after this."""

_log = get_logger(__name__)


class HttpServer(uvicorn.Server):
    """uvicorn's server over one socket, leaving the signals to whoever composes the process.

    It accepts one connection at a time. Where the socket is shared it then looks away for a moment:
    the kernel wakes all processes, and the first would take a burst of connections for itself.
    """

    def __init__(
        self, app: ASGIApp, listener: socket.socket, *, proxies: Sequence[str], is_shared: bool
    ) -> None:
        """`proxies` (addresses, networks): their X-Forwarded-For is believed."""
        super().__init__(
            uvicorn.Config(
                app,
                http=_BoundedH11,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(proxies),
                forwarded_allow_ips=[*proxies],
                h11_max_incomplete_event_size=HEAD_BYTES_MAX,
                limit_concurrency=CLIENTS_MAX,
                timeout_keep_alive=IDLE_S_MAX,
                timeout_graceful_shutdown=STOP_S_MAX,
            )
        )
        self._listener = listener
        self._is_shared = is_shared
        self._looks_again: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[object]] = set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets or [])
        self._listener.settimeout(0)
        self._look()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and wait for the requests under way."""
        self._look_away()
        self._listener.close()
        await super().shutdown(sockets)

    def _look(self) -> None:
        self._looks_again = None
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _look_away(self, for_s: float | None = None) -> None:
        """Accept nothing for so long; None: never again."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        if self._looks_again is not None:
            self._looks_again.cancel()
        self._looks_again = None if for_s is None else loop.call_later(for_s, self._look)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was faster, or the client has gone
        except OSError as error:
            _log.warning("connection_not_accepted", why=error.strerror, again_in_s=EXHAUSTED_S)
            self._look_away(EXHAUSTED_S)
            return
        connection.settimeout(0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = asyncio.get_running_loop().create_task(self._open(connection))
        self._opening.add(opening)  # the loop itself holds tasks weakly
        opening.add_done_callback(self._opening.discard)
        if self._is_shared:
            self._look_away(YIELD_S)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()  # the client has gone

    def _protocol(self) -> asyncio.Protocol:
        return _BoundedH11(self.config, self.server_state, self.lifespan.state)


class _BoundedH11(H11Protocol):
    """uvicorn's protocol, with a bound on how long a request's head may take."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S_MAX, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen for the block. Port 0: any free one.

    Raises:
        UsageError: the address is taken or is none of this machine's.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG_MAX)
    except OSError as error:
        raise UsageError(_cannot_listen(host, port, error)) from error
    with listener:
        yield listener


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"端口被占用 / port {port} is taken: 请停止占用它的程序, 或用 HEARTH_API_PORT 另选一个 / "
                "stop the program that holds it, or choose another with HEARTH_API_PORT (0: any)"
            )
        case errno.EACCES:
            return (
                f"无权使用端口 / port {port} is the system's: 请用 HEARTH_API_PORT 选 1024 以上的端口 / "
                "choose one above 1024 with HEARTH_API_PORT"
            )
        case _:
            return (
                f"地址有误 / cannot listen on {host} (HEARTH_API_HOST): {error.strerror or error}"
            )
