"""What a person proves: a password (argon2id, RFC 9106) and a code of an authenticator (TOTP, RFC 6238)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import UsageError
from gateway.platform.sealed import seal, unseal
from gateway.platform.secret_files import secret

PASSWORD_CHARS_MIN = 12
PASSWORD_CHARS_MAX = 256
"""A longer one is not even hashed."""
STEP_S = 30
"""A code's time step: RFC 6238, 5.2."""
STEPS_AROUND = 1
"""A code of the step before or after is taken too: a phone's clock may differ by so much."""
FAILURES_FREE = 4
"""So many wrong attempts in a row are a person's; from then on each one locks the account."""
LOCK_MIN, LOCK_MAX = timedelta(seconds=30), timedelta(hours=1)
"""The first lock, and the longest: each further wrong attempt doubles it."""
ISSUER_NAME = "Hearth"
"""What an authenticator shows above the login."""

_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""OWASP Password Storage Cheat Sheet, "Argon2id": 19 MiB, two passes, one lane."""
_NOBODY = _HASHER.hash(secrets.token_urlsafe())


def new_password() -> str:
    """Return a password of 128 random bits."""
    return secrets.token_urlsafe(16)


def hash_password(password: str) -> str:
    """Return what is kept of a password.

    Raises:
        UsageError: it is too short or too long.
    """
    if not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
        raise UsageError(
            f"密码长度不符 / a password has {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters"
        )
    return _HASHER.hash(password)


def is_password(password: str, kept: str | None) -> bool:
    """Tell whether a password is right; where there is none, after as long a time."""
    if len(password) > PASSWORD_CHARS_MAX:
        return False
    try:
        _HASHER.verify(kept or _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return False
    return kept is not None


def lock_after(failures: int) -> timedelta | None:
    """Return how long an account is locked after so many wrong attempts in a row."""
    if failures <= FAILURES_FREE:
        return None
    doublings = min(failures - FAILURES_FREE - 1, 16)
    lock: timedelta = LOCK_MIN * 2**doublings
    return min(lock, LOCK_MAX)


def new_totp_secret() -> str:
    """Return a secret for an authenticator: 160 random bits, base32."""
    return pyotp.random_base32()


def totp_uri(secret_: str, login: str) -> str:
    """Return the address that an authenticator reads from a QR code."""
    return pyotp.TOTP(secret_).provisioning_uri(name=login, issuer_name=ISSUER_NAME)


def step_of_code(code: str, secret_: str, now: datetime, last_step: int) -> int | None:
    """Return the time step whose code this is; None: it is wrong, or was taken before.

    "The verifier MUST NOT accept the second attempt of the OTP" (RFC 6238, 5.2): a step is good
    only when it is later than `last_step`.
    """
    totp = pyotp.TOTP(secret_)
    typed = unicodedata.normalize(
        "NFKC", code
    ).encode()  # Chinese keyboards have digits of full width
    current = int(now.timestamp()) // STEP_S
    for step in range(current - STEPS_AROUND, current + STEPS_AROUND + 1):
        if hmac.compare_digest(totp.at(step * STEP_S).encode(), typed) and step > last_step:
            return step
    return None


class Vault:
    """Encrypts authenticators' secrets; its key is HOME/secrets/totp_key, not in the database."""

    def __init__(self, home: Path) -> None:
        self._cipher = AESGCM(hashlib.sha256(secret(home, "totp_key").encode()).digest())

    def seal(self, account: UUID, secret_: str) -> bytes:
        """Encrypt a secret for one account; in another's row it does not open."""
        return seal(self._cipher, base64.b32decode(secret_), account.bytes)

    def open(self, account: UUID, sealed: bytes) -> str:
        """Return the secret.

        Raises:
            UsageError: the key is another than the one it was sealed with.
        """
        try:
            return base64.b32encode(unseal(self._cipher, sealed, account.bytes)).decode()
        except InvalidTag as error:
            raise UsageError(
                "密钥不符 / secrets/totp_key is not the one that the second factors were sealed with: "
                "请恢复该文件 / restore it, or `hearth admin user reset` each account"
            ) from error
