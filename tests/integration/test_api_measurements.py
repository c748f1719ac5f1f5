"""A resident's measurements over the REST API, stored by the real ingest in the real database."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.access import Needs, Principal, Role
from api.archive import beginning
from api.measurement_rows import LATEST, PAGE, Order, Selection, page_parameters
from gateway.measurement import Measurement
from gateway.platform.embedded.database import SUPERUSER, Database
from gateway.platform.postgres import connect_blocking
from gateway.quantity import Absent
from gateway.stored import FLAG_ARTEFACT
from gateway.vitals import BY_NAME, SIGNS
from tests.archives import API, SERVICE, api_over, public_id, store
from tests.worlds import NOON, OTHER_RESIDENT, a_pressure, a_weight, enter_registry

pytestmark = pytest.mark.integration

CUFF_TOO_LOOSE = 1 << 1
ASKS_FOR_MORE = {
    f"{API}/alerts",
    f"{API}/live",
    f"{API}/residents/{{resident}}/series",
    f"{API}/residents/{{resident}}/alerts/{{alert}}",
}
"""Routes that need more than a resident; they have tests of their own."""
SHANGHAI = timezone(timedelta(hours=8))


@pytest.fixture
async def api(database: str) -> AsyncIterator[httpx.AsyncClient]:
    enter_registry(database)
    async with api_over(database) as client:
        yield client


async def measurements(
    api: httpx.AsyncClient, database: str, **query: str | list[str]
) -> list[dict[str, Any]]:
    path = f"{API}/residents/{public_id(database)}/measurements"
    response = await api.get(path, params=query)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def in_unit_set(measurement: Measurement, unit_set: int, *values: str) -> Measurement:
    numbers = tuple(Decimal(value) for value in values)
    reading = replace(measurement.reading, values=numbers, unit_set=unit_set)
    return replace(measurement, reading=reading)


async def test_a_measurement_says_all_that_is_known_of_it(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure())
    (item,) = await measurements(api, database)
    assert datetime.fromisoformat(item.pop("stored_at")) > NOON - timedelta(days=3650)
    assert len(item.pop("id")) == 44
    assert item == {
        "sign": "blood_pressure",
        "device": "C0:26:DA:01:02:03",
        "user_slot": None,
        "measured_at": NOON.astimezone(SHANGHAI).isoformat(timespec="milliseconds"),
        "received_at": f"{NOON:%Y-%m-%d}T04:00:01.000Z",
        "time_quality": "mapped",
        "values": {
            "systolic_mmhg": {"value": 128, "unit": "mm[Hg]"},
            "diastolic_mmhg": {"value": 82, "unit": "mm[Hg]"},
            "mean_arterial_mmhg": {"absent": "not_sent"},
            "pulse_rate_per_min": {"value": 71, "unit": "/min"},
        },
        "statuses": [],
        "artefact": False,
        "unusual": False,
        "attribution": "linked",
    }


async def test_every_digit_that_the_device_sent_is_there(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(
        database,
        a_weight("70.050"),
        in_unit_set(a_pressure(), 0, "1.2E+2", "80.0", "93", "71.50"),
    )
    path = f"{API}/residents/{public_id(database)}/measurements"
    text = (await api.get(path)).text
    for number in ("70.050", "12e1", "80.0", "71.50"):
        assert f'"value":{number},' in text


async def test_a_value_sent_in_another_unit_is_given_in_both(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, in_unit_set(a_pressure(), 1, "16.0", "10.7", "12.4", "71"))
    (item,) = await measurements(api, database)
    assert item["values"]["systolic_mmhg"] == {
        "value": 120.0,
        "unit": "mm[Hg]",
        "original": {"value": 16.0, "unit": "kPa"},
    }
    assert item["values"]["pulse_rate_per_min"] == {"value": 71, "unit": "/min"}


@pytest.mark.parametrize("absent", [a for a in Absent if a is not Absent.NOT_SENT])
async def test_an_absent_value_keeps_its_reason(
    database: str, api: httpx.AsyncClient, absent: Absent
) -> None:
    await store(database, a_pressure(systolic=absent))
    (item,) = await measurements(api, database)
    assert item["values"]["systolic_mmhg"] == {"absent": absent.name.lower()}


async def test_a_device_time_before_all_calendars_spoils_no_page(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure())
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute("UPDATE measurement SET identity_time = '2490-01-01 BC'")
    (item,) = await measurements(api, database)
    assert await measurements(api, database, after=item["id"]) == []


async def test_the_newest_come_first_or_the_oldest(database: str, api: httpx.AsyncClient) -> None:
    days = [a_pressure(at=NOON - timedelta(days=day)) for day in (3, 1, 2)]
    await store(database, *days, a_weight(at=NOON - timedelta(days=1, hours=1)))
    newest_first = [item["measured_at"] for item in await measurements(api, database)]
    assert newest_first == sorted(newest_first, reverse=True)
    oldest_first = await measurements(api, database, order="asc")
    assert [item["measured_at"] for item in oldest_first] == newest_first[::-1]


async def test_signs_and_times_select(database: str, api: httpx.AsyncClient) -> None:
    moments = [NOON - timedelta(hours=hour) for hour in range(4)]
    await store(database, *(a_pressure(at=at) for at in moments), a_weight())
    for query, count in (
        ({"sign": "body_weight"}, 1),
        ({"sign": ["body_weight", "blood_pressure"]}, 5),
        ({"sign": "water_intake"}, 0),
        ({"from": moments[1].isoformat(), "sign": "blood_pressure"}, 2),
        ({"to": moments[1].isoformat(), "sign": "blood_pressure"}, 2),
        ({"from": moments[3].isoformat(), "to": moments[1].isoformat()}, 2),
        ({"from": moments[2].astimezone(SHANGHAI).isoformat(), "to": NOON.isoformat()}, 2),
    ):
        assert len(await measurements(api, database, **query)) == count, query


async def test_another_residents_measurements_are_not_among_them(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure(), a_weight())
    other = public_id(database, OTHER_RESIDENT)
    page = (await api.get(f"{API}/residents/{other}/measurements")).json()
    assert page == {"items": [], "next": None}
    assert (await api.get(f"{API}/residents/{other}/latest")).json() == {}


@pytest.mark.parametrize("route", ["", "/measurements", "/latest"])
async def test_an_unknown_resident_is_a_404(api: httpx.AsyncClient, route: str) -> None:
    response = await api.get(f"{API}/residents/{uuid.uuid4()}{route}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].endswith("there is no such resident")


async def test_the_latest_goes_by_the_time_of_measurement_not_of_arrival(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure(Decimal(131)), sequence=1)
    await store(database, a_pressure(Decimal(117), at=NOON - timedelta(days=9)), sequence=2)
    latest = (await api.get(f"{API}/residents/{public_id(database)}/latest")).json()
    assert list(latest) == ["blood_pressure"]
    assert latest["blood_pressure"]["latest"]["values"]["systolic_mmhg"]["value"] == 131


async def test_an_artefact_is_marked_and_the_latest_without_one_is_there_too(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(
        database,
        a_pressure(Decimal(118), at=NOON - timedelta(hours=1)),
        a_pressure(Decimal(171), status=CUFF_TOO_LOOSE),
        a_weight(),
    )
    latest = (await api.get(f"{API}/residents/{public_id(database)}/latest")).json()
    pressure = latest["blood_pressure"]
    assert pressure["latest"]["artefact"]
    assert pressure["latest"]["statuses"] == ["cuff_too_loose"]
    assert pressure["latest_without_artefact"]["values"]["systolic_mmhg"]["value"] == 118
    weight = latest["body_weight"]
    assert weight["latest"] == weight["latest_without_artefact"]


async def test_only_artefacts_leave_no_latest_without_one(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure(status=CUFF_TOO_LOOSE))
    latest = (await api.get(f"{API}/residents/{public_id(database)}/latest")).json()
    assert latest["blood_pressure"]["latest_without_artefact"] is None


async def test_what_is_said_is_what_the_description_promises(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(
        database,
        a_weight("70.050", slot=1),
        in_unit_set(a_pressure(status=CUFF_TOO_LOOSE), 1, "16.0", "10.7", "12.4", "71"),
    )
    description = (await api.get("/openapi.json")).json()
    for path, methods in description["paths"].items():
        if not path.startswith(API) or "get" not in methods or path in ASKS_FOR_MORE:
            continue
        content = methods["get"]["responses"]["200"]["content"]
        if "application/json" in content:
            response = await api.get(path.format(resident=public_id(database)))
            assert response.status_code == 200, response.text
            schema = content["application/json"]["schema"]
            schema = schema | {"components": description["components"]}
            jsonschema.validate(response.json(), schema, format_checker=jsonschema.FormatChecker())
            example = content["application/json"].get("example")
            if example is not None:
                jsonschema.validate(example, schema)


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE measurement; --", "1 OR 1=1", "body_weight') OR ('1'='1", "%", "{0}"]
)
async def test_no_parameter_reaches_the_database_as_anything_but_a_value(
    database: str, api: httpx.AsyncClient, text: str
) -> None:
    await store(database, a_pressure())
    path = f"{API}/residents/{public_id(database)}/measurements"
    for parameter in ("sign", "from", "to", "after", "order", "limit"):
        response = await api.get(path, params={parameter: text})
        assert response.status_code == 422
    for route in ("residents", "homes", "hubs", "devices", "ledger"):
        response = await api.get(f"{API}/{route}", params={"after": text})
        assert response.status_code == 422
    assert len(await measurements(api, database)) == 1


PARAMETERS = ("sign", "from", "to", "after", "order", "limit", "home", "unknown")
junk = st.dictionaries(
    st.sampled_from(PARAMETERS),
    st.text(max_size=40)
    | st.sampled_from(list(BY_NAME))
    | st.integers().map(str)
    | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
    | st.from_regex(r"[0-9a-f]{44}", fullmatch=True),
)


@given(junk)
@settings(
    deadline=None,
    max_examples=60,
    # The database is only read: what one example finds, the next one finds as well.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_whatever_the_parameters_the_answer_is_json_and_no_error_of_ours(
    database: str, api: httpx.AsyncClient, parameters: dict[str, str]
) -> None:
    resident = f"residents/{public_id(database)}"
    for route in ("residents", f"{resident}/measurements", "hubs", "devices", "homes", "ledger"):
        response = await api.get(f"{API}/{route}", params=parameters)
        assert response.status_code in {200, 422}, response.text
        json.loads(response.text)


moments = st.integers(0, 40)
"""Quarter days before noon: few, so that many measurements share an instant."""
readings = st.tuples(moments, st.sampled_from(["cuff", "scale"]), st.integers(0, 2))


@given(
    there=st.sets(readings, max_size=25),
    arriving=st.lists(st.sets(readings, max_size=6), max_size=6),
    limit=st.integers(1, 7),
    order=st.sampled_from(["asc", "desc"]),
)
@settings(
    deadline=None,
    max_examples=40,
    # Each example has a resident of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_paging_neither_skips_nor_repeats_while_readings_arrive_anywhere(
    database: str,
    api: httpx.AsyncClient,
    there: set[tuple[int, str, int]],
    arriving: list[set[tuple[int, str, int]]],
    limit: int,
    order: str,
) -> None:
    path = f"{API}/residents/{a_new_resident(database)}/measurements"
    insert(database, there)
    known = set(there)
    before = (await api.get(path, params={"limit": 1000})).json()["items"]
    seen: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        query = httpx.QueryParams(limit=limit, order=order, **after)
        page = (await api.get(path, params=query)).json()
        assert len(page["items"]) <= limit
        seen += page["items"]
        if page["next"] is None:
            break
        assert page["next"] == seen[-1]["id"]
        after = {"after": page["next"]}
        if arriving:
            new = arriving.pop() - known
            known |= new
            insert(database, new)
    ids = [item["id"] for item in seen]
    assert len(ids) == len(set(ids))
    assert {item["id"] for item in before} <= set(ids)
    times = [item["measured_at"] for item in seen]
    assert times == sorted(times, reverse=order == "desc")


def a_new_resident(database: str) -> uuid.UUID:
    resident = uuid.uuid4()
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute("TRUNCATE measurement")
        connection.execute("INSERT INTO resident (public_id) VALUES (%s)", [resident])
    return resident


def insert(database: str, new: set[tuple[int, str, int]]) -> None:
    """Insert readings of the resident who was entered last: (moment, device, slot)."""
    rows = [
        {
            "at": NOON - timedelta(hours=6 * moment),
            "device_id": 11 if device == "cuff" else 12,
            "sign": BY_NAME["blood_pressure" if device == "cuff" else "body_weight"].code,
            "slot": slot,
        }
        for moment, device, slot in new
    ]
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.cursor().executemany(
            "INSERT INTO measurement (measured_at, identity_time, stored_at, batch_id, digits,"
            " device_id, resident_id, status, content_hash, received_after_s, sign, user_slot,"
            " time_quality, unit_set, time_flags, flags, systolic_mmhg, diastolic_mmhg,"
            " mean_arterial_mmhg, pulse_rate_per_min, body_weight_kg, bmi_kg_per_m2,"
            " body_height_cm) SELECT %(at)s, timestamp '2026-01-01', now(), 1, 0, %(device_id)s,"
            " max(resident_id), 0, 0, 1, %(sign)s, %(slot)s, 2, 0, 0, 0, 120, 80, 90, 70, 70, 22,"
            " 170 FROM resident",
            rows,
        )


async def test_measurements_are_read_along_the_index_of_the_resident(
    database_server: Database, database: str
) -> None:
    enter_registry(database)
    principal = Principal(user=SERVICE.id, role=Role.SERVICE)
    asked = beginning(principal, "tests.read", Needs.VALUES, [public_id(database)], None)
    newest, oldest = (
        asked
        | page_parameters(
            Selection(
                signs=SIGNS,
                from_at=NOON - timedelta(days=365),
                to_at=NOON,
                order=order,
                after=None,
                limit=101,
            )
        )
        for order in (Order.DESC, Order.ASC)
    )
    latest = newest | {"artefact": FLAG_ARTEFACT}
    # As the superuser: only it may load auto_explain, which shows what functions do.
    name = urlsplit(database).path[1:]
    superuser = database_server.url(SUPERUSER, name)
    with connect_blocking(superuser, application="hearth-tests", autocommit=True) as connection:
        connection.execute("INSERT INTO resident SELECT FROM generate_series(1, 20)")
        connection.execute(
            "INSERT INTO measurement (measured_at, identity_time, stored_at, batch_id, digits,"
            " device_id, resident_id, status, content_hash, received_after_s, sign, user_slot,"
            " time_quality, unit_set, time_flags, flags, body_temperature_celsius)"
            " SELECT at, at AT TIME ZONE 'UTC', at, 1, 0, resident_id, resident_id, 0, 0, 1, sign,"
            " 255, 2, 0, 0, 0, 36.5 FROM resident, unnest(ARRAY[1, 2]) AS sign, generate_series("
            "timestamptz '2026-09-01 00:00+00', '2026-10-26 00:00+00', '1 hour') AS at"
        )
        connection.execute("ANALYZE measurement")
        connection.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0;"
            " SET auto_explain.log_nested_statements = on; SET auto_explain.log_format = 'json';"
            " SET client_min_messages = 'log'"
        )
        told: list[str] = []
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        for statement, parameters in (
            (PAGE[Order.DESC], newest),
            (PAGE[Order.ASC], oldest),
            (LATEST, latest),
        ):
            told.clear()
            assert len(connection.execute(statement, parameters).fetchall()) >= 4
            scans = [
                node
                for text in told
                if "plan:" in text
                for node in nodes(json.loads(text.partition("plan:")[2])["Plan"])
                if node.get("Relation Name", "").endswith("_chunk")
            ]
            assert len(scans) >= 8
            assert {node["Node Type"] for node in scans} == {"Index Scan"}
            assert all("measurement_of_resident" in node["Index Name"] for node in scans)
            assert all("resident_id =" in node["Index Cond"] for node in scans)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)
