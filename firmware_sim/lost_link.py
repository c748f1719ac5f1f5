"""Two ways in which bumble and cancellation get into each other's way, and what is done about them.

When a link is lost, bumble cancels what waits on it: here that becomes an error of ours. And it
waits with `asyncio.wait_for`, which before Python 3.12 forgets a cancellation of the task that
comes together with the answer: here that is noticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from bumble.device import Connection

T = TypeVar("T")


@contextmanager
def on_lost_link(error: Exception) -> Iterator[None]:
    """Raise `error` where bumble has cancelled a future; a cancelled task stays cancelled."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise error from None


async def while_connected(connection: Connection, work: Awaitable[T], error: Exception) -> T:
    """Return what `work` gives; raise `error` when the link is lost first."""
    if connection.handle not in connection.device.connections:
        if asyncio.iscoroutine(work):
            work.close()
        raise error
    with on_lost_link(error):
        result = await connection.cancel_on_disconnection(work)
        heed_cancellation()
        return result


def heed_cancellation() -> None:
    """End here when the task was cancelled while bumble had the word."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
