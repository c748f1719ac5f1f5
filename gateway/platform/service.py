"""How a service lives: its tasks in one TaskGroup, until SIGTERM or SIGINT asks it to end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from gateway.platform.logs import get_logger

_log = get_logger(__name__)


class _AskedToEndError(Exception):
    """Ends the TaskGroup from inside."""


async def run_until_signalled(start: Callable[[asyncio.TaskGroup], None]) -> None:
    """Start the tasks and wait for a signal.

    A task that fails, or a callback that does, ends the service with its error: we are wrong, and
    whoever started us starts us again. Not so where the error is an `OSError`: then a connection broke
    that nobody waits for any more, such as a TLS handshake that was given up and reset later.
    """
    asked = asyncio.Event()
    failures: list[BaseException] = []

    def fail(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError):
            _log.warning("connection_broke_unwatched", why=repr(error), at=context.get("message"))
            return
        loop.default_exception_handler(context)
        if error:
            failures.append(error)
            asked.set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(fail)
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, asked.set)
    try:
        async with asyncio.TaskGroup() as group:
            start(group)
            group.create_task(_end_when(asked))
    except* _AskedToEndError:
        pass  # what is raised here comes in a group, up to Python 3.11.3
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
    if failures:
        raise failures[0]


async def _end_when(asked: asyncio.Event) -> None:
    await asked.wait()
    raise _AskedToEndError
