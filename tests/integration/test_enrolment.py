"""How a hub comes to be trusted and ceases to be: over the real API, database and broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from api.enrolment import Office, RefusedError, make_code, revoke_hub
from api.routes import enrolment as desk
from api.server import serving
from edge.config import load_config
from edge.counts import Counts
from edge.enrolment import EnrolmentRefusedError, enrol, post_to, renew
from edge.identity import Identity, broker_of, is_possible, read_failure, read_identity
from edge.renewal import AuthorityTime, Renewer
from gateway import wire
from gateway.errors import UnavailableError, UsageError
from gateway.platform import ca, mqtt
from gateway.platform.backoff import Backoff
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.mqtt_probe import lets_in
from gateway.platform.embedded.packages import Packages
from gateway.platform.enrolment import CODE_ATTEMPTS_MAX, ENROL_PATH, RENEW_PATH, Code
from gateway.platform.postgres import connect_blocking
from gateway.platform.settings import LOOPBACK
from ingest.ledger import read_ledger
from ingest.verdicts import Verdict
from tests.archives import a_config
from tests.fixtures.database import as_api
from tests.fixtures.mqtt_client import MqttClient
from tests.fixtures.workers import HubClient, Workers, eventually
from tests.hub_agent import until
from tests.worlds import HUB, a_message, a_pressure, enter_registry, query

pytestmark = pytest.mark.integration

NAME = wire.hub_name(HUB)
NEW = "00c0ffee00c0ffee"
BROKER = "mqtts://broker.example:8883"
URL = "http://127.0.0.1:8420"


@pytest.fixture
def office(database: str, tmp_path: Path) -> Office:
    """The office over the small world, as the API's own role."""
    enter_registry(database)
    return Office(dsn=as_api(database), home=tmp_path / "home", broker_url=lambda: BROKER)


def code_for(
    office: Office,
    database: str,
    hub: str = NAME,
    *,
    url: str = URL,
    lifetime: timedelta = timedelta(hours=1),
) -> Code:
    with connect_blocking(database, application="test") as connection:
        made = make_code(connection, office.home, hub, of_home=None, url=url, lifetime=lifetime)
    return made.code


def asking(office: Office) -> Callable[[str, bytes], bytes]:
    """The way to the office without a network."""

    def post(path: str, body: bytes) -> bytes:
        try:
            return (office.enrol if path == ENROL_PATH else office.renew)(body, "192.0.2.7")
        except RefusedError as error:
            raise EnrolmentRefusedError(error.why) from error

    return post


def audited(database: str) -> list[tuple[str, str]]:
    rows = query(database, "SELECT action, actor FROM audit ORDER BY audit_id")
    return [(str(action), str(actor).partition(":")[0]) for action, actor in rows]


def test_a_hub_gets_its_certificate_with_a_code(
    office: Office, database: str, tmp_path: Path
) -> None:
    enrolled = enrol(code_for(office, database), tmp_path / "hub", asking(office))
    assert enrolled.broker == BROKER
    assert abs(enrolled.at - datetime.now(UTC)) < timedelta(minutes=1)
    kept = read_identity(tmp_path / "hub")
    assert kept.name == NAME
    assert ca.authority(office.home, ca.Role.HUBS).has_issued(kept.hub.certificate)
    assert not (tmp_path / "hub" / "pending.key").exists()
    assert (tmp_path / "hub" / "hub.pem").stat().st_mode & 0o777 == 0o600
    assert audited(database) == [("hub.code", "cli"), ("hub.enrol", "hub")]


def test_no_secret_of_a_code_or_key_is_in_the_database(
    office: Office, database: str, tmp_path: Path
) -> None:
    code = code_for(office, database)
    enrol(code, tmp_path / "hub", asking(office))
    kept = str(query(database, "SELECT * FROM enrolment.code, enrolment.certificate, audit"))
    assert code.seed.hex() not in kept
    assert repr(code.seed)[2:-1] not in kept


def test_a_stolen_code_cannot_be_used_after_its_hub(
    office: Office, database: str, tmp_path: Path
) -> None:
    code = code_for(office, database)
    enrol(code, tmp_path / "hub", asking(office))
    with pytest.raises(EnrolmentRefusedError, match="closed"):
        enrol(code, tmp_path / "thief", asking(office))


