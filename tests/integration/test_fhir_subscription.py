"""Subscriptions: real HTTP to an endpoint of this test, fed by the real feed of changes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from api.archive import open_archive
from api.fhir.subscriptions import ATTEMPTS_MAX, Subscriptions
from api.fhir.webhooks import Webhooks
from gateway.platform.postgres import connect_blocking
from gateway.platform.pruning import TOLD_KEPT_DAYS, UNTOLD_KEPT_DAYS
from gateway.platform.webhook_hosts import REFUSED, WebhookHosts
from gateway.platform.webhook_signature import signature
from tests.archives import SERVICE, WEBHOOKS, a_token, public_id, store
from tests.archives import api_over as the_api_over
from tests.fixtures.database import as_api
from tests.worlds import NOON, a_pressure, a_weight, enter_registry, query

pytestmark = pytest.mark.integration

BASE = "http://127.0.0.1/fhir"
ROUNDS_MAX = 300


class Endpoint:
    """What a subscriber runs: keeps what it was told, and answers as it is set to."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")[1:]
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.told.append((headers, body))
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % self.status
        )
        await writer.drain()
        writer.close()

    def events(self) -> list[tuple[int, list[str]]]:
        """(number, references) of every event told, in the order told."""
        return [event for _headers, body in self.told for event in events_of(json.loads(body))]


def events_of(bundle: dict[str, Any]) -> list[tuple[int, list[str]]]:
    found = []
    for parameter in bundle["entry"][0]["resource"]["parameter"]:
        if parameter["name"] == "notification-event":
            part = parameter["part"]
            number = next(int(p["valueString"]) for p in part if p["name"] == "event-number")
            focus = [p["valueReference"]["reference"] for p in part if p["name"] == "focus"]
            found.append((number, focus))
    return found


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    one = Endpoint()
    server = await asyncio.start_server(one.answer, "127.0.0.1", 0)
    async with server:
        one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield one


@asynccontextmanager
async def api_over(database: str) -> AsyncIterator[httpx.AsyncClient]:
    """The API, for a service that may subscribe."""
    async with the_api_over(database) as api:
        api.headers["Authorization"] = f"Bearer {a_token(SERVICE, scope='system/*.cruds')}"
        yield api


@asynccontextmanager
async def teller(database: str) -> AsyncIterator[Subscriptions]:
    async with open_archive(as_api(database)) as archive:
        yield Subscriptions(archive, WEBHOOKS)


async def tell(subscriptions: Subscriptions, until: Callable[[], bool] = lambda: True) -> None:
    """Rounds of what the service does for ever, until something holds.

    A change is readable when no earlier transaction of the whole server is under way.
    """
    async with httpx.AsyncClient() as client:
        for _ in range(ROUNDS_MAX):
            await subscriptions.follow()
            while await subscriptions.deliver(client, BASE):
                pass
            if until():
                return
            await asyncio.sleep(0.1)
    raise AssertionError("it never came to hold")


def wish(
    database: str, endpoint: str, *, code: str = "", content: str = "id-only"
) -> dict[str, Any]:
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "test",
        "criteria": f"Observation?patient={public_id(database)}{code}",
        "channel": {
            "type": "rest-hook",
            "endpoint": endpoint,
            "_payload": {
                "extension": [{"url": "x/backport-payload-content", "valueCode": content}]
            },
        },
    }


def events_known(database: str) -> int:
    ((events,),) = query(database, "SELECT events FROM fhir_subscription")
    return int(events)


def due_now(database: str) -> None:
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute("UPDATE fhir_subscription SET next_at = now()")


async def test_new_observations_are_told_signed_and_once_taken_not_again(
    database: str, endpoint: Endpoint
) -> None:
    enter_registry(database)
    await store(database, a_weight())
    async with api_over(database) as api, teller(database) as subscriptions:
        made = await api.post("/fhir/Subscription", json=wish(database, endpoint.url))
        assert made.status_code == 201, made.text
        secret = made.json()["extension"][0]["valueString"]
        await tell(subscriptions)
        assert endpoint.told == []  # what was there before is no news
        await store(database, a_pressure(at=NOON - timedelta(days=9)), sequence=2)
        await tell(subscriptions, lambda: bool(endpoint.told))
        await tell(subscriptions)
        ((headers, body),) = endpoint.told
        at, _, mac = headers["x-hearth-signature"].partition(",v1=")
        expected = hmac.new(secret.encode(), f"{at[2:]}.".encode() + body, hashlib.sha256)
        assert mac == expected.hexdigest()
        ((number, focus),) = endpoint.events()
        assert number == 1
        assert len(focus) == 2  # the panel and the pulse
        shown = await api.get(f"/fhir/Subscription/{made.json()['id']}")
        assert secret not in shown.text


