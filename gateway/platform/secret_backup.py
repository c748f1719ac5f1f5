"""HOME's secrets in one file under a passphrase: roots, keys of the archive, the issuer and the audit.

What a backup of the store cannot be read or trusted without, kept apart from it. scrypt (RFC 7914)
makes the key from the passphrase, AES-256-GCM (NIST SP 800-38D) seals; both are `cryptography`'s.
The file: `MAGIC`, 16 bytes of salt, 12 of nonce, the sealed JSON of names and contents.

Left out is what a home makes anew or what is of this machine only: `LEFT_OUT`.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from pathlib import Path, PurePosixPath

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from gateway.errors import UsageError
from gateway.platform.sealed import seal, unseal
from gateway.platform.secret_files import secret_folder, secret_path, write_private

MAGIC = b"HEARTHS1"
PASSPHRASE_LENGTH_MIN = 12
"""A shorter one could be tried out by who has the file."""
LEFT_OUT = ("clients/*", "mqtt/*", "database_*", "login", "api_token", "*.lock", ".*")
"""Certificates that the roots give again, this machine's database passwords, a person's session."""
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 16, 8, 1
"""64 MB and a fifth of a second a try."""

_SALT_BYTES, _KEY_BYTES = 16, 32


def back_up_secrets(home: Path, file: Path, passphrase: str) -> tuple[str, ...]:
    """Write the secrets of a home, sealed, to a file that only its owner can read; return their names.

    Raises:
        UsageError: the file is there already, the passphrase is short, or there are no secrets.
    """
    if file.exists():
        raise UsageError(f"已存在 / {file} is there already: 请换一个名字 / choose another name")
    if len(passphrase) < PASSPHRASE_LENGTH_MIN:
        raise UsageError(f"口令太短 / a passphrase has {PASSPHRASE_LENGTH_MIN} characters at least")
    folder = secret_path(home, "")
    found = {name: path.read_bytes() for name, path in _secrets(folder)}
    if not found:
        raise UsageError(f"没有密钥 / {folder} holds no secrets")
    document = json.dumps({name: b64encode(content).decode() for name, content in found.items()})
    salt = os.urandom(_SALT_BYTES)
    sealed = seal(_key(passphrase, salt), document.encode(), MAGIC)
    write_private(file, MAGIC + salt + sealed)
    return tuple(found)


def restore_secrets(home: Path, file: Path, passphrase: str) -> tuple[str, ...]:
    """Put the secrets of a file into a home; return the names of those that were not there yet.

    Raises:
        UsageError: the file is none of ours, the passphrase is another, or the home has a secret of
            the same name that differs; then nothing is written.
    """
    found = _opened(file, passphrase)
    paths = {name: secret_path(home, name) for name in found}
    differing = [
        name for name, path in paths.items() if path.exists() and path.read_bytes() != found[name]
    ]
    if differing:
        raise UsageError(
            f"已有不同的密钥, 未作改动 / {home} has other secrets of these names, nothing was changed: "
            f"{', '.join(differing)}; 请先移走 / move them away first"
        )
    lacking = tuple(name for name, path in paths.items() if not path.exists())
    for name in lacking:
        secret_folder(home, str(PurePosixPath(name).parent))
        write_private(paths[name], found[name])
    return lacking


def _secrets(folder: Path) -> list[tuple[str, Path]]:
    named = [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*"))]
    return [
        (name, path)
        for name, path in named
        if path.is_file() and not any(PurePosixPath(name).match(pattern) for pattern in LEFT_OUT)
    ]


def _opened(file: Path, passphrase: str) -> dict[str, bytes]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"无法读取 / cannot read {file}: {error.strerror}") from error
    if not content.startswith(MAGIC):
        raise UsageError(f"不是密钥备份 / {file} is no backup of Hearth's secrets")
    salt, rest = content[len(MAGIC) :][:_SALT_BYTES], content[len(MAGIC) + _SALT_BYTES :]
    try:
        document = unseal(_key(passphrase, salt), rest, MAGIC)
    except (InvalidTag, ValueError) as error:
        raise UsageError(
            f"口令不对, 或文件已损坏 / another passphrase, or {file} is damaged"
        ) from error
    return {name: b64decode(text) for name, text in json.loads(document).items()}


def _key(passphrase: str, salt: bytes) -> AESGCM:
    kdf = Scrypt(salt=salt, length=_KEY_BYTES, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)
    return AESGCM(kdf.derive(passphrase.encode()))
