"""Readings without an owner over the REST API: seen without values, claimed, re-assigned, refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from api import accounts
from api.access import Role
from api.accounts import NewAccount
from gateway.platform.changes import START
from gateway.platform.postgres import connect, connect_blocking
from gateway.stored import FLAG_CLAIMED, FLAG_ELSEWHERE
from ingest.store import Store
from tests.archives import API, BEARER, a_token, a_vault, api_over, public_id, store
from tests.feeds import settled_changes
from tests.fixtures.database import as_api
from tests.flushes import committed
from tests.worlds import (
    NOON,
    OTHER_HUB,
    OTHER_RESIDENT,
    RESIDENT,
    a_message,
    a_pressure,
    a_weight,
    enter_registry,
    query,
)

pytestmark = pytest.mark.integration

HOUR = timedelta(hours=1)
SHARED = (
    "INSERT INTO shared_link (device_id, user_slot, resident_id, during)"
    " VALUES (12, 255, 101, '(,)'), (12, 255, 102, '(,)')"
)
MINE, BOTH = "team of one", "team of both"


@pytest.fixture
async def home(database: str) -> str:
    """Two residents who share a scale; three weights wait, and two pressures are the first one's."""
    enter_registry(database)
    query(database, SHARED)
    weights = [a_weight(f"{70 + n}.050", at=NOON - (2 - n) * HOUR, slot=None) for n in range(3)]
    await store(database, *weights, a_pressure(), a_pressure(at=NOON - HOUR))
    with connect_blocking(database, application="hearth-tests") as connection:
        for login, resident in (("anna", RESIDENT), ("bert", OTHER_RESIDENT)):
            new = NewAccount(
                login=login, role=Role.RESIDENT, resident=public_id(database, resident)
            )
            accounts.add_account(connection, a_vault(), new)
        for login, team, residents in (
            ("cai", MINE, (RESIDENT,)),
            ("dora", BOTH, (RESIDENT, OTHER_RESIDENT)),
        ):
            accounts.add_account(
                connection, a_vault(), NewAccount(login=login, role=Role.COORDINATOR)
            )
            accounts.add_care_team(connection, team)
            accounts.join_care_team(connection, team, login, None)
            whom = [public_id(database, resident) for resident in residents]
            accounts.care_for(connection, team, whom, None)
    return database


@asynccontextmanager
async def asked_by(dsn: str, login: str) -> AsyncIterator[httpx.AsyncClient]:
    with connect_blocking(dsn, application="hearth-tests") as connection:
        account, session = accounts.open_session(connection, login, HOUR)
    async with api_over(dsn) as api:
        api.headers["Authorization"] = f"Bearer {a_token(account, session)}"
        yield api


async def waiting(dsn: str, login: str, resident: int, query_: str = "") -> dict[str, Any]:
    async with asked_by(dsn, login) as api:
        response = await api.get(f"{API}/residents/{public_id(dsn, resident)}/unassigned{query_}")
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


async def claimed(
    dsn: str, login: str, resident: int, *readings: str, key: str | None = None
) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    async with asked_by(dsn, login) as api:
        return await api.post(
            f"{API}/residents/{public_id(dsn, resident)}/unassigned/claim",
            json={"readings": list(readings), "reason": "asked them"},
            headers=headers,
        )


def owners(dsn: str) -> list[tuple[int, int]]:
    return query(
        dsn, "SELECT resident_id, flags FROM measurement WHERE sign = 3 ORDER BY measured_at"
    )


async def measurement_of(dsn: str, login: str, resident: int) -> str:
    async with asked_by(dsn, login) as api:
        page = await api.get(f"{API}/residents/{public_id(dsn, resident)}/measurements")
    return str(page.json()["items"][0]["id"])


async def test_what_waits_is_listed_for_each_who_shares_without_a_value(home: str) -> None:
    for login, resident in (("anna", RESIDENT), ("bert", OTHER_RESIDENT), ("dora", RESIDENT)):
        page = await waiting(home, login, resident)
        assert [item["sign"] for item in page["items"]] == ["body_weight"] * 3
        assert [item["measured_at"] for item in page["items"]] == sorted(
            (item["measured_at"] for item in page["items"]), reverse=True
        )
        assert "70.05" not in str(page)
    assert page["items"][0] == {
        "id": page["items"][0]["id"],
        "measured_at": "2026-11-20T04:00:00Z",
        "device": "C0:26:DA:04:05:06",
        "user_slot": 255,
        "sign": "body_weight",
        "probability": None,
    }


async def test_the_list_goes_on_page_by_page(home: str) -> None:
    whole = await waiting(home, "anna", RESIDENT)
    found: list[Any] = []
    after: str | None = ""
    while after is not None:
        page = await waiting(home, "anna", RESIDENT, f"?limit=1{after and f'&after={after}'}")
        found += page["items"]
        after = page["next"]
    assert found == whole["items"]


async def test_a_resident_claims_what_is_nobodys(home: str) -> None:
    newest, *_rest = (await waiting(home, "anna", RESIDENT))["items"]
    response = await claimed(home, "anna", RESIDENT, newest["id"])
    assert (response.status_code, response.json()) == (200, {"done": True})
    assert owners(home) == [(0, 0), (0, 0), (RESIDENT, FLAG_CLAIMED)]
    assert len((await waiting(home, "bert", OTHER_RESIDENT))["items"]) == 2
    kept = query(
        home,
        "SELECT a.resident_id, a.next_resident_id, c.kind, c.reason, c.readings, c.actor ~ '^user:'"
        " FROM attribution AS a JOIN correction AS c USING (correction_id)",
    )
    assert kept == [(0, RESIDENT, "claim", "asked them", 1, True)]
    assert query(
        home,
        "SELECT resident_id, reason, detail FROM audit WHERE action = 'worklist.claim'",
    ) == [(RESIDENT, "asked them", {"by": "own"})]
    assert query(home, "SELECT device_id, user_slot FROM attribution_due ORDER BY noted_at DESC")
    async with await connect(home, application="hearth-tests", autocommit=True) as session:
        told = (await settled_changes(session, START, 2))[-1].changed
    assert (told.resident.tolist(), told.sign.tolist()) == ([RESIDENT], [3])


