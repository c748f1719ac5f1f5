"""What the embedded servers have in common: one owner, a remembered port, start, stop and kill.

Calls block; asynchronous code makes them in a thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from itertools import count
from pathlib import Path
from typing import ClassVar, Self

from gateway.errors import UnavailableError, UsageError
from gateway.platform.embedded.packages import Packages
from gateway.platform.embedded.unprivileged import run_as_for
from gateway.platform.file_lock import FileLock
from gateway.platform.logs import get_logger
from gateway.platform.ports import is_free, remembered_port
from gateway.platform.process import Child, Program, RunAs
from gateway.platform.secret_files import write_private

PORT_TRIES = 3
"""Another program can take the port between our look and the start: so often, then an error."""

log = get_logger(__name__)


class Server(ABC):
    """One embedded server of a home; HOME/NAME holds its state, HOME/NAME.lock says who owns it."""

    name: ClassVar[str]
    title: ClassVar[str]
    """Chinese and English, for a person."""
    ready_s_max: ClassVar[float]
    """A server that does not answer so long after its start is given up."""

    def __init__(self, home: Path, packages: Packages) -> None:
        """Describe it; nothing is started."""
        self.home = home.resolve()
        self.folder = self.home / self.name
        self.packages = packages
        self._lock = FileLock(self.home / f"{self.name}.lock")
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The port on loopback, remembered across starts.

        Raises:
            UnavailableError: it never ran.
        """
        return self._remembered("port")

    @property
    def pid(self) -> int | None:
        """The running server's process, whoever owns it; None where none runs."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The number may be another program's by now; ours is given its folder.
        return pid if bytes(self.folder) in arguments else None

    def start(self) -> None:
        """Make what it needs, start it, wait until it answers; also after `kill`.

        Raises:
            UsageError: it runs already, or the machine lacks something.
            UnavailableError: it does not start; the text quotes its log.
        """
        assert self._child is None or not self._child.is_alive(), "runs"  # noqa: S101 - ours
        if not self._lock.is_held and not self._lock.try_acquire():
            raise UsageError(
                f"{self.title}: {self.home}: 已在运行, 属于另一进程 / runs already, for another "
                "process: 请先停止它, 或把 HEARTH_HOME 设为另一目录 / stop that one, or set "
                "HEARTH_HOME to another folder"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            run_as = run_as_for(self.folder, self.packages.root)
            self.prepare(run_as)
            self._start(run_as)
            self.complete()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it in good order and let others own it."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        if self._lock.is_held:
            self._pid_file.unlink(missing_ok=True)
            self._lock.release()

    def needs_restart(self) -> bool:
        """Tell whether it has ended although nobody stopped it."""
        return self._child is not None and not self._child.is_alive()

    def restart(self) -> None:
        """Start it again where it was.

        Raises:
            UnavailableError: it does not start, or another program has taken its port.
        """
        port = self.port
        self.start_again()
        if self.port != port:
            raise UnavailableError(
                f"{self.title}: 端口 {port} 被占用 / another program has taken port {port}"
            )

    def start_again(self) -> None:
        """Start what has ended."""
        self.start()

    def kill(self) -> None:
        """Kill it (kill -9)."""
        if self._child is not None:
            self._child.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def prepare(self, run_as: RunAs | None) -> None:
        """Make what has to be there before it starts."""

    @abstractmethod
    def program(self, port: int, run_as: RunAs | None) -> Program:
        """Write its configuration and return how to run it."""

    def other_ports(self) -> Collection[int]:
        """Return the ports that are noted for something else of its."""
        return ()

    @abstractmethod
    def is_ready(self) -> bool:
        """Tell whether it answers."""

    @abstractmethod
    def complete(self) -> None:
        """Make what needs the running server."""

    def _remembered(self, name: str) -> int:
        try:
            return int((self.folder / name).read_text(encoding="ascii"))
        except FileNotFoundError as error:
            raise UnavailableError(
                f"{self.title}: {self.home}: 从未启动 / never started"
            ) from error

    @property
    def _port_file(self) -> Path:
        return self.folder / "port"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    def _start(self, run_as: RunAs | None) -> None:
        self._child, port = start_on_port(
            self._port_file, lambda port: self.program(port, run_as), self.is_ready,
            self.ready_s_max, other_than=self.other_ports(),
        )  # fmt: skip
        write_private(self._pid_file, f"{self._child.pid}\n".encode())
        log.info("server_started", server=self.name, port=port, pid=self._child.pid)


def start_on_port(
    memory: Path,
    program: Callable[[int], Program],
    is_ready: Callable[[], bool],
    ready_s_max: float,
    *,
    other_than: Collection[int] = (),
) -> tuple[Child, int]:
    """Start a program on the port noted in `memory`, on another one if that is taken.

    Raises:
        UnavailableError: it does not start; the text quotes its log.
    """
    for attempt in count(1):
        port = remembered_port(memory, other_than)
        child = Child(program(port))
        try:
            child.wait_ready(is_ready, ready_s_max)
        except UnavailableError:
            lost_its_port = not child.is_alive() and not is_free(port)
            child.stop()
            if attempt == PORT_TRIES or not lost_its_port:
                raise
        except BaseException:
            child.stop()
            raise
        else:
            return child, port
    raise AssertionError("counts for ever")
