"""What a hub and its authority say to each other: who can prove what, and who cannot."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from edge.enrolment import enrol, renew
from edge.identity import Identity, is_possible, keep_identity, read_identity
from edge.renewal import AuthorityTime
from gateway.errors import DataError, UnavailableError
from gateway.platform import ca
from gateway.platform.enrolment import (
    BODY_BYTES_MAX,
    ENROL_PATH,
    Answer,
    Code,
    Enrolment,
    Renewal,
    new_nonce,
    sign_renewal,
)
from gateway.wire import hub_name

HUB = 0x00C0FFEE00C0FFEE
NAME = hub_name(HUB)
URL = "https://hearth.example:8420"
NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)


@pytest.fixture
def hubs(tmp_path: Path) -> ca.Authority:
    return ca.authority(tmp_path / "home", ca.Role.HUBS)


def a_code(root: ca.Authority) -> Code:
    return Code.make(HUB, root.fingerprint, URL)


def an_answer(root: ca.Authority, key: ec.EllipticCurvePublicKey, hub: str = NAME) -> Answer:
    return Answer(
        hub=hub,
        certificate=root.issue_for_hub(key, hub).public_bytes(Encoding.PEM),
        services_root=root.pem(),
        broker="mqtts://broker.example",
        at=NOW,
    )


def test_a_code_survives_a_persons_typing(hubs: ca.Authority) -> None:
    code = a_code(hubs)
    for typed in (code.text, code.text.lower(), code.text.replace("-", ""), f" {code.text}\n"):
        assert Code.from_text(typed) == code
    assert set(code.text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567-"), "a QR code's short alphabet"


@pytest.mark.parametrize("place", range(0, 160, 7))
def test_a_mistyped_code_is_told_before_anybody_is_asked(hubs: ca.Authority, place: int) -> None:
    text = a_code(hubs).text.replace("-", "")
    place %= len(text)
    typed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
    with pytest.raises(DataError):
        Code.from_text(typed)


@pytest.mark.parametrize("text", ["", "-", "HELLO", "A" * 500, "äöü", "====", "1" * 160])
def test_what_is_no_code_is_told(text: str) -> None:
    with pytest.raises(DataError):
        Code.from_text(text)


def test_what_the_store_keeps_of_a_code_does_not_tell_its_secret(hubs: ca.Authority) -> None:
    code = a_code(hubs)
    assert code.seed not in code.verifier
    assert code.name not in (code.seed.hex(), code.verifier.hex())
    assert replace(code, seed=bytes(16)).verifier != code.verifier


def test_only_the_codes_secret_proves_it(hubs: ca.Authority) -> None:
    code, nonce = a_code(hubs), new_nonce()
    request = ca.signing_request(ca.new_key())
    asked = Enrolment.from_body(code.sign(request, nonce))
    assert asked.is_signed_by(code.verifier)
    thief = Enrolment.from_body(replace(code, seed=bytes(16)).sign(request, nonce))
    assert not thief.is_signed_by(code.verifier)
    for changed in (
        replace(asked, request=ca.signing_request(ca.new_key())),
        replace(asked, nonce=new_nonce()),
        replace(asked, code="0" * 16),
    ):
        assert not changed.is_signed_by(code.verifier)


def test_a_request_proves_that_its_sender_has_the_key() -> None:
    key = ca.new_key()
    request = ca.signing_request(key)
    assert ca.requested_key(request) == key.public_key()
    other = bytearray(request)
    other[-1] ^= 1
    for wrong in (bytes(other), b"", request[:-1], bytes(5000)):
        with pytest.raises(DataError):
            ca.requested_key(wrong)
    strange = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    of_another_curve = strange.sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())
    with pytest.raises(DataError, match="P-256"):
        ca.requested_key(of_another_curve.public_bytes(Encoding.DER))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"code": 1}',
        b'{"code": "0", "nonce": "!", "request": "", "signature": ""}',
        b"[" * 10_000,
        b'{"code": "' + b"0" * BODY_BYTES_MAX + b'"}',
        b"\xff",
    ],
)
def test_rubbish_is_no_request(body: bytes) -> None:
    for read in (Enrolment.from_body, Renewal.from_body):
        with pytest.raises(DataError):
            read(body)


def test_an_answer_is_believed_of_the_authority_in_the_code_only(
    hubs: ca.Authority, tmp_path: Path
) -> None:
    other = ca.authority(tmp_path / "other", ca.Role.HUBS)
    key, nonce = ca.new_key().public_key(), new_nonce()
    answer = an_answer(hubs, key)

    def read(body: bytes) -> Answer:
        return Answer.from_body(body, nonce=nonce, fingerprint=hubs.fingerprint)[0]

    assert read(answer.signed(hubs, nonce)) == answer
    with pytest.raises(DataError, match="another authority"):
        read(answer.signed(other, nonce))
    with pytest.raises(DataError, match="not signed"):
        read(answer.signed(hubs, new_nonce()))
    forged = json.loads(answer.signed(other, nonce))
    forged["root"] = json.loads(answer.signed(hubs, nonce))["root"]
    with pytest.raises(DataError, match="not signed"):
        read(json.dumps(forged).encode())
    changed = json.loads(answer.signed(hubs, nonce))
    text = base64.b64decode(changed["answer"]).replace(b"broker.example", b"thief.example")
    changed["answer"] = base64.b64encode(text).decode()
    with pytest.raises(DataError, match="not signed"):
        read(json.dumps(changed).encode())


def test_a_root_of_a_kind_of_key_that_nobody_knows_is_no_authority(hubs: ca.Authority) -> None:
    """Whoever is in between could send one: it must not end the hub."""
    nonce = new_nonce()
    body = json.loads(an_answer(hubs, ca.new_key().public_key()).signed(hubs, nonce))
    body["root"] = base64.b64encode(with_an_unknown_key(hubs.certificate)).decode()
    with pytest.raises(DataError, match="another authority"):
        Answer.from_body(json.dumps(body).encode(), nonce=nonce, fingerprint=hubs.fingerprint)


def with_an_unknown_key(certificate: x509.Certificate) -> bytes:
    """The certificate with another object identifier in place of id-ecPublicKey's (RFC 5480, 2.1.1)."""
    known = bytes.fromhex("06072a8648ce3d0201")
    der = certificate.public_bytes(Encoding.DER)
    assert der.count(known) == 1
    return der.replace(known, known[:-1] + b"\x7f")


