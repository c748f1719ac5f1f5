"""Hearth's own certificate authorities. RFC 5280, and RFC 5758 for ECDSA with SHA-256.

Two roots that know nothing of each other: one vouches for the hubs, the other for what the hubs
meet, the broker, and for the services behind it. So a hub's certificate is refused by the very
handshake of a listener for services, whatever name it bears, and the other way round.

A root's key and certificate are one file of HOME/secrets/ca, readable by its owner only; it is made
at the first call. Whoever holds it can be any hub, so it never leaves the machine that enrols.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import DataError, UsageError
from gateway.platform.file_lock import exclusive
from gateway.platform.secret_files import keep_secret, secret_path, write_private

ROOT_LIFETIME = timedelta(days=3650)
"""A root is replaced by hand within this; hubs take a new list of roots with each renewal."""
SERVICE_LIFETIME = timedelta(days=365)
"""Of the broker's and ingest's certificates; made anew when a third of it is left."""
HUB_LIFETIME = timedelta(days=30)
"""What a stolen hub's key is good for at most, should nobody revoke it; see `is_due`."""
BACKDATED = timedelta(days=1)
"""A certificate is valid from so long before its issue: clocks of our machines may disagree."""
LEFT_WHEN_DUE = 1 / 3
"""A certificate is renewed when this part of its life is left: ten days of failures are survived."""
REQUEST_BYTES_MAX = 4096
"""A longer signing request is none of ours: one with a P-256 key has about 250 bytes."""

_CURVE = ec.SECP256R1
_HASH = hashes.SHA256()


class Role(Enum):
    """Whom a root vouches for."""

    HUBS = "hubs"
    SERVICES = "services"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A certificate and its key, as one PEM text: a file that is replaced whole always fits."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def from_pem(cls, pem: bytes) -> Bundle:
        """Read what `pem` has written.

        Raises:
            ValueError: it is no such text.
        """
        key = load_pem_private_key(pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the key is not one of ours")  # noqa: TRY004 - a value of a file
        return cls(certificate=x509.load_pem_x509_certificate(pem), key=key)

    def pem(self) -> bytes:
        """Return the text: the key, then the certificate."""
        return key_pem(self.key) + self.certificate.public_bytes(Encoding.PEM)


class Authority:
    """One root: what it has signed, and signs."""

    def __init__(self, role: Role, bundle: Bundle) -> None:
        self.role = role
        self.certificate = bundle.certificate
        self._key = bundle.key

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate: by it a hub knows the root at first contact."""
        return self.certificate.fingerprint(_HASH)

    def pem(self) -> bytes:
        """Return the certificate, for those who are to trust it."""
        return self.certificate.public_bytes(Encoding.PEM)

    def sign(self, message: bytes) -> bytes:
        """Sign a message of ours; it must begin with words that no certificate begins with."""
        return self._key.sign(message, ec.ECDSA(_HASH))

    def issue_for_hub(self, public_key: ec.EllipticCurvePublicKey, name: str) -> x509.Certificate:
        """Vouch that a key is the hub's of this name."""
        assert self.role is Role.HUBS  # noqa: S101 - the other root's word means another thing
        return self._issue(public_key, name, HUB_LIFETIME, ExtendedKeyUsageOID.CLIENT_AUTH)

    def issue_for_server(
        self, public_key: ec.EllipticCurvePublicKey, name: str, hosts: Sequence[str]
    ) -> x509.Certificate:
        """Vouch that a key is the server's that is reached under these host names and addresses."""
        assert self.role is Role.SERVICES  # noqa: S101 - as above
        return self._issue(
            public_key, name, SERVICE_LIFETIME, ExtendedKeyUsageOID.SERVER_AUTH, hosts
        )

    def issue_for_service(
        self, public_key: ec.EllipticCurvePublicKey, name: str
    ) -> x509.Certificate:
        """Vouch that a key is the service's of this name, where it is a client."""
        assert self.role is Role.SERVICES  # noqa: S101 - as above
        return self._issue(public_key, name, SERVICE_LIFETIME, ExtendedKeyUsageOID.CLIENT_AUTH)

    def has_issued(self, certificate: x509.Certificate) -> bool:
        """Tell whether a certificate is of this root, whatever its dates say."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def revocation_list(self, revoked: Mapping[int, datetime]) -> bytes:
        """Return the list (PEM) of the certificates that count no more, with since when.

        It says of itself that it is good as long as the root: a broker refuses everybody when its
        list has run out, and ours is written anew at every change.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(self.certificate.not_valid_before_utc)
            .next_update(self.certificate.not_valid_after_utc)
        )
        for serial, since in sorted(revoked.items()):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, _HASH).public_bytes(Encoding.PEM)

    def _issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        name: str,
        lifetime: timedelta,
        usage: x509.ObjectIdentifier,
        hosts: Sequence[str] = (),
    ) -> x509.Certificate:
        now = _now()
        builder = _builder(public_key, _named(name), self.certificate.subject)
        builder = builder.not_valid_before(now - BACKDATED).not_valid_after(
            min(now + lifetime, self.certificate.not_valid_after_utc)
        )
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(digital_signature=True), True),
            (x509.ExtendedKeyUsage([usage]), False),
            (
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                False,
            ),
        ):
            builder = builder.add_extension(extension, critical=critical)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        return builder.sign(self._key, _HASH)


