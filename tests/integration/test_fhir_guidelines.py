"""Statistics of guidelines in `$stats`: the same figures as over REST, as Observations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.observation import Observation
from fhirclient.models import observation  # type: ignore[import-untyped]  # it has no annotations

from tests.archives import API, SERVICE, a_token, api_over, public_id, store
from tests.worlds import NOON, a_pressure, a_weight, enter_registry

pytestmark = pytest.mark.integration

DAY = timedelta(days=1)


@pytest.fixture
async def api(database: str) -> AsyncIterator[httpx.AsyncClient]:
    """Seven days of two readings in the morning and two in the evening; two weights."""
    enter_registry(database)
    morning, evening = NOON - timedelta(hours=5), NOON + timedelta(hours=7)
    readings = [
        a_pressure(
            Decimal(130 + minute), Decimal(80), at=at - day * DAY + timedelta(minutes=minute)
        )
        for day in range(1, 8)
        for at in (morning, evening)
        for minute in (0, 2)
    ]
    weights = [a_weight("70.000", at=NOON - 3 * DAY), a_weight("72.500", at=NOON - DAY)]
    await store(database, *readings, *weights)
    async with api_over(database) as client:
        yield client


async def statistics(
    api: httpx.AsyncClient, database: str, **more: str
) -> dict[str, dict[str, Any]]:
    """The Observations by their codes, each accepted by two validators."""
    asked = {"patient": str(public_id(database)), "end": "2026-11-19T23:59:59%2B08:00"} | more
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    response = await api.get(f"/fhir/Observation/$stats?{query}")
    assert response.status_code == 200, response.text
    found = {}
    for parameter in response.json()["parameter"]:
        resource = parameter["resource"]
        Observation.model_validate(resource)
        observation.Observation(resource)
        found[resource["code"]["coding"][0]["code"]] = resource
    return found


def value_of(resource: dict[str, Any], code: str) -> object:
    """A component's value, or why there is none."""
    (component,) = [c for c in resource["component"] if c["code"]["coding"][0]["code"] == code]
    if "valueQuantity" in component:
        return component["valueQuantity"]["value"]
    return component.get("valueBoolean", component.get("dataAbsentReason"))


async def test_statistics_of_guidelines_are_those_of_rest_and_name_their_rules(
    database: str, api: httpx.AsyncClient
) -> None:
    found = await statistics(api, database, statistic="guideline")
    assert set(found) == {"home-pressure", "weight-change", "news2-partial"}
    response = await api.get(
        f"{API}/residents/{public_id(database)}/statistics", params={"day": "2026-11-19"}
    )
    rest = response.json()
    pressure = found["home-pressure"]
    assert (
        value_of(pressure, "mean-systolic") == rest["home_pressure"]["mean"]["systolic_mmhg"] == 131
    )
    assert value_of(pressure, "full-days") == rest["home_pressure"]["full_days"] == 7
    assert value_of(pressure, "adequate") is rest["home_pressure"]["adequate"] is True
    assert value_of(pressure, "elevated") is rest["home_pressure"]["elevated"] is False
    assert "china-2024" in pressure["method"]["text"]
    assert pressure["effectivePeriod"]["start"].startswith("2026-11-12T16:00:00")
    assert "96608-5" in str(pressure["component"][0])
    assert (
        value_of(found["weight-change"], "change-3-days") == rest["weight"]["change_3d_kg"] == 2.5
    )
    assert value_of(found["news2-partial"], "parameters") == len(rest["news2"]["present"])
    assert "部分" in found["news2-partial"]["method"]["text"]


async def test_another_rule_set_judges_otherwise(database: str, api: httpx.AsyncClient) -> None:
    found = await statistics(api, database, statistic="home-pressure", ruleSet="aha-acc-2025")
    assert value_of(found["home-pressure"], "elevated") is True


async def test_without_asking_for_them_the_basic_ones_come_and_codes_choose(
    database: str, api: httpx.AsyncClient
) -> None:
    assert "8480-6" in await statistics(api, database)
    both = await statistics(api, database, statistic="average,home-pressure", code="85354-9")
    assert {"8480-6", "8462-4", "home-pressure"} <= set(both)
    only = await statistics(api, database, statistic="guideline", code="29463-7")
    assert set(only) == {"weight-change"}


async def test_a_narrow_scope_sees_no_statistic_of_what_it_leaves_out(
    database: str, api: httpx.AsyncClient
) -> None:
    token = a_token(SERVICE, scope="system/Observation.rs?code=29463-7")
    api.headers["Authorization"] = f"Bearer {token}"
    assert set(await statistics(api, database, statistic="guideline")) == {"weight-change"}


@pytest.mark.parametrize(
    "query", ["statistic=median", "statistic=home-pressure&ruleSet=mine", "statistic="]
)
async def test_an_unknown_statistic_or_rule_set_is_refused(
    database: str, api: httpx.AsyncClient, query: str
) -> None:
    response = await api.get(f"/fhir/Observation/$stats?patient={public_id(database)}&{query}")
    assert response.status_code == 400
    assert response.json()["resourceType"] == "OperationOutcome"


async def test_the_edges_of_time_are_answered(database: str, api: httpx.AsyncClient) -> None:
    for end in ("0002", "9998"):
        query = f"patient={public_id(database)}&statistic=guideline&end={end}"
        response = await api.get(f"/fhir/Observation/$stats?{query}")
        assert response.status_code == 200, response.text
