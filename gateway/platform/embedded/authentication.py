"""Who may connect to the embedded broker: passwords, in the format of mosquitto_passwd(1).

The one place that knows how a user proves who it is. A line is USER:$7$ITERATIONS$SALT$HASH,
PBKDF2 with HMAC-SHA-512, salt of 12 and hash of 64 bytes in base64 (Mosquitto 2.0.21,
src/security_default.c).
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from gateway.platform.embedded.unprivileged import write_for
from gateway.platform.file_lock import exclusive
from gateway.platform.process import RunAs
from gateway.platform.secret_files import forget_secret, secret, secret_path

ITERATIONS = 101
"""Mosquitto 2.0's own figure. The passwords are 256 random bits, so slowness would add nothing but
load when a fleet connects."""
SALT_BYTES = 12

_USER = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""No character that means something in a topic filter or in the file."""


class Passwords:
    """The users of one broker: their passwords in HOME/secrets/mqtt, their hashes in `file`."""

    def __init__(self, home: Path, file: Path) -> None:
        self._home = home
        self._file = file

    def of(self, user: str) -> str:
        """Return a user's password; it is made when first asked for."""
        return secret(self._home, _secret_name(user))

    def path_of(self, user: str) -> Path:
        """Return the file that holds a user's password, for configurations that name a file."""
        return secret_path(self._home, _secret_name(user))

    def users(self) -> set[str]:
        """Return who may connect."""
        return set(self._lines())

    def change(self, admit: Iterable[str], revoke: Iterable[str], run_as: RunAs | None) -> None:
        """Write the file anew, whole or not at all; the broker must be told to read it."""
        with exclusive(self._file.with_name("passwords.lock")):
            lines = self._lines()
            lines |= {user: password_line(user, self.of(user)) for user in admit}
            for user in revoke:
                lines.pop(user, None)
                forget_secret(self._home, _secret_name(user))
            write_for(run_as, self._file, "".join(f"{line}\n" for line in lines.values()))

    def _lines(self) -> dict[str, str]:
        if not self._file.exists():
            return {}
        lines = self._file.read_text(encoding="ascii").splitlines()
        return {line.partition(":")[0]: line for line in lines}


def password_line(user: str, password: str, salt: bytes | None = None) -> str:
    """Return the line of one user; `salt` is random unless given."""
    salt = salt or secrets.token_bytes(SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    encoded = (base64.b64encode(part).decode() for part in (salt, digest))
    return ":".join([user, "$".join(["", "7", str(ITERATIONS), *encoded])])


def _secret_name(user: str) -> str:
    if not _USER.fullmatch(user):
        raise ValueError(f"{user!r} is no user name: letters, digits, - and _, at most 64")
    return f"mqtt/{user}"
