"""The issuer's signing keys and their public halves as a JWK set. RFC 7517, RFC 7638.

The newest key signs. One that has a successor is still published and believed until the last token that
it signed is over: so a rotation signs nobody out (NIST SP 800-57 Part 1, 5.3.4: originator-usage and
recipient-usage periods).
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from gateway.platform.secret_files import secret, secret_path

ALGORITHM = "ES256"
OVERLAP = timedelta(minutes=61)
"""So long after its successor was made a key is believed: the longest token lives 60 minutes (`hearth admin
user token`), and clocks differ."""
LOOK_S = 5.0
"""How often the files are looked at."""
LOOK_AGAIN_S = 1.0
"""How often at most for tokens of unknown keys, which anybody can send."""
_FILE = re.compile(r"issuer_key(?:_(?P<number>[0-9]{1,9}))?")
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the curve P-256: FIPS 186-5, 3.2.1.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key of the curve P-256; `kid` is the thumbprint of its public half."""

    private: ec.EllipticCurvePrivateKey
    kid: str

    @property
    def jwk(self) -> Mapping[str, Any]:
        """The public half."""
        public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "alg": ALGORITHM, "use": "sig"}

    @property
    def jwks(self) -> Mapping[str, Any]:
        """What an issuer with this key alone publishes."""
        return {"keys": [self.jwk]}

    @property
    def newest(self) -> SigningKey:
        """Itself: it stands for a ring of one key (`KeyRing`)."""
        return self

    def known(self, kid: object) -> SigningKey | None:
        """Return itself where it is meant."""
        return self if kid == self.kid else None


class Keys(Protocol):
    """The keys of an issuer: one, or a ring of them."""

    @property
    def newest(self) -> SigningKey:
        """The one that signs."""

    @property
    def jwks(self) -> Mapping[str, Any]:
        """What the issuer publishes."""

    def known(self, kid: object) -> SigningKey | None:
        """Return the key of this id that is still believed; None: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    number: int
    key: SigningKey
    retired_s: float | None
    """When its successor was made, seconds since 1970; None: it is the newest."""


class KeyRing:
    """The signing keys of a home: HOME/secrets/issuer_key, then issuer_key_2 and so on.

    A key is believed for `OVERLAP` after the next one was made. Other processes' rotations are seen within
    `LOOK_S`, and at once by a token whose key is not known yet.
    """

    def __init__(self, home: Path, now_s: Callable[[], float] = time.time) -> None:
        self._home = home
        self._now_s = now_s
        self._looked_s = -math.inf
        self._kept: Sequence[_Kept] = ()
        self._look(0.0)

    @property
    def newest(self) -> SigningKey:
        """The one that signs."""
        self._look(LOOK_S)
        return self._kept[-1].key

    @property
    def jwks(self) -> Mapping[str, Any]:
        """The public halves of all that are believed, the newest first."""
        self._look(LOOK_S)
        return {"keys": [kept.key.jwk for kept in reversed(self._kept) if self._is_good(kept)]}

    def known(self, kid: object) -> SigningKey | None:
        """Return the key of this id that is still believed; None: there is none."""
        self._look(LOOK_S)
        if all(kept.key.kid != kid for kept in self._kept):
            self._look(LOOK_AGAIN_S)
        return next(
            (kept.key for kept in self._kept if kept.key.kid == kid and self._is_good(kept)), None
        )

    def rotate(self) -> SigningKey:
        """Make the next key; it signs from now on."""
        secret(self._home, _name(self._kept[-1].number + 1))
        self._look(0.0)
        return self.newest

    def _is_good(self, kept: _Kept) -> bool:
        return kept.retired_s is None or self._now_s() < kept.retired_s + OVERLAP.total_seconds()

    def _look(self, after_s: float) -> None:
        """Read the files anew, unless that was done less than `after_s` ago."""
        now_s = time.monotonic()
        if now_s - self._looked_s < after_s:
            return
        self._looked_s = now_s
        numbers = self._numbers() or [1]
        if numbers == [kept.number for kept in self._kept]:
            return
        texts = [secret(self._home, _name(number)) for number in numbers]
        made_s = [secret_path(self._home, _name(number)).stat().st_mtime for number in numbers]
        retired_s: list[float | None] = [*made_s[1:], None]
        self._kept = [
            _Kept(number=number, key=key_of(text), retired_s=at)
            for number, text, at in zip(numbers, texts, retired_s, strict=True)
        ]

    def _numbers(self) -> list[int]:
        """Return the numbers of the files that are there; one that was lost to somebody may be removed."""
        names = [path.name for path in secret_path(self._home, "").glob("issuer_key*")]
        matches = [_FILE.fullmatch(name) for name in names]
        return sorted(int(match["number"] or 1) for match in matches if match)


def _name(number: int) -> str:
    return "issuer_key" if number == 1 else f"issuer_key_{number}"


def key_of(text: str) -> SigningKey:
    """Return the key that a secret of 256 random bits stands for, always the same one."""
    # Twice the curve's bits, so that no number is noticeably likelier (FIPS 186-5, A.2.1).
    number = int.from_bytes(hashlib.sha512(f"hearth-issuer:{text}".encode()).digest())
    private = ec.derive_private_key(number % (_ORDER - 1) + 1, ec.SECP256R1())
    return SigningKey(private=private, kid=_thumbprint(private))


def public_pem(key: SigningKey) -> bytes:
    """Return the public half as PEM."""
    return key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _thumbprint(private: ec.EllipticCurvePrivateKey) -> str:
    jwk = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    text = json.dumps(required, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
