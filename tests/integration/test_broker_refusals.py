"""Who does not belong stays out of the real broker, and who is revoked is put out."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import UnavailableError
from gateway.platform import ca
from gateway.platform.broker_address import BrokerAccess
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.broker_config import INGEST
from gateway.platform.embedded.mqtt_probe import lets_in
from gateway.platform.embedded.packages import Packages
from gateway.platform.settings import LOOPBACK
from gateway.wire import Channel, hub_name, lane_filter, lane_of, topic
from tests.fixtures.mqtt_client import MqttClient, connected

pytestmark = pytest.mark.integration

ONE, OTHER = 0x00C0FFEE00C0FFEE, 0x0123456789ABCDEF
HUB, OTHER_HUB = hub_name(ONE), hub_name(OTHER)
CUT_OFF_S_MAX = 10.0
"""A revoked hub's connection has ended by then."""


@pytest.fixture
def hubs(broker: Broker) -> Broker:
    """A broker that knows two hubs."""
    broker.admit(HUB, OTHER_HUB)
    return broker


def is_let_in(access: BrokerAccess) -> bool:
    tls = access.address().tls
    assert tls is not None
    return lets_in(access.address().port, tls)


def access_with(broker: Broker, folder: Path, bundle: ca.Bundle) -> BrokerAccess:
    """How a hub would come with another certificate than its own."""
    path = folder / "shown.pem"
    path.write_bytes(bundle.pem())
    return replace(broker.access(HUB), cert_file=path)


def issued(home: Path, monkeypatch: pytest.MonkeyPatch, at: datetime | None = None) -> ca.Bundle:
    """What the authority of a home issues for the hub at a time."""
    key = ca.new_key()
    authority = ca.authority(home, ca.Role.HUBS)
    with monkeypatch.context() as patch:
        patch.setattr(ca, "_now", lambda: (at or datetime.now(UTC)).replace(microsecond=0))
        certificate = authority.issue_for_hub(key.public_key(), HUB)
    return ca.Bundle(certificate=certificate, key=key)


