"""How a service lives: what ends it, and what does not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine

import pytest

from gateway.platform.service import run_until_signalled


def starting(work: Coroutine[None, None, None]) -> Callable[[asyncio.TaskGroup], None]:
    def start(group: asyncio.TaskGroup) -> None:
        group.create_task(work)

    return start


def break_with(error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "broke", "exception": error})


async def test_a_connection_that_breaks_unwatched_ends_no_service() -> None:
    """Found by `hearth chaos`: a TLS handshake that was given up, reset by the broker's death."""

    async def work() -> None:
        break_with(ConnectionResetError())
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)

    async with asyncio.timeout(10):
        await run_until_signalled(starting(work()))


async def test_a_mistake_in_a_callback_ends_it_with_its_error() -> None:
    async def work() -> None:
        break_with(ZeroDivisionError())
        await asyncio.sleep(60)

    async with asyncio.timeout(10):
        with pytest.raises(ZeroDivisionError):
            await run_until_signalled(starting(work()))
