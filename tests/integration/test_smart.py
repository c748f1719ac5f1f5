"""SMART, end to end over HTTP: only what the server's own documents name is asked, as an app would."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from api import accounts
from api.access import Role
from api.accounts import Client, Credentials, NewAccount
from api.issuer.issuer import ASSERTION_TYPE, challenge_of
from gateway.platform.postgres import connect_blocking
from tests.archives import KEY, a_vault, public_id, served, store
from tests.fixtures.database import as_api
from tests.worlds import OTHER_RESIDENT, a_pressure, a_weight, enter_registry

pytestmark = pytest.mark.integration

APP, REDIRECT = "growth-chart", "https://app.example/callback"
VERIFIER = secrets.token_urlsafe(48)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A service's key, as SMART Backend Services names the algorithms."""

    algorithm: str
    private: Any
    public: Mapping[str, Any]


def rs384() -> Keys:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return Keys(algorithm="RS384", private=private, public=jwk)


def es384() -> Keys:
    private = ec.generate_private_key(ec.SECP384R1())
    jwk = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return Keys(algorithm="ES384", private=private, public=jwk)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A served API with readings of one resident, who has an account."""

    api: httpx.AsyncClient
    dsn: str
    patient: UUID
    resident: Credentials

    async def smart(self) -> dict[str, Any]:
        """What the server says of itself, its addresses brought to where the test reaches it."""
        response = await self.api.get("/fhir/.well-known/smart-configuration")
        document: dict[str, Any] = response.json()
        return {
            name: value.replace(document["issuer"], "") if name.endswith("_endpoint") else value
            for name, value in document.items()
        }


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    enter_registry(database)
    await store(database, a_pressure(), a_weight())
    assert as_api(database)
    with connect_blocking(database, application="hearth-tests") as connection:
        resident = accounts.add_account(
            connection,
            a_vault(),
            NewAccount(
                login="resident", role=Role.RESIDENT, resident=public_id(database), has_totp=False
            ),
        )
        accounts.add_client(connection, Client(client=APP, redirect_uris=[REDIRECT]))
    async with served(database) as api:
        api.headers.pop("Authorization")
        yield World(api=api, dsn=database, patient=public_id(database), resident=resident)


async def backend_token(world: World, keys: Keys, scope: str) -> httpx.Response:
    """Ask as SMART Backend Services does: an assertion for the token endpoint, by the private key."""
    smart = await world.smart()
    assert keys.algorithm in smart["token_endpoint_auth_signing_alg_values_supported"]
    assert "private_key_jwt" in smart["token_endpoint_auth_methods_supported"]
    issuer = (await world.api.get("/fhir/.well-known/smart-configuration")).json()
    claims = {
        "iss": "hospital",
        "sub": "hospital",
        "aud": issuer["token_endpoint"],
        "exp": datetime.now(UTC) + timedelta(minutes=4),
        "jti": str(uuid4()),
    }
    headers = {"kid": "of-the-hospital", "typ": "JWT"}
    signed = jwt.encode(claims, keys.private, algorithm=keys.algorithm, headers=headers)
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": signed,
        "scope": scope,
    }
    return await world.api.post(smart["token_endpoint"], data=form)


def enter_service(world: World, keys: Keys, *scopes: str, says: bool = True) -> None:
    """Enter it by its key set, which may say what its key is for."""
    jwk = {**keys.public, "kid": "of-the-hospital"}
    if says:
        jwk |= {"use": "sig", "alg": keys.algorithm}
    new = NewAccount(login="hospital", role=Role.SERVICE, jwks={"keys": [jwk]}, scopes=scopes)
    with connect_blocking(world.dsn, application="hearth-tests") as connection:
        accounts.add_account(connection, a_vault(), new)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("make", [rs384, es384])
async def test_a_backend_service_gets_a_token_by_its_key_and_searches_observations(
    world: World, make: Callable[[], Keys], *, says: bool
) -> None:
    keys = make()
    enter_service(world, keys, "system/Observation.rs", says=says)
    answer = await backend_token(world, keys, "system/Observation.rs")
    assert answer.status_code == 200, answer.text
    token = answer.json()
    assert (token["token_type"], token["scope"]) == ("Bearer", "system/Observation.rs")
    assert answer.headers["cache-control"] == "no-store"
    found = await world.api.get(
        f"/fhir/Observation?patient={world.patient}&code=85354-9",
        headers=bearer(token["access_token"]),
    )
    assert found.status_code == 200, found.text
    assert [e["resource"]["resourceType"] for e in found.json()["entry"]] == ["Observation"]
    refused = await world.api.get("/fhir/Patient", headers=bearer(token["access_token"]))
    assert refused.status_code == 403
    assert refused.json()["resourceType"] == "OperationOutcome"


async def test_a_backend_service_gets_no_token_beyond_its_scopes_or_by_another_key(
    world: World,
) -> None:
    keys = rs384()
    enter_service(world, keys, "system/Observation.rs?category=activity")
    wide = await backend_token(world, keys, "system/Observation.rs")
    assert (wide.status_code, wide.json()["error"]) == (400, "invalid_scope")
    stranger = await backend_token(world, rs384(), "system/Observation.rs?category=activity")
    assert (stranger.status_code, stranger.json()["error"]) == (401, "invalid_client")
    narrow = await backend_token(world, keys, "system/Observation.rs?category=activity")
    headers = bearer(narrow.json()["access_token"])
    found = await world.api.get(f"/fhir/Observation?patient={world.patient}", headers=headers)
    assert (found.status_code, found.json().get("entry", [])) == (200, [])


async def launch(world: World, scope: str, **changed: str) -> dict[str, str]:
    """Go through the browser's part of a standalone launch; return what the app is sent back."""
    smart = await world.smart()
    assert "S256" in smart["code_challenge_methods_supported"]
    asked = {
        "response_type": "code",
        "client_id": APP,
        "redirect_uri": REDIRECT,
        "scope": scope,
        "state": "of the app",
        "aud": f"{world.api.base_url}/fhir",
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
    } | changed
    page = await world.api.get(smart["authorization_endpoint"], params=asked)
    assert page.status_code == 200, page.text
    typed = {"login": "resident", "password": world.resident.password or ""}
    sent = await world.api.post(smart["authorization_endpoint"], data=asked | typed)
    assert sent.status_code == 303, sent.text
    assert sent.headers["location"].startswith(REDIRECT)
    query = parse_qs(urlsplit(sent.headers["location"]).query)
    return {name: values[0] for name, values in query.items()}


