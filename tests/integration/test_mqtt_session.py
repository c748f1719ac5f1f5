"""The MQTT session over TLS: certificates are checked, and what TLS holds back is not forgotten."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from gateway import wire
from gateway.errors import UnavailableError
from gateway.platform import ca, mqtt
from gateway.platform.embedded.broker import Broker
from tests.outboxes import HUB

pytestmark = pytest.mark.integration

NAME = wire.hub_name(HUB)
TOPIC = wire.topic(HUB, wire.Channel.BATCH)
IDENTITY = mqtt.Identity(
    client_id="tls",
    expiry_s=0,
    will=mqtt.Will(topic=wire.topic(HUB, wire.Channel.STATE), payload=b"gone"),
)


async def test_messages_of_every_size_pass_over_tls(broker: Broker) -> None:
    broker.admit(NAME)
    sizes = [1, 16_384, 16_385, 60_000, 30_000]
    other = mqtt.Identity(client_id="reader", expiry_s=0, will=IDENTITY.will)
    async with mqtt.connect(broker.access().address(), other) as receiving:
        receiving.subscribe([TOPIC])
        async with mqtt.connect(broker.access(NAME).address(), IDENTITY) as sending:
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
    broker.admit(NAME)
    stranger = tmp_path / "stranger.pem"
    stranger.write_bytes(ca.authority(tmp_path, ca.Role.SERVICES).pem())
    access = replace(broker.access(NAME), ca_file=stranger)
    # paho leaves a socket whose handshake failed to close itself; it does so at once.
    with (
        warnings.catch_warnings(action="ignore", category=ResourceWarning),
        pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        async with mqtt.connect(access.address(), IDENTITY):
            pass


async def test_a_message_that_is_too_long_for_us_is_not_sent_to_us(broker: Broker) -> None:
    broker.admit(NAME)
    other = mqtt.Identity(client_id="reader", expiry_s=0, will=IDENTITY.will)
    async with (
        mqtt.connect(broker.access().address(), other) as receiving,
        mqtt.connect(broker.access(NAME).address(), IDENTITY) as sending,
    ):
        receiving.subscribe([TOPIC])
        sending.publish(TOPIC, b"x" * (mqtt.MESSAGE_BYTES_MAX + 1))
        sending.publish(TOPIC, b"short")
        async with asyncio.timeout(20):
            while not isinstance(event := await receiving.next_event(None), mqtt.Arrived):
                pass
    assert event.payload == b"short"
