"""A private message bus, for the simulated Bluetooth service. dbus-daemon(1).

It carries what the system bus would and has nothing to do with it: a socket in a temporary folder,
open to this user only, gone with the process that asked for it.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from gateway.errors import UsageError
from gateway.platform.embedded.packages import Packages
from gateway.platform.process import Child, Program

READY_S_MAX = 10.0
"""dbus-daemon listens some milliseconds after its start."""
SOCKET_PATH_BYTES_MAX = 107
"""unix(7): sun_path holds 108 bytes with its final zero."""

_CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""
"""The document type is a name that the format asks for; nothing is fetched."""


def dbus_daemon(packages: Packages | None) -> Path:
    """Return the program: the machine's own, else the one from the packages.

    Raises:
        UsageError: there is neither.
    """
    if found := shutil.which("dbus-daemon"):
        return Path(found)
    if packages is None:
        raise UsageError(
            "缺少 dbus-daemon / dbus-daemon is not here: 请运行 / run `hearth services prepare`, "
            "or `apt-get install dbus-daemon`"
        )
    return packages.program("dbus-daemon")


@contextmanager
def private_bus(program: Path, log: Path) -> Iterator[str]:
    """Run a bus for the block; yields its address for DBUS_SYSTEM_BUS_ADDRESS.

    Raises:
        UnavailableError: it does not start; the text quotes its log.
        UsageError: the folder for temporary files has too long a name.
    """
    with tempfile.TemporaryDirectory(prefix="hearth-bus-") as folder:
        path = Path(folder, "bus")
        if len(bytes(path)) > SOCKET_PATH_BYTES_MAX:
            raise UsageError(
                f"TMPDIR 路径过长 / TMPDIR is too long for a socket: {path}: "
                "请设为较短的目录 / set it to a shorter folder"
            )
        configuration = Path(folder, "bus.conf")
        configuration.write_text(_CONFIGURATION.format(path=escape(str(path))), encoding="utf-8")
        command = (str(program), "--nofork", "--nopidfile", f"--config-file={configuration}")
        child = Child(Program(name="dbus-daemon", argv=command, log=log))
        try:
            child.wait_ready(lambda: _listens(path), READY_S_MAX)
            yield f"unix:path={path}"
        finally:
            child.stop()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
