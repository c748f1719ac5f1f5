"""Webhooks of alerts: told signed, at least once, by one service, none for another's sake late."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from gateway.errors import UsageError
from gateway.platform.postgres import AsyncConnection, connect_blocking
from gateway.platform.pruning import TOLD_KEPT_DAYS, UNTOLD_KEPT_DAYS
from gateway.platform.webhook_hosts import REFUSED, WebhookHosts, open_client, webhook_hosts
from gateway.platform.webhook_signature import signature
from ingest.alerts import desk
from ingest.alerts.app import AlertsConfig, run
from ingest.alerts.delivery import ANSWER_S_MAX, ATTEMPTS_MAX, Deliverer, prune_deliveries
from tests.alerts import BY, NOW, SETTLED_S_MAX, alerting, arrive, severe
from tests.worlds import query

pytestmark = pytest.mark.integration

HERE = webhook_hosts("127.0.0.0/8")


@pytest.fixture
async def connection(database: str) -> AsyncIterator[AsyncConnection]:
    async with alerting(database) as session:
        yield session


class _Receiver(BaseHTTPRequestHandler):
    """Takes deliveries, after refusing as many as it is told to."""

    refusals = 0
    takes_s = 0.0
    taken: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.takes_s)
        refuse = type(self).refusals > 0
        type(self).refusals -= refuse
        if not refuse:
            self.taken.append((dict(self.headers), body))
        self.send_response(503 if refuse else 204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[type[_Receiver], str]]:
    handler = type("Receiver", (_Receiver,), {"taken": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}/hook"
        server.shutdown()
        thread.join()


def tell(database: str, *urls: str) -> None:
    """Enter webhooks."""
    with connect_blocking(database, application="hearth-tests") as session:
        for url in urls:
            desk.add_webhook(session, url, HERE, BY)


async def _deliver(
    connection: AsyncConnection, rounds: int = 1, hosts: WebhookHosts = HERE
) -> None:
    deliverer = Deliverer(connection, hosts, lambda _webhook: "the key")
    async with open_client(ANSWER_S_MAX) as client:
        for _ in range(rounds):
            await connection.execute("UPDATE webhook_delivery SET due_at = now()")
            await deliverer.deliver_due(client)


async def test_webhooks_are_told_signed_and_again_until_they_take_it(
    connection: AsyncConnection, database: str, receiver: tuple[type[_Receiver], str]
) -> None:
    handler, url = receiver
    handler.refusals = 2
    tell(database, url)
    await arrive(connection, [severe(NOW - timedelta(minutes=9))])
    await _deliver(connection, rounds=4)
    ((headers, body),) = handler.taken
    at_s = headers["Hearth-Signature"].removeprefix("t=").partition(",")[0]
    mac = hmac.new(b"the key", f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers["Hearth-Signature"] == f"t={at_s},v1={mac}"
    told = json.loads(body)
    assert (told["what"], told["rule"], told["stage"]) == ("asked", "pressure-crisis", 1)
    assert "185" not in body.decode()  # opaque ids and times only
    assert query(database, "SELECT state, attempts FROM webhook_delivery") == [("delivered", 3)]


async def test_webhooks_are_not_told_of_a_sign_while_its_resident_withholds_it(
    connection: AsyncConnection, database: str, receiver: tuple[type[_Receiver], str]
) -> None:
    handler, url = receiver
    tell(database, url)
    await arrive(connection, [severe(NOW - timedelta(minutes=9))])
    withhold = "INSERT INTO objection (resident_id, sign) SELECT resident_id, sign FROM alert"
    query(database, withhold)
    await _deliver(connection)
    assert handler.taken == [], "it was withheld before it was told"
    await arrive(connection, [severe(NOW - timedelta(minutes=3))])
    assert query(database, "SELECT count(*) FROM webhook_delivery") == [(1,)], "nothing more waits"
    query(database, "UPDATE objection SET withdrawn_at = now()")
    await _deliver(connection)
    assert len(handler.taken) == 1


async def test_a_webhook_that_does_not_answer_keeps_no_other_waiting(
    connection: AsyncConnection, database: str, receiver: tuple[type[_Receiver], str]
) -> None:
    handler, url = receiver
    async with await asyncio.start_server(_never_answers, "127.0.0.1", 0) as deaf:
        deaf_url = f"http://127.0.0.1:{deaf.sockets[0].getsockname()[1]}/hook"
        tell(database, deaf_url, url)
        there_and_gone = [(20, 185), (18, 120), (12, 185), (10, 120), (6, 185), (4, 120)]
        await arrive(
            connection, *([severe(NOW - timedelta(hours=h), s)] for h, s in there_and_gone)
        )
        waiting = len(query(database, "SELECT 1 FROM webhook_delivery")) // 2
        assert waiting > 4
        began_s = time.monotonic()
        async with open_client(1.0) as client:
            await Deliverer(connection, HERE, lambda _webhook: "the key").deliver_due(client)
        assert time.monotonic() - began_s < 3.0
    assert len(handler.taken) == waiting
    told = "SELECT state, attempts, count(*) FROM webhook_delivery GROUP BY 1, 2 ORDER BY 1, 2"
    assert query(database, told) == [
        ("delivered", 1, waiting),
        ("waiting", 0, waiting - 1),
        ("waiting", 1, 1),
    ]


async def _never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_of_two_services_one_delivers(
    connection: AsyncConnection,
    database: str,
    receiver: tuple[type[_Receiver], str],
    tmp_path: Path,
) -> None:
    handler, url = receiver
    tell(database, url)
    await arrive(connection, [severe(NOW - timedelta(minutes=9))])
    handler.takes_s = 1.0  # while the one waits for the answer, the other looks what is due
    config = AlertsConfig(dsn=database, home=tmp_path, webhook_hosts=HERE)
    services = [asyncio.create_task(run(config)) for _ in range(2)]
    try:
        async with asyncio.timeout(SETTLED_S_MAX):
            while handler.taken == []:  # noqa: ASYNC110 - another thread's
                await asyncio.sleep(0.1)
        await asyncio.sleep(2 * handler.takes_s)
    finally:
        for service in services:
            service.cancel()
        await asyncio.gather(*services, return_exceptions=True)
    assert len(handler.taken) == 1
    assert query(database, "SELECT attempts FROM webhook_delivery") == [(1,)]


async def test_what_nobody_takes_becomes_a_dead_letter_that_can_be_revived(
    connection: AsyncConnection, database: str, receiver: tuple[type[_Receiver], str]
) -> None:
    handler, url = receiver
    handler.refusals = 10**6
    tell(database, url)
    await arrive(connection, [severe(NOW - timedelta(minutes=9))])
    await _deliver(connection, rounds=ATTEMPTS_MAX)
    dead = query(database, "SELECT state, attempts, last_error FROM webhook_delivery")
    assert dead == [("dead", ATTEMPTS_MAX, "HTTP 503")]
    handler.refusals = 0
    with connect_blocking(database, application="hearth-tests") as session:
        assert desk.revive(session, None) == 1
    await _deliver(connection)
    assert len(handler.taken) == 1


async def test_a_webhook_whose_host_is_no_longer_admitted_is_told_nothing(
    connection: AsyncConnection, database: str, receiver: tuple[type[_Receiver], str]
) -> None:
    handler, url = receiver
    tell(database, url)
    await arrive(connection, [severe(NOW - timedelta(minutes=9))])
    await _deliver(connection, hosts=webhook_hosts(""))
    assert handler.taken == []
    refused = query(database, "SELECT state, attempts, last_error FROM webhook_delivery")
    assert refused == [("waiting", 1, REFUSED)]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x",
        "https://u:p@example.org/",
        "https://example.org/x?key=1",
        "https://10.0.0.1/x",
        "https://localhost/x",
        "ftp://x",
        "x",
    ],
)
def test_a_webhook_beyond_the_admitted_hosts_must_be_public_https_and_bear_no_secret(
    database: str, url: str
) -> None:
    with (
        connect_blocking(database, application="hearth-tests") as session,
        pytest.raises(UsageError),
    ):
        desk.add_webhook(session, url, HERE, BY)


def test_a_signature_is_of_time_and_body() -> None:
    assert signature("k", b"x", 1) != signature("k", b"x", 2) != signature("k", b"y", 2)


async def test_deliveries_go_when_they_are_old_and_nobody_needs_them_any_more(
    connection: AsyncConnection, database: str
) -> None:
    tell(database, "http://127.0.0.1:9/a", "http://127.0.0.1:9/b")
    with connect_blocking(database, application="hearth-tests") as session:
        desk.end_webhook(session, 2, BY)
    await arrive(connection, [severe(NOW - timedelta(minutes=9))])
    ((event,),) = query(database, "SELECT max(event_id) FROM alert_event")
    await connection.execute("TRUNCATE webhook_delivery")
    for state, webhook, days in (
        ("delivered", 1, TOLD_KEPT_DAYS - 1),
        ("delivered", 1, TOLD_KEPT_DAYS + 1),
        ("waiting", 1, UNTOLD_KEPT_DAYS + 1),
        ("dead", 1, TOLD_KEPT_DAYS + 1),
        ("dead", 1, UNTOLD_KEPT_DAYS + 1),
        ("dead", 2, TOLD_KEPT_DAYS + 1),
    ):
        await connection.execute(
            "WITH event AS (INSERT INTO alert_event (alert_id, actor, what)"
            " SELECT alert_id, 'cli:test', 'reopened' FROM alert_event WHERE event_id = %s"
            " RETURNING event_id)"
            " INSERT INTO webhook_delivery (webhook_id, event_id, state, due_at)"
            " SELECT %s, event_id, %s, now() - make_interval(days => %s) FROM event",
            [event, webhook, state, days],
        )
    assert await prune_deliveries(connection) == 3
    kept = query(database, "SELECT state, webhook_id FROM webhook_delivery ORDER BY delivery_id")
    assert kept == [("delivered", 1), ("waiting", 1), ("dead", 1)], "to be tried again, or revived"
