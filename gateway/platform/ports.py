"""TCP ports on loopback: a free one, one remembered across starts, and what to say of a taken one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from pathlib import Path

from gateway.errors import UsageError
from gateway.platform.settings import LOOPBACK


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port` now."""
    with socket.socket() as probe:
        # As servers do: connections that are still closing down do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            return False
        return True


def require_free(port: int, setting: str) -> None:
    """Refuse a port that a person chose and that is taken; 0 means any and passes.

    Raises:
        UsageError: it is taken; the text names the setting to change.
    """
    if port and not is_free(port):
        raise UsageError(
            f"端口被占用 / port {port} is taken: 停止占用它的程序, 或用 {setting} 另选一个 / "
            f"stop the program that holds it, or choose another with {setting} (0: any free one)"
        )


def remembered_port(memory: Path, other_than: Collection[int] = ()) -> int:
    """Return the port noted in the file `memory`, or a new one, noted there, if that is taken."""
    try:
        port = int(memory.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        port = 0
    if not 0 < port < 1 << 16 or port in other_than or not is_free(port):
        while (port := free_port()) in other_than:
            pass
        memory.write_text(f"{port}\n", encoding="ascii")
    return port
