"""Advisory locks on files, which the kernel drops when their process ends. flock(2)."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class FileLock:
    """A lock that one process at a time holds; its file stays when it is let go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    @property
    def is_held(self) -> bool:
        """Tell whether it is ours."""
        return self._file is not None

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it; tell whether it is ours now."""
        return self._acquire(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def acquire(self) -> None:
        """Take the lock, waiting for as long as another holds it."""
        self._acquire(fcntl.LOCK_EX)

    def release(self) -> None:
        """Let it go, if it is held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _acquire(self, operation: int) -> bool:
        assert self._file is None, "held already"  # noqa: S101 - a mistake of ours
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("ab")
        try:
            fcntl.flock(file, operation)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock for the block; `on_wait` is called once where another process holds it."""
    lock = FileLock(path)
    if not lock.try_acquire():
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