def test_a_certificate_for_another_key_or_hub_is_not_kept(
    hubs: ca.Authority, tmp_path: Path
) -> None:
    code = a_code(hubs)

    def answered(hub: str, key: ec.EllipticCurvePublicKey | None) -> None:
        def post(path: str, body: bytes) -> bytes:
            assert path == ENROL_PATH
            asked = Enrolment.from_body(body)
            wanted = key or ca.requested_key(asked.request)
            return an_answer(hubs, wanted, hub).signed(hubs, asked.nonce)

        enrol(code, tmp_path / "hub", post)

    for hub, key in ((NAME, ca.new_key().public_key()), ("0" * 16, None)):
        with pytest.raises(UnavailableError, match="another key or hub"):
            answered(hub, key)
    answered(NAME, None)
    assert read_identity(tmp_path / "hub").name == NAME


def test_an_answer_that_was_lost_is_asked_for_with_the_same_key(
    hubs: ca.Authority, tmp_path: Path
) -> None:
    keys: list[ec.EllipticCurvePublicKey] = []

    def lose(_path: str, body: bytes) -> bytes:
        keys.append(ca.requested_key(Enrolment.from_body(body).request))
        raise UnavailableError("lost")

    for _ in range(2):
        with pytest.raises(UnavailableError, match="lost"):
            enrol(a_code(hubs), tmp_path / "hub", lose)
    assert keys[0] == keys[1]
    assert (tmp_path / "hub" / "pending.key").stat().st_mode & 0o777 == 0o600


def test_a_renewal_is_signed_by_the_key_of_the_former_certificate(hubs: ca.Authority) -> None:
    key = ca.new_key()
    certificate = hubs.issue_for_hub(key.public_key(), NAME)
    request, nonce = ca.signing_request(ca.new_key()), new_nonce()
    asked = Renewal.from_body(sign_renewal(certificate, key, request, nonce))
    assert asked.is_signed
    assert not replace(asked, nonce=new_nonce()).is_signed
    assert not Renewal.from_body(sign_renewal(certificate, ca.new_key(), request, nonce)).is_signed


