"""A small simulated home for tests: devices on the air of one adapter, behind a real message bus.

    async with simulated_home(bluetooth) as home:
        cuff = home.add(cuff_model())
        cuff.take(typical(cuff.sign))

`bluetooth` is the fixture of tests.fixtures.bluetooth; bleak finds the bus through it.
"""

from __future__ import annotations

import asyncio
from asyncio import TaskGroup
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice

from firmware_sim.air import Air
from firmware_sim.bluez.adapter import Adapter
from firmware_sim.bluez.behaviour import Behaviour
from firmware_sim.bluez.service import Bluez, run_bluez
from firmware_sim.device import SimulatedDevice
from firmware_sim.journal import Journal
from firmware_sim.model import DeviceModel
from firmware_sim.peripheral import Peripheral
from firmware_sim.radios import radio_of
from gateway.gatt.uuids import uuid128
from gateway.vital_sign import GattSource, VitalSign
from gateway.vitals import BY_NAME

ADAPTER = "00:00:5E:00:53:01"
ADDRESS = "C0:26:DA:01:02:03"
CHINA = timedelta(hours=8)
WITHIN_S = 10.0
"""Nothing here takes a second; a test that waits this long has failed."""
HURRY = Behaviour(disconnect_s=0.05, temporary_s=1.0, link_attempt_s=1.0)
"""A BlueZ that does not let tests wait for its seconds."""


class SimulatedHome:
    """One home: its air, its adapter, its devices."""

    def __init__(self, bluez: Bluez, air: Air, adapter: Adapter, tasks: TaskGroup) -> None:
        self.bluez = bluez
        self.air = air
        self.adapter = adapter
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []
        self._peripherals: dict[str, Peripheral] = {}

    def add(self, model: DeviceModel, address: str = ADDRESS) -> SimulatedDevice:
        """Put a device of this model on the air."""
        device = SimulatedDevice(
            model,
            BY_NAME[model.sign],
            address,
            journal=Journal(None),
            utc_offset=CHINA,
            now=lambda: datetime.now(UTC),
        )
        radio = radio_of(device, self.air)
        if isinstance(radio, Peripheral):
            self._peripherals[address] = radio
        self._running.append(self._tasks.create_task(radio.run()))
        return device

    def peripheral(self, device: SimulatedDevice) -> Peripheral:
        """Return the device's radio."""
        return self._peripherals[device.address]

    def stop(self) -> None:
        """Take all devices off the air."""
        for task in self._running:
            task.cancel()


@asynccontextmanager
async def simulated_home(
    bus_address: str, behaviour: Behaviour = HURRY
) -> AsyncIterator[SimulatedHome]:
    """Run a home with one adapter and no devices yet."""
    async with run_bluez(bus_address, behaviour) as bluez, TaskGroup() as tasks:
        air = Air(seed=1)
        home = SimulatedHome(bluez, air, await bluez.add_adapter(air, ADAPTER), tasks)
        try:
            yield home
        finally:
            home.stop()


def model_of(sign: VitalSign) -> DeviceModel:
    """Return a plain device of a sign that does not let tests wait."""
    return DeviceModel(
        name="simulated",
        sign=sign.name,
        advertising_interval_ms=20.0,
        idle_s=0.1,
        repeats_s=0.2,
    )


def bonding(model: DeviceModel) -> DeviceModel:
    """Return the same model, but it must be paired."""
    return replace(model, bonds=True)


def typical(sign: VitalSign, *, more: int = 0) -> tuple[Decimal, ...]:
    """Return everyday values in the sign's first unit set; `more` steps tell readings apart."""
    return tuple(
        (Decimal(quantity.typical.mean) // step + more) * step
        for quantity, step in zip(sign.quantities, sign.unit_sets[0].steps, strict=True)
    )


async def heard(address: str = ADDRESS) -> BLEDevice:
    """Return the device once bleak hears it."""
    device = await BleakScanner.find_device_by_address(address, timeout=WITHIN_S)
    assert device is not None
    return device


async def all_heard(addresses: list[str]) -> list[BLEDevice]:
    """Return the devices once bleak has heard them all, in one scan: BlueZ allows no second."""
    found: dict[str, BLEDevice] = {}
    async with asyncio.timeout(WITHIN_S), BleakScanner() as scanner:
        async for device, _advertisement in scanner.advertisement_data():
            found[device.address] = device
            if set(addresses) <= set(found):
                break
    return [found[address] for address in addresses]


class Subscription:
    """What a characteristic sends."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self._came = asyncio.Event()

    async def subscribe(self, client: BleakClient, source: GattSource) -> None:
        """Ask for the characteristic's values."""
        await client.start_notify(uuid128(source.characteristic), self._on_value)

    async def wait_for(self, count: int) -> list[bytes]:
        """Return the values once there are `count`."""
        async with asyncio.timeout(WITHIN_S):
            while len(self.values) < count:
                self._came.clear()
                await self._came.wait()
        return self.values

    def _on_value(self, _characteristic: object, value: bytearray) -> None:
        self.values.append(bytes(value))
        self._came.set()


class Ending:
    """Notices that a connection has ended: give it to BleakClient as its callback."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    def __call__(self, _client: BleakClient) -> None:
        """Take note."""
        self._ended.set()

    async def wait(self) -> None:
        """Return when it has ended."""
        async with asyncio.timeout(WITHIN_S):
            await self._ended.wait()