async def test_only_what_was_asked_for_is_told_and_whole_if_so_asked(
    database: str, endpoint: Endpoint
) -> None:
    enter_registry(database)
    async with api_over(database) as api, teller(database) as subscriptions:
        body = wish(database, endpoint.url, code="&code=29463-7", content="full-resource")
        assert (await api.post("/fhir/Subscription", json=body)).status_code == 201
        await store(database, a_pressure())
        await store(database, a_weight("70.050"), sequence=2)
        await tell(subscriptions, lambda: bool(endpoint.told))
    ((_headers, told),) = endpoint.told
    assert b'"value":70.050' in told
    kinds = [entry["resource"]["resourceType"] for entry in json.loads(told)["entry"]]
    assert kinds == ["Parameters", "Observation"]


async def test_what_an_endpoint_does_not_take_comes_again_and_can_be_caught_up(
    database: str, endpoint: Endpoint
) -> None:
    enter_registry(database)
    async with api_over(database) as api, teller(database) as subscriptions:
        made = (await api.post("/fhir/Subscription", json=wish(database, endpoint.url))).json()
        endpoint.status = 503
        for sequence in (1, 2):
            await store(database, a_weight(at=NOON - timedelta(hours=sequence)), sequence=sequence)
        await tell(subscriptions, lambda: events_known(database) == 2)
        refused = len(endpoint.told)
        assert refused  # and it waits before it tries again, however often it is looked at
        await tell(subscriptions)
        assert len(endpoint.told) == refused
        endpoint.status = 204
        due_now(database)
        await tell(subscriptions, lambda: len(endpoint.told) > refused)
        assert [number for number, _focus in events_of(json.loads(endpoint.told[-1][1]))] == [1, 2]
        again = await api.get(f"/fhir/Subscription/{made['id']}/$events?eventsSinceNumber=2")
        assert [number for number, _focus in events_of(again.json())] == [2]


async def test_a_subscription_of_a_restored_database_goes_on_with_what_is_stored_there(
    database: str, endpoint: Endpoint
) -> None:
    """Its place is of a server that had counted further than the one it was restored on."""
    enter_registry(database)
    async with api_over(database) as api, teller(database) as subscriptions:
        body = wish(database, endpoint.url)
        assert (await api.post("/fhir/Subscription", json=body)).status_code == 201
        query(database, "UPDATE fhir_subscription SET transaction_id = 1::bigint << 60")
        await store(database, a_weight())
        await tell(subscriptions, lambda: bool(endpoint.told))
        assert [number for number, _focus in endpoint.events()] == [1]
        await store(database, a_weight(at=NOON - timedelta(hours=1)), sequence=2)
        await tell(subscriptions, lambda: len(endpoint.told) > 1)
    assert [number for number, _focus in endpoint.events()] == [1, 2]


@pytest.mark.parametrize("content", ["id-only", "full-resource"])
async def test_what_is_withheld_before_it_is_told_is_not_told_by_its_id_either(
    database: str, endpoint: Endpoint, content: str
) -> None:
    enter_registry(database)
    async with api_over(database) as api, teller(database) as subscriptions:
        body = wish(database, endpoint.url, content=content)
        assert (await api.post("/fhir/Subscription", json=body)).status_code == 201
        await store(database, a_weight())
        while events_known(database) == 0:
            await subscriptions.follow()
        with connect_blocking(database, application="hearth-tests") as connection:
            connection.execute(
                "INSERT INTO objection (resident_id, sign) SELECT resident_id, sign FROM measurement"
            )
        await tell(subscriptions, lambda: bool(endpoint.told))
    assert endpoint.events() == [(1, [])]
    assert len(json.loads(endpoint.told[0][1])["entry"]) == 1


