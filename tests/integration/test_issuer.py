"""The built-in issuer over HTTP: every way to a token that must be refused, and the one that is not."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import jwt
import pyotp
import pytest

from api import accounts
from api.access import Role
from api.accounts import Credentials, NewAccount
from api.issuer import issuer
from api.issuer.issuer import ASSERTION_TYPE, challenge_of
from api.issuer.keys import key_of
from api.issuer.passwords import STEP_S, is_password
from gateway.platform.postgres import connect_blocking
from gateway.platform.pruning import TOLD_KEPT_DAYS
from tests.archives import API, ISSUER, KEY, a_vault, api_over, public_id
from tests.worlds import enter_registry, query

pytestmark = pytest.mark.integration

REDIRECT = "http://127.0.0.1:4711/signed-in"
VERIFIER = secrets.token_urlsafe(48)
SERVICE_KEY = key_of("a service")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The API, and an administrator and a resident who can sign in."""

    api: httpx.AsyncClient
    dsn: str
    staff: Credentials
    resident: Credentials

    @property
    def authenticator(self) -> pyotp.TOTP:
        secret = parse_qs(urlsplit(self.staff.totp or "").query)["secret"][0]
        return pyotp.TOTP(secret)


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    enter_registry(database)
    with connect_blocking(database, application="hearth-tests") as connection:
        vault = a_vault()
        staff = NewAccount(login="staff", role=Role.ADMINISTRATOR)
        resident = NewAccount(
            login="resident", role=Role.RESIDENT, resident=public_id(database), has_totp=False
        )
        service = NewAccount(
            login="hospital",
            role=Role.SERVICE,
            jwks=SERVICE_KEY.jwks,
            scopes=["system/Observation.rs", "system/Patient.rs"],
        )
        accounts.add_account(connection, vault, service)
        entered = [accounts.add_account(connection, vault, new) for new in (staff, resident)]
    async with api_over(database) as api:
        api.headers.pop("Authorization")
        yield World(api=api, dsn=database, staff=entered[0], resident=entered[1])


def request(**changed: str) -> dict[str, str]:
    """A good request for a code, with some of it changed; an empty text: left out."""
    good = {
        "response_type": "code",
        "client_id": "hearth-cli",
        "redirect_uri": REDIRECT,
        "scope": "openid offline_access",
        "state": "xyz",
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
    }
    return {name: value for name, value in (good | changed).items() if value}


async def sign_in(world: World, **typed: str) -> httpx.Response:
    """Send the form; by default the resident's, which needs no second factor."""
    good = {"login": "resident", "password": world.resident.password or ""}
    return await world.api.post("/oauth/authorize", data=request() | good | typed)


def told(response: httpx.Response) -> dict[str, str]:
    """What the browser is sent back with."""
    assert response.status_code == 303, response.text
    location = response.headers["location"]
    assert location.startswith(REDIRECT)
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


async def exchange(world: World, code: str, **changed: str) -> httpx.Response:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "client_id": "hearth-cli",
        "code_verifier": VERIFIER,
    }
    form = {name: value for name, value in (form | changed).items() if value}
    return await world.api.post("/oauth/token", data=form)


async def tokens(world: World) -> dict[str, str]:
    response = await exchange(world, told(await sign_in(world))["code"])
    assert response.status_code == 200, response.text
    got: dict[str, str] = response.json()
    return got


async def refresh(world: World, token: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "hearth-cli"}
    return await world.api.post("/oauth/token", data=form)


async def me(world: World, token: str) -> httpx.Response:
    return await world.api.get(f"{API}/me", headers={"Authorization": f"Bearer {token}"})


async def test_who_signs_in_gets_a_token_that_says_who_they_are(world: World) -> None:
    got = await tokens(world)
    response = await me(world, got["access_token"])
    assert response.json()["role"] == "resident"
    assert response.json()["id"] == str(world.resident.id)
    id_token = jwt.decode(
        got["id_token"], KEY.private.public_key(), ["ES256"], audience="hearth-cli", issuer=ISSUER
    )
    assert id_token["preferred_username"] == "resident"
    events = query(world.dsn, "SELECT action FROM audit ORDER BY audit_id DESC LIMIT 1")
    assert events == [("sign_in.done",)]


