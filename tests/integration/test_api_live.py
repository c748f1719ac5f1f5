"""Live events over real HTTP: who gets what, in which order, again after a cut, and how slow is too slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from api import accounts, live
from api.access import Principal, Role
from api.accounts import NewAccount
from api.live import Follower, Told, read_place
from api.resident_merge import merge
from api.server import serving
from gateway.platform.postgres import connect_blocking
from gateway.platform.settings import LOOPBACK
from ingest.alerts.rules import seed_rules
from tests.archives import (
    API,
    BEARER,
    a_config,
    a_token,
    a_vault,
    public_id,
    served,
    store,
)
from tests.fixtures.database import as_api
from tests.worlds import NOON, OTHER_RESIDENT, a_pressure, a_weight, enter_registry, query

pytestmark = pytest.mark.integration

WITHIN_S = 20.0


@pytest.fixture
async def api(database: str) -> AsyncIterator[httpx.AsyncClient]:
    enter_registry(database)
    async with served(database) as client:
        yield client


class Stream:
    """The events of one open stream."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.last_id = ""

    async def next(self) -> tuple[str, Any]:
        name, data = "message", ""
        async with asyncio.timeout(WITHIN_S):
            async for line in self._lines:
                key, _, value = line.partition(": ")
                if key == "id":
                    self.last_id = value
                elif key == "event":
                    name = value
                elif key == "data":
                    data = value
                elif not line and data:
                    return name, json.loads(data)
        raise EOFError

    async def readings(self, count: int) -> list[tuple[str, str]]:
        """Return the next ones as (sign, measured_at)."""
        found: list[tuple[str, str]] = []
        while len(found) < count:
            name, data = await self.next()
            assert name == "measurement"
            found.append((data["measurement"]["sign"], data["measurement"]["measured_at"]))
        return found