async def test_whoever_may_not_read_any_more_is_not_told_what_waits_and_the_service_goes_on(
    database: str, endpoint: Endpoint
) -> None:
    enter_registry(database)
    async with api_over(database) as api, teller(database) as subscriptions:
        body = wish(database, endpoint.url)
        assert (await api.post("/fhir/Subscription", json=body)).status_code == 201
        await store(database, a_weight())
        while events_known(database) == 0:
            await subscriptions.follow()
        query(database, "UPDATE account SET disabled_at = now() RETURNING 1")
        async with httpx.AsyncClient() as client:
            while await subscriptions.deliver(client, BASE):
                pass
    assert endpoint.told == []
    assert query(database, "SELECT status FROM fhir_subscription") == [("off",)]


async def test_a_delivery_that_never_succeeds_is_given_up_and_its_events_kept(
    database: str, endpoint: Endpoint
) -> None:
    enter_registry(database)
    endpoint.status = 500
    async with api_over(database) as api, teller(database) as subscriptions:
        made = (await api.post("/fhir/Subscription", json=wish(database, endpoint.url))).json()
        await store(database, a_weight())
        await tell(subscriptions, lambda: bool(endpoint.told))
        for _ in range(ATTEMPTS_MAX + 2):
            due_now(database)
            await tell(subscriptions)
        assert len(endpoint.told) == ATTEMPTS_MAX
        shown = (await api.get(f"/fhir/Subscription/{made['id']}")).json()
        assert (shown["status"], shown["error"]) == ("error", "HTTP 500")
        events = await api.get(f"/fhir/Subscription/{made['id']}/$events")
        assert [number for number, _focus in events_of(events.json())] == [1]
        assert (await api.delete(f"/fhir/Subscription/{made['id']}")).status_code == 204
        assert query(database, "SELECT * FROM fhir_event") == []


@pytest.mark.parametrize("endpoint_", ["https://a..b/hook", "https://clinic.example/a\x01b"])
async def test_an_endpoint_that_is_no_address_is_refused_and_ends_no_service(
    database: str, endpoint: Endpoint, endpoint_: str
) -> None:
    enter_registry(database)
    async with api_over(database) as api, teller(database) as subscriptions:
        refused = await api.post("/fhir/Subscription", json=wish(database, endpoint_))
        assert refused.status_code == 400, refused.text
        body = wish(database, endpoint.url)
        assert (await api.post("/fhir/Subscription", json=body)).status_code == 201
        with connect_blocking(database, application="hearth-tests") as connection:
            connection.execute("UPDATE fhir_subscription SET endpoint = %s", [endpoint_])
        await store(database, a_weight())
        await tell(subscriptions, lambda: events_known(database) == 1)
    assert query(database, "SELECT status, attempts, error FROM fhir_subscription") == [
        ("active", 1, REFUSED)
    ]


async def test_a_subscriptions_answers_are_what_the_description_says(
    database: str, endpoint: Endpoint
) -> None:
    """Schemathesis makes ids up, and so gets no further than 404."""
    enter_registry(database)
    async with api_over(database) as api:
        paths = (await api.get("/openapi.json")).json()["paths"]
        made = (await api.post("/fhir/Subscription", json=wish(database, endpoint.url))).json()
        for operation in ("", "/$status", "/$events"):
            path = f"/fhir/Subscription/{{subscription}}{operation}"
            answer = await api.get(path.format(subscription=made["id"]))
            content = paths[path]["get"]["responses"]["200"]["content"]
            schema = content[answer.headers["content-type"]]["schema"]
            assert answer.json()["resourceType"] == schema["properties"]["resourceType"]["const"]


async def test_what_no_subscription_can_say_is_refused(database: str) -> None:
    enter_registry(database)
    async with api_over(database) as api:
        good = wish(database, "https://clinic.example/hook")
        for spoilt in (
            {},
            good | {"criteria": "Observation?code=1"},
            good | {"criteria": f"Patient?_id={public_id(database)}"},
            good | {"channel": {"type": "email", "endpoint": "https://clinic.example"}},
            good | {"channel": {"type": "rest-hook", "endpoint": "http://clinic.example/hook"}},
        ):
            response = await api.post("/fhir/Subscription", json=spoilt)
            assert response.status_code == 400, spoilt
            assert response.json()["resourceType"] == "OperationOutcome"


