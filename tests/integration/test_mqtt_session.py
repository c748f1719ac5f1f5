"""The MQTT session over TLS: certificates are checked, and what TLS holds back is not forgotten."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gateway import wire
from gateway.errors import UnavailableError
from gateway.platform import mqtt
from gateway.platform.broker_address import broker_address
from gateway.platform.embedded.broker import Broker
from gateway.platform.settings import LOOPBACK
from tests.outboxes import HUB

pytestmark = pytest.mark.integration

NAME = wire.hub_name(HUB)
TOPIC = wire.topic(HUB, wire.Channel.BATCH)
IDENTITY = mqtt.Identity(
    client_id="tls",
    expiry_s=0,
    will=mqtt.Will(topic=wire.topic(HUB, wire.Channel.STATE), payload=b"gone"),
)


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate for loopback that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate_file, key_file


@asynccontextmanager
async def tls_in_front_of(broker: Broker, certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """Take TLS off what comes and pass it on to the broker; yields the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(LOOPBACK, broker.port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(copy(reader, to_broker))
                tasks.create_task(copy(from_broker, writer))
        except* OSError:
            pass  # either side left
        finally:
            to_broker.close()
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_messages_of_every_size_pass_over_tls(broker: Broker, tmp_path: Path) -> None:
    broker.admit(NAME)
    certificate = make_certificate(tmp_path, "broker")
    sizes = [1, 16_384, 16_385, 60_000, 30_000]
    async with tls_in_front_of(broker, certificate) as port:
        url = broker.url().replace("mqtt://", "mqtts://").replace(f":{broker.port}", f":{port}")
        reader = broker_address(url, ca_file=certificate[0])
        url = broker.url(NAME).replace("mqtt://", "mqtts://")
        writer = broker_address(url.replace(f":{broker.port}", f":{port}"), ca_file=certificate[0])
        other = mqtt.Identity(client_id="reader", expiry_s=0, will=IDENTITY.will)
        async with mqtt.connect(reader, other) as receiving:
            receiving.subscribe([TOPIC])
            async with mqtt.connect(writer, IDENTITY) as sending:
                for size in sizes:
                    sending.publish(TOPIC, b"x" * size)
                arrived: list[int] = []
                async with asyncio.timeout(20):
                    while len(arrived) < len(sizes):
                        event = await receiving.next_event(None)
                        if isinstance(event, mqtt.Arrived):
                            arrived.append(len(event.payload))
    assert arrived == sizes


async def test_a_broker_that_nobody_vouches_for_is_not_talked_to(
    broker: Broker, tmp_path: Path
) -> None:
    certificate, (stranger, _key) = (
        make_certificate(tmp_path, "broker"),
        make_certificate(tmp_path, "stranger"),
    )
    async with tls_in_front_of(broker, certificate) as port:
        address = broker_address(f"mqtts://{LOOPBACK}:{port}", ca_file=stranger)
        # paho leaves a socket whose handshake failed to close itself; it does so at once.
        with (
            warnings.catch_warnings(action="ignore", category=ResourceWarning),
            pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            async with mqtt.connect(address, IDENTITY):
                pass


async def test_a_message_that_is_too_long_for_us_is_not_sent_to_us(broker: Broker) -> None:
    broker.admit(NAME)
    other = mqtt.Identity(client_id="reader", expiry_s=0, will=IDENTITY.will)
    async with (
        mqtt.connect(broker_address(broker.url()), other) as receiving,
        mqtt.connect(broker_address(broker.url(NAME)), IDENTITY) as sending,
    ):
        receiving.subscribe([TOPIC])
        sending.publish(TOPIC, b"x" * (mqtt.MESSAGE_BYTES_MAX + 1))
        sending.publish(TOPIC, b"short")
        async with asyncio.timeout(20):
            while not isinstance(event := await receiving.next_event(None), mqtt.Arrived):
                pass
    assert event.payload == b"short"
