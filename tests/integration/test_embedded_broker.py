"""The embedded broker: who may do what, and what outlives a restart, a reload, a kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.errors import UsageError
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.broker_config import INGEST, PACKET_BYTES_MAX
from gateway.platform.embedded.packages import Packages
from gateway.wire import Channel, hub_name, topic
from tests.fixtures.mqtt_client import WITHIN_S, connected
from tests.fixtures.servers import listening_on

pytestmark = pytest.mark.integration

ONE, OTHER = 0x00C0FFEE00C0FFEE, 0x0123456789ABCDEF
HUB, OTHER_HUB = hub_name(ONE), hub_name(OTHER)


@pytest.fixture
def hubs(broker: Broker) -> Broker:
    """A broker that knows two hubs."""
    broker.admit(HUB, OTHER_HUB)
    return broker


def test_a_batch_reaches_ingest_and_its_receipt_the_hub(hubs: Broker) -> None:
    with connected(hubs, HUB) as hub, connected(hubs, INGEST) as ingest:
        ingest.subscribe("hearth/v1/+/+/batch")
        hub.subscribe(topic(ONE, Channel.RECEIPT))
        assert hub.publish(topic(ONE, Channel.BATCH), b"batch") == "Success"
        assert ingest.next_message().payload == b"batch"
        assert ingest.publish(topic(ONE, Channel.RECEIPT), b"receipt") == "Success"
        assert hub.next_message().payload == b"receipt"


def test_a_batch_that_nobody_reads_is_told_so(hubs: Broker) -> None:
    with connected(hubs, HUB) as hub:
        reason = hub.publish(topic(ONE, Channel.BATCH), b"batch")
    assert reason == "No matching subscribers"


@pytest.mark.parametrize("channel", [Channel.BATCH, Channel.STATE])
def test_a_hub_cannot_publish_as_another(hubs: Broker, channel: Channel) -> None:
    with connected(hubs, HUB) as hub:
        assert hub.publish(topic(OTHER, channel), b"forged") == "Not authorized"


@pytest.mark.parametrize("channel", [Channel.RECEIPT, Channel.CONFIG])
def test_a_hub_cannot_write_itself_a_receipt(hubs: Broker, channel: Channel) -> None:
    with connected(hubs, HUB) as hub:
        assert hub.publish(topic(ONE, channel), b"forged") == "Not authorized"


@pytest.mark.parametrize(
    "wanted",
    [
        *(topic(OTHER, channel) for channel in Channel),
        *("hearth/v1/+/+/receipt", "hearth/#", "#", "$SYS/#"),
    ],
)
def test_a_hub_hears_nothing_of_another(hubs: Broker, wanted: str) -> None:
    with connected(hubs, HUB) as hub, connected(hubs, INGEST) as ingest:
        hub.subscribe(wanted)
        hub.subscribe(topic(ONE, Channel.RECEIPT))
        ingest.publish(topic(OTHER, Channel.RECEIPT), b"not yours")
        ingest.publish(topic(OTHER, Channel.CONFIG), b"not yours")
        with connected(hubs, OTHER_HUB) as other:
            other.publish(topic(OTHER, Channel.BATCH), b"not yours")
            other.publish(topic(OTHER, Channel.STATE), b"not yours")
        ingest.publish(topic(ONE, Channel.RECEIPT), b"yours")
        assert hub.next_message().payload == b"yours"


def test_ingest_cannot_publish_as_a_hub(hubs: Broker) -> None:
    with connected(hubs, INGEST) as ingest:
        assert ingest.publish(topic(ONE, Channel.BATCH), b"forged") == "Not authorized"


def test_a_hub_comes_in_while_others_stay_connected(broker: Broker) -> None:
    broker.admit(HUB)
    with connected(broker, HUB) as hub, connected(broker, INGEST) as ingest:
        ingest.subscribe("hearth/v1/+/+/batch")
        broker.admit(OTHER_HUB)
        hub.publish(topic(ONE, Channel.BATCH), b"still here")
        assert ingest.next_message().payload == b"still here"
        with connected(broker, OTHER_HUB) as other:
            assert other.publish(topic(OTHER, Channel.BATCH), b"new") == "Success"
        assert hub.cut_off.empty()
        assert ingest.cut_off.empty()


def test_what_waits_for_a_hub_that_is_away_outlives_a_reload(hubs: Broker) -> None:
    with connected(hubs, HUB) as hub:
        hub.subscribe(topic(ONE, Channel.RECEIPT))
    with connected(hubs, INGEST) as ingest:
        assert ingest.publish(topic(ONE, Channel.RECEIPT), b"kept") == "Success"
    hubs.admit("fedcba9876543210")
    with connected(hubs, HUB) as hub:
        assert hub.next_message().payload == b"kept"


def test_what_waits_for_a_hub_that_is_away_outlives_a_restart(hubs: Broker) -> None:
    with connected(hubs, HUB) as hub:
        hub.subscribe(topic(ONE, Channel.RECEIPT))
    with connected(hubs, INGEST) as ingest:
        ingest.publish(topic(ONE, Channel.RECEIPT), b"kept")
    hubs.stop()
    hubs.start()
    hubs.admit("fedcba9876543210")
    with connected(hubs, HUB) as hub:
        assert hub.next_message().payload == b"kept"


@pytest.mark.parametrize("hub_bytes_per_s", [16 << 20])
def test_oversized_rubbish_reaches_ingest_to_be_counted(hubs: Broker) -> None:
    with connected(hubs, HUB) as hub, connected(hubs, INGEST) as ingest:
        ingest.subscribe("hearth/v1/+/+/batch")
        hub.publish(topic(ONE, Channel.BATCH), bytes(10_000_000))
        assert len(ingest.next_message().payload) == 10_000_000


@pytest.mark.parametrize("hub_bytes_per_s", [16 << 20])
def test_a_packet_beyond_the_limit_ends_its_connection(hubs: Broker) -> None:
    with connected(hubs, HUB) as hub:
        hub.send(topic(ONE, Channel.BATCH), bytes(PACKET_BYTES_MAX))
        assert hub.cut_off.get(timeout=WITHIN_S).is_failure
    assert hubs.pid is not None


def test_a_killed_broker_starts_again_on_its_port_with_its_users(hubs: Broker) -> None:
    port = hubs.port
    hubs.kill()
    assert hubs.pid is None
    hubs.start()
    assert hubs.port == port
    with connected(hubs, HUB):
        pass


def test_hubs_admitted_before_the_start_come_in(home: Path, packages: Packages) -> None:
    described = Broker(home, packages)
    described.admit(HUB)
    with described as broker, connected(broker, HUB):
        pass


def test_a_second_owner_is_told_that_it_runs_already(broker: Broker, packages: Packages) -> None:
    second = Broker(broker.home, packages)
    with pytest.raises(UsageError, match="已在运行, 属于另一进程 / runs already"):
        second.start()
    second.stop()
    assert broker.pid is not None
    assert Broker(broker.home, packages).pid == broker.pid


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a:b", "x" * 65])
def test_a_name_that_could_reach_further_is_refused(broker: Broker, name: str) -> None:
    with pytest.raises(ValueError, match="is no client name"):
        broker.admit(name)


def test_keys_are_for_their_owner_only(hubs: Broker) -> None:
    secrets = [path for path in (hubs.home / "secrets").rglob("*.pem") if path.is_file()]
    assert {path.stem for path in secrets} == {
        "hubs",
        "services",
        "revoked",
        INGEST,
        HUB,
        OTHER_HUB,
    }
    for path in (*secrets, hubs.folder / "server.pem", hubs.folder / "access"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_certificates_are_renewed_while_everybody_stays_connected(hubs: Broker) -> None:
    with connected(hubs, HUB) as hub, connected(hubs, INGEST) as ingest:
        ingest.subscribe("hearth/v1/+/+/batch")
        for path in (hubs.folder / "server.pem", hubs.home / "secrets" / "clients" / "ingest.pem"):
            path.unlink()
        hubs.renew()
        hub.publish(topic(ONE, Channel.BATCH), b"still here")
        assert ingest.next_message().payload == b"still here"
    with connected(hubs, OTHER_HUB), connected(hubs, INGEST):
        pass


def test_a_port_that_another_program_took_is_exchanged(home: Path, packages: Packages) -> None:
    broker = Broker(home, packages)
    with broker:
        port = broker.port
    with listening_on(port), broker:
        assert broker.port != port


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")
def test_a_broker_of_root_runs_as_nobody(home: Path, reachable_packages: Packages) -> None:
    with Broker(home, reachable_packages) as broker:
        status = Path(f"/proc/{broker.pid}/status").read_text()
    assert "\nUid:\t65534\t65534\t65534\t65534\n" in status
