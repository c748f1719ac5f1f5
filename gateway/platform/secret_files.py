"""Secrets that Hearth makes for itself: one file each, readable by its owner only.

They never go into a log, a command line or the repository.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path, PurePath

from gateway.errors import UsageError

SECRET_BYTES = 32
"""256 random bits: guessing is hopeless, so a hash of one need not be slow."""

_FOLDER_MODE, _FILE_MODE = 0o700, 0o600


def secret(home: Path, name: str) -> str:
    """Return the secret `name` of this home, made at the first call."""
    path = secret_path(home, name)
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        keep_secret(home, name, f"{secrets.token_urlsafe(SECRET_BYTES)}\n")
        return path.read_text(encoding="ascii").strip()


def secret_path(home: Path, name: str) -> Path:
    """Return the file of a secret: HOME/secrets/NAME."""
    return home / "secrets" / name


def read_private(path: Path, setting: str) -> str:
    """Return a secret that a person keeps in a file; `setting` names it in errors.

    Raises:
        UsageError: it cannot be read, or anybody but its owner may read it too.
    """
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(f"{setting}: 他人可读 / others may read it: chmod 600")
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{setting}: 无法读取 / cannot be read: {type(error).__name__}") from error


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, in place of any former one, whole or not at all."""
    unfinished = _unfinished(path, content)
    unfinished.replace(path)


def secret_folder(home: Path, name: str) -> Path:
    """Return the folder HOME/secrets/NAME, which only its owner can enter; it is made if need be."""
    folder = secret_path(home, name)
    home.mkdir(parents=True, exist_ok=True)
    for part in (*reversed(folder.relative_to(home).parents[:-1]), folder.relative_to(home)):
        (home / part).mkdir(mode=_FOLDER_MODE, exist_ok=True)
    return folder


def keep_secret(home: Path, name: str, text: str) -> None:
    """Make the secret `name` of this home; where it was made meanwhile, that one stays."""
    path = secret_path(home, name)
    secret_folder(home, str(PurePath(name).parent))
    unfinished = _unfinished(path, text.encode())
    try:
        os.link(unfinished, path)  # whole or not at all; the first of two that make it at once wins
    except FileExistsError:
        pass
    finally:
        unfinished.unlink()


def _unfinished(path: Path, content: bytes) -> Path:
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return unfinished
