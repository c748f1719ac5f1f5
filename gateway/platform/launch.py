"""Becomes another program that ends with its parent. prctl(2), user_namespaces(7), credentials(7).

Run as a script by `gateway.platform.process`, never imported: between fork and exec only a program
of its own may safely take its time. Arguments: parent's process id, death signal, run-as
("-", "drop:UID:GID" or "namespace:UID:GID"), then the command. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""linux/prctl.h. The signal is the kernel's, so it also comes when the parent is killed by -9."""
CLONE_NEWUSER = 0x10000000
"""linux/sched.h."""
CANNOT_EXECUTE = 126
"""The shells' exit status for a command that cannot be run."""


def main() -> None:
    """Take the identity, ask for the death signal, become the command."""
    parent, death_signal, run_as, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        match run_as.split(":"):
            case ["drop", uid, gid]:
                os.setgroups([])
                os.setresgid(int(gid), int(gid), int(gid))
                os.setresuid(int(uid), int(uid), int(uid))
            case ["namespace", uid, gid]:
                _enter_namespace(libc, int(uid), int(gid))
            case _:
                pass
        # After the identity: a change of credentials takes the death signal back.
        _checked(libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0))
        if os.getppid() != int(parent):
            return  # the parent died before the kernel was asked
        os.execvp(command[0], command)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        print(f"{command[0]}: {error}", file=sys.stderr)  # noqa: T201 - the child's log
        sys.exit(CANNOT_EXECUTE)


def _enter_namespace(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    """Show our own user to the command as another: files stay ours, root's powers are gone."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    _checked(libc.unshare(CLONE_NEWUSER))
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{uid} {outer_uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{gid} {outer_gid} 1", encoding="ascii")


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


main()
