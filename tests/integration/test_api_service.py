"""The API as a service: real HTTP, its bounds, its database coming and going, its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from psycopg.errors import InsufficientPrivilege

from api import http_server
from api.archive import open_archive
from api.issuer.keys import KeyRing
from api.issuer.tokens import AUDIENCE, Signer
from api.records import NewDevice, NewHub, Registration
from api.registry import register
from api.server import serving
from gateway.errors import UsageError
from gateway.platform import postgres
from gateway.platform.audit import Notary
from gateway.platform.ports import free_port
from gateway.platform.postgres import connect_blocking, sql
from gateway.platform.settings import LOOPBACK
from gateway.vitals import QUANTITIES
from tests.archives import API, BEARER, SERVICE, a_config, public_id, served, store
from tests.fixtures.database import as_api
from tests.fixtures.servers import listening_on
from tests.worlds import a_pressure, a_weight, enter_registry, query

pytestmark = pytest.mark.integration


@pytest.fixture
async def api(database: str) -> AsyncIterator[httpx.AsyncClient]:
    enter_registry(database)
    async with served(database) as client:
        yield client


async def test_measurements_come_over_real_http(database: str, api: httpx.AsyncClient) -> None:
    await store(database, a_pressure(), a_weight("70.050"))
    path = f"{API}/residents/{public_id(database)}/measurements"
    response = await api.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert '"value":70.050,' in response.text
    assert len(response.json()["items"]) == 2


async def test_lists_go_page_by_page(database: str) -> None:
    homes = [uuid4() for _ in range(25)]
    with connect_blocking(database, application="hearth-tests") as connection:
        new = Registration(
            homes=homes,
            residents=[uuid4() for _ in homes],
            hubs=[NewHub(name=f"{i:016x}", home=home) for i, home in enumerate(homes)],
            devices=[NewDevice(address=f"{i:012x}", home=home) for i, home in enumerate(homes)],
        )
        register(connection, new)
    async with served(database) as api:
        for route, key in (
            ("residents", "id"),
            ("homes", "id"),
            ("hubs", "name"),
            ("devices", "address"),
            ("ledger", "hub"),
        ):
            seen: list[str] = []
            after: dict[str, str] = {}
            while True:
                query = httpx.QueryParams(limit=10, **after)
                page = (await api.get(f"{API}/{route}", params=query)).json()
                seen += [item[key] for item in page["items"]]
                if page["next"] is None:
                    break
                after = {"after": page["next"]}
            assert len(seen) == 25
            assert seen == sorted(set(seen))


async def test_a_page_that_holds_all_that_is_left_is_the_last(api: httpx.AsyncClient) -> None:
    page = (await api.get(f"{API}/hubs", params={"limit": 2})).json()
    assert len(page["items"]) == 2
    assert page["next"] is None


async def test_hubs_and_devices_can_be_asked_for_by_home(
    database: str, api: httpx.AsyncClient
) -> None:
    homes = query(database, "SELECT public_id FROM home ORDER BY home_id")
    counts = [
        [
            len((await api.get(f"{API}/{route}", params={"home": str(home)})).json()["items"])
            for route in ("hubs", "devices")
        ]
        for (home,) in homes
    ]
    assert counts == [[1, 2], [1, 0]]


async def test_a_resident_is_told_with_the_links(database: str, api: httpx.AsyncClient) -> None:
    resident = public_id(database)
    document = (await api.get(f"{API}/residents/{resident}")).json()
    assert document["id"] == str(resident)
    assert document["links"] == [
        {
            "device": device,
            "user_slot": user_slot,
            "resident": str(resident),
            "starts_at": None,
            "ends_at": None,
        }
        for device, user_slot in (("C0:26:DA:01:02:03", 255), ("C0:26:DA:04:05:06", 1))
    ]


async def test_the_ledger_accounts_for_every_hub(database: str, api: httpx.AsyncClient) -> None:
    await store(database, a_pressure(), a_weight(), sequence=1)
    await store(database, a_pressure(at=a_pressure().measured_at.replace(hour=1)), sequence=3)
    busy, idle = (await api.get(f"{API}/ledger")).json()["items"]
    del busy["last_committed_at"]
    assert busy == {
        "hub": "00000000000000a1",
        "epochs": 1,
        "batches": 2,
        "missing": 1,
        "published": 3,
        "stored": 3,
        "duplicate": 0,
        "quarantined": 0,
        "balanced": False,
    }
    assert idle["batches"] == 0
    assert idle["balanced"]


async def test_nothing_can_be_written_through_the_archive(database: str) -> None:
    async with open_archive(as_api(database)) as archive, archive.connection() as connection:
        for table in ("home", "resident", "link", "measurement", "account", "change"):
            insert = sql.SQL("INSERT INTO {} DEFAULT VALUES").format(sql.Identifier(table))
            with pytest.raises(InsufficientPrivilege, match=f"permission denied for table {table}"):
                await connection.execute(insert)


async def test_a_statement_that_takes_too_long_is_given_up(
    database: str,
) -> None:
    async with open_archive(database) as archive, archive.pool.connection() as connection:
        limit = await (await connection.execute("SHOW statement_timeout")).fetchone()
    assert limit == ("5s",)


async def test_without_the_database_it_lives_but_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres, "POOL_WAIT_S_MAX", 0.2)
    async with served(f"postgresql://nobody@{LOOPBACK}:1/nowhere") as api:
        assert (await api.get("/healthz")).status_code == 200
        for path in ("/readyz", f"{API}/residents", f"{API}/health"):
            response = await api.get(path)
            assert response.status_code == 503
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["retry-after"] == "5"
            assert "nobody" not in response.text


async def test_it_is_ready_again_when_its_sessions_were_cut(
    database: str, api: httpx.AsyncClient
) -> None:
    assert (await api.get("/readyz")).status_code == 200
    query(
        as_api(database),
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'hearth-api'",
    )

    async def is_ready() -> bool:
        return (await api.get("/readyz")).status_code == 200

    await until(is_ready)
    assert (await api.get(f"{API}/residents")).status_code == 200


async def test_a_schema_that_lacks_a_column_is_named_and_not_ready(
    database: str, api: httpx.AsyncClient
) -> None:
    lacking = QUANTITIES[-1].name
    with connect_blocking(database, application="hearth-tests") as connection:
        drop = sql.SQL("ALTER TABLE measurement DROP COLUMN {} CASCADE")
        connection.execute(drop.format(sql.Identifier(lacking)))
    response = await api.get("/readyz")
    assert response.status_code == 503
    assert response.json()["detail"].endswith(f"lacking: {lacking}")
    assert (await api.get(f"{API}/health")).json()["lacking_columns"] == [lacking]


async def test_a_taken_port_is_an_error_that_says_so(database: str) -> None:
    async with served(database) as api:
        port = api.base_url.port
        assert port is not None
        config = a_config(database, host=LOOPBACK, port=port)
        with pytest.raises(UsageError, match=f"端口被占用 / port {port} is taken"):
            async with serving(config):
                pass


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_is_an_error_that_says_so(
    database: str, host: str
) -> None:
    with pytest.raises(UsageError, match="HEARTH_API_HOST"):
        async with serving(a_config(database, host=host, port=0)):
            pass


async def exchanged(api: httpx.AsyncClient, request: bytes) -> bytes:
    """Send bytes and return all that comes until the connection is closed."""
    reader, writer = await asyncio.open_connection(LOOPBACK, api.base_url.port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""  # it was closed while we still sent
    finally:
        writer.close()


async def test_a_head_without_end_is_cut_off(api: httpx.AsyncClient) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: api\r\nX-Long: " + b"x" * 4 * http_server.HEAD_BYTES_MAX
    assert (await exchanged(api, head))[:12] in {b"HTTP/1.1 400", b""}
    assert (await api.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\nGET /heal"],
    ids=["nothing", "a piece", "a piece of the second"],
)
async def test_a_head_that_does_not_end_in_time_is_cut_off(
    database: str, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(http_server, "HEAD_S_MAX", 0.3)
    monkeypatch.setattr(http_server, "IDLE_S_MAX", 1)
    async with served(database) as api:
        answer = await exchanged(api, begun)
    assert answer.count(b"200 OK") == begun.count(b"\r\n\r\n")


async def test_a_connection_is_used_again_for_longer_than_a_head_may_take(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "HEAD_S_MAX", 0.3)
    async with served(database) as api:
        reader, writer = await asyncio.open_connection(LOOPBACK, api.base_url.port)
        for _ in range(3):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(3) == b"ok\n"
            await asyncio.sleep(0.4)  # longer than HEAD_S_MAX, shorter than IDLE_S_MAX
        writer.close()


async def test_a_body_over_the_bound_is_refused_before_it_is_read(
    api: httpx.AsyncClient,
) -> None:
    head = b"POST /healthz HTTP/1.1\r\nHost: api\r\nContent-Length: 99999999\r\n\r\n"
    reader, writer = await asyncio.open_connection(LOOPBACK, api.base_url.port)
    writer.write(head)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_request_under_way_is_answered_before_the_service_ends(database: str) -> None:
    async def somebody_waits() -> bool:
        waiting = query(
            as_api(database),
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'hearth-api'"
            " AND wait_event_type = 'Lock'",
        )
        return len(waiting) > 0

    config = a_config(as_api(database), host=LOOPBACK, port=0)
    with connect_blocking(database, application="hearth-tests") as holder:
        holder.execute("LOCK TABLE resident")
        async with asyncio.TaskGroup() as group, serving(config) as port:
            client = httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", headers=BEARER)
            asked = group.create_task(client.get(f"{API}/residents"))
            await until(somebody_waits)
            group.create_task(asyncio.to_thread(holder.rollback))
    assert asked.result().status_code == 200
    await client.aclose()


async def test_the_service_notes_what_was_audited_outside_the_database_within_a_second_or_so(
    database: str, tmp_path: Path
) -> None:
    def unwitnessed() -> int:
        with connect_blocking(database, application="hearth-tests") as connection:
            return Notary(tmp_path).verify(connection).unwitnessed

    async def all_is_noted() -> bool:
        return await asyncio.to_thread(unwitnessed) == 0

    enter_registry(database)
    config = replace(a_config(as_api(database)), notary=Notary(tmp_path))
    async with serving(config) as port:
        async with httpx.AsyncClient(
            base_url=f"http://{LOOPBACK}:{port}", headers=BEARER
        ) as client:
            path = f"{API}/residents/{public_id(database)}/latest"
            assert (await client.get(path)).status_code == 200
        await until(all_is_noted)
        query(
            as_api(database),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'hearth-api-audit'",
        )
        query(database, "INSERT INTO audit (actor, action) VALUES ('cli:x', 'a.b')")
        await until(all_is_noted)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - the database has no event to wait for
            await asyncio.sleep(0.01)


@pytest.fixture
def process(database: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`hearth api` in a process of its own, on a free port; its log is JSON on standard error."""
    enter_registry(database)
    environment = os.environ | {
        "HEARTH_API_DATABASE_URL": as_api(database),
        "HEARTH_HOME": str(tmp_path),
        "HEARTH_LOG_FORMAT": "json",
        "HEARTH_API_PROCESSES": "1",
    }
    command = [sys.executable, "-m", "gateway.cli.main", "api", "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as child:
        yield child
        child.kill()


def test_the_command_serves_until_it_is_told_to_end_and_logs_no_secret(
    process: subprocess.Popen[str], database: str, tmp_path: Path
) -> None:
    assert process.stderr is not None
    started = json.loads(process.stderr.readline())
    assert started["event"] == "api_started"
    token = a_token_for(tmp_path, started["port"])
    resident = str(public_id(database))
    request = urllib.request.Request(
        f"http://{LOOPBACK}:{started['port']}{API}/residents/{resident}/measurements?limit=17",
        headers={"Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - our own server
        assert json.load(response) == {"items": [], "next": None}
    process.send_signal(signal.SIGTERM)
    log = process.stderr.read()
    assert process.wait(20) == 0
    events = [json.loads(line) for line in log.splitlines()]
    assert [event["event"] for event in events] == ["request", "api_stopped"]
    assert events[0]["route"] == f"{API}/residents/{{resident}}/measurements"
    for secret in (token, resident, "limit=17"):
        assert secret not in log


def a_token_for(home: Path, port: int) -> str:
    """A token of the issuer of the process under test."""
    signer = Signer(key=KeyRing(home), issuer=f"http://{LOOPBACK}:{port}", audience=AUDIENCE)
    return signer.access_token(
        SERVICE, datetime.now(UTC), session=None, client="tests", scope="system/*.rs"
    )


def test_the_command_says_which_port_is_taken(database: str, tmp_path: Path) -> None:
    port = free_port()
    with listening_on(port):
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli.main", "api", "--port", str(port)],
            env=os.environ
            | {"HEARTH_API_DATABASE_URL": as_api(database), "HEARTH_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert f"端口被占用 / port {port} is taken" in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_audit_tells_where_a_read_came_from_by_proxies_of_ours_only(
    database: str,
) -> None:
    enter_registry(database)
    path = f"{API}/residents/{public_id(database)}/latest"
    cases = (
        ((), "198.51.100.7", LOOPBACK),
        (("10.0.0.1",), "198.51.100.7", LOOPBACK),
        ((LOOPBACK,), "198.51.100.7", "198.51.100.7"),
        ((LOOPBACK,), "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        (("127.0.0.0/8", "10.0.0.0/8"), "198.51.100.7, 10.1.2.3", "198.51.100.7"),
        ((LOOPBACK,), "2001:DB8::1", "2001:db8::1"),
        ((LOOPBACK,), "x" * 3000, None),
        ((LOOPBACK,), None, LOOPBACK),
    )
    for proxies, forwarded, _origin in cases:
        headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
        async with served(database, proxies=proxies) as api:
            assert (await api.get(path, headers=headers)).status_code == 200
    found = query(
        database, "SELECT origin FROM audit WHERE action = 'measurement.latest' ORDER BY audit_id"
    )
    assert [origin for (origin,) in found] == [origin for _proxies, _forwarded, origin in cases]


async def test_who_bears_no_token_has_the_rate_of_their_address(database: str) -> None:
    enter_registry(database)
    async with served(database, rate_per_s=0.01, proxies=(LOOPBACK,)) as api:
        answers = [
            await api.get("/oauth/jwks", headers={"X-Forwarded-For": address})
            for address in ("198.51.100.7", "198.51.100.7", "198.51.100.8")
        ]
        assert [answer.status_code for answer in answers] == [200, 429, 200]
        assert int(answers[1].headers["retry-after"]) > 90
        assert (await api.get(f"{API}/health")).status_code == 200, "an account has its own rate"
