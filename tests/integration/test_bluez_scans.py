"""Scanning: what bleak is told of advertisements, and what it is not."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from bleak import BleakClient, BleakScanner
from bleak.args.bluez import OrPattern
from bleak.assigned_numbers import AdvertisementDataType
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakDBusError

from firmware_sim.clock import ClockModel
from gateway.gatt.times import TimeType
from gateway.gatt.uuids import uuid128
from gateway.vitals import BY_NAME
from tests.simulated import (
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
BOTTLE = BY_NAME["water_intake"]
DRINK = BOTTLE.advertised[0]
DRINK_UUID = uuid128(DRINK.service_data)


class Drinks:
    """The service data that a scan hears, without repeats."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self._came = asyncio.Event()

    def __call__(self, _device: BLEDevice, advertisement: AdvertisementData) -> None:
        payload = advertisement.service_data.get(DRINK_UUID)
        if payload is not None and payload not in self.payloads:
            self.payloads.append(payload)
            self._came.set()

    async def wait_for(self, count: int) -> list[bytes]:
        async with asyncio.timeout(WITHIN_S):
            while len(self.payloads) < count:
                self._came.clear()
                await self._came.wait()
        return self.payloads


async def test_each_drink_is_advertised_with_a_packet_id_of_its_own(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        bottle = home.add(model_of(BOTTLE))
        drinks = Drinks()
        async with BleakScanner(drinks):
            for _ in range(2):
                bottle.take(typical(BOTTLE))
            first, second = await drinks.wait_for(2)
        assert DRINK.decode(first).values == DRINK.decode(second).values == typical(BOTTLE)
        assert first != second


async def test_a_passive_scan_hears_what_its_patterns_match(bluetooth: str) -> None:
    pattern = OrPattern(
        0, AdvertisementDataType.SERVICE_DATA_UUID16, DRINK.service_data.to_bytes(2, "little")
    )
    async with simulated_home(bluetooth) as home:
        bottle = home.add(replace(model_of(BOTTLE), clock=ClockModel(type=TimeType.UTC)))
        drinks = Drinks()
        async with BleakScanner(drinks, scanning_mode="passive", bluez={"or_patterns": [pattern]}):
            await asyncio.sleep(0)
            bottle.take(typical(BOTTLE))
            await drinks.wait_for(1)


async def test_a_filter_keeps_other_services_away(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        home.add(model_of(CUFF)).take(typical(CUFF))
        thermometer = BY_NAME["body_temperature"]
        home.add(model_of(thermometer), "C0:26:DA:0A:0B:0C").take(typical(thermometer))
        device = await BleakScanner.find_device_by_filter(
            lambda _device, _advertisement: True,
            service_uuids=[uuid128(thermometer.gatt[0].service)],
            timeout=WITHIN_S,
        )
        assert device is not None
        assert device.address == "C0:26:DA:0A:0B:0C"


async def test_a_second_scan_of_one_program_is_refused(bluetooth: str) -> None:
    async with simulated_home(bluetooth), BleakScanner():
        with pytest.raises(BleakDBusError, match="InProgress"):
            await BleakScanner().start()


async def test_discovery_can_be_in_progress_for_a_while(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        home.adapter.faults.start_discovery_in_progress = 1
        scanner = BleakScanner()
        with pytest.raises(BleakDBusError, match="InProgress"):
            await scanner.start()
        await scanner.start()
        await scanner.stop()


async def test_a_device_that_falls_silent_vanishes(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        device = home.add(replace(model_of(CUFF), advertises_s=0.1))
        device.take(typical(CUFF))
        async with BleakScanner() as scanner:
            async with asyncio.timeout(WITHIN_S):
                async for _heard in scanner.advertisement_data():
                    break
                while scanner.discovered_devices:  # noqa: ASYNC110 - bleak tells of it in no other way
                    await asyncio.sleep(0.05)


async def test_a_device_that_was_connected_stays_known_and_wakes_quietly(bluetooth: str) -> None:
    """BlueZ tells of it only when its signal changes by 8 dBm, unless a filter asks for signals."""
    async with simulated_home(bluetooth) as home:
        device = home.add(model_of(CUFF))
        device.take(typical(CUFF))
        subscription, ending = Subscription(), Ending()
        async with BleakClient(await heard(), ending) as client:
            await subscription.subscribe(client, CUFF.gatt[0])
            await ending.wait()
        times_heard = 0

        def count(_device: BLEDevice, _advertisement: AdvertisementData) -> None:
            nonlocal times_heard
            times_heard += 1

        async with BleakScanner(count, bluez={"filters": {"RSSI": -127}}) as scanner:
            device.take(typical(CUFF))
            async with asyncio.timeout(WITHIN_S):
                while times_heard < 3:  # noqa: ASYNC110 - the callback counts
                    await asyncio.sleep(0.01)
            assert ADDRESS in {known.address for known in scanner.discovered_devices}
