"""The office that enrols hubs: codes for administrators, certificates for hubs, revocations.

A hub's request is believed for its proof only (gateway.platform.enrolment). What is decided about a
code or a hub is decided in the database, in the transaction that audits it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.records import NewHub, Registration
from api.registry import canonical_hub, register
from gateway.errors import DataError, UnavailableError, UsageError
from gateway.platform import ca
from gateway.platform.audit import AuditEvent, command_actor, write_audit_blocking
from gateway.platform.enrolment import (
    CODE_ATTEMPTS_MAX,
    CODE_LIFETIME_MAX,
    RENEWAL_GRACE,
    Answer,
    Code,
    Enrolment,
    Renewal,
)
from gateway.platform.postgres import Connection, connect_blocking, load_queries, translated
from gateway.wire import hub_id

_QUERIES = load_queries(Path(__file__).parent / "sql" / "enrolment.sql")


class RefusedError(DataError):
    """A hub is not given a certificate. It is not told more than that; `why` is for the log."""

    def __init__(self, why: str) -> None:
        super().__init__(f"not enrolled: {why}")
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeCode:
    """A code that was entered, and until when it is good."""

    code: Code
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """Answers hubs. Its methods block: each is a few signatures and one or two transactions."""

    dsn: str
    """The API's own role suffices."""
    home: Path
    """Holds the roots; where it does not, this machine does not enrol."""
    broker_url: Callable[[], str]
    """Where hubs reach the broker."""

    def enrol(self, body: bytes, origin: str | None) -> bytes:
        """Answer a request for a first certificate.

        Raises:
            DataError: it is none.
            RefusedError: the code is unknown, used, expired or tried too often, or the proof is wrong.
            UnavailableError: the database is down, or this machine does not enrol.
        """
        asked = Enrolment.from_body(body)
        key = ca.requested_key(asked.request)
        with connect_blocking(self.dsn, application="hearth-enrolment") as connection, translated():
            hub, verifier = self._attempt(connection, asked.code)
            if not asked.is_signed_by(verifier):
                raise RefusedError("proof")
            certificate = self._hubs().issue_for_hub(key, hub)
            noted = {
                **_noted(certificate, origin),
                "code": asked.code,
                "key_digest": _digest(key),
            }
            ((is_first,),) = connection.execute(_QUERIES["complete"], noted).fetchall()
            if not is_first:
                raise RefusedError("closed")
        return self._answer(hub, certificate, asked.nonce)

    def renew(self, body: bytes, origin: str | None) -> bytes:
        """Answer a request for the next certificate.

        Raises:
            DataError: it is none.
            RefusedError: the certificate is not ours, too old or revoked, or the proof is wrong.
            UnavailableError: the database is down, or this machine does not enrol.
        """
        asked = Renewal.from_body(body)
        key = ca.requested_key(asked.request)
        hubs = self._hubs()
        shown = asked.certificate
        if not hubs.has_issued(shown) or not asked.is_signed:
            raise RefusedError("proof")
        if datetime.now(UTC) > shown.not_valid_after_utc + RENEWAL_GRACE:
            raise RefusedError("expired")
        hub = ca.common_name(shown)
        certificate = hubs.issue_for_hub(key, hub)
        noted = {
            **_noted(certificate, origin),
            "hub": hub,
            "former": f"{shown.serial_number:x}",
        }
        with connect_blocking(self.dsn, application="hearth-enrolment") as connection, translated():
            ((why,),) = connection.execute(_QUERIES["renew"], noted).fetchall()
        if why is not None:
            raise RefusedError(why)
        return self._answer(hub, certificate, asked.nonce)

    def _attempt(self, connection: Connection, code: str) -> tuple[str, bytes]:
        tried = {"code": code, "attempts_max": CODE_ATTEMPTS_MAX}
        with connection.transaction():  # committed whatever comes of it: a try counts
            ((hub, verifier, why),) = connection.execute(_QUERIES["attempt"], tried).fetchall()
        if why is not None:
            raise RefusedError(why)
        return hub, bytes(verifier)

    def _answer(self, hub: str, certificate: x509.Certificate, nonce: bytes) -> bytes:
        answer = Answer(
            hub=hub,
            certificate=certificate.public_bytes(Encoding.PEM),
            services_root=ca.authority(self.home, ca.Role.SERVICES).pem(),
            broker=self.broker_url(),
            at=datetime.now(UTC),
        )
        return answer.signed(self._hubs(), nonce)

    def _hubs(self) -> ca.Authority:
        found = ca.find_authority(self.home, ca.Role.HUBS)
        if found is None:
            raise UnavailableError(f"this machine does not enrol: no authority in {self.home}")
        return found


