"""The lanes of a worker: an acknowledgement reaches only the connection that its message came by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import mqtt5
import pytest

from gateway import wire
from gateway.platform.broker_address import BrokerAddress
from gateway.platform.settings import LOOPBACK
from ingest import subscriber
from ingest.batches import Message
from ingest.subscriber import Intake, Lane, reaches

TOPIC = wire.topic(0xA1, wire.Channel.BATCH)


@asynccontextmanager
async def a_broker(*, stays: bool = True) -> AsyncIterator[int]:
    """Accepts every connection, grants its subscription and sends it one message; then `stays` or goes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(mqtt5.ConnAckPacket().write())
        await reader.read(4096)
        writer.write(
            mqtt5.SubAckPacket(1, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write()
        )
        batch = mqtt5.PublishPacket(TOPIC, b"x", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=7)
        writer.write(batch.write())
        with suppress(OSError):
            await (reader.read() if stays else writer.drain())
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def first_message(lane: Lane, arrived: asyncio.Queue[Message]) -> Message:
    """Run a lane until it has read a message; it stays connected until its task is cancelled."""
    running = asyncio.create_task(lane.run())
    try:
        return await arrived.get()
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_lane_taken_again_takes_no_acknowledgement_of_its_former_life() -> None:
    """Found by `hearth chaos`.

    A flush that was read before the lane was given back, and committed after it was taken again,
    acknowledged another message, or ended the worker.
    """
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    intake = Intake(bytes_max=1 << 20, deliver=arrived.put_nowait)
    async with asyncio.timeout(20), a_broker() as port:
        address = BrokerAddress(host=LOOPBACK, port=port)
        former = await first_message(Lane(3, lambda: address, intake), arrived)
        again = Lane(3, lambda: address, intake)
        running = asyncio.create_task(again.run())
        latter = await arrived.get()
        assert former.token != latter.token
        again.acknowledge(former.token)
        assert intake.bytes_held > 0  # the latter message waits for its own
        again.acknowledge(latter.token)
        assert intake.bytes_held == 0
        running.cancel()
        await asyncio.wait([running])


async def test_what_was_read_by_a_lost_connection_counts_until_it_is_committed() -> None:
    """The broker sends it again by the next one, and again: without a database, for hours."""
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    intake = Intake(bytes_max=1000, deliver=arrived.put_nowait)
    async with asyncio.timeout(20), a_broker(stays=False) as port:
        address = BrokerAddress(host=LOOPBACK, port=port)
        lane = Lane(3, lambda: address, intake)
        running = asyncio.create_task(lane.run())
        read = [await arrived.get(), await arrived.get()]
        await asyncio.sleep(1.5)  # it would have connected twice more
        assert arrived.empty()
        for message in read:
            lane.acknowledge(message.token)
        assert intake.bytes_held == 0
        await arrived.get()  # it reads on
        running.cancel()
        await asyncio.wait([running])


async def test_a_broker_is_reached_when_it_answers_and_not_when_it_only_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy, a load balancer: the connection stands, and nobody is behind it."""
    monkeypatch.setattr(subscriber, "CONNECT_S_MAX", 0.5)
    async with a_broker() as port:
        assert await reaches(lambda: BrokerAddress(host=LOOPBACK, port=port))
    silent = await asyncio.start_server(lambda _reader, writer: writer.close(), LOOPBACK, 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        assert not await reaches(lambda: BrokerAddress(host=LOOPBACK, port=port))
    assert not await reaches(lambda: BrokerAddress(host=LOOPBACK, port=port))
