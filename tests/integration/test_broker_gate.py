"""The gate before the broker: what a hub may bring, and what its death costs."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.broker_config import INGEST
from gateway.platform.embedded.gate_config import PERIODS_PER_S, RECEIVE_BYTES
from gateway.platform.settings import HUB_BYTES_PER_S, LOOPBACK
from gateway.wire import HEADER_BYTES, RECORD_BYTES, Channel, hub_name, topic
from tests.fixtures.mqtt_client import WITHIN_S, connected
from tests.fixtures.processes import command_line, gate_of
from tests.fixtures.servers import eventually

pytestmark = pytest.mark.integration

ONE, OTHER = 0x00C0FFEE00C0FFEE, 0x0123456789ABCDEF
HUB, OTHER_HUB = hub_name(ONE), hub_name(OTHER)
ON_THE_WAY_BYTES = (8 << 20) + RECEIVE_BYTES
"""What the flooding side's own socket may hold: Linux lets it grow to some megabytes."""
READINGS_OF_90_DAYS = 90 * 74
RECORDS_OF_A_BATCH = 500


@contextmanager
def flooding(broker: Broker) -> Iterator[list[int]]:
    """Push bytes into a connection for the block, as fast as they are taken; yields how many."""
    sent = [0]
    stopped = threading.Event()
    connection = tls_connection(broker)
    # CONNECT, then QoS 0 publishes of a kilobyte each to its own topic (MQTT 3.1.1, 3.1 and 3.3).
    name, where = b"flooder", topic(ONE, Channel.BATCH).encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x3c" + len(name).to_bytes(2, "big") + name
    connection.sendall(b"\x10" + bytes([len(body)]) + body)
    connection.recv(4)
    payload = len(where).to_bytes(2, "big") + where + bytes(1024)
    publish = b"\x30" + bytes([len(payload) % 128 | 128, len(payload) // 128]) + payload

    def push() -> None:
        with suppress(OSError):
            while not stopped.is_set():
                sent[0] += connection.send(publish)

    thread = threading.Thread(target=push)
    thread.start()
    try:
        yield sent
    finally:
        stopped.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        thread.join(WITHIN_S)
        connection.close()


def tls_connection(broker: Broker) -> ssl.SSLSocket:
    """Connect as the hub `HUB`."""
    tls = broker.access(HUB).address().tls
    assert tls is not None
    plain = socket.create_connection((LOOPBACK, broker.port), WITHIN_S)
    return tls.wrap_socket(plain, server_hostname=LOOPBACK)


def test_a_flood_waits_at_its_source_and_the_others_do_not(broker: Broker) -> None:
    broker.admit(HUB, OTHER_HUB)
    began_s = time.monotonic()
    with flooding(broker) as sent, connected(broker, OTHER_HUB) as other:
        while time.monotonic() - began_s < 3.0:
            assert other.publish(topic(OTHER, Channel.STATE), b"{}") != "Not authorized"
        elapsed_s = time.monotonic() - began_s
        assert sent[0] < ON_THE_WAY_BYTES + HUB_BYTES_PER_S * elapsed_s
        assert sent[0] > HUB_BYTES_PER_S


def test_what_comes_through_is_the_rate_that_is_set(broker: Broker) -> None:
    broker.admit(HUB)
    size, number = 64 << 10, 16
    with connected(broker, HUB) as hub, connected(broker, INGEST) as ingest:
        ingest.subscribe(topic(ONE, Channel.BATCH))
        began_s = time.monotonic()
        for _ in range(number):
            hub.send(topic(ONE, Channel.BATCH), bytes(size))
        for _ in range(number):
            ingest.next_message()
        took_s = time.monotonic() - began_s
    at_once = HUB_BYTES_PER_S // PERIODS_PER_S
    assert took_s > (size * number - at_once) / HUB_BYTES_PER_S * 0.9


def test_the_backlog_of_90_days_of_a_home_comes_through_in_seconds(broker: Broker) -> None:
    broker.admit(HUB)
    whole, rest = divmod(READINGS_OF_90_DAYS, RECORDS_OF_A_BATCH)
    batches = [RECORDS_OF_A_BATCH] * whole + [rest]
    with connected(broker, HUB) as hub, connected(broker, INGEST) as ingest:
        ingest.subscribe(topic(ONE, Channel.BATCH))
        began_s = time.monotonic()
        for records in batches:
            hub.send(topic(ONE, Channel.BATCH), bytes(HEADER_BYTES + records * RECORD_BYTES))
        for _ in batches:
            ingest.next_message()
        assert time.monotonic() - began_s < 10.0


def test_a_gate_that_dies_is_opened_again_and_ingest_stays_connected(broker: Broker) -> None:
    broker.admit(HUB)
    port = broker.port
    with connected(broker, INGEST) as ingest:
        ingest.subscribe(topic(ONE, Channel.BATCH))
        with connected(broker, HUB) as hub:
            os.kill(gate_of(broker), signal.SIGKILL)
            assert hub.cut_off.get(timeout=WITHIN_S).is_failure
        assert eventually(broker.needs_restart)
        broker.restart()
        assert broker.port == port
        with connected(broker, HUB) as hub:
            assert hub.publish(topic(ONE, Channel.BATCH), b"after it") == "Success"
        assert ingest.next_message().payload == b"after it"
        assert ingest.cut_off.empty()


def test_a_broker_that_dies_comes_back_behind_its_gate(broker: Broker) -> None:
    broker.admit(HUB)
    port, pid = broker.port, broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert eventually(broker.needs_restart)
    broker.restart()
    assert broker.port == port
    assert not broker.needs_restart()
    with connected(broker, HUB):
        pass


def test_who_stops_the_broker_stops_its_gate(broker: Broker) -> None:
    gate = gate_of(broker)
    broker.stop()
    assert not command_line(gate)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")
def test_the_gate_of_root_has_none_of_roots_powers(broker: Broker) -> None:
    status = Path(f"/proc/{gate_of(broker)}/status").read_text(encoding="ascii")
    assert f"\nCapEff:\t{0:016x}\n" in status