def make_code(
    connection: Connection,
    home: Path,
    hub: str,
    *,
    of_home: UUID | None,
    url: str,
    lifetime: timedelta,
) -> MadeCode:
    """Enter a hub if need be, and a code for it, which replaces any open one.

    Raises:
        UsageError: the hub is not entered and no home is given, or it is another home's.
        UnavailableError: the database is down.
    """
    name = canonical_hub(hub)
    if not timedelta(0) < lifetime <= CODE_LIFETIME_MAX:
        raise UsageError(
            f"有效期须在 {CODE_LIFETIME_MAX.days} 天以内 / a code is good for at most "
            f"{CODE_LIFETIME_MAX.days} days"
        )
    root = ca.authority(home, ca.Role.HUBS)
    code = Code.make(hub_id(name), root.fingerprint, url)
    actor, origin = command_actor()
    with translated(), connection.transaction():
        if of_home is not None:
            register(connection, Registration(hubs=[NewHub(name=name, home=of_home)]))
        connection.execute(_QUERIES["close_codes"], {"hub": name})
        entered = connection.execute(
            _QUERIES["add_code"],
            {"code": code.name, "hub": name, "verifier": code.verifier, "lifetime": lifetime},
        ).fetchone()
        if entered is None:
            raise UsageError(
                f"网关未登记 / hub {name} is not entered: 请指明所属家庭 / say which home it is in: "
                f"`hearth admin hub enrol {name} --home HOME`"
            )
        event = AuditEvent(
            actor=actor,
            action="hub.code",
            origin=origin,
            detail={"hub": name, "code": code.name},
        )
        write_audit_blocking(connection, [event])
    return MadeCode(code=code, expires_at=entered[0])


def revoke_hub(connection: Connection, hub: str) -> set[int]:
    """Let a hub count no more; returns the serial numbers of the certificates that have to go.

    Ingest keeps its batches apart from now on, and it gets no further certificate. That the broker
    keeps it out is the caller's to see to.

    Raises:
        UsageError: there is no such hub.
        UnavailableError: the database is down.
    """
    name = canonical_hub(hub)
    actor, origin = command_actor()
    with translated(), connection.transaction():
        if connection.execute(_QUERIES["revoke_hub"], {"hub": name}).fetchone() is None:
            raise UsageError(
                f"网关未登记 / hub {name} is not entered: 请查看 / see `hearth admin hub list`"
            )
        connection.execute(_QUERIES["close_codes"], {"hub": name})
        serials = {
            int(serial, 16)
            for (serial,) in connection.execute(_QUERIES["serials"], {"hub": name}).fetchall()
        }
        event = AuditEvent(
            actor=actor,
            action="hub.revoke",
            origin=origin,
            detail={"hub": name, "certificates": len(serials)},
        )
        write_audit_blocking(connection, [event])
    return serials


def _noted(certificate: x509.Certificate, origin: str | None) -> dict[str, object]:
    return {
        "serial": f"{certificate.serial_number:x}",
        "valid_until": certificate.not_valid_after_utc,
        "origin": origin,
    }


def _digest(key: ec.EllipticCurvePublicKey) -> bytes:
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()
