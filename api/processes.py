"""The API as several processes over one socket: this one holds the socket and keeps them running.

One process of Python fills one core. The socket stays open while one of them starts again, so nobody
is refused meanwhile. What they share is the database, and a folder in which they count
(`api.metrics`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from api.http_server import listening
from api.metrics import FOLDER
from gateway.errors import UsageError
from gateway.platform.logs import get_logger
from gateway.platform.memory_folder import memory_folder
from gateway.platform.process import Program
from gateway.platform.process_part import Process
from gateway.platform.service import run_until_signalled
from gateway.platform.supervisor import Supervisor, keep

PROCESSES_MAX_UNASKED = 4
"""Where nobody says how many there are not more: the database needs cores too."""

_log = get_logger(__name__)


def processes_for(wanted: int) -> int:
    """Return how many processes there are to be; `wanted` 0: one for each core that we may use."""
    return wanted or min(len(os.sched_getaffinity(0)), PROCESSES_MAX_UNASKED)


async def run_several(host: str, port: int, processes: int) -> None:
    """Serve by several processes until SIGTERM or SIGINT. Each reads the settings for itself.

    Raises:
        UsageError: the address is taken or is none of this machine's, or no file can be made.
        UnavailableError: a process ended again and again.
    """
    parts: list[Process] = []
    with listening(host, port) as listener, _counting_folder() as folder:
        at = listener.getsockname()[1]
        _log.info("api_processes_start", host=host, port=at, processes=processes)
        try:
            for number in range(1, processes + 1):
                program = partial(_program, host, listener.fileno(), number, processes, folder)
                parts.append(Process(program))
            supervisor = Supervisor(parts)
            await run_until_signalled(lambda group: _keep(group, supervisor))
        finally:
            await asyncio.gather(*(asyncio.to_thread(part.stop) for part in parts))
    _log.info("api_processes_stopped")


def _keep(group: asyncio.TaskGroup, supervisor: Supervisor) -> None:
    group.create_task(keep(supervisor))


@contextmanager
def _counting_folder() -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(memory_folder("hearth-api-"))
        except OSError as error:
            raise UsageError(
                f"没有可写的临时目录 / no folder for temporary files: {error.strerror or error}: "
                "请用 TMPDIR 指定 / name one with TMPDIR"
            ) from error
        yield folder


def _program(host: str, listener: int, number: int, processes: int, folder: Path) -> Program:
    """Return how a process is started, after what is left of one that died is forgotten.

    `host` is where the socket listens, for the log.
    """
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    return Program(
        name=f"api-{number}",
        argv=(
            *(sys.executable, "-m", "gateway.cli.main", "api"),
            *("--host", host, "--listener", str(listener)),
            *("--processes", str(processes), "--number", str(number)),
        ),
        log=None,
        environment=os.environ | {FOLDER: str(folder)},
        files=(listener,),
    )
