"""However readings arrive, FHIR says the same: $lastn, $stats and pages of one resident's month."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.measurement import Measurement
from gateway.platform.postgres import connect_blocking
from tests.archives import api_over, public_id, store
from tests.worlds import NOON, a_pressure, a_weight, enter_registry

pytestmark = pytest.mark.integration


@pytest.fixture
async def api(database: str) -> AsyncIterator[httpx.AsyncClient]:
    enter_registry(database)
    async with api_over(database) as client:
        yield client


def a_month() -> list[Measurement]:
    """Two pressures a day and a weight, some in the same instant."""
    month: list[Measurement] = []
    for day in range(30):
        at = NOON - timedelta(days=day)
        month.append(a_pressure(Decimal(118 + day % 11), Decimal(76 + day % 7), at=at))
        month.append(a_pressure(Decimal(121 + day % 9), at=at - timedelta(hours=10)))
        month.append(a_weight(f"70.{day:02}0", at=at))
    return month


async def said(api: httpx.AsyncClient, database: str) -> list[Any]:
    patient = str(public_id(database))
    answers: list[Any] = []
    for path, parameters in (
        ("/fhir/Observation/$lastn", {"max": "3"}),
        ("/fhir/Observation/$stats", {"start": "2026-01-01"}),
        ("/fhir/Observation", {"_count": "50"}),
        ("/fhir/Observation", {"_sort": "date", "_count": "50", "code": "29463-7"}),
    ):
        response = await api.get(path, params={"patient": patient, **parameters})
        assert response.status_code == 200, response.text
        answer = response.json()
        for entry in answer.get("entry", []):
            del entry["resource"]["meta"]["lastUpdated"], entry["resource"]["issued"]
        answers.append(answer.get("entry") or answer.get("parameter"))
    return answers


@given(seed=st.integers(0, 2**32), cuts=st.sets(st.integers(1, 89), max_size=4))
@settings(
    deadline=None,
    max_examples=4,
    # Each example begins with an empty table.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_any_order_of_arrival_says_the_same(
    database: str, api: httpx.AsyncClient, seed: int, cuts: set[int]
) -> None:
    month = a_month()
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute("TRUNCATE measurement, batch")
    await store(database, *month)
    in_order = await said(api, database)
    shuffled = random.Random(seed).sample(month, len(month))  # noqa: S311 - no secret
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute("TRUNCATE measurement, batch")
    edges = [0, *sorted(cuts), len(shuffled)]
    for sequence, (start, end) in enumerate(pairwise(edges), start=1):
        await store(database, *shuffled[start:end], sequence=sequence)
    assert await said(api, database) == in_order
