"""Tokens that must be refused, each for its own reason, by our own checks and another issuer's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import jwt
import pytest

from api import auth_foreign
from api.access import Principal, Role
from api.auth import RefusedTokenError
from api.auth_foreign import ForeignTokens
from api.issuer.keys import SigningKey, key_of, public_pem
from api.issuer.tokens import AUDIENCE
from gateway.errors import UnavailableError
from tests.archives import ISSUER, KEY, VERIFIER

NOW = datetime.now(UTC)
FOREIGN = "https://id.example/realms/city"
GOOD = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": str(UUID(int=5)),
    "role": "clinician",
    "sid": str(UUID(int=6)),
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + timedelta(days=2),  # what is parametrized is made long before it is used
}


def token(
    key: SigningKey = KEY, kid: str | None = None, typ: str = "at+jwt", **changed: object
) -> str:
    claims = {name: value for name, value in (GOOD | changed).items() if value is not None}
    headers = {"kid": kid or key.kid, "typ": typ}
    return jwt.encode(claims, key.private, algorithm="ES256", headers=headers)


def by_hand(header: dict[str, str], sign: bytes | None) -> str:
    """A token that no library would make: HS256 with a public key, or no signature at all."""

    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    claims = {
        name: int(value.timestamp()) if isinstance(value, datetime) else value
        for name, value in GOOD.items()
    }
    head = part(json.dumps({"kid": KEY.kid, "typ": "at+jwt"} | header).encode())
    text = f"{head}.{part(json.dumps(claims).encode())}"
    signature = b"" if sign is None else hmac.digest(sign, text.encode(), hashlib.sha256)
    return f"{text}.{part(signature)}"


async def test_a_good_token_says_who_bears_it() -> None:
    principal = await VERIFIER.principal(token())
    assert (principal.user, principal.role) == (UUID(int=5), Role.CLINICIAN)
    assert principal.session == UUID(int=6)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (token(iss="https://elsewhere.example"), "issuer"),
        (token(aud="another"), "audience"),
        (token(aud=None), "claims"),
        (token(exp=NOW - timedelta(minutes=1)), "expired"),
        (token(exp=None), "claims"),
        (token(nbf=NOW + timedelta(days=1)), "not_yet"),
        (token(iat=NOW + timedelta(days=1)), "not_yet"),
        (token(typ="JWT"), "type"),
        (token(key_of("another")), "key"),
        (token(key_of("another"), kid=KEY.kid), "signature"),
        (token(role="king"), "claims"),
        (token(sub="4711"), "claims"),
        (by_hand({"alg": "none"}, None), "algorithm"),
        (by_hand({"alg": "HS256"}, public_pem(KEY)), "algorithm"),
        (by_hand({"alg": "HS256"}, json.dumps(KEY.jwk).encode()), "algorithm"),
        ("a.b.c", "form"),
        ("x" * 9000, "size"),
    ],
)
async def test_a_token_that_is_not_good_is_refused(bad: str, reason: str) -> None:
    with pytest.raises(RefusedTokenError) as refused:
        await VERIFIER.principal(bad)
    assert refused.value.reason == reason


class Elsewhere:
    """Another issuer, as HTTP answers."""

    def __init__(self) -> None:
        self.keys = [dict(KEY.jwk)]
        self.asked = 0
        self.is_down = False
        self.name = FOREIGN

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            return httpx.Response(503)
        if request.url.path.endswith("/.well-known/openid-configuration"):
            return httpx.Response(200, json={"issuer": self.name, "jwks_uri": f"{FOREIGN}/keys"})
        self.asked += 1
        return httpx.Response(200, json={"keys": self.keys})


async def find(_issuer: str, subject: str) -> Principal | None:
    known = {"u-1": Principal(user=UUID(int=9), role=Role.CLINICIAN)}
    return known.get(subject)


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
async def foreign(elsewhere: Elsewhere) -> AsyncIterator[ForeignTokens]:
    transport = httpx.MockTransport(elsewhere.answer)
    async with httpx.AsyncClient(transport=transport) as client:
        yield ForeignTokens(client, find, issuer=FOREIGN, audience=AUDIENCE)


def foreign_token(key: SigningKey = KEY, **changed: object) -> str:
    return token(key, None, "JWT", **({"iss": FOREIGN, "sub": "u-1"} | changed))


async def test_another_issuers_person_is_the_account_that_names_them(
    foreign: ForeignTokens, elsewhere: Elsewhere
) -> None:
    for _ in range(3):
        assert (await foreign.principal(foreign_token())).user == UUID(int=9)
    assert elsewhere.asked == 1, "its keys are kept"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (foreign_token(sub="stranger"), "account"),
        (foreign_token(iss=ISSUER), "issuer"),
        (foreign_token(aud="another"), "audience"),
        (foreign_token(exp=NOW - timedelta(minutes=1)), "expired"),
        (by_hand({"alg": "none"}, None), "algorithm"),
        (by_hand({"alg": "HS256"}, public_pem(KEY)), "algorithm"),
    ],
)
async def test_another_issuers_bad_token_is_refused(
    foreign: ForeignTokens, bad: str, reason: str
) -> None:
    with pytest.raises(RefusedTokenError) as refused:
        await foreign.principal(bad)
    assert refused.value.reason == reason


async def test_a_rotated_key_is_found_but_unknown_ones_do_not_make_us_ask_again_and_again(
    foreign: ForeignTokens, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await foreign.principal(foreign_token())
    new = key_of("rotated")
    elsewhere.keys = [dict(new.jwk)]
    for _ in range(5):
        with pytest.raises(RefusedTokenError):
            await foreign.principal(foreign_token(new))
    assert elsewhere.asked == 1
    monkeypatch.setattr(auth_foreign, "READ_AGAIN_S_MIN", 0.0)
    await foreign.principal(foreign_token(new))
    assert elsewhere.asked == 2


async def test_a_shared_secret_among_the_keys_is_not_used(
    foreign: ForeignTokens, elsewhere: Elsewhere
) -> None:
    secret = base64.urlsafe_b64encode(b"s" * 32).rstrip(b"=").decode()
    elsewhere.keys = [{"kty": "oct", "k": secret, "kid": KEY.kid, "alg": "HS256"}]
    with pytest.raises(RefusedTokenError):
        await foreign.principal(by_hand({"alg": "HS256"}, b"s" * 32))


@pytest.mark.parametrize("how", ["down", "another", "too many"])
async def test_an_issuer_that_cannot_be_read_is_unavailable(
    foreign: ForeignTokens, elsewhere: Elsewhere, how: str
) -> None:
    match how:
        case "down":
            elsewhere.is_down = True
        case "another":
            elsewhere.name = "https://another.example"
        case _:
            elsewhere.keys *= auth_foreign.KEYS_MAX + 1
    with pytest.raises(UnavailableError):
        await foreign.principal(foreign_token())