@asynccontextmanager
async def following(
    api: httpx.AsyncClient, *residents: UUID, after: str | None = None
) -> AsyncIterator[Stream]:
    headers = {} if after is None else {"Last-Event-ID": after}
    params = {"resident": [str(resident) for resident in residents]}
    async with api.stream("GET", f"{API}/live", params=params, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream(response.aiter_lines())
        if after is None:
            assert await stream.next() == ("ready", {})
        yield stream


async def test_a_reading_comes_when_it_is_stored_and_only_of_whom_was_asked_for(
    database: str, api: httpx.AsyncClient
) -> None:
    async with (
        following(api, public_id(database)) as mine,
        following(api, public_id(database, OTHER_RESIDENT)) as others,
    ):
        await store(database, a_pressure(), a_weight())
        readings = await mine.readings(2)
        assert {sign for sign, _at in readings} == {"blood_pressure", "body_weight"}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await others.next()


async def test_what_was_missed_comes_behind_the_last_id(
    database: str, api: httpx.AsyncClient
) -> None:
    resident = public_id(database)
    async with following(api, resident) as stream:
        await store(database, a_pressure(), sequence=1)
        await stream.readings(1)
        last_id = stream.last_id
    await store(database, a_pressure(at=NOON - timedelta(hours=1)), sequence=2)
    await store(database, a_pressure(at=NOON - timedelta(hours=2)), sequence=3)
    async with following(api, resident, after=last_id) as stream:
        # The feed is where its last reader left it: before the two or, once that one is gone, behind.
        told = [await stream.next() for _ in range(3)]
        assert ("ready", {}) in told
        readings = [data["measurement"]["measured_at"] for _name, data in told if data]
        assert [at[11:13] for at in readings] == ["11", "10"]
        await store(database, a_pressure(at=NOON - timedelta(hours=3)), sequence=4)
        assert len(await stream.readings(1)) == 1


async def test_a_reattributed_reading_comes_to_its_new_owner(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure())
    kept, gone = public_id(database, OTHER_RESIDENT), public_id(database)
    async with following(api, kept) as stream:
        with connect_blocking(database, application="hearth-tests", autocommit=True) as connection:
            await asyncio.to_thread(merge, connection, kept, gone, "entered twice")
        assert (await stream.readings(1))[0][0] == "blood_pressure"


async def test_every_event_is_audited(database: str, api: httpx.AsyncClient) -> None:
    async with following(api, public_id(database)) as stream:
        await store(database, a_pressure())
        await stream.readings(1)
    audited = "SELECT resident_id FROM audit WHERE action = 'measurement.live'"
    assert query(database, audited) == [(101,)]


def raise_alert(database: str, sign: int | None = 1) -> None:
    """As the evaluator does: an alert and what happened to it, in one transaction."""
    with connect_blocking(database, application="hearth-tests", autocommit=True) as connection:
        connection.execute(
            "WITH rule AS (SELECT rule_id, name FROM alert_rule LIMIT 1), raised AS ("
            " INSERT INTO alert (resident_id, rule, rule_id, started_at, last_at, stage, readings,"
            " is_note, sign) SELECT 101, name, rule_id, now(), now(), 2, 1, false, %s"
            " FROM rule RETURNING alert_id)"
            " INSERT INTO alert_event (alert_id, actor, what)"
            " SELECT alert_id, 'service:alerts', 'raised' FROM raised",
            [sign],
        )


@pytest.fixture
def rules(database: str) -> None:
    with connect_blocking(database, application="hearth-tests") as connection:
        seed_rules(connection)


@pytest.mark.usefixtures("rules")
async def test_an_alert_comes_among_the_readings_and_only_to_whom_may_see_it(
    database: str, api: httpx.AsyncClient
) -> None:
    mine, other = public_id(database), public_id(database, OTHER_RESIDENT)
    async with following(api, mine) as stream, following(api, other) as others:
        await store(database, a_pressure(), sequence=1)
        await stream.readings(1)
        raise_alert(database)
        name, data = await stream.next()
        assert (name, data["resident"], data["what"]) == ("alert", str(mine), "raised")
        assert data["alert"]["stage"] == 2
        assert data["alert"]["state"] == "open"
        assert set(data["alert"]["title"]) >= {"zh", "en"}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await others.next()
    audited = "SELECT action, resident_id FROM audit WHERE action LIKE '%.live' ORDER BY audit_id"
    assert query(database, audited) == [("measurement.live", 101), ("alert.live", 101)]


@pytest.mark.usefixtures("rules")
async def test_alerts_that_were_missed_come_in_their_order_behind_the_last_id(
    database: str, api: httpx.AsyncClient
) -> None:
    resident = public_id(database)
    async with following(api, resident) as stream:
        raise_alert(database)
        assert (await stream.next())[0] == "alert"
        last_id = stream.last_id
    await store(database, a_pressure(), sequence=1)
    raise_alert(database)
    async with following(api, resident, after=last_id) as stream:
        names = [(await stream.next())[0] for _ in range(3)]
        assert names == ["measurement", "alert", "ready"]


@pytest.mark.usefixtures("rules")
async def test_an_alert_of_a_withheld_sign_does_not_come(
    database: str, api: httpx.AsyncClient
) -> None:
    query(database, "INSERT INTO objection (resident_id, sign) VALUES (101, 1)")
    async with following(api, public_id(database)) as stream:
        raise_alert(database)
        raise_alert(database, sign=None)  # of no sign: from silence
        _name, data = await stream.next()
        assert data["what"] == "raised"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await stream.next()


async def test_a_withheld_sign_does_not_come(database: str, api: httpx.AsyncClient) -> None:
    query(database, "INSERT INTO objection (resident_id, sign) VALUES (101, 1)")
    async with following(api, public_id(database)) as stream:
        await store(database, a_pressure(), a_weight())
        assert (await stream.readings(1))[0][0] == "body_weight"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await stream.next()


async def test_whoever_was_away_for_too_long_is_told_to_begin_anew(
    database: str, api: httpx.AsyncClient
) -> None:
    await store(database, a_pressure())
    async with following(api, public_id(database), after="1-1") as stream:
        assert await stream.next() == ("reset", {})
        assert await stream.next() == ("ready", {})


@pytest.mark.parametrize("id_", ["x", "1", "-1-1", "99999999999999999999-1"])
async def test_an_id_that_was_never_given_out_is_refused(api: httpx.AsyncClient, id_: str) -> None:
    response = await api.get(
        f"{API}/live", params={"resident": str(UUID(int=1))}, headers={"Last-Event-ID": id_}
    )
    assert response.status_code == 422


async def test_a_service_names_whom_it_follows(api: httpx.AsyncClient) -> None:
    assert (await api.get(f"{API}/live")).status_code == 422


async def test_a_stream_ends_by_name_when_the_service_does(database: str) -> None:
    enter_registry(database)
    config = a_config(as_api(database))
    async with httpx.AsyncClient(headers=BEARER) as client, AsyncExitStack() as streams:
        async with serving(config) as port:
            client.base_url = httpx.URL(f"http://{LOOPBACK}:{port}")
            stream = await streams.enter_async_context(following(client, public_id(database)))
        assert await stream.next() == ("reconnect", {})


async def test_a_quiet_stream_is_kept_alive(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "KEEP_ALIVE_S", 0.1)
    enter_registry(database)
    async with (
        served(database) as api,
        api.stream("GET", f"{API}/live", params={"resident": str(public_id(database))}) as response,
    ):
        async with asyncio.timeout(WITHIN_S):
            async for line in response.aiter_lines():
                if line == ": keep-alive":
                    return
    pytest.fail("nothing came")


async def test_too_many_clients_are_refused(
    database: str, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FOLLOWERS_MAX", 1)
    resident = public_id(database)
    async with following(api, resident):
        response = await api.get(f"{API}/live", params={"resident": str(resident)})
        assert response.status_code == 503


async def test_one_person_cannot_take_everybodys_streams(
    database: str, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FOLLOWERS_OF_A_PERSON_MAX", 1)
    resident = public_id(database)
    new = NewAccount(login="own", role=Role.RESIDENT, resident=resident, has_totp=False)
    with connect_blocking(database, application="hearth-tests") as connection:
        accounts.add_account(connection, a_vault(), new)
        account, session = accounts.open_session(connection, "own", timedelta(hours=1))
    mine = {"Authorization": f"Bearer {a_token(account, session)}"}
    async with api.stream("GET", f"{API}/live", headers=mine) as first:
        assert first.status_code == 200
        assert (await api.get(f"{API}/live", headers=mine)).status_code == 429
        async with following(api, resident):
            pass  # a service holds streams of many people


def test_whoever_reads_too_slowly_is_dropped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "QUEUE_EVENTS_MAX", 3)
    slow = Follower(principal=Principal(user=UUID(int=1), role=Role.SERVICE), only=None)
    for number in range(4):
        slow.give(b"%d" % number)
    assert slow.events.get_nowait() is Told.DROPPED
    assert slow.events.empty()


def test_places_are_read_as_they_are_given_out() -> None:
    assert read_place(None) is None
    assert read_place("7-4") == (7, 4)


async def test_deciding_for_many_at_once_decides_as_one_by_one(database: str) -> None:
    """Every role and relation, by access.begin and by access.begin_each: the same readers see the same."""
    enter_registry(database)
    query(
        database,
        "INSERT INTO account (public_id, login, role, resident_id, scopes) VALUES"
        " (gen_random_uuid(), 'own', 'resident', 101, '{}'),"
        " (gen_random_uuid(), 'team', 'clinician', NULL, '{}'),"
        " (gen_random_uuid(), 'outside', 'clinician', NULL, '{}'),"
        " (gen_random_uuid(), 'refused', 'clinician', NULL, '{}'),"
        " (gen_random_uuid(), 'glass', 'clinician', NULL, '{}'),"
        " (gen_random_uuid(), 'coordinator', 'coordinator', NULL, '{}'),"
        " (gen_random_uuid(), 'administrator', 'administrator', NULL, '{}'),"
        " (gen_random_uuid(), 'scoped', 'service', NULL, '{system/*.rs}'),"
        " (gen_random_uuid(), 'scopeless', 'service', NULL, '{}');"
        "INSERT INTO session (session_id, account_id, client, expires_at)"
        " SELECT public_id, account_id, 'tests', now() + interval '1 hour' FROM account;"
        "INSERT INTO care_team (name) VALUES ('clinic');"
        "INSERT INTO care_team_member SELECT care_team_id, account_id, '(,)' FROM care_team, account"
        " WHERE login IN ('team', 'refused');"
        "INSERT INTO care_team_resident SELECT care_team_id, 101, '(,)' FROM care_team;"
        "INSERT INTO objection (resident_id, account_id) SELECT 101, account_id FROM account"
        " WHERE login = 'refused';"
        "INSERT INTO objection (resident_id, sign) VALUES (101, 3);"
        "INSERT INTO break_glass (account_id, resident_id, reason, expires_at)"
        " SELECT account_id, 102, 'an emergency', now() + interval '1 hour' FROM account"
        " WHERE login = 'glass'",
    )
    accounts = query(database, "SELECT public_id, login FROM account ORDER BY account_id")
    residents = [public_id(database), public_id(database, OTHER_RESIDENT)]
    with connect_blocking(as_api(database), application="hearth-tests") as connection:
        one_by_one = set()
        for reader, login in accounts:
            for resident in residents:
                rows = connection.execute(
                    "SELECT resident_id, admitted, access.withheld() FROM"
                    " access.begin(%s, %s, 'measurement.live', 'values', %s, NULL, NULL)",
                    [reader, reader, [resident]],
                )
                one_by_one |= {
                    (login, key, tuple(withheld)) for key, admitted, withheld in rows if admitted
                }
        rows = connection.execute(
            "SELECT reader, resident, withheld FROM"
            " access.begin_each(%s, %s, %s::text[], 'measurement.live', %s, %s)",
            [
                [reader for reader, _login in accounts],
                [reader for reader, _login in accounts],
                [None] * len(accounts),
                residents * len(accounts),
                [place + 1 for place in range(len(accounts)) for _ in residents],
            ],
        )
        at_once = {(accounts[place - 1][1], key, tuple(withheld)) for place, key, withheld in rows}
    assert at_once == one_by_one
    assert {login for login, *_ in at_once} >= {"own", "team", "glass", "scoped"}
    actions = query(
        database, "SELECT actor, resident_id, detail::text FROM audit WHERE action LIKE '%.live'"
    )
    half = len(actions) // 2
    assert sorted(actions[:half]) == sorted(actions[half:])
