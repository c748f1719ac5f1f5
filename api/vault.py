"""The vault: what names a resident, sealed with a key of the resident's own.

AES-256-GCM (NIST SP 800-38D). Each resident's identity is sealed with a data key of its own; the
data key is wrapped by a master key that is not in the database but under HEARTH_HOME/secrets. To
destroy the wrapped data key is to erase the identity, in every copy of the database that lacks it.
What is searched for is found by keyed hash (HMAC-SHA-256, RFC 2104) under another key.

Master keys have numbers: the highest there is wraps, the others still unwrap (`rewrap`).
"""

from __future__ import annotations

import hmac
import os
import unicodedata
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import UsageError
from gateway.platform.sealed import seal, unseal
from gateway.platform.secret_files import secret, secret_path

MASTER_KEYS_MAX = 1000
"""More master keys are not looked for."""

_KEY_BYTES = 32
_WITHOUT_DOTS = dict.fromkeys(map(ord, "·•."))
_WRAP, _IDENTITY = b"hearth data key", b"hearth identity"
"""What is sealed is bound to what it is, and to whose it is: it opens nowhere else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What names a resident; None where it is not known. `national_id` has passed its check."""

    name: str | None = None
    national_id: str | None = None
    health_card: str | None = None
    birth_date: date | None = None

    def __repr__(self) -> str:
        return "Identity(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """An identity as the database holds it."""

    key_id: int
    wrapped: bytes
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The keyed hashes by which a resident is found.

    `name` is of the name and the date of birth together: one without the other finds too many.
    """

    national_id: bytes | None
    health_card: bytes | None
    name: bytes | None


class IdentityVault:
    """Seals, opens and marks identities."""

    def __init__(self, master_keys: Mapping[int, bytes], search_key: bytes) -> None:
        self._masters = {key_id: AESGCM(key) for key_id, key in master_keys.items()}
        self._search_key = search_key
        self.key_id = max(master_keys)
        """The master key that wraps."""

    def seal(self, resident: UUID, identity: Identity) -> Sealed:
        """Seal an identity with a new data key."""
        key = os.urandom(_KEY_BYTES)
        return Sealed(
            key_id=self.key_id,
            wrapped=seal(self._masters[self.key_id], key, _WRAP + resident.bytes),
            content=seal(AESGCM(key), _plain(identity), _IDENTITY + resident.bytes),
        )

    def unseal(self, resident: UUID, sealed: Sealed) -> Identity:
        """Open an identity.

        Raises:
            UsageError: the key is not here, or is not the one that sealed it.
        """
        key = self._data_key(resident, sealed.key_id, sealed.wrapped)
        try:
            return _identity(unseal(AESGCM(key), sealed.content, _IDENTITY + resident.bytes))
        except InvalidTag as error:
            raise UsageError(_wrong_key(sealed.key_id)) from error

    def rewrap(self, resident: UUID, key_id: int, wrapped: bytes) -> bytes:
        """Return the data key wrapped by the newest master key.

        Raises:
            UsageError: the old master key is not here.
        """
        key = self._data_key(resident, key_id, wrapped)
        return seal(self._masters[self.key_id], key, _WRAP + resident.bytes)

    def marks(self, identity: Identity) -> Marks:
        """Return the hashes that find an identity."""
        named = None
        if identity.name is not None and identity.birth_date is not None:
            named = f"{canonical_name(identity.name)}\0{identity.birth_date.isoformat()}"
        return Marks(
            national_id=self._mark("national_id", identity.national_id),
            health_card=self._mark("health_card", identity.health_card),
            name=self._mark("name", named),
        )

    def fingerprint(self, content: bytes) -> bytes:
        """Return a keyed hash that tells whether two imports say the same of a resident."""
        return self._hash(b"content", content)

    def _mark(self, kind: str, text: str | None) -> bytes | None:
        return None if text is None else self._hash(kind.encode(), text.encode())

    def _hash(self, kind: bytes, content: bytes) -> bytes:
        return hmac.digest(self._search_key, kind + b"\0" + content, sha256)

    def _data_key(self, resident: UUID, key_id: int, wrapped: bytes) -> bytes:
        if key_id not in self._masters:
            raise UsageError(_wrong_key(key_id))
        try:
            return unseal(self._masters[key_id], wrapped, _WRAP + resident.bytes)
        except InvalidTag as error:
            raise UsageError(_wrong_key(key_id)) from error


def open_vault(home: Path) -> IdentityVault:
    """Return the vault of a home; its first keys are made at the first call."""
    first = secret(home, _name(1))
    keys = {1: _bytes(first)}
    while secret_path(home, _name(len(keys) + 1)).exists() and len(keys) < MASTER_KEYS_MAX:
        keys[len(keys) + 1] = _bytes(secret(home, _name(len(keys) + 1)))
    return IdentityVault(keys, _bytes(secret(home, "archive_search_key")))


def add_master_key(home: Path) -> IdentityVault:
    """Make a new master key and return the vault that wraps with it."""
    secret(home, _name(open_vault(home).key_id + 1))
    return open_vault(home)


def canonical_name(name: str) -> str:
    """Return a name as it is compared: Unicode NFKC, without spaces and dots, in one case."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(folded.translate(_WITHOUT_DOTS).split())


def _name(key_id: int) -> str:
    return f"archive_key_{key_id}"


def _bytes(text: str) -> bytes:
    key = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(key) != _KEY_BYTES:
        raise UsageError(
            "密钥文件有误 / a key file under HEARTH_HOME/secrets is not 32 bytes in base64url: "
            "请从备份恢复 / restore it from its backup"
        )
    return key


def _plain(identity: Identity) -> bytes:
    return orjson.dumps(
        [identity.name, identity.national_id, identity.health_card, identity.birth_date]
    )


def _identity(plain: bytes) -> Identity:
    name, national_id, health_card, birth_date = orjson.loads(plain)
    return Identity(
        name=name,
        national_id=national_id,
        health_card=health_card,
        birth_date=None if birth_date is None else date.fromisoformat(birth_date),
    )


def _wrong_key(key_id: int) -> str:
    return (
        f"档案密钥不符 / archive key {key_id} is missing or is another one: 请从备份恢复 / restore "
        f"HEARTH_HOME/secrets/{_name(key_id)} from its backup"
    )
