"""Series for charts: buckets by the local clock, artefacts left out and counted, a year below 100 kB."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
import pytest

from gateway.vitals import SIGNS
from tests.archives import API, api_over, public_id, store
from tests.worlds import NOON, a_pressure, enter_registry, query

pytestmark = pytest.mark.integration

CUFF_TOO_LOOSE = 1 << 1
YEAR = {"from": "2025-11-21T00:00:00+08:00", "to": "2026-11-21T00:00:00+08:00"}
SIGNS_OF_A_YEAR = 5


@pytest.fixture
async def api(database: str) -> AsyncIterator[httpx.AsyncClient]:
    enter_registry(database)
    async with api_over(database) as client:
        yield client


async def series(api: httpx.AsyncClient, database: str, **query: str) -> httpx.Response:
    return await api.get(f"{API}/residents/{public_id(database)}/series", params=YEAR | query)


async def test_a_bucket_has_mean_least_and_greatest_and_leaves_artefacts_out(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(
        database,
        a_pressure(Decimal(120)),
        a_pressure(Decimal(131), at=NOON + timedelta(minutes=1)),
        a_pressure(Decimal(250), at=NOON + timedelta(minutes=2), status=CUFF_TOO_LOOSE),
    )
    document = (await series(api, database)).json()
    assert (document["width"], document["zone"]) == ("day", "Asia/Shanghai")
    assert document["begins"] == ["2026-11-20"]
    pressure = document["signs"]["blood_pressure"]
    assert (pressure["count"], pressure["artefacts"]) == ([3], [1])
    assert pressure["quantities"]["systolic_mmhg"] == {
        "unit": "mm[Hg]",
        "mean": [125.5],
        "min": [120],
        "max": [131],
    }
    assert pressure["quantities"]["mean_arterial_mmhg"]["mean"] == [None]


async def test_days_are_those_of_the_zones_clock(database: str, api: httpx.AsyncClient) -> None:
    midnight = datetime(2026, 11, 18, 16, 0, tzinfo=UTC)  # in Shanghai
    await store(
        database,
        a_pressure(at=midnight - timedelta(seconds=1)),
        a_pressure(at=midnight),
    )
    assert (await series(api, database)).json()["begins"] == ["2026-11-18", "2026-11-19"]
    in_utc = (await series(api, database, zone="UTC")).json()
    assert in_utc["begins"] == ["2026-11-18"]


async def test_all_signs_share_one_axis(database: str, api: httpx.AsyncClient) -> None:
    await store(database, a_pressure(), a_pressure(at=NOON - timedelta(days=3)))
    query(
        database,
        "UPDATE measurement SET sign = 3, body_weight_kg = 70, systolic_mmhg = NULL"
        " WHERE measured_at < '2026-11-19'",
    )
    signs = (await series(api, database)).json()["signs"]
    assert signs["blood_pressure"]["count"] == [0, 1]
    assert signs["body_weight"]["count"] == [1, 0]


async def test_a_year_of_five_signs_by_the_day_is_below_100_kb(
    database: str, api: httpx.AsyncClient
) -> None:
    for sign in SIGNS[:SIGNS_OF_A_YEAR]:
        columns = ", ".join(quantity.name for quantity in sign.quantities)
        values = ", ".join(
            f"round(({quantity.typical.mean} * (0.8 + 0.4 * random()))::numeric, {places})"
            for quantity, places in zip(
                sign.quantities,
                (max(-int(s.normalize().as_tuple().exponent), 0) for s in sign.unit_sets[0].steps),
                strict=True,
            )
        )
        query(
            database,
            "INSERT INTO measurement (measured_at, identity_time, stored_at, batch_id, digits,"  # noqa: S608
            " device_id, resident_id, status, content_hash, received_after_s, sign, user_slot,"
            f" time_quality, unit_set, time_flags, flags, {columns})"
            " SELECT at, at, now(), 1, 0, 11, 101, 0, 0, 1,"
            f" {sign.code}, 255, 1, 0, 0, 0, {values}"
            " FROM generate_series(timestamptz '2025-11-21T01:00Z', timestamptz '2026-11-20T15:00Z',"
            " interval '6 hours') AS at",
        )
    response = await series(api, database)
    document = response.json()
    assert len(document["signs"]) == SIGNS_OF_A_YEAR
    assert len(document["begins"]) == 365
    assert len(response.content) < 100_000


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"width": "hour"}, "width"),
        ({"width": "minute"}, "width"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"to": "2020-01-01T00:00:00Z"}, "to"),
        ({"from": "0001-01-01T00:00:00Z"}, "width"),
        ({"sign": "mood"}, "sign"),
    ],
)
async def test_what_cannot_be_drawn_is_refused(
    database: str, api: httpx.AsyncClient, wrong: dict[str, str], parameter: str
) -> None:
    response = await series(api, database, **wrong)
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json()["errors"]] == [parameter]