def test_the_same_hub_may_ask_again_should_its_answer_be_lost(
    office: Office, database: str, tmp_path: Path
) -> None:
    code = code_for(office, database)

    def lose(path: str, body: bytes) -> bytes:
        asking(office)(path, body)
        raise UnavailableError("lost")

    with pytest.raises(UnavailableError, match="lost"):
        enrol(code, tmp_path / "hub", lose)
    with pytest.raises(EnrolmentRefusedError, match="closed"):
        enrol(code, tmp_path / "thief", asking(office))
    enrol(code, tmp_path / "hub", asking(office))
    renew(read_identity(tmp_path / "hub"), tmp_path / "hub", asking(office))


def test_an_expired_code_is_refused(office: Office, database: str, tmp_path: Path) -> None:
    code = code_for(office, database)
    query(database, "UPDATE enrolment.code SET expires_at = now()")
    with pytest.raises(EnrolmentRefusedError, match="expired"):
        enrol(code, tmp_path / "hub", asking(office))


def test_a_newer_code_replaces_an_older_one(office: Office, database: str, tmp_path: Path) -> None:
    older, newer = (code_for(office, database) for _ in range(2))
    with pytest.raises(EnrolmentRefusedError, match="closed"):
        enrol(older, tmp_path / "hub", asking(office))
    enrol(newer, tmp_path / "hub", asking(office))


def test_a_code_can_be_tried_a_few_times_only(
    office: Office, database: str, tmp_path: Path
) -> None:
    code = code_for(office, database)
    for number in range(CODE_ATTEMPTS_MAX):
        with pytest.raises(EnrolmentRefusedError, match="proof"):
            enrol(replace(code, seed=bytes([number] * 16)), tmp_path / "thief", asking(office))
    for _ in range(2):
        with pytest.raises(EnrolmentRefusedError, match=r"exhausted|unknown"):
            enrol(code, tmp_path / "hub", asking(office))


def test_a_code_that_nobody_made_is_refused(office: Office, database: str, tmp_path: Path) -> None:
    code = code_for(office, database)
    with pytest.raises(EnrolmentRefusedError, match="unknown"):
        enrol(replace(code, number=code.number ^ 1), tmp_path / "hub", asking(office))


def test_a_code_for_a_hub_that_is_not_entered_needs_its_home(office: Office, database: str) -> None:
    with pytest.raises(UsageError, match=f"hub enrol {NEW} --home HOME"):
        code_for(office, database, NEW)


def test_the_apis_role_cannot_look_into_the_codes(office: Office, database: str) -> None:
    code_for(office, database)
    with pytest.raises(Exception, match="permission denied"):
        query(office.dsn, "SELECT * FROM enrolment.code")
    with pytest.raises(Exception, match="permission denied"):
        query(office.dsn, "SELECT * FROM enrolment.certificate")


def test_a_certificate_is_renewed_by_its_key(office: Office, database: str, tmp_path: Path) -> None:
    enrol(code_for(office, database), tmp_path / "hub", asking(office))
    former = read_identity(tmp_path / "hub")
    renew(former, tmp_path / "hub", asking(office))
    kept = read_identity(tmp_path / "hub")
    assert kept.hub.certificate.serial_number != former.hub.certificate.serial_number
    assert audited(database)[-1] == ("hub.renew", "hub")


