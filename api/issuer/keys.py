"""The issuer's signing key and its public half as a JWK set. RFC 7517, RFC 7638."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from gateway.platform.secret_files import secret

ALGORITHM = "ES256"
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
        """What the issuer publishes."""
        return {"keys": [self.jwk]}


def load_signing_key(home: Path) -> SigningKey:
    """Return the key of this home, made at the first call: HOME/secrets/issuer_key.

    Whoever removes that file has another key from the next start on; tokens of the old one, which
    live for minutes, are refused from then on.
    """
    return key_of(secret(home, "issuer_key"))


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