def test_a_renewal_makes_a_new_key(hubs: ca.Authority, tmp_path: Path) -> None:
    key = ca.new_key()
    former = Identity(
        hub=ca.Bundle(certificate=hubs.issue_for_hub(key.public_key(), NAME), key=key),
        hubs_root=hubs.pem(),
        services_root=b"former",
    )
    keep_identity(tmp_path, former)

    def post(_path: str, body: bytes) -> bytes:
        asked = Renewal.from_body(body)
        return an_answer(hubs, ca.requested_key(asked.request)).signed(hubs, asked.nonce)

    renew(former, tmp_path, post)
    kept = read_identity(tmp_path)
    assert kept.hub.key.public_key() != key.public_key()
    assert kept.hub.certificate.public_key() == kept.hub.key.public_key()
    assert kept.services_root == hubs.pem()


class Clocks:
    """A hub's two clocks, set by the test."""

    def __init__(self, own: datetime) -> None:
        self.own, self.passed_s = own, 0.0

    def time(self) -> AuthorityTime:
        return AuthorityTime(lambda: self.own, lambda: self.passed_s)


def issued_at(hubs: ca.Authority, at: datetime, monkeypatch: pytest.MonkeyPatch) -> Identity:
    key = ca.new_key()
    monkeypatch.setattr(ca, "_now", lambda: at)
    certificate = hubs.issue_for_hub(key.public_key(), NAME)
    bundle = ca.Bundle(certificate=certificate, key=key)
    return Identity(hub=bundle, hubs_root=hubs.pem(), services_root=hubs.pem())


def test_without_a_clock_time_is_what_passed_since_the_issue(
    hubs: ca.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = issued_at(hubs, NOW, monkeypatch)
    clocks = Clocks(datetime(1970, 1, 1, tzinfo=UTC))
    time = clocks.time()
    assert not is_possible(clocks.own, identity.hub.certificate)
    clocks.passed_s = 60
    assert time.now(identity) == NOW + timedelta(minutes=1)
    clocks.own = NOW + timedelta(days=3)  # it was set
    assert time.now(identity) == clocks.own


def test_a_clock_far_from_what_the_authority_told_is_not_believed(
    hubs: ca.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = issued_at(hubs, NOW, monkeypatch)
    clocks = Clocks(NOW + timedelta(days=900))
    time = clocks.time()
    assert time.now(identity) == clocks.own
    time.told(NOW)
    clocks.passed_s = 60
    assert time.now(identity) == NOW + timedelta(minutes=1)
    clocks.own = NOW + timedelta(minutes=2)
    assert time.now(identity) == clocks.own


def test_a_certificate_is_due_when_a_third_of_its_life_is_left(
    hubs: ca.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = issued_at(hubs, NOW, monkeypatch).hub.certificate
    assert certificate.not_valid_before_utc == NOW - ca.BACKDATED
    assert certificate.not_valid_after_utc == NOW + ca.HUB_LIFETIME
    assert not ca.is_due(certificate, NOW + timedelta(days=19))
    assert ca.is_due(certificate, NOW + timedelta(days=20))


def test_an_entry_leaves_the_list_when_its_certificate_has_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(written: bytes) -> set[int]:
        return {entry.serial_number for entry in x509.load_pem_x509_crl(written)}

    monkeypatch.setattr(ca, "_now", lambda: NOW)
    assert listed(ca.revoke(tmp_path, [1])) == {1}
    monkeypatch.setattr(ca, "_now", lambda: NOW + timedelta(days=20))
    assert listed(ca.revoke(tmp_path, [2])) == {1, 2}
    monkeypatch.setattr(ca, "_now", lambda: NOW + ca.HUB_LIFETIME + timedelta(days=1))
    assert listed(ca.revoke(tmp_path, [])) == {2}


def test_the_roots_of_a_home_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    made = {role: ca.authority(tmp_path, role).fingerprint for role in ca.Role}
    assert len(set(made.values())) == len(ca.Role)
    for role, fingerprint in made.items():
        assert ca.authority(tmp_path, role).fingerprint == fingerprint
        path = tmp_path / "secrets" / "ca" / f"{role.value}.pem"
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets" / "ca").stat().st_mode & 0o777 == 0o700
