"""Child processes that never outlive this one. prctl(2) PR_SET_PDEATHSIG, setsid(2).

A child runs in a session of its own, so that Ctrl-C reaches only us and we end our children in
order. When we die, even by kill -9, the kernel sends the child its stop signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gateway.errors import UnavailableError
from gateway.platform.logs import get_logger

READY_POLL_S = 0.02
"""How often a starting child is asked whether it is ready."""
STOP_S_MAX = 30.0
"""A child that has not ended within this after its stop signal is killed."""
LOG_BYTES_MAX = 8 << 20
"""A log that is longer when its program starts becomes NAME.log.1; the one before is dropped."""
LOG_TAIL_LINES = 8
"""An error quotes so many last lines of the log."""

_LAUNCHER = Path(__file__).with_name("launch.py")
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn")
"""The death signal comes when the *thread* that made the child ends, so one thread, which lives as
long as this process, makes them all."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    """Whom a child runs as when we are root: a user to drop to, or that user in a namespace."""

    uid: int
    gid: int
    namespace: bool
    """True: the files it makes are still ours, and it reaches what only we can reach."""

    @property
    def owner(self) -> tuple[int, int]:
        """User and group id that the child's files must have, seen from outside."""
        return (os.geteuid(), os.getegid()) if self.namespace else (self.uid, self.gid)

    def own(self, path: Path) -> None:
        """Give one file or folder to the child."""
        os.chown(path, *self.owner, follow_symlinks=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run and how it wants to be ended."""

    name: str
    argv: tuple[str, ...]
    log: Path | None
    """Standard output and error are appended to this file; None: they are our own."""
    environment: Mapping[str, str] | None = None
    """The whole of it; None: our own."""
    files: tuple[int, ...] = ()
    """Descriptors of ours that it has too, under the same numbers."""
    run_as: RunAs | None = None
    """None: as we are."""
    stop_signal: signal.Signals = signal.SIGTERM
    """Ends it in good order."""


class Child:
    """One running program."""

    def __init__(self, program: Program) -> None:
        """Start it.

        Raises:
            UnavailableError: no process can be made.
        """
        self.program = program
        self._process = _SPAWNER.submit(_spawn, program).result()
        log.debug("child_started", program=program.name, pid=self.pid)

    @property
    def pid(self) -> int:
        """The program's own process id: the launcher became it."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Tell whether it still runs."""
        return self._process.poll() is None

    def wait_ready(self, is_ready: Callable[[], bool], within_s: float) -> None:
        """Wait until `is_ready`.

        Raises:
            UnavailableError: it ended, or is not ready in time; the text quotes its log.
        """
        deadline = time.monotonic() + within_s
        while not is_ready():
            if not self.is_alive():
                raise UnavailableError(self._failure(f"ended with {self._process.returncode}"))
            if time.monotonic() > deadline:
                raise UnavailableError(self._failure(f"not ready after {within_s:.0f} s"))
            time.sleep(READY_POLL_S)

    def wait(self, within_s: float) -> None:
        """Wait until it has ended well.

        Raises:
            UnavailableError: it failed, or runs on after `within_s` and was killed.
        """
        try:
            status = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise UnavailableError(self._failure(f"not done after {within_s:.0f} s")) from None
        if status != 0:
            raise UnavailableError(self._failure(f"ended with {status}"))

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        self._process.send_signal(number)

    def stop(self, within_s: float = STOP_S_MAX) -> None:
        """End it in good order; one that does not listen is killed."""
        self.send(self.program.stop_signal)
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            log.warning("child_killed", program=self.program.name, after_s=within_s)
            self.kill()

    def kill(self) -> None:
        """End it at once with its process group, as a power cut would (kill -9)."""
        if self.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _failure(self, what: str) -> str:
        path = self.program.log
        told = "" if path is None else f"; {path}:\n{_last_lines(path)}"
        return f"{self.program.name}: {what}{told}"


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending; one that has grown too long is put aside first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def _spawn(program: Program) -> subprocess.Popen[bytes]:
    run_as = "-"
    if to := program.run_as:
        run_as = f"{'namespace' if to.namespace else 'drop'}:{to.uid}:{to.gid}"
    # -I -S: nothing of ours or the user's is imported, so that it starts in a few milliseconds.
    launcher = (sys.executable, "-I", "-S", str(_LAUNCHER))
    arguments = (str(os.getpid()), str(int(program.stop_signal)), run_as)
    try:
        with nullcontext() if program.log is None else open_log(program.log) as output:
            return subprocess.Popen(  # noqa: S603 - the arguments are ours
                (*launcher, *arguments, *program.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                env=program.environment,
                start_new_session=True,
                pass_fds=program.files,
            )
    except OSError as error:
        raise UnavailableError(f"{program.name}: {error}") from error


def _last_lines(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:])
