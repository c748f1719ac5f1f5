"""What goes wrong around a device: its adapter, bluetoothd, the air between."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from bleak import BleakClient, BleakScanner
from bleak.exc import BleakDBusError, BleakError
from bumble import hci

from firmware_sim.bluez import names
from firmware_sim.bluez.behaviour import Behaviour
from gateway.gatt.uuids import uuid128
from gateway.vitals import BY_NAME
from tests.simulated import (
    ADAPTER,
    ADDRESS,
    WITHIN_S,
    Ending,
    Subscription,
    heard,
    model_of,
    simulated_home,
    typical,
)

pytestmark = pytest.mark.integration

CUFF = BY_NAME["blood_pressure"]
SOURCE = CUFF.gatt[0]


async def test_the_link_ends_when_the_adapter_is_removed(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        device = home.add(model_of(CUFF))
        device.take(typical(CUFF))
        ending = Ending()
        async with BleakClient(await heard(), ending):
            await home.bluez.unplug(home.adapter)
            await ending.wait()
        with pytest.raises(BleakError):
            await BleakScanner().start()
        home.bluez.plug_in(home.adapter)
        await until_there_is_an_adapter()
        subscription = Subscription()
        async with BleakClient(await heard()) as client:
            await subscription.subscribe(client, SOURCE)
            await subscription.wait_for(1)


@pytest.mark.parametrize("crash", [False, True])
async def test_bluetoothd_ends_and_comes_back(bluetooth: str, *, crash: bool) -> None:
    async with simulated_home(bluetooth) as home:
        home.add(model_of(CUFF)).take(typical(CUFF))
        await heard()
        await home.bluez.stop(crash=crash)
        with pytest.raises(BleakError):
            await BleakScanner().start()
        await home.bluez.start()
        subscription = Subscription()
        async with BleakClient(await heard()) as client:
            await subscription.subscribe(client, SOURCE)
            await subscription.wait_for(1)


async def test_an_aborted_connection_is_tried_again_by_bleak(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        home.adapter.faults.connect_errors.append(names.CONNECTION_ABORTED)
        home.add(model_of(CUFF)).take(typical(CUFF))
        async with BleakClient(await heard()) as client:
            assert client.is_connected
        assert not home.adapter.faults.connect_errors


async def test_a_failed_connection_is_told(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        home.adapter.faults.connect_errors.append("le-connection-timeout")
        home.add(model_of(CUFF)).take(typical(CUFF))
        with pytest.raises(BleakDBusError, match="le-connection-timeout"):
            async with BleakClient(await heard()):
                pass


async def test_a_connection_to_a_sleeping_device_is_given_up(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        device = home.add(model_of(CUFF))
        device.take(typical(CUFF))
        known = await heard()
        home.air.silent.add(hci.Address(ADDRESS))
        with pytest.raises(TimeoutError):
            await BleakClient(known, timeout=0.2).connect()


async def test_a_connection_left_pending_is_made_when_the_device_wakes(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        device = home.add(model_of(CUFF))
        device.take(typical(CUFF))
        known = await heard()
        home.air.silent.add(hci.Address(ADDRESS))
        client = BleakClient(known, timeout=WITHIN_S)
        connecting = asyncio.ensure_future(client.connect())
        await asyncio.sleep(0)
        home.air.silent.clear()
        await connecting
        await client.disconnect()


async def test_the_services_can_be_told_before_they_are_there(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        home.adapter.faults.services_before_objects = 1
        home.add(model_of(CUFF)).take(typical(CUFF))
        known = await heard()
        async with BleakClient(known) as client:
            assert client.services.get_characteristic(uuid128(SOURCE.characteristic)) is None
        async with BleakClient(known) as client:
            assert client.services.get_characteristic(uuid128(SOURCE.characteristic)) is not None


async def test_a_reading_whose_confirmation_was_lost_is_sent_again(bluetooth: str) -> None:
    hub = hci.Address(ADAPTER, hci.Address.PUBLIC_DEVICE_ADDRESS)
    async with simulated_home(bluetooth) as home:
        device = home.add(replace(model_of(CUFF), idle_s=WITHIN_S))
        device.take(typical(CUFF))
        received, again, ending = Subscription(), Subscription(), Ending()
        async with BleakClient(await heard(), ending) as client:
            await received.subscribe(client, SOURCE)
            await received.wait_for(1)
            home.air.silent.add(hub)
            device.take(typical(CUFF, more=1))
            await received.wait_for(2)
            home.air.break_links(hub)
            await ending.wait()
        home.air.silent.clear()
        async with BleakClient(await heard()) as client:
            await again.subscribe(client, SOURCE)
            assert (await again.wait_for(1))[0] == received.values[1]


async def test_disconnecting_takes_bluez_its_time(bluetooth: str) -> None:
    slow = Behaviour(disconnect_s=0.5)
    async with simulated_home(bluetooth, slow) as home:
        home.add(model_of(CUFF)).take(typical(CUFF))
        client = BleakClient(await heard())
        await client.connect()
        loop = asyncio.get_running_loop()
        before = loop.time()
        await client.disconnect()
        assert loop.time() - before >= slow.disconnect_s


async def until_there_is_an_adapter() -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                async with BleakScanner():
                    return
            except BleakError:
                await asyncio.sleep(0.01)