async def test_the_secret_is_sealed_in_the_database_and_given_once(
    database: str, endpoint: Endpoint
) -> None:
    enter_registry(database)
    async with api_over(database) as api, teller(database) as subscriptions:
        made = (await api.post("/fhir/Subscription", json=wish(database, endpoint.url))).json()
        secret = secret_of(made)
        shown = await api.get(f"/fhir/Subscription/{made['id']}")
        assert secret not in shown.text
        ((dump,),) = query(database, "SELECT fhir_subscription::text FROM fhir_subscription")
        assert secret not in dump
        assert secret.encode().hex() not in dump
        await store(database, a_weight())
        await tell(subscriptions, lambda: bool(endpoint.told))
        headers, body = endpoint.told[0]
        at_s = int(headers["x-hearth-signature"].partition(",")[0].removeprefix("t="))
        assert headers["x-hearth-signature"] == signature(secret, body, at_s)


async def test_a_secret_from_before_is_sealed_and_still_signs(
    database: str, endpoint: Endpoint
) -> None:
    enter_registry(database)
    async with api_over(database) as api, teller(database) as subscriptions:
        await api.post("/fhir/Subscription", json=wish(database, endpoint.url))
        query(database, "UPDATE fhir_subscription SET secret = 'of old', sealed = NULL")
        await subscriptions.seal()
        ((plain, sealed),) = query(database, "SELECT secret, sealed FROM fhir_subscription")
        assert plain is None
        assert b"of old" not in sealed
        await store(database, a_weight())
        await tell(subscriptions, lambda: bool(endpoint.told))
    headers, body = endpoint.told[0]
    at_s = int(headers["x-hearth-signature"].partition(",")[0].removeprefix("t="))
    assert headers["x-hearth-signature"] == signature("of old", body, at_s)


async def test_a_sealed_secret_opens_in_no_other_row_and_by_no_other_key(
    database: str, endpoint: Endpoint
) -> None:
    enter_registry(database)
    async with api_over(database) as api, open_archive(as_api(database)) as archive:
        await api.post("/fhir/Subscription", json=wish(database, endpoint.url))
        stranger = Subscriptions(archive, Webhooks(bytes(31) + b"1", WebhookHosts()))
        await store(database, a_weight())
        await tell(stranger, lambda: events_failed(database))
    assert endpoint.told == []


def events_failed(database: str) -> bool:
    ((error,),) = query(database, "SELECT error FROM fhir_subscription")
    return bool(error == "webhook key is missing")


def secret_of(made: dict[str, Any]) -> str:
    return next(
        str(e["valueString"]) for e in made["extension"] if e["url"].endswith("/signing-secret")
    )


def test_a_signature_covers_the_time_and_the_body() -> None:
    assert signature("s", b"x", 1) != signature("s", b"x", 2)
    assert signature("s", b"x", 1) != signature("s", b"y", 1)
    assert signature("s", b"x", 1).startswith("t=1,v1=")


@pytest.mark.parametrize(
    ("status", "days", "kept"),
    [
        ("active", TOLD_KEPT_DAYS - 1, [1, 2, 3]),
        ("active", TOLD_KEPT_DAYS + 1, [2, 3]),
        ("active", UNTOLD_KEPT_DAYS + 1, [2, 3]),
        ("error", TOLD_KEPT_DAYS + 1, [2, 3]),
        ("error", UNTOLD_KEPT_DAYS + 1, []),
        ("off", UNTOLD_KEPT_DAYS + 1, []),
    ],
)
async def test_events_go_when_they_are_old_and_told_or_nobody_catches_up(
    database: str, endpoint: Endpoint, status: str, days: int, kept: list[int]
) -> None:
    """Three events, the first of which the endpoint took."""
    enter_registry(database)
    async with api_over(database) as api:
        await api.post("/fhir/Subscription", json=wish(database, endpoint.url))
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute(
            "UPDATE fhir_subscription SET status = %s, events = 3, delivered = 1", [status]
        )
        connection.execute(
            "INSERT INTO fhir_event (subscription_id, number, at, observations)"
            " SELECT subscription_id, number, now() - make_interval(days => %s), '{}'"
            " FROM fhir_subscription, generate_series(1, 3) AS number",
            [days],
        )
    async with teller(database) as subscriptions:
        assert await subscriptions.forget() == 3 - len(kept)
    numbers = query(database, "SELECT number FROM fhir_event ORDER BY number")
    assert [number for (number,) in numbers] == kept
