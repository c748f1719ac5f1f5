"""As whom servers run when we are root: PostgreSQL refuses root, and a broker has no need of it."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from gateway.errors import UnavailableError, UsageError
from gateway.platform.process import Child, Program, RunAs

USER = "nobody"
"""It is on every Linux and owns nothing."""
PROBE_S_MAX = 10.0
"""A user namespace that cannot run /bin/true within this is taken as refused."""


def run_as_for(*folders: Path) -> RunAs | None:
    """Return whom servers run as that need these folders; None, as we are, unless we are root.

    Where `nobody` can walk to them, it is that user, and what it writes is its own. Else, say
    under /root, it is that user in a user namespace, to whom our files look like its own.

    Raises:
        UsageError: a folder is out of reach and the machine lets us make no namespace.
    """
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam(USER)
    if all(can_reach(folder, user.pw_uid, user.pw_gid) for folder in folders):
        return RunAs(uid=user.pw_uid, gid=user.pw_gid, namespace=False)
    inside = RunAs(uid=user.pw_uid, gid=user.pw_gid, namespace=True)
    if not _can_make_namespaces(inside):
        names = ", ".join(str(folder) for folder in folders)
        raise UsageError(
            f"{USER} 用户无法进入 / user {USER} cannot reach {names}, and this machine allows no "
            "user namespaces: 请把 HEARTH_HOME 设为其他用户可进入的目录 / set HEARTH_HOME to a "
            "folder that other users can enter, such as /var/lib/hearth, or be a plain user"
        )
    return inside


def can_reach(folder: Path, uid: int, gid: int) -> bool:
    """Tell whether a user may enter `folder` and every folder above it."""
    resolved = folder.resolve()
    return all(_may_enter(step.stat(), uid, gid) for step in (resolved, *resolved.parents))


def own_all(run_as: RunAs | None, path: Path) -> None:
    """Give a file, or a folder with all it holds, to the servers, unless it is theirs."""
    if run_as is None or _owner(path) == run_as.owner:
        return
    for inner in path.rglob("*"):
        run_as.own(inner)
    run_as.own(path)


def write_for(run_as: RunAs | None, path: Path, text: str) -> None:
    """Write a file that only the servers and root can read, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text, encoding="utf-8")
    if run_as is not None:
        run_as.own(unfinished)
    unfinished.replace(path)


def _may_enter(status: os.stat_result, uid: int, gid: int) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def _can_make_namespaces(run_as: RunAs) -> bool:
    program = Program(name="namespace", argv=("/bin/true",), log=Path(os.devnull), run_as=run_as)
    try:
        Child(program).wait(PROBE_S_MAX)
    except UnavailableError:
        return False
    return True
