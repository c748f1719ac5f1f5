"""What a hub and its authority say to each other: the code, the request, the answer.

Nobody has to be trusted in between. The code holds a seed that only the one who made it and the hub
have known, and the fingerprint of the authority. With a key from the seed (Ed25519, RFC 8032) the
hub signs its request; the authority kept the public half only, so that its database is of no use
to a thief. The authority signs its answer with the root itself, whose fingerprint the hub has. So
the transport may be plain HTTP, or TLS of whatever proxy: it cannot fool either side, and there is
nothing secret in what it carries. A hub that has a certificate asks for the next one with its key.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.errors import DataError
from gateway.platform.ca import Authority

CODE_VERSION = 1
CODE_LIFETIME = timedelta(hours=24)
"""How long a code is good, unless said otherwise."""
CODE_LIFETIME_MAX = timedelta(days=7)
CODE_ATTEMPTS_MAX = 5
"""A code that was tried so often is good for nothing more, whether or not a try was right."""
RENEWAL_GRACE = timedelta(days=90)
"""A hub that was off while its certificate ended may still renew it so long after: its key proves
who it is, and whoever revokes it closes this way as well."""
BODY_BYTES_MAX = 16 * 1024
"""A longer request or answer is none."""

ENROL_PATH = "/api/v1/enrolments"
RENEW_PATH = "/api/v1/renewals"

_HEAD = struct.Struct(">BQQ16s32s")
"""version, hub, number, seed, fingerprint; then the API's URL and the checksum."""
_CHECKSUM_BYTES = 4
_GROUP = 8
_NONCE_BYTES = 16
# No certificate (DER) begins with these words, so no signature of ours can pass for one of them.
_REQUEST, _RENEWAL, _ANSWER = (
    b"hearth enrolment request 1\0",
    b"hearth renewal request 1\0",
    b"hearth enrolment answer 1\0",
)
_HASH = hashes.SHA256()


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A one-time code: what a person carries from the archive to the hub."""

    hub: int
    number: int
    """By which the authority finds it; no secret."""
    seed: bytes
    """16 random bytes: the secret."""
    fingerprint: bytes
    """SHA-256 of the root that vouches for hubs."""
    url: str
    """Where the API is."""

    @classmethod
    def make(cls, hub: int, fingerprint: bytes, url: str) -> Code:
        """Return a new code."""
        return cls(
            hub=hub,
            number=secrets.randbits(63),
            seed=secrets.token_bytes(16),
            fingerprint=fingerprint,
            url=url,
        )

    @classmethod
    def from_text(cls, text: str) -> Code:
        """Read what `text` has written, in any case, with or without its hyphens.

        Raises:
            DataError: it is no code, or was mistyped.
        """
        plain = "".join(text.split()).replace("-", "").upper()
        try:
            data = base64.b32decode(plain + "=" * (-len(plain) % 8))
            body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
            version, hub, number, seed, fingerprint = _HEAD.unpack_from(body)
            url = body[_HEAD.size :].decode("utf-8")
        except (ValueError, struct.error) as error:
            raise DataError("no enrolment code") from error
        if checksum != _checksum(body):
            raise DataError("an enrolment code that was mistyped")
        if version != CODE_VERSION:
            raise DataError(f"an enrolment code of version {version}, known: {CODE_VERSION}")
        return cls(hub=hub, number=number, seed=seed, fingerprint=fingerprint, url=url)

    @property
    def text(self) -> str:
        """The code as people and QR codes have it: base32, in groups."""
        body = _HEAD.pack(CODE_VERSION, self.hub, self.number, self.seed, self.fingerprint)
        body += self.url.encode()
        plain = base64.b32encode(body + _checksum(body)).decode().rstrip("=")
        return "-".join(plain[start : start + _GROUP] for start in range(0, len(plain), _GROUP))

    @property
    def name(self) -> str:
        """The number as the store has it."""
        return f"{self.number:016x}"

    @property
    def verifier(self) -> bytes:
        """What the authority keeps of the seed: the public half of its key."""
        return self._key.public_key().public_bytes_raw()

    @property
    def _key(self) -> Ed25519PrivateKey:
        kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"hearth enrolment 1")
        return Ed25519PrivateKey.from_private_bytes(kdf.derive(self.seed))

    def sign(self, request: bytes, nonce: bytes) -> bytes:
        """Return the body that asks for a hub's first certificate."""
        signature = self._key.sign(_enrolment_text(self.name, nonce, request))
        return _body(code=self.name, nonce=nonce, request=request, signature=signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A request for a first certificate, as it arrived: nothing of it is believed yet."""

    code: str
    nonce: bytes
    request: bytes
    """The signing request (DER)."""
    signature: bytes

    @classmethod
    def from_body(cls, body: bytes) -> Enrolment:
        """Read a request.

        Raises:
            DataError: it is none.
        """
        document = _document(body)
        code = document.get("code")
        if not isinstance(code, str):
            raise DataError("a request without a code")
        nonce, request, signature = _bytes_of(document, "nonce", "request", "signature")
        return cls(code=code, nonce=nonce, request=request, signature=signature)

    def is_signed_by(self, verifier: bytes) -> bool:
        """Tell whether its sender has the code's seed."""
        try:
            Ed25519PublicKey.from_public_bytes(verifier).verify(
                self.signature, _enrolment_text(self.code, self.nonce, self.request)
            )
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A request for the next certificate, as it arrived."""

    certificate: x509.Certificate
    nonce: bytes
    request: bytes
    signature: bytes

    @classmethod
    def from_body(cls, body: bytes) -> Renewal:
        """Read a request.

        Raises:
            DataError: it is none.
        """
        certificate, nonce, request, signature = _bytes_of(
            _document(body), "certificate", "nonce", "request", "signature"
        )
        try:
            shown = x509.load_der_x509_certificate(certificate)
        except ValueError as error:
            raise DataError("no certificate") from error
        return cls(certificate=shown, nonce=nonce, request=request, signature=signature)

    @property
    def is_signed(self) -> bool:
        """Whether its sender has the key of the certificate."""
        key = self.certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        try:
            key.verify(self.signature, _RENEWAL + self.nonce + self.request, ec.ECDSA(_HASH))
        except InvalidSignature:
            return False
        return True


def sign_renewal(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, request: bytes, nonce: bytes
) -> bytes:
    """Return the body that asks for a hub's next certificate."""
    return _body(
        certificate=certificate.public_bytes(Encoding.DER),
        nonce=nonce,
        request=request,
        signature=key.sign(_RENEWAL + nonce + request, ec.ECDSA(_HASH)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a hub is given."""

    hub: str
    certificate: bytes
    """PEM."""
    services_root: bytes
    """PEM: by it the hub knows the broker."""
    broker: str
    """The broker's URL."""
    at: datetime
    """The authority's clock."""

    def signed(self, authority: Authority, nonce: bytes) -> bytes:
        """Return the body of the answer to a request."""
        text = json.dumps(
            {
                "hub": self.hub,
                "certificate": self.certificate.decode(),
                "services_root": self.services_root.decode(),
                "broker": self.broker,
                "at": self.at.isoformat(),
            }
        ).encode()
        return _body(
            answer=text,
            root=authority.certificate.public_bytes(Encoding.DER),
            signature=authority.sign(_ANSWER + nonce + text),
        )

    @classmethod
    def from_body(cls, body: bytes, *, nonce: bytes, fingerprint: bytes) -> tuple[Answer, bytes]:
        """Read an answer to the request with this nonce; returns the root's certificate (PEM) too.

        Raises:
            DataError: it is not the answer of the authority with this fingerprint.
        """
        text, root, signature = _bytes_of(_document(body), "answer", "root", "signature")
        try:
            certificate = x509.load_der_x509_certificate(root)
            if certificate.fingerprint(_HASH) != fingerprint:  # before anything of it is read
                raise DataError("the answer of another authority")
            key = certificate.public_key()
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise DataError("the answer of no authority of ours")
            key.verify(signature, _ANSWER + nonce + text, ec.ECDSA(_HASH))
            read = json.loads(text)
            answer = cls(
                hub=read["hub"],
                certificate=read["certificate"].encode(),
                services_root=read["services_root"].encode(),
                broker=read["broker"],
                at=datetime.fromisoformat(read["at"]),
            )
        except InvalidSignature as error:
            raise DataError("an answer that the authority has not signed") from error
        except (ValueError, KeyError, AttributeError) as error:
            raise DataError("no answer to an enrolment") from error
        return answer, certificate.public_bytes(Encoding.PEM)


def new_nonce() -> bytes:
    """Return what makes one request another than all before, so that no old answer fits it."""
    return secrets.token_bytes(_NONCE_BYTES)


def _enrolment_text(code: str, nonce: bytes, request: bytes) -> bytes:
    return _REQUEST + code.encode() + b"\0" + nonce + request


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECKSUM_BYTES]


def _body(**fields: bytes | str) -> bytes:
    return json.dumps(
        {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in fields.items()
        }
    ).encode()


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body) if len(body) <= BODY_BYTES_MAX else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise DataError("no JSON object of an enrolment")
    return document


def _bytes_of(document: dict[str, Any], *names: str) -> list[bytes]:
    try:
        return [base64.b64decode(document[name], validate=True) for name in names]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"an enrolment lacks one of {', '.join(names)}") from error
