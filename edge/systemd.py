"""Telling systemd how the process is: ready, stopping, alive. sd_notify(3), without libsystemd."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


def notify(state: str) -> None:
    """Tell systemd, where it asked to be told; a supervisor that has gone concerns nobody."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = f"\0{address[1:]}"
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        sender.sendall(state.encode())


async def stay_alive() -> None:
    """Tell the watchdog, twice in its time, that the event loop turns; without one, do nothing."""
    usec = os.environ.get("WATCHDOG_USEC")
    if not usec:
        return
    while True:
        notify(ALIVE)
        await asyncio.sleep(int(usec) / 1_000_000 / 2)