def authority(home: Path, role: Role) -> Authority:
    """Return one of the roots of this home; it is made at the first call.

    Raises:
        UsageError: its file cannot be read or is none.
    """
    name = f"ca/{role.value}.pem"
    path = secret_path(home, name)
    if not path.exists():
        keep_secret(home, name, _new_root(role).pem().decode())
    try:
        return Authority(role, Bundle.from_pem(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise UsageError(f"无法读取根证书 / cannot read the authority {path}: {error}") from error


def find_authority(home: Path, role: Role) -> Authority | None:
    """Return one of the roots of this home if it was made; None: this machine does not enrol."""
    if not secret_path(home, f"ca/{role.value}.pem").exists():
        return None
    return authority(home, role)


def revoke(home: Path, serials: Iterable[int]) -> bytes:
    """Let hubs' certificates count no more; returns the whole list (PEM), which a broker reads.

    An entry is dropped when its certificate must have run out.
    """
    hubs = authority(home, Role.HUBS)
    path = secret_path(home, "ca/revoked.pem")
    with exclusive(path.with_name("revoked.lock")):
        now = _now()
        revoked = dict.fromkeys(serials, now)
        if path.exists():
            listed = x509.load_pem_x509_crl(path.read_bytes())
            revoked |= {
                entry.serial_number: entry.revocation_date_utc
                for entry in listed
                if entry.revocation_date_utc + HUB_LIFETIME > now
            }
        written = hubs.revocation_list(revoked)
        write_private(path, written)
    return written


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key, as all of ours are."""
    return ec.generate_private_key(_CURVE())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key for a file that only its owner can read."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def signing_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a signing request (DER, RFC 2986): its signature proves that we have the key.

    It names nobody: whose key it is, the authority knows by other means.
    """
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, _HASH).public_bytes(Encoding.DER)


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a signing request whose sender has proved to have it.

    Raises:
        DataError: it is no such request.
    """
    if len(request) > REQUEST_BYTES_MAX:
        raise DataError(f"a signing request of {len(request)} bytes")
    try:
        read = x509.load_der_x509_csr(request)
        key = read.public_key()
        is_proved = read.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DataError("no signing request") from error
    if not is_proved or not isinstance(key, ec.EllipticCurvePublicKey):
        raise DataError("a signing request without proof, or of a key that is not P-256")
    if not isinstance(key.curve, _CURVE):
        raise DataError("a signing request of another curve than P-256")
    return key


def is_due(certificate: x509.Certificate, at: datetime) -> bool:
    """Tell whether a certificate should be renewed at `at`."""
    return at >= due_at(certificate)


def due_at(certificate: x509.Certificate) -> datetime:
    """Return when a certificate should be renewed."""
    end = certificate.not_valid_after_utc
    return end - LEFT_WHEN_DUE * (end - certificate.not_valid_before_utc)


def common_name(certificate: x509.Certificate) -> str:
    """Return whom a certificate of ours names."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def hosts_of(certificate: x509.Certificate) -> set[str]:
    """Return the host names and addresses that a certificate names."""
    try:
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {
        *named.get_values_for_type(x509.DNSName),
        *map(str, named.get_values_for_type(x509.IPAddress)),
    }


def _new_root(role: Role) -> Bundle:
    key = new_key()
    now = _now()
    subject = _named(f"Hearth {role.value}")
    builder = (
        _builder(key.public_key(), subject, subject)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            _usage(digital_signature=True, key_cert_sign=True, crl_sign=True), critical=True
        )
    )
    return Bundle(certificate=builder.sign(key, _HASH), key=key)


def _builder(
    public_key: ec.EllipticCurvePublicKey, subject: x509.Name, issuer: x509.Name
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(
    *, digital_signature: bool, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _now() -> datetime:
    # Certificates count whole seconds.
    return datetime.now(UTC).replace(microsecond=0)
