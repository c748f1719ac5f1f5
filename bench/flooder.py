"""A hostile hub in a process of its own: sends as fast as the broker takes it, and obeys nothing.

python -m bench.flooder URL CA_FILE CERT_FILE HUB KIND
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from itertools import count
from pathlib import Path

import mqtt5
import numpy as np

from bench.ingest import a_reading
from gateway import wire
from gateway.platform.broker_address import broker_address
from ingest.batches import RECORD_DTYPE

RECORDS = 50
"""Of each batch; every one is a new reading."""
CHUNK_BYTES = 1 << 16
"""What is handed to TLS at once."""
_NICE = 19
_RUBBISH_BYTES = 100


class Kind(Enum):
    """What the hub floods with."""

    BATCHES = "batches"
    """Well-formed, of readings that were never sent before."""
    RUBBISH = "rubbish"
    """Bytes that are no batch, never the same."""


def main() -> None:
    """Flood until killed."""
    url, ca_file, cert_file, number, kind = sys.argv[1:]
    os.nice(_NICE)
    hub = int(number)
    address = broker_address(url, ca_file=Path(ca_file), cert_file=Path(cert_file))
    assert address.tls is not None  # noqa: S101 - the broker has nothing else
    plain = socket.create_connection((address.host, address.port))
    connection = address.tls.wrap_socket(plain, server_hostname=address.host)
    connection.sendall(mqtt5.ConnectPacket(wire.hub_name(hub), keep_alive=60).write())
    connection.recv(CHUNK_BYTES)

    def discard() -> None:
        while connection.recv(CHUNK_BYTES):
            pass

    threading.Thread(target=discard, daemon=True).start()
    topic = wire.topic(hub, wire.Channel.BATCH)
    payloads = _batches(hub) if Kind(kind) is Kind.BATCHES else _rubbish()
    pending = bytearray()
    for place, payload in enumerate(payloads):
        packet = mqtt5.PublishPacket(
            topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=place % 65_535 + 1
        )
        pending += packet.write()
        if len(pending) >= CHUNK_BYTES:
            connection.sendall(pending)
            pending.clear()


def _batches(hub: int) -> Iterator[bytes]:
    """Yield batches whose readings were taken one after the other, from a month ago on."""
    now = datetime.now(UTC)
    records = [wire.encode_record(a_reading(hub, place, now), now) for place in range(RECORDS)]
    body = np.frombuffer(b"".join(records), RECORD_DTYPE).copy()
    for name in ("device_time_ms", "measured_ms"):
        body[name] -= 30 * 86_400_000
    epoch = time.time_ns()
    for sequence in count(1):
        for name in ("device_time_ms", "measured_ms"):
            body[name] += 1000 * RECORDS
        data = body.tobytes()
        header = wire.HEADER.pack(
            wire.BATCH_MAGIC, wire.VERSION, wire.Kind.MEASUREMENTS, RECORDS, zlib.crc32(data),
            wire.DECODER_VERSION, 0, hub, epoch, sequence, int(now.timestamp() * 1000),
        )  # fmt: skip
        yield header + data


def _rubbish() -> Iterator[bytes]:
    while True:
        yield os.urandom(_RUBBISH_BYTES)


if __name__ == "__main__":
    main()
