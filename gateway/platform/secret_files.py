"""Secrets that Hearth makes for itself: one file each, readable by its owner only.

They never go into a log, a command line or the repository.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

SECRET_BYTES = 32
"""256 random bits: guessing is hopeless, so a hash of one need not be slow."""

_FOLDER_MODE, _FILE_MODE = 0o700, 0o600


def secret(home: Path, name: str) -> str:
    """Return the secret `name` of this home, made at the first call."""
    path = secret_path(home, name)
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        _make(home, path)
        return path.read_text(encoding="ascii").strip()


def secret_path(home: Path, name: str) -> Path:
    """Return the file of a secret: HOME/secrets/NAME."""
    return home / "secrets" / name


def forget_secret(home: Path, name: str) -> None:
    """Remove a secret, if there."""
    secret_path(home, name).unlink(missing_ok=True)


def _make(home: Path, path: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for folder in reversed(path.relative_to(home).parents):
        (home / folder).mkdir(mode=_FOLDER_MODE, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{secrets.token_urlsafe(SECRET_BYTES)}\n")
    try:
        os.link(unfinished, path)  # whole or not at all; the first of two that make it at once wins
    except FileExistsError:
        pass
    finally:
        unfinished.unlink()
