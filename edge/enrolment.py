"""How a hub gets its certificates: the first by a one-time code, each further one by the one before.

The key is made here and never leaves; a new one for each certificate. What is sent and what is
believed of the answer: gateway.platform.enrolment. Nothing in it needs this machine's clock.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge.identity import Identity, keep_identity
from gateway.errors import DataError, HearthError, UnavailableError, UsageError
from gateway.platform import ca
from gateway.platform.enrolment import (
    BODY_BYTES_MAX,
    ENROL_PATH,
    RENEW_PATH,
    Answer,
    Code,
    new_nonce,
    sign_renewal,
)
from gateway.platform.secret_files import write_private
from gateway.wire import hub_name

ANSWER_S_MAX = 20.0
"""An API that has not answered within this is taken as away."""

_FORBIDDEN = 403
Post = Callable[[str, bytes], bytes]
"""Sends a body to a path of the API and returns the answer's."""


class EnrolmentRefusedError(HearthError):
    """The authority does not want us: a person must act, there or here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """What an enrolment or a renewal gave."""

    identity: Identity
    broker: str
    """The broker's URL."""
    at: datetime
    """The authority's clock when it answered."""


def enrol(code: Code, folder: Path, post: Post) -> Enrolled:
    """Get the hub's first certificate and keep it in `folder`.

    The key is kept before it is asked for: if the answer is lost, the same code gives the same key
    its certificate, and no other.

    Raises:
        EnrolmentRefusedError: the code is not accepted.
        UnavailableError: the API is away, or its answer is not the authority's.
        UsageError: the folder cannot be written.
    """
    key = _pending_key(folder)
    nonce = new_nonce()
    answer = post(ENROL_PATH, code.sign(ca.signing_request(key), nonce))
    enrolled = _believe(answer, key, nonce, code.fingerprint, hub_name(code.hub))
    _keep(folder, enrolled.identity)
    return enrolled


def renew(identity: Identity, folder: Path, post: Post) -> Enrolled:
    """Get the hub's next certificate, for a new key, and keep it in place of the former.

    Raises:
        EnrolmentRefusedError: the hub is revoked, or its certificate is too old.
        UnavailableError: the API is away, or its answer is not the authority's.
        UsageError: the folder cannot be written.
    """
    key = ca.new_key()
    nonce = new_nonce()
    former = identity.hub
    body = sign_renewal(former.certificate, former.key, ca.signing_request(key), nonce)
    root = x509.load_pem_x509_certificate(identity.hubs_root)
    fingerprint = root.fingerprint(hashes.SHA256())
    enrolled = _believe(post(RENEW_PATH, body), key, nonce, fingerprint, identity.name)
    _keep(folder, enrolled.identity)
    return enrolled


def post_to(url: str) -> Post:
    """Return how to send to the API at a URL.

    TLS is taken as it comes, without looking at whose certificate it is: what is sent tells nothing
    to whom it does not concern, the answer is signed, and a hub whose clock is wrong, or that does
    not know the proxy's authority, gets its certificate all the same.
    """
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE

    def post(path: str, body: bytes) -> bytes:
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            url + path, body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(  # noqa: S310 - as above
                request, timeout=ANSWER_S_MAX, context=tls
            ) as response:
                answer: bytes = response.read(BODY_BYTES_MAX)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == _FORBIDDEN:
                    raise EnrolmentRefusedError(path) from error
            raise UnavailableError(f"{url}: HTTP {error.code}") from error
        except (OSError, ValueError, HTTPException) as error:
            raise UnavailableError(f"{url}: {type(error).__name__}: {error}") from error
        return answer

    return post


def _believe(
    body: bytes, key: ec.EllipticCurvePrivateKey, nonce: bytes, fingerprint: bytes, hub: str
) -> Enrolled:
    try:
        answer, root = Answer.from_body(body, nonce=nonce, fingerprint=fingerprint)
        certificate = x509.load_pem_x509_certificate(answer.certificate)
    except (DataError, ValueError) as error:
        raise UnavailableError(f"登记答复不可信 / not the authority's answer: {error}") from error
    if certificate.public_key() != key.public_key() or ca.common_name(certificate) != hub:
        raise UnavailableError("证书与本机不符 / a certificate of another key or hub")
    return Enrolled(
        identity=Identity(
            hub=ca.Bundle(certificate=certificate, key=key),
            hubs_root=root,
            services_root=answer.services_root,
        ),
        broker=answer.broker,
        at=answer.at,
    )


def _pending_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    path = folder / "pending.key"
    with suppress(FileNotFoundError, ValueError):
        kept = load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(kept, ec.EllipticCurvePrivateKey):
            return kept
    key = ca.new_key()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, ca.key_pem(key))
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return key


def _keep(folder: Path, identity: Identity) -> None:
    try:
        keep_identity(folder, identity)
        (folder / "pending.key").unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"无法写入 / cannot write {folder}: {error.strerror or error}")
