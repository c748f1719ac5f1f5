"""The application without its database: who may ask, its description, its bounds."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from inspect import iscoroutinefunction

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from openapi_spec_validator import validate

from api.app import create_app
from api.archive import Archive
from api.auth import OPEN_PATHS
from api.boundary import BODY_BYTES_MAX, SECURITY_HEADERS, TARGET_BYTES_MAX
from api.idempotency import READS_BY_POST, WRITES, is_write
from gateway.platform.postgres import AsyncConnectionPool
from gateway.vitals import BY_NAME
from tests.archives import API, BEARER, TOKEN, VERIFIER, an_issuer, routes_of


def an_application() -> FastAPI:
    """Its pool is never opened: what is tested here asks no database."""
    archive = Archive(AsyncConnectionPool(open=False))
    return create_app(archive, VERIFIER, an_issuer(archive), rate_per_s=0)


APPLICATION = an_application()
PATHS = sorted({route.path for route in routes_of(APPLICATION)})
GUARDED = [path for path in PATHS if path not in OPEN_PATHS]


async def get(
    path: str, headers: dict[str, str] | None = None, **request: object
) -> httpx.Response:
    transport = httpx.ASGITransport(APPLICATION)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        return await client.request(
            "GET",
            re.sub(r"{[a-z]+}", str(uuid.uuid4()), path),
            headers=headers,
            **request,  # type: ignore[arg-type]  # passed on
        )


def assert_problem(response: httpx.Response, status: int) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


def test_only_writes_of_the_rest_api_have_their_answers_kept() -> None:
    """A new route that changes something, or reads by a body, is entered in one of the two."""
    unsafe = {
        (method, route.path.removeprefix(API))
        for route in routes_of(APPLICATION)
        for method in route.methods or ()
        if method not in {"GET", "HEAD"}
        and route.path.startswith(f"{API}/")
        and route.path not in OPEN_PATHS
    }
    assert unsafe == WRITES | READS_BY_POST
    described = APPLICATION.openapi()["paths"]
    for path, operations in described.items():
        for method, operation in operations.items():
            names = {parameter.get("name") for parameter in operation.get("parameters", ())}
            assert ("Idempotency-Key" in names) == is_write(method.upper(), path), path
    for method, path in WRITES:
        some = path.replace("{resident}", str(uuid.uuid4())).replace("{alert}", str(uuid.uuid4()))
        assert is_write(method, API + some)
        assert not is_write("PATCH", API + some)
        assert not is_write(method, f"{API}{some}/more")


def test_nothing_of_a_request_hops_to_a_thread() -> None:
    """FastAPI runs what is no coroutine in a pool of threads, at a hop each."""
    called = {
        call
        for route in routes_of(APPLICATION)
        if isinstance(route, APIRoute)
        for call in _called(route.dependant)
    }
    hopping = [
        call
        for call in called
        if not iscoroutinefunction(call) and not iscoroutinefunction(type(call).__call__)
    ]
    assert called
    assert hopping == []


def _called(dependant: Dependant) -> Iterator[Callable[..., object]]:
    if dependant.call is not None:
        yield dependant.call
    for each in dependant.dependencies:
        yield from _called(each)


def test_the_routes_that_were_asked_for_are_there() -> None:
    resident = f"{API}/residents/{{resident}}"
    wanted = {f"{API}/{name}" for name in ("devices", "health", "homes", "hubs", "ledger")}
    wanted |= {f"{API}/residents", f"{API}/signs", resident, f"{resident}/measurements"}
    wanted |= {f"{resident}/latest", f"{API}/me", f"{API}/notices"}
    wanted |= {f"{resident}/{name}" for name in ("audit", "break-glass", "consent")}
    wanted |= {f"{resident}/statistics", f"{resident}/alerts", f"{API}/alerts"}
    wanted |= OPEN_PATHS | {"/metrics", "/openapi.json"}
    wanted |= {f"{resident}/{name}" for name in ("series", "profile", "targets", "copy")}
    wanted |= {f"{API}/{name}" for name in ("links", "links/end", "quarantine", "live")}
    wanted |= {f"{API}/residents/search", f"{API}/worklists/last-measured"}
    assert wanted <= set(PATHS)


@pytest.mark.parametrize("path", [*GUARDED, "/docs", "/", f"{API}/nothing"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer another-token-of-the-same-length-as-it"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer \xe9"},
    ],
    ids=["none", "wrong", "longer", "basic", "bare", "no-ascii"],
)
async def test_without_the_token_every_address_says_401(path: str, headers: dict[str, str]) -> None:
    latin = {name: value.encode("latin-1") for name, value in headers.items()}
    response = await get(path, latin)  # type: ignore[arg-type]  # httpx takes bytes
    if path.startswith("/fhir"):
        assert response.status_code == 401
        assert response.json()["resourceType"] == "OperationOutcome"
    else:
        assert_problem(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_probe_needs_no_token() -> None:
    response = await get("/healthz")
    assert response.status_code == 200


async def test_every_response_has_the_security_headers_and_its_own_id() -> None:
    responses = [await get("/healthz"), await get("/docs"), await get("/docs", BEARER)]
    for response in responses:
        assert (
            response.headers.items()
            >= {name.lower(): value for name, value in SECURITY_HEADERS.items()}.items()
        )
    assert len({response.headers["x-request-id"] for response in responses}) == 3


async def test_no_page_loads_scripts_from_another_host() -> None:
    assert_problem(await get("/docs", BEARER), 404)
    assert_problem(await get("/redoc", BEARER), 404)


async def test_a_method_that_is_not_there_says_which_are() -> None:
    transport = httpx.ASGITransport(APPLICATION)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        response = await client.post(f"{API}/residents", headers=BEARER)
    assert_problem(response, 405)
    assert response.headers["allow"] == "GET"


async def test_a_body_over_the_bound_is_refused() -> None:
    assert_problem(await get("/healthz", content=b"x" * (BODY_BYTES_MAX + 1)), 413)
    assert (await get("/healthz", content=b"x" * BODY_BYTES_MAX)).status_code == 200


async def test_a_body_of_no_length_is_refused() -> None:
    assert_problem(await get("/healthz", headers={"Transfer-Encoding": "chunked"}), 411)


async def test_a_target_over_the_bound_is_refused() -> None:
    assert_problem(await get(f"/healthz?{'x' * TARGET_BYTES_MAX}"), 414)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("sign=blood", "sign"),
        ("sign=body_weight&sign=blood", "sign"),
        ("from=2026-05-01T08:00:00", "from"),
        ("to=yesterday", "to"),
        ("order=random", "order"),
        ("after=short", "after"),
        (f"after=7{'f' * 43}", "after"),
        (f"after={'z' * 44}", "after"),
    ],
)
async def test_a_wrong_parameter_is_named(query: str, parameter: str) -> None:
    response = await get(f"{API}/residents/{{resident}}/measurements?{query}", BEARER)
    assert_problem(response, 422)
    assert [error["parameter"] for error in response.json()["errors"]] == [parameter]


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("residents/4711", "resident"),
        ("residents?after=4711", "after"),
        ("homes?after=4711", "after"),
        ("hubs?after=00C0FFEE00C0FFEE", "after"),
        ("hubs?after=%00", "after"),
        ("hubs?home=here", "home"),
        ("devices?after=c0:26:da:01:02:03", "after"),
        ("ledger?after=x", "after"),
    ],
)
async def test_a_wrong_id_is_named(path: str, parameter: str) -> None:
    response = await get(f"{API}/{path}", BEARER)
    assert_problem(response, 422)
    assert [error["parameter"] for error in response.json()["errors"]] == [parameter]


async def test_the_description_is_valid_and_tells_every_route() -> None:
    description = (await get("/openapi.json", BEARER)).json()
    validate(description)
    assert set(description["paths"]) == set(PATHS) - {"/openapi.json"}


async def test_the_description_says_which_routes_need_the_token() -> None:
    description = (await get("/openapi.json", BEARER)).json()
    needed = {
        path
        for path, methods in description["paths"].items()
        if all("security" in operation for operation in methods.values())
    }
    assert needed == set(GUARDED) - {"/openapi.json"}
    assert description["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


async def test_the_signs_are_described_from_the_registry() -> None:
    signs = (await get(f"{API}/signs", BEARER)).json()["signs"]
    assert [sign["name"] for sign in signs] == list(BY_NAME)
    for sign in signs:
        of_registry = BY_NAME[sign["name"]]
        names = [quantity["name"] for quantity in sign["quantities"]]
        assert names == [quantity.name for quantity in of_registry.quantities]
        assert [s["name"] for s in sign["statuses"]] == [s.name for s in of_registry.statuses]


async def test_metrics_name_routes_by_their_template() -> None:
    secret = uuid.uuid4()
    await get(f"{API}/residents/{secret}/measurements?limit=0", BEARER)
    metrics = (await get("/metrics", BEARER)).text
    template = f'route="{API}/residents/{{resident}}/measurements",status="422"'
    assert f'hearth_api_requests_total{{method="GET",{template}}}' in metrics
    assert str(secret) not in metrics


async def test_a_method_that_nobody_knows_makes_no_new_label() -> None:
    transport = httpx.ASGITransport(APPLICATION)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        await client.request("BREW", "/healthz")
        metrics = (await client.get("/metrics", headers=BEARER)).text
    assert "BREW" not in metrics
    assert 'method="other"' in metrics


async def test_an_error_of_ours_is_a_500_that_tells_nothing() -> None:
    app = an_application()

    @app.get("/broken")
    async def broken() -> None:
        raise KeyError("systolic 128")

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        response = await client.get("/broken", headers=BEARER)
    assert_problem(response, 500)
    assert "128" not in response.text