async def test_a_claim_that_is_sent_again_changes_nothing(home: str) -> None:
    newest, *_rest = (await waiting(home, "anna", RESIDENT))["items"]
    for key in ("once-0001", "once-0001", "once-0002", None):
        assert (await claimed(home, "anna", RESIDENT, newest["id"], key=key)).status_code == 200
    assert query(home, "SELECT count(*) FROM correction") == [(1,)]


async def test_a_resident_claims_nothing_that_is_anothers(home: str) -> None:
    newest, *_rest = (await waiting(home, "anna", RESIDENT))["items"]
    assert (await claimed(home, "anna", RESIDENT, newest["id"])).status_code == 200
    assert (await claimed(home, "bert", OTHER_RESIDENT, newest["id"])).status_code == 403
    assert (await claimed(home, "bert", RESIDENT, newest["id"])).status_code == 403
    assert owners(home)[2] == (RESIDENT, FLAG_CLAIMED)
    refused = query(
        home, "SELECT count(*) FROM audit WHERE action = 'worklist.claim' AND detail ? 'refused'"
    )
    assert refused[0][0] >= 1


async def test_a_resident_claims_nothing_of_a_device_that_is_not_theirs(home: str) -> None:
    """A lent cuff's reading is nobody's; the coordinator of both homes knows whose."""
    there = a_pressure(at=NOON + 20 * HOUR)
    back = replace(there, received_at=NOON + 40 * HOUR)
    async with await connect(home, application="hearth-tests", autocommit=True) as session:
        await committed(Store(session), a_message(there, hub=OTHER_HUB, sequence=7))
        await committed(Store(session), a_message(back, sequence=8))
    lent = next(
        item
        for item in (await waiting(home, "anna", RESIDENT))["items"]
        if item["sign"] == "blood_pressure"
    )
    assert (await claimed(home, "bert", OTHER_RESIDENT, lent["id"])).status_code == 403
    assert (await claimed(home, "dora", OTHER_RESIDENT, lent["id"])).status_code == 200
    rows = query(home, "SELECT resident_id, flags FROM measurement WHERE flags & 16 <> 0")
    assert rows == [(OTHER_RESIDENT, FLAG_CLAIMED | FLAG_ELSEWHERE)]


async def test_a_coordinator_reassigns_among_the_residents_of_the_care_team(home: str) -> None:
    theirs = await measurement_of(home, "anna", RESIDENT)
    assert (await claimed(home, "cai", OTHER_RESIDENT, theirs)).status_code == 403
    newest, *_rest = (await waiting(home, "cai", RESIDENT))["items"]
    assert (await claimed(home, "cai", RESIDENT, newest["id"])).status_code == 200
    moved = await claimed(home, "dora", OTHER_RESIDENT, theirs)
    assert moved.status_code == 200
    lost = query(
        home,
        "SELECT resident_id, detail ->> 'by' FROM audit WHERE action = 'worklist.claim'"
        " AND NOT detail ? 'refused' AND actor = (SELECT 'user:' || public_id FROM account"
        " WHERE login = 'dora') ORDER BY 1",
    )
    assert lost == [(RESIDENT, "care_team"), (OTHER_RESIDENT, "care_team")]
    async with asked_by(home, "bert") as api:
        page = await api.get(f"{API}/residents/{public_id(home, OTHER_RESIDENT)}/measurements")
    assert [item["attribution"] for item in page.json()["items"]] == ["confirmed"]


async def test_all_are_claimed_or_none(home: str) -> None:
    items = (await waiting(home, "anna", RESIDENT))["items"]
    strange = items[0]["id"][:-1] + ("0" if items[0]["id"][-1] != "0" else "1")
    assert (await claimed(home, "anna", RESIDENT, items[0]["id"], strange)).status_code == 404
    assert (await claimed(home, "anna", RESIDENT, "f" * 44)).status_code in {404, 422}
    assert owners(home) == [(0, 0)] * 3


async def test_a_service_with_the_scope_claims_for_anyone(home: str) -> None:
    items = (await waiting(home, "anna", RESIDENT))["items"]
    async with api_over(home) as api:
        api.headers.update(BEARER)
        response = await api.post(
            f"{API}/residents/{public_id(home, OTHER_RESIDENT)}/unassigned/claim",
            json={"readings": [items[0]["id"]]},
        )
    assert response.status_code == 200
    assert owners(home)[2] == (OTHER_RESIDENT, FLAG_CLAIMED)


def test_the_database_lets_the_api_claim_by_no_other_door(home: str) -> None:
    with (
        connect_blocking(as_api(home), application="hearth-tests") as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(
            "SELECT claim_readings('user:x', NULL, 101, '{}', '{}', '{}', '{}', '{}')"
        )
    with connect_blocking(as_api(home), application="hearth-tests") as connection:
        listed = connection.execute(
            "SELECT * FROM access.unassigned(%s, 10, NULL, NULL, NULL, NULL, NULL)",
            [UUID(str(public_id(home)))],
        ).fetchall()
    assert listed == []