async def test_the_answer_names_the_issuer_and_the_state(world: World) -> None:
    back = told(await sign_in(world))
    assert (back["iss"], back["state"]) == (ISSUER, "xyz")


async def test_a_second_factor_is_needed_and_a_code_is_taken_once(world: World) -> None:
    typed = {"login": "staff", "password": world.staff.password or ""}
    assert (await sign_in(world, **typed)).status_code == 403
    code = world.authenticator.now()
    assert "code" in told(await sign_in(world, **typed, code=code))
    assert (await sign_in(world, **typed, code=code)).status_code == 403, "it was replayed"
    later = world.authenticator.at(datetime.now(UTC) + timedelta(seconds=STEP_S))
    assert "code" in told(await sign_in(world, **typed, code=later))


@pytest.mark.parametrize(
    "typed", [{"password": "wrong"}, {"login": "nobody"}, {"login": ""}, {"password": "x" * 300}]
)
async def test_a_wrong_attempt_is_refused_and_does_not_say_why(
    world: World, typed: dict[str, str]
) -> None:
    response = await sign_in(world, **typed)
    assert response.status_code == 403
    assert "登录失败" in response.text
    assert (world.resident.password or "") not in response.text


async def test_a_code_of_full_width_digits_is_a_code(world: World) -> None:
    typed = {"login": "staff", "password": world.staff.password or ""}
    full_width_zero = 0xFF10
    wide = "".join(chr(full_width_zero + int(digit)) for digit in world.authenticator.now())
    assert "code" in told(await sign_in(world, **typed, code=wide))


async def test_a_code_that_is_none_is_a_wrong_attempt_like_any_other(world: World) -> None:
    typed = {"login": "staff", "password": world.staff.password or ""}
    for code in ("é", "中文", "12345", "0" * 2000):
        assert (await sign_in(world, **typed, code=code)).status_code == 403
    failures = query(world.dsn, "SELECT sum(failures) FROM issuer.credential")
    assert failures == [(4,)], "else the right password could be found without being locked out"


async def test_a_locked_account_takes_as_long_to_refuse_as_any_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str | None] = []

    def counting(password: str, kept: str | None) -> bool:
        judged.append(kept)
        return is_password(password, kept)

    monkeypatch.setattr(issuer, "is_password", counting)
    query(world.dsn, "UPDATE issuer.credential SET locked_until = now() + interval '1 hour'")
    for typed in ({}, {"login": "nobody"}):
        assert (await sign_in(world, **typed)).status_code == 403
    assert [kept is None for kept in judged] == [False, True]


async def test_too_many_wrong_attempts_lock_the_account_for_a_while(world: World) -> None:
    for _ in range(5):
        assert (await sign_in(world, password="wrong")).status_code == 403  # noqa: S106
    assert (await sign_in(world)).status_code == 403, "the right password does not help now"
    query(world.dsn, "UPDATE issuer.credential SET locked_until = now()")
    assert "code" in told(await sign_in(world))


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_challenge": "", "code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "openid everything"}, "invalid_scope"),
    ],
)
async def test_a_request_without_pkce_is_sent_back(
    world: World, changed: dict[str, str], error: str
) -> None:
    response = await world.api.get("/oauth/authorize", params=request(**changed))
    assert told(response)["error"] == error


@pytest.mark.parametrize(
    "changed",
    [
        {"redirect_uri": "http://127.0.0.1:4711/elsewhere"},
        {"redirect_uri": "http://evil.example/signed-in"},
        {"redirect_uri": "http://127.0.0.1@evil.example/signed-in"},
        {"redirect_uri": "http://127.0.0.1:evil.example/signed-in"},
        {"redirect_uri": "http://127.0.0.1:4711\\.evil.example/signed-in"},
        {"redirect_uri": "http://127.0.0.1:4711/signed\n-in"},
        {"redirect_uri": "http://127.0.0.1:4711/signed-in#more"},
        {"redirect_uri": "http://[::1]:4711/signed-in"},
        {"redirect_uri": "https://127.0.0.1:4711/signed-in"},
        {"redirect_uri": "http://127.0.0.1:4711/signed-in?more=1"},
        {"redirect_uri": ""},
        {"client_id": "stranger"},
    ],
)
async def test_nobody_is_sent_to_an_address_that_is_not_registered(
    world: World, changed: dict[str, str]
) -> None:
    response = await world.api.get("/oauth/authorize", params=request(**changed))
    assert response.status_code == 400
    assert "location" not in response.headers


