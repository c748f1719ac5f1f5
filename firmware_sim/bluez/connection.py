"""Our end of the message bus: sends no faster than the socket takes.

dbus-fast 5.2.0 ends its connection when it writes to a socket that is full (inherited from
python-dbus-next, its issue 153). A service that shows a hundred devices fills one easily, so
messages wait here until the socket has room.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable

from dbus_fast import Message
from dbus_fast.aio import MessageBus

from gateway.errors import UnavailableError

WAITING_MAX = 50_000
"""So many messages wait at most; a bus that takes none of them is dead, and the service ends."""


class BusConnection:
    """A connection to a bus. Make it with `connect`."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        assert bus._fd is not None  # noqa: S101, SLF001 - dbus-fast shows its socket no other way
        self._socket: int = bus._fd  # noqa: SLF001 - the same
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLOUT)
        self._waiting: deque[Message] = deque()
        self._sending: asyncio.Future[None] | None = None
        self._blocked = False
        self._drained = asyncio.Event()
        self._drained.set()

    @classmethod
    async def connect(cls, address: str) -> BusConnection:
        """Connect to the bus at `address`."""
        return cls(await MessageBus(bus_address=address).connect())

    def on_message(self, handler: Callable[[Message], bool]) -> None:
        """Let `handler` see every message; True: it is answered for."""
        self._bus.add_message_handler(handler)

    def send(self, message: Message) -> None:
        """Send `message` after all before it; on a bus that is gone it is dropped."""
        if len(self._waiting) >= WAITING_MAX:
            raise UnavailableError(f"the message bus has not taken {WAITING_MAX} messages")
        if self._bus.connected:
            self._waiting.append(message)
            self._drained.clear()
            self._flush()

    async def call(self, message: Message) -> Message | None:
        """Return the answer to a call; None when the bus is lost first."""
        await self._drained.wait()
        if not self._bus.connected:
            return None
        try:
            return await self._bus.call(message)
        except (EOFError, OSError):
            return None

    async def request_name(self, name: str) -> None:
        """Own a name."""
        await self._drained.wait()
        await self._bus.request_name(name)

    async def close(self) -> None:
        """Send what waits, and end."""
        if self._bus.connected:
            await self._drained.wait()
        self._bus.disconnect()
        await self._bus.wait_for_disconnect()

    def _flush(self) -> None:
        while self._waiting and self._sending is None and not self._blocked:
            if not self._bus.connected:
                self._waiting.clear()
                break
            if not self._poll.poll(0):
                self._blocked = True
                asyncio.get_running_loop().add_writer(self._socket, self._on_room)
                return
            sending = self._bus.send(self._waiting.popleft())
            if not sending.done():  # longer than the socket has room: dbus-fast writes the rest
                self._sending = sending
                sending.add_done_callback(self._on_sent)
        if not self._waiting and self._sending is None:
            self._drained.set()

    def _on_room(self) -> None:
        asyncio.get_running_loop().remove_writer(self._socket)
        self._blocked = False
        self._flush()

    def _on_sent(self, sent: asyncio.Future[None]) -> None:
        sent.exception()  # a bus that is lost is noticed before the next message
        self._sending = None
        self._flush()
