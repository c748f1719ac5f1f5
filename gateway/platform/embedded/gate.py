"""The gate before the broker's listener for hubs: how much and how fast a connection may bring.

Mosquitto can limit neither a client's rate nor how often clients come; here every connection has a
bucket of bytes, and what is beyond waits in the hub's own socket (TCP's flow control), so that a
flood costs nobody but who sends it. Bytes pass unread: TLS is between the hub and the broker.

Run as a script by gateway.platform.embedded.broker, never imported by it. It starts the broker, ends
with it, and hands on its signals: SIGTERM ends it in good order, SIGHUP lets it read its lists anew.
Arguments: run-as ("-" or as gateway.platform.launch has it), host, port, the broker's port, then the
command. Standard library only.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

RATE_BYTES_PER_S = 512 << 10
"""What a connection may go on to bring for ever: eight thousand readings a second in full batches."""
BURST_BYTES = 512 << 10
"""What it may bring at once. A full outbox (6.5 MB) is through after twelve seconds."""
NEW_PER_S = 500.0
NEW_BURST = 2000.0
"""Connections that come faster are closed at once, before their handshake costs the broker anything;
hubs come back by themselves."""
DESCRIPTORS_SPARE = 100
"""Kept free of connections; each needs two."""
BACKLOG_MAX = 1024
"""Connections that wait to be accepted."""
BUFFER_BYTES = 64 << 10
"""Of a connection, waiting to be handed on; then its reading pauses."""

_PR_SET_PDEATHSIG = 1
_LAUNCHER = Path(__file__).parents[1] / "launch.py"
_LOOPBACK = "127.0.0.1"


class Bucket:
    """Tokens that grow with time up to a bound; `take` may go below nothing."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._at_s = time.monotonic()

    def take(self, count: float, now_s: float) -> float:
        """Take tokens; returns how long it is until there is one again, 0: now."""
        grown = self._tokens + (now_s - self._at_s) * self._rate_per_s
        self._tokens = min(grown, self._burst) - count
        self._at_s = now_s
        return max(-self._tokens / self._rate_per_s, 0.0)


class Side(asyncio.Protocol):
    """One end of a connection that is handed on; what it reads goes to the other."""

    def __init__(self, bucket: Bucket | None = None) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None
        self._bucket = bucket
        self._holds = 0
        """Why it does not read: the other's buffer is full, its rate is used up, no other yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream server has
        transport.set_write_buffer_limits(BUFFER_BYTES)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand on what was read, and read no more while the rate is used up."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        if self._bucket is not None:
            wait_s = self._bucket.take(len(data), time.monotonic())
            if wait_s:
                self.hold()
                asyncio.get_running_loop().call_later(wait_s, self.release)

    def pause_writing(self) -> None:
        """Let the other read no more: what it has brought waits here."""
        if self.other is not None:
            self.other.hold()

    def resume_writing(self) -> None:
        """Let the other read on."""
        if self.other is not None:
            self.other.release()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes it
        """Close the other end as well, once it has what was brought."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def hold(self) -> None:
        """Read no more until released as often."""
        self._holds += 1
        if self._holds == 1 and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def release(self) -> None:
        """Take a hold away."""
        self._holds -= 1
        if self._holds == 0 and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()


class Gate:
    """Accepts connections and hands them on to a port of loopback."""

    def __init__(self, target: int, connections_max: int) -> None:
        self._target = target
        self._connections_max = connections_max
        self._connections: set[asyncio.Task[None]] = set()
        self._arrivals = Bucket(NEW_PER_S, NEW_BURST)

    def accept(self) -> Side:
        """Return the hub's end of a new connection."""
        return _Hub(self)

    def admit(self, hub: Side) -> None:
        """Hand a new connection on, or close it."""
        assert hub.transport is not None  # noqa: S101 - it has just been made
        is_too_fast = self._arrivals.take(1, time.monotonic()) > 0
        if is_too_fast or len(self._connections) >= self._connections_max:
            hub.transport.abort()
            return
        hub.hold()
        connecting = asyncio.get_running_loop().create_task(self._connect(hub))
        self._connections.add(connecting)
        connecting.add_done_callback(self._connections.discard)

    async def _connect(self, hub: Side) -> None:
        loop = asyncio.get_running_loop()
        try:
            _transport, broker = await loop.create_connection(_Broker, _LOOPBACK, self._target)
        except OSError:
            assert hub.transport is not None  # noqa: S101 - as above
            hub.transport.abort()
            return
        broker.other, hub.other = hub, broker
        hub.release()
        await broker.ended.wait()


class _Hub(Side):
    def __init__(self, gate: Gate) -> None:
        super().__init__(Bucket(RATE_BYTES_PER_S, BURST_BYTES))
        self._gate = gate

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._gate.admit(self)


class _Broker(Side):
    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended.set()


def main() -> None:
    """Start the broker, open the gate, end with the broker's status."""
    run_as, host, port, target, *command = sys.argv[1:]
    parent = os.getppid()
    family, *_, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    listener = socket.create_server(address[:2], family=family, backlog=BACKLOG_MAX)
    # Killed, as a power cut would, when we are: whoever kills the one has killed the other.
    launch = (
        sys.executable,
        "-I",
        "-S",
        str(_LAUNCHER),
        str(os.getpid()),
        str(int(signal.SIGKILL)),
    )
    broker = subprocess.Popen((*launch, run_as, *command))  # noqa: S603 - the owner's own
    _drop_to(run_as, parent)
    sys.exit(asyncio.run(_run(listener, int(target), broker)))


async def _run(listener: socket.socket, target: int, broker: subprocess.Popen[bytes]) -> int:
    # Nothing is imported from here on: as another user we may not reach Python's own library.
    loop = asyncio.get_running_loop()
    child_ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGCHLD, child_ended.set)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, broker.send_signal, number)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gate = Gate(target, (hard - DESCRIPTORS_SPARE) // 2)
    server = await loop.create_server(gate.accept, sock=listener)
    while broker.poll() is None:
        await child_ended.wait()
        child_ended.clear()
    server.close()
    return broker.returncode


def _drop_to(run_as: str, parent: int) -> None:
    """Be whom the broker is, if that is another user; ask again to end with our parent."""
    match run_as.split(":"):
        case ["drop", uid, gid]:
            os.setgroups([])
            os.setresgid(int(gid), int(gid), int(gid))
            os.setresuid(int(uid), int(uid), int(uid))
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
        case _:
            pass


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
