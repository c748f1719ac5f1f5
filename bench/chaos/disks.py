"""Disks that can be filled. mount(2), tmpfs(5), unshare(1), mount_namespaces(7).

A small file system in memory, mounted in a mount namespace of our own that ends with us: what fills
it gets the kernel's own ENOSPC, and nobody else sees it. Root may make one; so may a plain user where
the machine allows user namespaces. Where neither goes, `Disk.is_real` is False and the conductor makes
the parts behave as if (docs/reliability.md says how).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ENTERED = "HEARTH_CHAOS_NAMESPACE"
"""Set in the environment once we are inside, so that we enter once."""
_PIECES = (16 << 20, 64 << 10, 4 << 10)
"""A disk is filled by pieces of these sizes, the large ones first."""
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def enter_namespace(argv: list[str]) -> bool:
    """Become `argv` inside a mount namespace of our own; tell whether we are inside already.

    Returns False where this machine allows none.
    """
    if os.environ.get(ENTERED):
        return True
    ways = (
        ["unshare", "--mount", "--propagation", "private"],
        ["unshare", "--user", "--map-current-user", "--keep-caps", "--mount"],
    )
    way = ways[0] if os.geteuid() == 0 else ways[1]
    if shutil.which(way[0]) is None:
        return False
    tried = subprocess.run([*way, "true"], check=False, capture_output=True)  # noqa: S603 - ours
    if tried.returncode != 0:
        return False
    os.environ[ENTERED] = "1"
    return os.execvp(way[0], [*way, *argv])  # noqa: S606 - no shell is what is wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A folder; `is_real`: it is a file system of its own."""

    folder: Path
    is_real: bool

    def fill(self) -> None:
        """Write until there is no space left."""
        assert self.is_real, "would fill a disk of others"  # noqa: S101 - a mistake of ours
        with self._ballast.open("ab") as ballast:
            end = 0
            for piece in _PIECES:
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(ballast.fileno(), end, piece)
                        end += piece

    def release(self) -> None:
        """Make space again."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Give the file system up with all it holds."""
        if self.is_real:
            _libc.umount2(os.fsencode(self.folder), _MNT_DETACH)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


def make_disk(folder: Path, size: int) -> Disk:
    """Make a folder, a file system of `size` bytes where we are in our own namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    is_real = False
    if os.environ.get(ENTERED):
        options = f"size={size},mode=0755".encode()
        is_real = _libc.mount(b"hearth", os.fsencode(folder), b"tmpfs", 0, options) == 0
    return Disk(folder=folder, is_real=is_real)
