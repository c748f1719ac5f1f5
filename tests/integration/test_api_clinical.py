"""Guideline statistics and alerts over the API, from readings stored by the real ingest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import httpx
import pytest

from api.clinical import today_in_shanghai
from gateway.measurement import Measurement
from gateway.platform.postgres import connect_blocking
from ingest.alerts.rules import seed_rules
from tests.archives import API, api_over, public_id, store
from tests.worlds import OTHER_RESIDENT, a_pressure, a_weight, enter_registry, query

pytestmark = pytest.mark.integration

CHINA = timezone(timedelta(hours=8))
MONDAY = datetime(2026, 11, 9, tzinfo=CHINA)
SUNDAY = "2026-11-15"


@pytest.fixture
async def api(database: str) -> AsyncIterator[httpx.AsyncClient]:
    enter_registry(database)
    async with api_over(database) as client:
        yield client


def week(systolic: int, diastolic: int) -> list[Measurement]:
    return [
        a_pressure(
            Decimal(systolic),
            Decimal(diastolic),
            at=MONDAY + timedelta(days=day, hours=hour, seconds=45 * place),
        )
        for day in range(7)
        for hour in (7, 21)
        for place in (0, 1)
    ]


async def statistics(api: httpx.AsyncClient, database: str, **parameters: str) -> dict[str, Any]:
    answer = await api.get(
        f"{API}/residents/{public_id(database)}/statistics", params={"day": SUNDAY} | parameters
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_week_of_pressure_is_judged_by_the_rule_set_asked_for(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(
        database,
        *week(132, 82),
        a_weight(at=MONDAY),
        a_weight("72.1", at=MONDAY + timedelta(days=2)),
    )
    chinese = (await statistics(api, database))["home_pressure"]
    assert chinese["mean"] == {"systolic_mmhg": 132.0, "diastolic_mmhg": 82.0}
    assert (chinese["full_days"], chinese["readings"], chinese["adequate"]) == (7, 28, True)
    assert (chinese["version"], chinese["elevated"]) == ("2024", False)
    american = (await statistics(api, database, rule_set="aha-acc-2025"))["home_pressure"]
    assert american["elevated"] is True


async def test_late_and_reattributed_readings_put_the_statistics_right(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, *week(150, 90)[4:])
    assert (await statistics(api, database))["home_pressure"]["full_days"] == 6
    await store(database, *week(150, 90)[:4], sequence=2)
    found = await statistics(api, database)
    assert found["home_pressure"]["full_days"] == 7
    assert found["home_pressure"]["elevated"] is True
    query(database, "UPDATE measurement SET resident_id = 102")
    after = (await statistics(api, database))["home_pressure"]
    assert (after["readings"], after["elevated"], after["mean"]["systolic_mmhg"]) == (0, None, None)


async def test_weight_peaks_totals_and_partial_news2_name_what_they_are(
    database: str, api: httpx.AsyncClient
) -> None:
    sunday = MONDAY + timedelta(days=6, hours=20)
    await store(
        database,
        a_weight("70.0", at=sunday - timedelta(days=2)),
        a_weight("72.5", at=sunday),
        a_pressure(Decimal(95), Decimal(60), at=sunday),
    )
    found = await statistics(api, database)
    assert found["weight"]["gain_3d_kg"] == 2.5
    assert found["news2"]["score"] == 2  # systolic 91-100 scores 2, a pulse of 71 nothing
    assert found["news2"]["present"] == ["systolic_mmhg", "pulse_rate_per_min"]
    assert found["news2"]["of_parameters"] == 7
    assert "partial" in found["news2"]["label"]
    assert "no diagnostic device" in found["notice"]


def enter_alert(database: str, resident_id: int = 101) -> None:
    with connect_blocking(database, application="hearth-tests") as connection:
        seed_rules(connection)
        connection.execute(
            "INSERT INTO alert (resident_id, rule, rule_id, started_at, last_at, stage, readings,"
            " is_note, sign) SELECT %s, name, rule_id, now(), now(), 2, 1, false, 1 FROM alert_rule"
            " WHERE name = 'pressure-crisis'",
            [resident_id],
        )


async def test_an_alert_is_listed_acknowledged_and_resolved_once(
    database: str, api: httpx.AsyncClient
) -> None:
    enter_alert(database)
    of_resident = f"{API}/residents/{public_id(database)}/alerts"
    (alert,) = (await api.get(of_resident)).json()["items"]
    assert (alert["rule"], alert["stage"], alert["state"]) == ("pressure-crisis", 2, "open")
    assert alert["title"]["zh"] == "血压危急值"
    path = f"{of_resident}/{alert['id']}"
    assert (await api.post(f"{path}/acknowledge", json={"note": "已电话"})).status_code == 204
    assert (await api.post(f"{path}/acknowledge", json={})).status_code == 409
    assert (await api.post(f"{path}/resolve", json={})).status_code == 204
    assert (await api.get(of_resident)).json()["items"] == []
    history = (await api.get(path)).json()
    assert history["alert"]["state"] == "resolved"
    assert [(e["what"], e["note"]) for e in history["events"]] == [
        ("acknowledged", "已电话"),
        ("resolved", None),
    ]
    actions = query(database, "SELECT DISTINCT action FROM audit WHERE resident_id = 101")
    assert {("alert.list",), ("alert.acknowledged",), ("alert.resolved",)} <= set(actions)


async def test_another_residents_alert_is_not_there(database: str, api: httpx.AsyncClient) -> None:
    enter_alert(database, OTHER_RESIDENT)
    ((alert,),) = query(database, "SELECT public_id FROM alert")
    path = f"{API}/residents/{public_id(database)}/alerts/{alert}"
    assert (await api.get(path)).status_code == 404
    assert (await api.post(f"{path}/resolve", json={})).status_code == 409
    assert query(database, "SELECT state FROM alert") == [("open",)]


async def test_a_withheld_sign_hides_its_alerts(database: str) -> None:
    enter_registry(database)
    enter_alert(database)
    query(database, "INSERT INTO objection (resident_id, sign) VALUES (101, 1)")
    async with api_over(database) as api:
        answer = await api.get(f"{API}/residents/{public_id(database)}/alerts")
    assert answer.json()["items"] == []


@pytest.mark.parametrize("parameters", [{"rule_set": "mine"}, {"day": "1999-12-31"}, {"day": "x"}])
async def test_a_wrong_parameter_is_named(
    database: str, api: httpx.AsyncClient, parameters: dict[str, str]
) -> None:
    answer = await api.get(f"{API}/residents/{public_id(database)}/statistics", params=parameters)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == next(iter(parameters))


def test_the_day_changes_at_midnight_in_shanghai() -> None:
    before = datetime(2026, 11, 9, 15, 59, 59, tzinfo=UTC)
    assert today_in_shanghai(before).isoformat() == "2026-11-09"
    assert today_in_shanghai(before + timedelta(seconds=1)).isoformat() == "2026-11-10"