def test_a_hub_with_a_certificate_of_now_is_let_in(
    hubs: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_let_in(access_with(hubs, tmp_path, issued(hubs.home, monkeypatch)))


@pytest.mark.parametrize(
    "away",
    [-(ca.HUB_LIFETIME + timedelta(minutes=1)), ca.BACKDATED + timedelta(minutes=1)],
    ids=["expired", "not yet valid"],
)
def test_a_certificate_of_another_time_is_refused(
    hubs: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: timedelta
) -> None:
    bundle = issued(hubs.home, monkeypatch, datetime.now(UTC) + away)
    assert not is_let_in(access_with(hubs, tmp_path, bundle))


def test_a_certificate_of_another_authority_is_refused(
    hubs: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_let_in(access_with(hubs, tmp_path, issued(tmp_path, monkeypatch)))


def test_without_a_certificate_nobody_is_let_in(hubs: Broker) -> None:
    for client in (HUB, INGEST):
        assert not is_let_in(replace(hubs.access(client), cert_file=None))


def test_a_certificate_without_its_key_is_of_no_use(hubs: Broker, tmp_path: Path) -> None:
    """What passes over the wire in a handshake does not make another hub of its hearer."""
    bundle = ca.Bundle.from_pem(_cert_file(hubs, HUB).read_bytes())
    forged = ca.Bundle(certificate=bundle.certificate, key=ca.new_key())
    with pytest.raises(Exception, match="KEY_VALUES_MISMATCH"):
        is_let_in(access_with(hubs, tmp_path, forged))


def test_a_hub_is_refused_where_services_meet(hubs: Broker) -> None:
    for shown, place in ((HUB, INGEST), (INGEST, HUB)):
        access = replace(hubs.access(place), cert_file=_cert_file(hubs, shown))
        assert not is_let_in(access)


def test_the_brokers_own_certificate_lets_nobody_in(hubs: Broker) -> None:
    assert not is_let_in(replace(hubs.access(INGEST), cert_file=hubs.folder / "server.pem"))


def test_plain_text_is_not_answered(hubs: Broker) -> None:
    connect = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04abcd"
    for port in (hubs.port, hubs.services_port):
        with socket.create_connection((LOOPBACK, port), 5) as connection:
            connection.sendall(connect)
            try:
                answer = connection.recv(16)
            except ConnectionResetError:
                answer = b""
            assert answer[:1] != b"\x20", "no CONNACK"


@pytest.mark.parametrize("client", [HUB, INGEST])
def test_older_tls_is_refused(hubs: Broker, client: str) -> None:
    tls = hubs.access(client).address().tls
    assert tls is not None
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((LOOPBACK, hubs.access(client).address().port), 5) as plain,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        tls.wrap_socket(plain, server_hostname=LOOPBACK)


def test_a_hub_is_its_certificate_whatever_client_id_it_says(hubs: Broker) -> None:
    """Else it could cut off others by taking over their client ids, ingest's lanes too."""
    with connected(hubs, OTHER_HUB) as other, connected(hubs, INGEST, "hearth-ingest-00") as lane:
        for client_id in (OTHER_HUB, "hearth-ingest-00"):
            with connected(hubs, HUB, client_id) as hub:
                assert hub.publish(topic(ONE, Channel.STATE), b"{}") != "Not authorized"
                assert hub.publish(topic(OTHER, Channel.STATE), b"{}") == "Not authorized"
        assert other.publish(topic(OTHER, Channel.STATE), b"{}") != "Not authorized"
        assert other.cut_off.empty()
        assert lane.cut_off.empty()


def test_a_hub_reads_no_lane(hubs: Broker) -> None:
    with connected(hubs, HUB) as hub, connected(hubs, OTHER_HUB) as other:
        hub.subscribe(lane_filter(lane_of(OTHER), Channel.BATCH))
        hub.subscribe("$share/x/" + lane_filter(lane_of(OTHER), Channel.BATCH))
        hub.subscribe(topic(ONE, Channel.RECEIPT))
        other.publish(topic(OTHER, Channel.BATCH), b"not yours")
        with connected(hubs, INGEST) as ingest:
            ingest.publish(topic(ONE, Channel.RECEIPT), b"yours")
        assert hub.next_message().payload == b"yours"


def test_a_revoked_hub_is_cut_off_and_stays_out(hubs: Broker) -> None:
    former = hubs.access(HUB)
    kept = former.ca_file and Path(str(former.cert_file)).read_bytes()
    assert kept
    with connected(hubs, HUB) as hub, connected(hubs, OTHER_HUB) as other:
        began_s = time.monotonic()
        hubs.revoke(HUB)
        assert hub.cut_off.get(timeout=CUT_OFF_S_MAX).is_failure
        assert time.monotonic() - began_s < CUT_OFF_S_MAX
        Path(str(former.cert_file)).write_bytes(kept)  # the thief has a copy
        assert not is_let_in(former)
        assert other.publish(topic(OTHER, Channel.STATE), b"{}") != "Not authorized"
        assert other.cut_off.empty()
    assert is_let_in(hubs.access(OTHER_HUB))


def test_a_hub_is_revoked_from_another_process_by_the_number_of_its_certificate(
    hubs: Broker, packages: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = issued(hubs.home, monkeypatch)
    access = access_with(hubs, tmp_path, bundle)
    client = MqttClient(access.address(), HUB)
    assert not client.connect().is_failure
    Broker(hubs.home, packages).revoke(HUB, serials=[bundle.certificate.serial_number])
    assert client.cut_off.get(timeout=CUT_OFF_S_MAX).is_failure
    client.close()
    assert not is_let_in(access)


def test_a_revoked_hub_stays_out_over_restarts_until_it_is_admitted_anew(
    hubs: Broker, tmp_path: Path
) -> None:
    stolen = tmp_path / "stolen.pem"
    stolen.write_bytes(_cert_file(hubs, HUB).read_bytes())
    hubs.stop()
    hubs.revoke(HUB)
    hubs.start()
    thief = replace(hubs.access(HUB), cert_file=stolen)
    assert not is_let_in(thief)
    hubs.admit(HUB)
    assert is_let_in(hubs.access(HUB))
    assert not is_let_in(thief)


def test_revoking_what_was_never_connected_is_no_error(hubs: Broker) -> None:
    hubs.revoke("fedcba9876543210")
    hubs.revoke("fedcba9876543210")
    assert is_let_in(hubs.access(HUB))


def test_a_broker_that_does_not_take_the_list_is_an_error(
    hubs: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.platform.embedded.broker.RELOAD_S_MAX", 0.2)
    monkeypatch.setattr(hubs, "_write", lambda _path, _content: None)
    with pytest.raises(UnavailableError, match="did not take changed certificates"):
        hubs.revoke(HUB)


def _cert_file(broker: Broker, client: str) -> Path:
    path = broker.access(client).cert_file
    assert path is not None
    return path
