"""Every route, asked by everyone, for every kind of resident (tests/access_matrix.py)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from uuid import UUID

import httpx
import pytest

from api import accounts, live
from api import archive as archive_module
from api.access import Role
from api.accounts import NewAccount
from api.issuer.tokens import Account
from gateway.platform.postgres import Connection, connect_blocking
from tests.access_matrix import CASES, FILLED, MATRIX, VALUES
from tests.archives import API, BEARER, SERVICE, a_token, a_vault, api_over, public_id, store
from tests.archives import routes_of as routes_of_app
from tests.unit.test_api_application import an_application
from tests.worlds import OTHER_RESIDENT, a_pressure, a_weight, enter_registry, query

pytestmark = pytest.mark.integration

TEAM = "clinic"
HOUR = timedelta(hours=1)
SYSTOLIC = re.compile(r'"systolic_mmhg":(\{|[0-9])')
"""A value, not the name of one that is null."""
LOINC_SYSTOLIC = re.compile("8480-6")


@pytest.fixture(autouse=True)
def _streams_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FOLLOW_S_MAX", 0.1)
    monkeypatch.setattr(live, "KEEP_ALIVE_S", 0.05)


@pytest.fixture
async def town(database: str) -> str:
    """Two measured residents; a care team has the first one, a clinician and a coordinator."""
    enter_registry(database)
    await store(database, a_pressure(), a_weight())
    query(
        database,
        'INSERT INTO measurement SELECT (jsonb_populate_record(m, \'{"resident_id": 102,'
        ' "device_id": 13}\')).* FROM measurement AS m',
    )
    query(
        database,
        "INSERT INTO device (device_id, address, home_id) OVERRIDING SYSTEM VALUE"
        " VALUES (13, 'C0:26:DA:0D:0D:0D', 2) ON CONFLICT DO NOTHING",
    )
    with connect_blocking(database, application="hearth-tests") as connection:
        for role in (Role.CLINICIAN, Role.COORDINATOR, Role.ADMINISTRATOR):
            accounts.add_account(connection, a_vault(), NewAccount(login=role.value, role=role))
        resident = NewAccount(login="resident", role=Role.RESIDENT, resident=public_id(database))
        accounts.add_account(connection, a_vault(), resident)
        accounts.add_care_team(connection, TEAM)
        for login in ("clinician", "coordinator"):
            accounts.join_care_team(connection, TEAM, login, None)
        accounts.care_for(connection, TEAM, [public_id(database)], None)
    return database


@asynccontextmanager
async def asked_by(dsn: str, login: str) -> AsyncIterator[httpx.AsyncClient]:
    """The API, for who has this login."""
    with connect_blocking(dsn, application="hearth-tests") as connection:
        account, session = accounts.open_session(connection, login, HOUR)
    async with api_over(dsn) as api:
        api.headers["Authorization"] = f"Bearer {a_token(account, session)}"
        yield api


@asynccontextmanager
async def in_case(dsn: str, case: str) -> AsyncIterator[tuple[httpx.AsyncClient, UUID]]:
    """The API as a case asks it, and the resident it asks for."""
    role, _, whom = case.partition("_")
    resident = public_id(dsn, OTHER_RESIDENT if whom in {"other", "outside", "glass"} else 101)
    if role in {"nobody", "service"}:
        async with api_over(dsn) as api:
            if role == "nobody":
                api.headers.pop("Authorization")
            elif whom == "narrow":
                narrow = Account(id=SERVICE.id, login="tests", role=Role.SERVICE)
                api.headers["Authorization"] = f"Bearer {a_token(narrow, scope='system/Device.rs')}"
            yield api, resident
        return
    if whom == "refused":
        await refuse_the_clinician(dsn)
    async with asked_by(dsn, role) as api:
        if whom == "glass":
            response = await api.post(
                f"{API}/residents/{resident}/break-glass", json={"reason": "an emergency"}
            )
            assert response.status_code == 201
        yield api, resident


async def refuse_the_clinician(dsn: str) -> None:
    ((clinician,),) = query(dsn, "SELECT public_id FROM account WHERE login = 'clinician'")
    async with asked_by(dsn, "resident") as api:
        path = f"{API}/residents/{public_id(dsn)}/consent"
        assert (await api.post(path, json={"account": str(clinician)})).status_code == 200


async def ask(api: httpx.AsyncClient, method: str, path: str, resident: UUID) -> httpx.Response:
    entry = MATRIX[method, path]
    url = (path + entry.query).format(resident=resident, **FILLED)
    body = json.dumps(entry.body).replace("{resident}", str(resident))
    return await api.request(method, url, json=json.loads(body))


def test_every_route_has_its_entry_and_every_entry_its_route() -> None:
    application = an_application()
    routes = {
        (method, route.path)
        for route in routes_of_app(application)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == set(MATRIX)


def _last_what_opens(route: tuple[str, str]) -> tuple[bool, str, str]:
    """GET first, breaking the glass last: it lets the clinician in from then on."""
    method, path = route
    return path.endswith("break-glass"), method, path


@pytest.mark.parametrize("case", CASES)
async def test_every_route_answers_every_case_as_expected(town: str, case: str) -> None:
    async with in_case(town, case) as (api, resident):
        wrong = []
        for method, path in sorted(MATRIX, key=_last_what_opens):
            response = await ask(api, method, path, resident)
            expected = MATRIX[method, path].expected(case)
            if response.status_code != expected:
                wrong.append((method, path, response.status_code, expected))
            if expected >= 400 and "{resident}" in path:
                assert not SYSTOLIC.search(response.text)
        assert wrong == [], wrong


@pytest.mark.parametrize(
    "case", ["service", "clinician_team", "resident_own", "administrator", "coordinator_team"]
)
async def test_a_token_of_an_account_that_is_disabled_opens_nothing_of_anybody(
    town: str, case: str
) -> None:
    """Whatever the route: the token itself is good for minutes yet."""
    of_nobody = {"/openapi.json", "/metrics", f"{API}/health", f"{API}/signs"}
    async with in_case(town, case) as (api, resident):
        query(town, "UPDATE account SET disabled_at = now()")
        said = {
            (method, path): (await ask(api, method, path, resident)).status_code
            for (method, path), entry in MATRIX.items()
            if entry.expected("nobody") == 401 and path not in of_nobody
        }
    nowhere = {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
    of_nothing = {("GET", "/fhir/Provenance"), ("POST", "/fhir/Subscription")}  # as the matrix asks
    let_in = {
        (method, path): status
        for (method, path), status in said.items()
        if status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, *nowhere}
        and (method, path) not in of_nothing
        and not (status == HTTPStatus.NOT_FOUND and "{id}" in path)  # an id that can be nothing's
    }
    assert let_in == {}, let_in


async def test_a_withheld_sign_is_in_no_answer_but_the_residents_own(town: str) -> None:
    resident = public_id(town)
    async with asked_by(town, "resident") as api:
        path = f"{API}/residents/{resident}/consent"
        assert (await api.post(path, json={"sign": "blood_pressure"})).status_code == 200
    routes = [
        path
        for (method, path), entry in MATRIX.items()
        if (method, entry.statuses) == ("GET", VALUES) and not entry.opaque and "$stats" not in path
    ]  # statistics of a withheld sign name its code, with no value
    assert routes
    for case, is_there in (
        ("resident_own", True), ("clinician_team", False), ("service", False)
    ):  # fmt: skip
        async with in_case(town, case) as (api, _):
            for path in routes:
                response = await ask(api, "GET", path, resident)
                assert response.status_code == 200
                said = SYSTOLIC if path.startswith(API) else LOINC_SYSTOLIC
                assert bool(said.search(response.text)) is is_there, (case, path)
    async with asked_by(town, "resident") as api:
        change = {"sign": "blood_pressure", "allow": True}
        await api.post(f"{API}/residents/{resident}/consent", json=change)
    async with in_case(town, "clinician_team") as (api, _):
        assert SYSTOLIC.search((await api.get(f"{API}/residents/{resident}/latest")).text)


async def test_breaking_the_glass_is_told_to_the_resident_and_whoever_reads_the_audit(
    town: str,
) -> None:
    resident = public_id(town)
    await refuse_the_clinician(town)
    async with asked_by(town, "clinician") as api:
        path = f"{API}/residents/{resident}"
        assert (await api.get(f"{path}/latest")).status_code == 403
        await api.post(f"{path}/break-glass", json={"reason": "found unconscious"})
        assert (await api.get(f"{path}/latest")).status_code == 200
        query(town, "UPDATE break_glass SET expires_at = now()")
        assert (await api.get(f"{path}/latest")).status_code == 403
    for login in ("resident", "administrator"):
        async with asked_by(town, login) as api:
            (notice,) = (await api.get(f"{API}/notices")).json()["items"]
            assert notice["detail"]["reason"] == "found unconscious"
    async with asked_by(town, "resident") as api:
        entries = (await api.get(f"{API}/residents/{resident}/audit")).json()["items"]
    looked = [
        (entry["login"], entry["action"], entry["detail"])
        for entry in entries
        if entry["login"] == "clinician"
    ]
    assert looked == [
        ("clinician", "measurement.latest", {"refused": "refused"}),
        ("clinician", "measurement.latest", {"by": "break_glass"}),
        ("clinician", "break_glass.open", {"by": "break_glass"}),
        ("clinician", "measurement.latest", {"refused": "refused"}),
    ]


@pytest.mark.parametrize("case", ["clinician_outside", "clinician_refused", "resident_other"])
async def test_without_the_apis_check_the_database_still_refuses(
    town: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_case(town, case) as (api, resident):
        monkeypatch.setattr(archive_module, "require", lambda *_: None)
        monkeypatch.setattr(archive_module, "_refusal", lambda _: None)
        answers = {
            path: (await api.get(f"{API}/residents/{resident}{path}")).text
            for path in ("/measurements", "/latest")
        }
        assert answers == {"/measurements": '{"items":[],"next":null}', "/latest": "{}"}
        assert (await api.get(f"{API}/residents/{resident}")).status_code == 404


async def test_a_care_team_is_for_a_time(town: str) -> None:
    resident = public_id(town)
    for when, expected in (("(,yesterday)", 403), ("(tomorrow,)", 403), ("(yesterday,)", 200)):
        with connect_blocking(town, application="hearth-tests") as connection:
            _set_care(connection, when)
        async with asked_by(town, "clinician") as api:
            response = await api.get(f"{API}/residents/{resident}/latest")
            assert response.status_code == expected, when


def _set_care(connection: Connection, during: str) -> None:
    connection.execute("UPDATE care_team_resident SET during = %s::tstzrange", [during])


async def test_a_read_that_cannot_be_audited_does_not_happen(town: str) -> None:
    query(town, "ALTER TABLE audit RENAME TO gone")
    async with api_over(town) as api:
        response = await api.get(f"{API}/residents/{public_id(town)}/latest", headers=BEARER)
    assert response.status_code >= 500
    assert not SYSTOLIC.search(response.text)
