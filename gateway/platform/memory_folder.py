"""Folders in memory: for files that no full disk concerns, or that are too many for one.

A folder goes with whoever made it; what somebody left who was killed goes when the next one comes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name of its own, and is ours alone
"""A file system in memory, where the machine has one; in containers it is often small. shm_overview(7)."""
YOUNG_S = 60.0
"""A folder that is younger may not be locked yet by the one who makes it."""


@contextmanager
def memory_folder(prefix: str, *, bytes_min: int = 0, memory: Path = MEMORY) -> Iterator[Path]:
    """Make a folder for the block: in memory where so much is free, else where temporary files go.

    Its name begins with `prefix`.

    Raises:
        OSError: no folder can be made.
    """
    parent = memory if _has_room(memory, bytes_min) else Path(tempfile.gettempdir())
    _remove_left_behind(parent, prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # the kernel lets it go, however we end
            yield Path(name)
        finally:
            os.close(descriptor)


def _has_room(memory: Path, bytes_min: int) -> bool:
    is_usable = memory.is_dir() and os.access(memory, os.W_OK | os.X_OK)
    return is_usable and shutil.disk_usage(memory).free >= bytes_min


def _remove_left_behind(parent: Path, prefix: str) -> None:
    for path in parent.glob(f"{prefix}*"):
        try:
            about = path.lstat()
            is_ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()
            if not is_ours or time.time() - about.st_mtime < YOUNG_S:
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # somebody else was faster
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # it is in use
        else:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)