@pytest.mark.parametrize(
    "changed",
    [
        {"code_verifier": ""},
        {"code_verifier": secrets.token_urlsafe(48)},
        {"redirect_uri": "http://127.0.0.1:4712/signed-in"},
        {"client_id": "hearth-web"},
        {"code": "guessed"},
    ],
)
async def test_a_code_is_no_use_without_what_it_was_asked_for_with(
    world: World, changed: dict[str, str]
) -> None:
    code = told(await sign_in(world))["code"]
    response = await exchange(world, changed.pop("code", code), **changed)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_grant"


async def test_a_code_that_is_used_again_revokes_what_it_began(world: World) -> None:
    code = told(await sign_in(world))["code"]
    first = (await exchange(world, code)).json()
    assert (await exchange(world, code)).status_code == 400
    assert (await me(world, first["access_token"])).status_code == 401


async def test_a_code_is_good_for_a_minute_only(world: World) -> None:
    code = told(await sign_in(world))["code"]
    query(world.dsn, "UPDATE issuer.authorization_code SET expires_at = now()")
    assert (await exchange(world, code)).status_code == 400


async def test_a_refresh_token_rotates_and_its_replay_revokes_the_session(world: World) -> None:
    first = await tokens(world)
    second = (await refresh(world, first["refresh_token"])).json()
    assert (await me(world, second["access_token"])).status_code == 200
    assert (await refresh(world, first["refresh_token"])).status_code == 400
    assert (await refresh(world, second["refresh_token"])).status_code == 400
    for got in (first, second):
        assert (await me(world, got["access_token"])).status_code == 401


async def test_a_revoked_session_ends_at_once(world: World) -> None:
    got = await tokens(world)
    with connect_blocking(world.dsn, application="hearth-tests") as connection:
        assert accounts.revoke_sessions(connection, "resident", None) == 1
    resident = public_id(world.dsn)
    headers = {"Authorization": f"Bearer {got['access_token']}"}
    for path in ("me", "residents", f"residents/{resident}/latest", "notices"):
        assert (await world.api.get(f"{API}/{path}", headers=headers)).status_code == 401
    assert (await refresh(world, got["refresh_token"])).status_code == 400


async def test_a_code_from_before_a_reset_opens_nothing_after_it(world: World) -> None:
    code = told(await sign_in(world))["code"]
    with connect_blocking(world.dsn, application="hearth-tests") as connection:
        accounts.reset_account(connection, a_vault(), "resident")
    assert (await exchange(world, code)).status_code == 400


async def test_a_disabled_account_is_out_at_once(world: World) -> None:
    got = await tokens(world)
    with connect_blocking(world.dsn, application="hearth-tests") as connection:
        accounts.set_disabled(connection, "resident", disabled=True)
    assert (await me(world, got["access_token"])).status_code == 401
    assert (await sign_in(world)).status_code == 403


async def test_a_session_is_forgotten_some_time_after_its_end(world: World) -> None:
    for _ in range(2):
        await tokens(world)
    (former,), (recent,) = query(world.dsn, "SELECT session_id FROM session")
    with connect_blocking(world.dsn, application="hearth-tests") as connection:
        for session, days in ((former, TOLD_KEPT_DAYS + 1), (recent, TOLD_KEPT_DAYS - 1)):
            connection.execute(
                "UPDATE session SET expires_at = now() - make_interval(days => %s)"
                " WHERE session_id = %s",
                [days, session],
            )
    await sign_in(world)
    assert query(world.dsn, "SELECT session_id FROM session") == [(recent,)]


async def test_signing_out_revokes_the_session(world: World) -> None:
    got = await tokens(world)
    form = {"token": got["refresh_token"], "client_id": "hearth-cli"}
    assert (await world.api.post("/oauth/revoke", data=form)).status_code == 200
    assert (await me(world, got["access_token"])).status_code == 401


