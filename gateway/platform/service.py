"""How a service lives: its tasks in one TaskGroup, until SIGTERM or SIGINT asks it to end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


class _AskedToEndError(Exception):
    """Ends the TaskGroup from inside."""


async def run_until_signalled(start: Callable[[asyncio.TaskGroup], None]) -> None:
    """Start the tasks and wait for a signal; a task that fails ends the service with its error."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, asked.set)
    try:
        async with asyncio.TaskGroup() as group:
            start(group)
            group.create_task(_end_when(asked))
    except* _AskedToEndError:
        pass
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _end_when(asked: asyncio.Event) -> None:
    await asked.wait()
    raise _AskedToEndError