async def exchange(world: World, code: str, verifier: str = VERIFIER) -> httpx.Response:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "client_id": APP,
        "code_verifier": verifier,
    }
    return await world.api.post((await world.smart())["token_endpoint"], data=form)


async def test_an_app_is_launched_with_pkce_and_told_for_whom(world: World) -> None:
    scope = "launch/patient openid fhirUser offline_access patient/Observation.rs"
    back = await launch(world, scope)
    assert back["state"] == "of the app"
    answer = await exchange(world, back["code"])
    assert answer.status_code == 200, answer.text
    token = answer.json()
    assert token["patient"] == str(world.patient)
    assert token["scope"] == scope
    issuer = (await world.api.get("/fhir/.well-known/smart-configuration")).json()["issuer"]
    said = jwt.decode(
        token["id_token"], KEY.private.public_key(), ["ES256"], audience=APP, issuer=issuer
    )
    assert said["fhirUser"] == f"{issuer}/fhir/Patient/{world.patient}"
    headers = bearer(token["access_token"])
    found = await world.api.get(f"/fhir/Observation?patient={token['patient']}", headers=headers)
    codes = {e["resource"]["code"]["coding"][0]["code"] for e in found.json()["entry"]}
    assert codes == {"85354-9", "8867-4", "29463-7"}
    other = public_id(world.dsn, OTHER_RESIDENT)
    refused = await world.api.get(f"/fhir/Observation?patient={other}", headers=headers)
    assert refused.status_code == 403
    again = await world.api.post(
        (await world.smart())["token_endpoint"],
        data={
            "grant_type": "refresh_token",
            "refresh_token": token["refresh_token"],
            "client_id": APP,
        },
    )
    assert again.json()["patient"] == str(world.patient)