async def test_a_revocation_of_nothing_is_refused(world: World) -> None:
    response = await world.api.post("/oauth/revoke", data={"client_id": "hearth-cli"})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def assertion(**changed: object) -> str:
    now = datetime.now(UTC)
    claims = {
        "iss": "hospital",
        "sub": "hospital",
        "aud": f"{ISSUER}/oauth/token",
        "exp": now + timedelta(minutes=4),
        "jti": str(uuid4()),
    } | changed
    headers = {"kid": SERVICE_KEY.kid}
    return jwt.encode(claims, SERVICE_KEY.private, algorithm="ES256", headers=headers)


async def as_service(world: World, signed: str, scope: str = "") -> httpx.Response:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": signed,
        "scope": scope,
    }
    return await world.api.post("/oauth/token", data=form)


async def test_a_service_gets_a_token_within_its_scopes(world: World) -> None:
    response = await as_service(world, assertion(), "system/Observation.rs")
    assert response.status_code == 200, response.text
    headers = {"Authorization": f"Bearer {response.json()['access_token']}"}
    resident = f"{API}/residents/{public_id(world.dsn)}"
    assert (await world.api.get(f"{resident}/latest", headers=headers)).status_code == 200
    assert (await world.api.get(resident, headers=headers)).status_code == 403


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": datetime.now(UTC) - timedelta(minutes=1)},
        {"exp": datetime.now(UTC) + timedelta(days=1)},
        {"aud": "https://elsewhere.example"},
        {"iss": "another"},
        {"sub": "tests"},
        {"jti": None},
    ],
)
async def test_a_services_assertion_that_is_not_good_is_refused(
    world: World, changed: dict[str, object]
) -> None:
    assert (await as_service(world, assertion(**changed))).status_code == 401


STRANGE: tuple[tuple[dict[str, object], dict[str, object]], ...] = (
    ({"kid": 5}, {}),
    ({"kid": ["x"]}, {}),
    ({"alg": "HS256"}, {}),
    ({"alg": "none"}, {}),
    ({"alg": 7}, {}),
    ({"alg": "RS256"}, {}),
    ({"crit": ["exp"]}, {}),
    ({}, {"sub": "hospital\0"}),
    ({}, {"sub": "\ud800"}),
    ({}, {"sub": 5}),
    ({}, {"sub": {"a": 1}}),
    ({}, {"exp": "soon"}),
)


async def test_an_assertion_of_a_strange_form_is_refused_like_any_wrong_one(world: World) -> None:
    for head, claims in STRANGE:
        said: list[dict[str, object]] = [
            {"alg": "ES256", "typ": "JWT", "kid": SERVICE_KEY.kid} | head,
            {"iss": "hospital", "sub": "hospital", "aud": ISSUER, "jti": "1"} | claims,
        ]
        parts = [
            urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in said
        ]
        response = await as_service(world, ".".join([*parts, "c2lnbmF0dXJl"]))
        assert (response.status_code, response.json()["error"]) == (401, "invalid_client"), said


async def test_a_services_assertion_is_good_once_and_its_scopes_are_bounded(world: World) -> None:
    signed = assertion()
    assert (await as_service(world, signed)).status_code == 200
    assert (await as_service(world, signed)).status_code == 401
    wide = await as_service(world, assertion(), "system/*.rs")
    assert wide.json()["error"] == "invalid_scope"


async def test_the_page_is_one_form_without_scripts_for_this_client_only(world: World) -> None:
    response = await world.api.get("/oauth/authorize", params=request(state='"><script>'))
    assert response.status_code == 200
    assert "<script" not in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self' http://127.0.0.1:4711" in policy


async def test_a_parameter_twice_is_refused(world: World) -> None:
    body = "grant_type=refresh_token&grant_type=authorization_code"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await world.api.post("/oauth/token", content=body, headers=headers)
    assert response.status_code == 400


async def test_codes_and_tokens_are_kept_as_hashes_and_factors_encrypted(world: World) -> None:
    got = await tokens(world)
    ((row,),) = query(world.dsn, "SELECT string_agg(t::text, ',') FROM issuer.refresh_token t")
    assert got["refresh_token"] not in row
    ((sealed,),) = query(
        world.dsn,
        "SELECT totp_secret FROM issuer.credential WHERE totp_secret IS NOT NULL",
    )
    secret = parse_qs(urlsplit(world.staff.totp or "").query)["secret"][0]
    assert a_vault().open(world.staff.id, bytes(sealed)) == secret
    with pytest.raises(Exception, match="totp_key"):
        a_vault().open(UUID(int=3), bytes(sealed))
