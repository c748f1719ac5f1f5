"""The simulated BlueZ as an object on a message bus, seen without bleak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from bleak import BleakClient
from dbus_fast import Message, Variant
from dbus_fast.aio import MessageBus

from firmware_sim.bluez.connection import BusConnection
from gateway.gatt.uuids import uuid128
from gateway.vitals import BY_NAME
from tests.simulated import WITHIN_S, heard, model_of, simulated_home, typical

pytestmark = pytest.mark.integration

ADAPTER_PATH = "/org/bluez/hci0"
ADAPTER = "org.bluez.Adapter1"
PROPERTIES = "org.freedesktop.DBus.Properties"
FLOOD = 5000
"""More messages than a socket has room for."""
CUFF = BY_NAME["blood_pressure"]


@asynccontextmanager
async def client(address: str) -> AsyncIterator[MessageBus]:
    bus = await MessageBus(bus_address=address).connect()
    try:
        yield bus
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()


async def call(bus: MessageBus, interface: str, member: str, *body: object) -> Message:
    signature = "".join("v" if isinstance(part, Variant) else "s" for part in body)
    reply = await bus.call(
        Message(
            destination="org.bluez",
            path=ADAPTER_PATH,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
        )
    )
    assert reply is not None
    return reply


async def test_an_adapter_describes_itself(bluetooth: str) -> None:
    async with simulated_home(bluetooth), client(bluetooth) as bus:
        node = await bus.introspect("org.bluez", ADAPTER_PATH)
        interfaces = {interface.name: interface for interface in node.interfaces}
        assert "org.bluez.AdvertisementMonitorManager1" in interfaces
        methods = {method.name: method for method in interfaces[ADAPTER].methods}
        assert methods["RemoveDevice"].in_signature == "o"
        powered = next(p for p in interfaces[ADAPTER].properties if p.name == "Powered")
        assert powered.access.writable()
        root = await bus.introspect("org.bluez", "/org/bluez")
        assert [child.name for child in root.nodes] == ["hci0"]


async def test_properties_are_read_and_set(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home, client(bluetooth) as bus:
        everything = await call(bus, PROPERTIES, "GetAll", ADAPTER)
        assert everything.body[0]["Address"].value == home.adapter.address
        await call(bus, PROPERTIES, "Set", ADAPTER, "Powered", Variant("b", False))  # noqa: FBT003 - a D-Bus value
        assert (await call(bus, PROPERTIES, "Get", ADAPTER, "Powered")).body[0].value is False
        assert not home.adapter.powered


@pytest.mark.parametrize(
    ("interface", "member", "body", "error"),
    [
        (ADAPTER, "Dance", (), "UnknownMethod"),
        (ADAPTER, "StartDiscovery", ("now",), "InvalidArgs"),
        (PROPERTIES, "Get", (ADAPTER, "Colour"), "InvalidArgs"),
        (PROPERTIES, "Get", (ADAPTER,), "UnknownMethod"),
        (PROPERTIES, "Set", (ADAPTER, "Address", Variant("s", "x")), "PropertyReadOnly"),
        (ADAPTER, "StopDiscovery", (), "Failed"),
    ],
)
async def test_a_wrong_call_is_answered_with_an_error(
    bluetooth: str, interface: str, member: str, body: tuple[object, ...], error: str
) -> None:
    async with simulated_home(bluetooth), client(bluetooth) as bus:
        reply = await call(bus, interface, member, *body)
        assert reply.error_name is not None
        assert reply.error_name.endswith(error)


async def test_notifications_by_file_descriptor_are_not_offered_and_bleak_copes(
    bluetooth: str,
) -> None:
    received = asyncio.Event()
    async with simulated_home(bluetooth) as home:
        home.add(model_of(CUFF)).take(typical(CUFF))
        async with BleakClient(await heard()) as connected:
            await connected.start_notify(
                uuid128(CUFF.gatt[0].characteristic),
                lambda _characteristic, _value: received.set(),
                bluez={"use_start_notify": False},
            )
            async with asyncio.timeout(WITHIN_S):
                await received.wait()


async def test_a_flood_of_messages_waits_for_the_socket(bluetooth: str) -> None:
    """dbus-fast 5.2.0 alone ends its connection when the socket is full."""
    received = 0
    done = asyncio.Event()

    def count(message: Message) -> None:
        nonlocal received
        if message.member == "Flood":
            received += 1
            if received == FLOOD:
                done.set()

    async with client(bluetooth) as bus:
        bus.add_message_handler(count)
        await bus.call(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="AddMatch",
                signature="s",
                body=["member='Flood'"],
            )
        )
        sender = await BusConnection.connect(bluetooth)
        for _ in range(FLOOD):
            sender.send(
                Message.new_signal(
                    path="/",
                    interface="test.Flood",
                    member="Flood",
                    signature="s",
                    body=["x" * 500],
                )
            )
        async with asyncio.timeout(WITHIN_S):
            await done.wait()
        await sender.close()
