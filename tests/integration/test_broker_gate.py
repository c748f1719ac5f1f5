"""The gate before the broker: what a connection may bring, and that the two live and die as one."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.platform.embedded import gate
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.gate import BURST_BYTES, RATE_BYTES_PER_S, Bucket
from gateway.platform.settings import LOOPBACK
from gateway.wire import Channel, hub_name, topic
from tests.fixtures.mqtt_client import connected
from tests.fixtures.processes import descendants
from tests.fixtures.servers import eventually, is_gone

pytestmark = pytest.mark.integration

ONE, OTHER = 0x00C0FFEE00C0FFEE, 0x0123456789ABCDEF
HUB, OTHER_HUB = hub_name(ONE), hub_name(OTHER)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    began_s = time.monotonic()
    bucket = Bucket(rate_per_s=10, burst=100)
    assert bucket.take(100, began_s) < 0.1
    assert bucket.take(20, began_s) == pytest.approx(2.0, abs=0.1)
    assert bucket.take(0, began_s + 2.5) == 0
    assert bucket.take(100, began_s + 1000) == 0, "it never holds more than its burst"
    assert bucket.take(1, began_s + 1000) > 0


@contextmanager
def flooding(broker: Broker) -> Iterator[list[int]]:
    """Push bytes into a connection for the block, as fast as they are taken; yields how many."""
    sent = [0]
    stopped = threading.Event()
    tls = broker.access(HUB).address().tls
    assert tls is not None
    plain = socket.create_connection((LOOPBACK, broker.port), 5)
    connection = tls.wrap_socket(plain, server_hostname=LOOPBACK)

    def push() -> None:
        with suppress(OSError):
            while not stopped.is_set():
                sent[0] += connection.send(publish)

    # CONNECT, then QoS 0 publishes of a kilobyte each to its own topic.
    name, where = b"flooder", topic(ONE, Channel.BATCH).encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x3c" + len(name).to_bytes(2, "big") + name
    connection.sendall(b"\x10" + bytes([len(body)]) + body)
    connection.recv(4)
    payload = len(where).to_bytes(2, "big") + where + bytes(1024)
    publish = b"\x30" + bytes([len(payload) % 128 | 128, len(payload) // 128]) + payload
    thread = threading.Thread(target=push)
    thread.start()
    try:
        yield sent
    finally:
        stopped.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        connection.close()


def test_a_flood_waits_at_its_source_and_the_others_do_not(broker: Broker) -> None:
    broker.admit(HUB, OTHER_HUB)
    in_flight = 8 << 20  # what sockets and buffers on the way may hold
    began_s = time.monotonic()
    with flooding(broker) as sent, connected(broker, OTHER_HUB) as other:
        while time.monotonic() - began_s < 3.0:
            assert other.publish(topic(OTHER, Channel.STATE), b"{}") != "Not authorized"
        elapsed_s = time.monotonic() - began_s
        assert sent[0] < BURST_BYTES + in_flight + RATE_BYTES_PER_S * elapsed_s
        assert sent[0] > BURST_BYTES // 2


def test_the_gate_and_the_broker_die_as_one(broker: Broker) -> None:
    assert broker.pid is not None
    (mosquitto,) = descendants(broker.pid)
    os.kill(broker.pid, signal.SIGKILL)
    assert eventually(lambda: is_gone(mosquitto))
    broker.start()
    assert broker.pid is not None
    (mosquitto,) = descendants(broker.pid)
    os.kill(mosquitto, signal.SIGKILL)
    assert eventually(lambda: broker.pid is None)


def test_it_needs_the_standard_library_only() -> None:
    """It is started with -I -S, as whoever the broker is."""
    source = Path(gate.__file__).read_text(encoding="utf-8")
    imported = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in imported if "gateway" in line]