def test_a_hub_that_was_off_long_renews_and_one_that_was_off_too_long_does_not(
    office: Office, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(code_for(office, database), tmp_path / "hub", asking(office))
    identity = read_identity(tmp_path / "hub")
    with monkeypatch.context() as patch:
        patch.setattr("api.enrolment.RENEWAL_GRACE", -ca.HUB_LIFETIME)
        with pytest.raises(EnrolmentRefusedError, match="expired"):
            renew(identity, tmp_path / "hub", asking(office))
    renew(identity, tmp_path / "hub", asking(office))


def test_a_revoked_hub_gets_no_further_certificate_until_it_is_enrolled_anew(
    office: Office, database: str, tmp_path: Path
) -> None:
    open_code = code_for(office, database)
    enrol(open_code, tmp_path / "hub", asking(office))
    identity = read_identity(tmp_path / "hub")
    unused = code_for(office, database)
    with connect_blocking(database, application="test") as connection:
        serials = revoke_hub(connection, NAME)
        assert revoke_hub(connection, NAME) == serials
    assert serials == {identity.hub.certificate.serial_number}
    with pytest.raises(EnrolmentRefusedError, match="revoked"):
        renew(identity, tmp_path / "hub", asking(office))
    with pytest.raises(EnrolmentRefusedError, match="closed"):
        enrol(unused, tmp_path / "thief", asking(office))
    enrol(code_for(office, database), tmp_path / "new", asking(office))
    assert query(database, "SELECT revoked_at FROM hub WHERE hub_id = 1") == [(None,)]
    with pytest.raises(EnrolmentRefusedError, match="revoked"):
        renew(identity, tmp_path / "hub", asking(office))


def test_a_certificate_of_another_authority_renews_nothing(
    office: Office, database: str, tmp_path: Path
) -> None:
    code_for(office, database)
    key = ca.new_key()
    other = ca.authority(tmp_path / "other", ca.Role.HUBS)
    identity = replace(
        enrolled_identity(office, database, tmp_path),
        hub=ca.Bundle(certificate=other.issue_for_hub(key.public_key(), NAME), key=key),
    )
    with pytest.raises(EnrolmentRefusedError, match="proof"):
        renew(identity, tmp_path / "hub", asking(office))


def enrolled_identity(office: Office, database: str, folder: Path) -> Identity:
    enrol(code_for(office, database), folder / "hub", asking(office))
    return read_identity(folder / "hub")


async def test_the_running_agent_renews_and_retries(
    office: Office, database: str, tmp_path: Path
) -> None:
    """Its clock says that the certificate is nearly over; the API is away at first."""
    folder = tmp_path / "hub"
    enrol(code_for(office, database), folder, asking(office))
    former = read_identity(folder).hub.certificate
    away = [True]

    def post(path: str, body: bytes) -> bytes:
        if away[0]:
            raise UnavailableError("the API is away")
        return asking(office)(path, body)

    counts = Counts()
    near_the_end = AuthorityTime(lambda: former.not_valid_after_utc - timedelta(days=1))
    renewer = Renewer(
        NAME,
        folder,
        post,
        counts,
        authority_time=near_the_end,
        retry=Backoff(first_s=0.01, longest_s=0.02),
    )
    running = asyncio.create_task(renewer.run())
    try:
        await until(lambda: counts.certificate_failures > 2)
        assert "the API is away" in (read_failure(folder) or "")
        assert 0 < renewer.left_s <= 24 * 3600
        away[0] = False
        await until(lambda: counts.certificates_renewed == 1)
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert read_failure(folder) is None
    assert read_identity(folder).hub.certificate != former
    assert renewer.left_s > 25 * 24 * 3600


@pytest.mark.parametrize(
    "answer",
    [
        b"\x15\x03\x03\x00\x02\x02\x46",  # a TLS alert: http:// was meant to be https://
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"",
    ],
    ids=["no HTTP", "broken off", "too long", "nothing"],
)
def test_what_answers_like_no_api_is_taken_as_away(answer: bytes) -> None:
    """Whatever stands in the API's place, the hub tries again and collects on."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]

        def answer_one() -> None:
            connection, _address = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        answering = threading.Thread(target=answer_one)
        answering.start()
        with pytest.raises(UnavailableError):
            post_to(f"http://{LOOPBACK}:{port}")(RENEW_PATH, b"{}")
        answering.join()


async def test_an_identity_that_cannot_be_read_for_a_while_ends_no_hub(
    office: Office, database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "hub"
    enrol(code_for(office, database), folder, asking(office))
    counts = Counts()
    retry = Backoff(first_s=0.01, longest_s=0.02)
    renewer = Renewer(NAME, folder, asking(office), counts, retry=retry)
    (folder / "hub.pem").rename(folder / "away")
    running = asyncio.create_task(renewer.run())
    try:
        await until(lambda: counts.certificate_failures > 2)
        assert renewer.left_s > 25 * 24 * 3600
    finally:
        running.cancel()
        await asyncio.wait({running})


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The API in this process, with an office, over the real broker."""

    url: str
    office: Office


@asynccontextmanager
async def api_with_office(database: str, broker: Broker) -> AsyncIterator[Api]:
    office = Office(dsn=as_api(database), home=broker.home, broker_url=lambda: broker.hubs_url)
    config = replace(a_config(as_api(database)), office=office)
    async with serving(config) as port:
        yield Api(url=f"http://{LOOPBACK}:{port}", office=office)


async def test_over_the_network_an_enrolled_hub_is_let_in_and_a_thief_is_not(
    database: str, broker: Broker, tmp_path: Path
) -> None:
    enter_registry(database)
    async with api_with_office(database, broker) as api:
        code = code_for(api.office, database, url=api.url)
        enrolled = await asyncio.to_thread(enrol, code, tmp_path / "hub", post_to(code.url))
        with pytest.raises(EnrolmentRefusedError):
            await asyncio.to_thread(enrol, code, tmp_path / "thief", post_to(code.url))
        client = MqttClient(broker_of(tmp_path / "hub", enrolled.broker), NAME)
        assert not (await asyncio.to_thread(client.connect)).is_failure
        client.close()
        async with httpx.AsyncClient(base_url=api.url) as plain:
            for body, status in ((b"{}", 400), (b"", 400), (bytes(20_000), 413)):
                for path in (ENROL_PATH, RENEW_PATH):
                    answer = await plain.post(path, content=body)
                    assert answer.status_code == status
                    assert answer.headers["content-type"] == "application/problem+json"
            assert (await plain.get(ENROL_PATH)).status_code == 405


async def test_a_flood_of_requests_is_turned_away(
    database: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "REQUESTS_BURST", 3)
    monkeypatch.setattr(desk, "REQUESTS_PER_S", 0.001)
    async with (
        api_with_office(database, broker) as api,
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        answers = [await client.post(ENROL_PATH, content=b"{}") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 429, 429, 429]
    assert "retry-after" in answers[-1].headers


async def test_an_api_without_an_office_says_so(database: str) -> None:
    config = a_config(as_api(database))
    async with serving(config) as port, httpx.AsyncClient() as client:
        answer = await client.post(f"http://{LOOPBACK}:{port}{ENROL_PATH}", content=b"{}")
    assert answer.status_code == 503


async def test_a_hub_whose_clock_shows_1970_is_enrolled_and_connects(
    database: str, broker: Broker, tmp_path: Path
) -> None:
    enter_registry(database)
    folder = tmp_path / "hub"
    beginning = datetime(1970, 1, 1, tzinfo=UTC)
    office = Office(dsn=as_api(database), home=broker.home, broker_url=lambda: broker.hubs_url)
    enrolled = enrol(code_for(office, database), folder, asking(office))
    assert not is_possible(beginning, enrolled.identity.hub.certificate)
    identity = mqtt.Identity(
        client_id=NAME,
        expiry_s=0,
        will=mqtt.Will(topic=wire.topic(HUB, wire.Channel.STATE), payload=b"{}"),
    )
    address = broker_of(folder, enrolled.broker, now=beginning)
    async with mqtt.connect(address, identity):
        pass


async def test_a_clock_that_is_certainly_wrong_does_not_stop_the_handshake(
    database: str, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker's certificate of years ahead looks to us as one of now does to a hub in 1970."""
    enter_registry(database)
    office = Office(dsn=as_api(database), home=broker.home, broker_url=lambda: broker.hubs_url)
    enrolled = enrol(code_for(office, database), tmp_path / "hub", asking(office))
    identity = mqtt.Identity(
        client_id=NAME,
        expiry_s=0,
        will=mqtt.Will(topic=wire.topic(HUB, wire.Channel.STATE), payload=b"{}"),
    )
    services, key = ca.authority(broker.home, ca.Role.SERVICES), ca.new_key()
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2000)
    with monkeypatch.context() as patch:
        patch.setattr(ca, "_now", lambda: ahead)
        certificate = services.issue_for_server(key.public_key(), "broker", [LOOPBACK])
    path = broker.folder / "server.pem"
    with path.open("wb") as file:  # in place: its owner stays
        file.write(ca.Bundle(certificate=certificate, key=key).pem())
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGHUP)

    def is_refused() -> bool:
        address = broker_of(tmp_path / "hub", enrolled.broker)
        assert address.tls is not None
        with socket.create_connection((LOOPBACK, address.port), 5) as plain:
            try:
                address.tls.wrap_socket(plain, server_hostname=LOOPBACK).close()
            except ssl.SSLCertVerificationError as error:
                return error.verify_message == "certificate is not yet valid"
        return False

    await asyncio.to_thread(eventually, is_refused)
    beginning = datetime(1970, 1, 1, tzinfo=UTC)
    for address in (
        broker_of(tmp_path / "hub", enrolled.broker, now=beginning),
        broker_of(tmp_path / "hub", enrolled.broker, clock_is_set=False),
    ):
        async with mqtt.connect(address, identity):
            pass


@pytest.fixture
def home_of_broker(broker: Broker, packages: Packages) -> Path:
    """The home of the running broker, as commands find it."""
    (broker.home / "packages").symlink_to(packages.root.parent)
    return broker.home


def hearth(*words: str, home: Path, database: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", *words],
        env=os.environ | {"HEARTH_HOME": str(home), "HEARTH_DATABASE_URL": database},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_commands_enrol_a_hub_and_revoke_it(
    database: str, broker: Broker, home_of_broker: Path, tmp_path: Path
) -> None:
    """From the code to the cut, as people do it; a live session ends within ten seconds."""
    enter_registry(database)
    query(database, "SELECT setval(pg_get_serial_sequence('hub', 'hub_id'), 100)")
    ((of_home,),) = query(database, "SELECT public_id FROM home WHERE home_id = 1")

    async def said(*words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(hearth, *words, home=home_of_broker, database=database)

    async with api_with_office(database, broker) as api:
        os.environ["HEARTH_HUB_API_URL"] = api.url
        try:
            png = tmp_path / "code.png"
            made = await said(
                "admin", "hub", "enrol", NEW, "--home", str(of_home), "--json", "--png", str(png)
            )
        finally:
            del os.environ["HEARTH_HUB_API_URL"]
        assert made.returncode == 0, made.stderr
        assert png.read_bytes().startswith(b"\x89PNG")
        code = json.loads(made.stdout)["code"]
        config = tmp_path / "hub.toml"
        words = ("hub", "enrol", code, "--config", str(config), "--data-dir", str(tmp_path / "hub"))
        done = await said(*words)
        assert done.returncode == 0, done.stderr
        assert f"enrolled: {NEW}" in done.stdout
        again = await said("hub", "enrol", code, "--config", str(config))
        assert again.returncode == 2
        assert "登记码未被接受" in again.stderr
    loaded = load_config(config)
    assert (loaded.hub.id, loaded.mqtt.url) == (NEW, broker.hubs_url)
    assert tomllib.loads(config.read_text())["enrolment"]["url"] == api.url
    client = MqttClient(loaded.broker(), NEW)
    assert not client.connect().is_failure
    revoked = await said("admin", "hub", "revoke", NEW)
    assert revoked.returncode == 0, revoked.stderr
    assert client.cut_off.get(timeout=10).is_failure
    client.close()
    tls = loaded.broker().tls
    assert tls is not None
    assert not lets_in(broker.port, tls)
    assert audited(database)[-1] == ("hub.revoke", "cli")


def test_what_a_revoked_hub_still_sends_is_kept_apart(workers: Workers) -> None:
    """Should a broker let it in: ingest knows by itself."""
    workers.start()
    workers.broker.admit(NAME)
    client = MqttClient(workers.broker.access(NAME).address(), NAME)
    client.connect()
    try:
        client.subscribe(wire.topic(HUB, wire.Channel.RECEIPT))
        hub = HubClient(client, HUB)
        hub.publish(a_message(a_pressure(), sequence=1))
        hub.receipts()
        with connect_blocking(workers.database, application="test") as connection:
            revoke_hub(connection, NAME)

        def is_kept_apart() -> bool:
            hub.send(a_message(a_pressure(), sequence=2).payload)
            return read_ledger(workers.database).rejected > 0

        eventually(is_kept_apart)
    finally:
        client.close()
    ((reason, message),) = query(
        workers.database, "SELECT DISTINCT reason, message FROM quarantine WHERE kind = 3"
    )
    assert (reason, message) == (Verdict.HUB_REVOKED, NAME)
    assert query(workers.database, "SELECT count(*) FROM measurement") == [(1,)]