async def test_without_launch_patient_no_patient_is_told_and_scopes_narrow(world: World) -> None:
    back = await launch(world, "patient/Observation.rs?code=29463-7")
    token = (await exchange(world, back["code"])).json()
    assert "patient" not in token
    found = await world.api.get(
        f"/fhir/Observation?patient={world.patient}", headers=bearer(token["access_token"])
    )
    codes = {e["resource"]["code"]["coding"][0]["code"] for e in found.json()["entry"]}
    assert codes == {"29463-7"}


async def test_what_an_app_was_granted_opens_nothing_but_fhir(world: World) -> None:
    back = await launch(world, "launch/patient patient/Observation.rs?code=29463-7")
    headers = bearer((await exchange(world, back["code"])).json()["access_token"])
    own = f"/api/v1/residents/{world.patient}"
    for path in ("measurements", "latest", "statistics", "profile", "copy", "consent"):
        refused = await world.api.get(f"{own}/{path}", headers=headers)
        assert refused.status_code == 403, path
    withheld = await world.api.post(f"{own}/consent", json={"sign": "body_weight"}, headers=headers)
    assert withheld.status_code == 403
    assert (await world.api.get("/api/v1/residents", headers=headers)).status_code == 403


async def test_a_services_narrowed_scope_opens_nothing_but_fhir(world: World) -> None:
    enter_service(world, (keys := es384()), "system/Observation.rs?code=29463-7")
    token = (await backend_token(world, keys, "system/Observation.rs?code=29463-7")).json()
    headers = bearer(token["access_token"])
    found = await world.api.get(f"/fhir/Observation?patient={world.patient}", headers=headers)
    codes = {e["resource"]["code"]["coding"][0]["code"] for e in found.json()["entry"]}
    assert codes == {"29463-7"}
    path = f"/api/v1/residents/{world.patient}/measurements"
    assert (await world.api.get(path, headers=headers)).status_code == 403


@pytest.mark.parametrize(
    ("scope", "kinds"),
    [
        ("patient/Observation.rs", set()),
        ("patient/Observation.rs patient/Patient.r", {"Patient"}),
        ("patient/*.rs", {"Patient", "Device", "Provenance"}),
    ],
)
async def test_what_goes_with_observations_is_of_the_kinds_that_were_granted(
    world: World, scope: str, kinds: set[str]
) -> None:
    back = await launch(world, f"launch/patient {scope}")
    headers = bearer((await exchange(world, back["code"])).json()["access_token"])
    with_all = (
        "_include=Observation:subject&_include=Observation:device&_revinclude=Provenance:target"
    )
    found = await world.api.get(
        f"/fhir/Observation?patient={world.patient}&{with_all}", headers=headers
    )
    entries = found.json()["entry"]
    assert {e["resource"]["resourceType"] for e in entries} == {"Observation"} | kinds
    everything = await world.api.get(f"/fhir/Patient/{world.patient}/$everything", headers=headers)
    entries = everything.json()["entry"]
    told = {e["resource"]["resourceType"] for e in entries}
    assert told == {"Observation"} | kinds - {"Provenance"}


async def test_a_code_is_worth_nothing_without_the_verifier(world: World) -> None:
    back = await launch(world, "launch/patient patient/Observation.rs")
    stolen = await exchange(world, back["code"], secrets.token_urlsafe(48))
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
