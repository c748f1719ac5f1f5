"""`hearth admin user | careteam | client` and `hearth audit`, as an administrator runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from typer.testing import CliRunner

from api.auth import OwnTokens
from api.issuer.keys import KeyRing, key_of
from api.issuer.tokens import AUDIENCE
from gateway.cli import audit
from gateway.cli.admin import careteam, client, user
from gateway.errors import UsageError
from gateway.platform.settings import load_settings
from tests.archives import public_id
from tests.worlds import enter_registry, query

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _here(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_registry(database)
    monkeypatch.setenv("HEARTH_DATABASE_URL", database)
    monkeypatch.setenv("HEARTH_HOME", str(tmp_path))


def run(app: typer.Typer, *words: str, status: int = 0, typed: str = "") -> str:
    result = CliRunner().invoke(app, words, input=typed)
    if isinstance(result.exception, UsageError):
        raise result.exception
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def as_json(output: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(output.splitlines()[0])
    return read


def test_an_account_is_handed_over_once_and_listed_without_secrets(database: str) -> None:
    added = as_json(run(user.app, "add", "wang.li", "--role", "clinician", "--json"))
    assert added["totp"].startswith("otpauth://totp/Hearth:wang.li?secret=")
    assert len(added["password"]) >= 12
    listed = run(user.app, "list", "--json")
    assert added["password"] not in listed
    assert '"login": "wang.li"' in listed
    ((kept,),) = query(database, "SELECT password_hash FROM issuer.credential")
    assert kept.startswith("$argon2id$")


def test_a_password_of_ones_own_is_read_from_standard_input_and_bounded() -> None:
    words = ("add", "wang.li", "--role", "clinician", "--password-stdin", "--json")
    with pytest.raises(UsageError, match="12 to 256"):
        run(user.app, *words, typed="short\n")
    assert as_json(run(user.app, *words, typed="a long enough password\n"))["password"] is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("add", "zhang", "--role", "resident"), "--resident"),
        (("add", "li", "--role", "clinician", "--no-totp"), "two factors"),
        (("add", "svc", "--role", "service"), "--jwks"),
        (("add", "li", "--role", "clinician", "--scope", "system/*.rs"), "service's"),
        (("add", "UPPER", "--role", "clinician"), "2 to 63"),
        (("disable", "nobody"), "no account"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(words: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        run(user.app, *words)


def test_a_file_with_a_private_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{**key_of("x").jwk, "d": "secret"}]}))
    with pytest.raises(UsageError, match="private key"):
        run(user.app, "add", "svc", "--role", "service", "--jwks", str(path))


@pytest.mark.parametrize(
    ("bits", "why"), [(1024, "1024 bits"), (None, "no key that can check a signature")]
)
def test_a_service_whose_keys_are_too_weak_or_of_no_use_is_refused(
    tmp_path: Path, bits: int | None, why: str
) -> None:
    path = tmp_path / "keys.json"
    jwk = {"kty": "unheard-of", "kid": "x"}
    if bits is not None:
        private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        jwk = {**RSAAlgorithm.to_jwk(private.public_key(), as_dict=True), "kid": "x"}
    path.write_text(json.dumps({"keys": [jwk]}))
    with pytest.raises(UsageError, match=why):
        run(user.app, "add", "svc", "--role", "service", "--jwks", str(path))


async def test_a_token_on_an_administrators_word_is_good_and_audited(database: str) -> None:
    run(user.app, "add", "wang.li", "--role", "clinician")
    token = run(user.app, "token", "wang.li").strip()
    settings = load_settings()
    own = OwnTokens(key=KeyRing(settings.home), issuer=settings.issuer_url, audience=AUDIENCE)
    principal = await own.principal(token)
    assert principal.session is not None
    assert run(user.app, "sessions", "wang.li", "--json").count(str(principal.session)) == 1
    assert query(database, "SELECT action FROM audit ORDER BY audit_id DESC LIMIT 1") == [
        ("session.open",)
    ]
    run(user.app, "revoke", "wang.li")
    assert str(principal.session) not in run(user.app, "sessions", "wang.li", "--json")


def test_a_care_team_is_made_joined_and_left(database: str) -> None:
    run(user.app, "add", "wang.li", "--role", "clinician")
    run(careteam.app, "add", "clinic")
    run(careteam.app, "join", "clinic", "--user", "wang.li")
    run(careteam.app, "care", "clinic", "--resident", str(public_id(database)))
    assert as_json(run(careteam.app, "list", "--json"))["members"] == 1
    run(careteam.app, "leave", "clinic", "--user", "wang.li")
    run(careteam.app, "release", "clinic", "--resident", str(public_id(database)))
    counts = as_json(run(careteam.app, "list", "--json"))
    assert (counts["members"], counts["residents"]) == (0, 0)
    with pytest.raises(UsageError, match="not in it"):
        run(careteam.app, "leave", "clinic", "--user", "wang.li")


def test_a_client_is_entered_with_where_it_may_be_sent_back_to() -> None:
    run(client.app, "add", "chart", "--redirect", "https://app.example/done")
    assert "https://app.example/done" in run(client.app, "list", "--json")


def test_the_audit_is_verified_listed_and_anchored(database: str) -> None:
    run(careteam.app, "add", "clinic")
    run(audit.app, "anchor")
    assert as_json(run(audit.app, "verify", "--json"))["damage"] == []
    assert '"action": "care_team.add"' in run(audit.app, "list", "--json")
    query(
        database,
        "ALTER TABLE audit DISABLE TRIGGER USER; UPDATE audit SET actor = 'cli:y'",
    )
    output = run(audit.app, "verify", status=1)
    assert "damaged: audit_id 1" in output
    with pytest.raises(UsageError, match="six months"):
        run(audit.app, "prune", "--before", "2099-01-01T00:00+00:00")
