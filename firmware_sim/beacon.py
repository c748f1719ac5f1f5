"""The radio of a simulated device that only advertises: each reading repeated for some seconds."""

from __future__ import annotations

import asyncio

from bumble import hci

from firmware_sim.advertising import reading_data
from firmware_sim.air import Air
from firmware_sim.device import SimulatedDevice
from firmware_sim.memory import Record


class Beacon:
    """A device that nobody can connect to. `run` it; it costs nothing while it is silent."""

    def __init__(self, device: SimulatedDevice, air: Air) -> None:
        self.device = device
        self._air = air
        kind = (
            hci.Address.PUBLIC_DEVICE_ADDRESS
            if device.model.public_address
            else hci.Address.RANDOM_DEVICE_ADDRESS
        )
        self._address = hci.Address(device.address, kind)
        self._wanted = asyncio.Event()
        device.wake = self._wanted.set

    async def run(self) -> None:
        """Live until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while (record := self.device.memory.oldest()) is not None:
                await self._repeat(record)
                self.device.memory.release(record.number)

    async def _repeat(self, record: Record) -> None:
        model = self.device.model
        data = reading_data(self.device, record)
        self.device.advertised(record)
        for _event in range(max(1, round(model.repeats_s * 1000 / model.advertising_interval_ms))):
            self._air.advertise(self._address, data, connectable=False)
            await asyncio.sleep(model.advertising_interval_ms / 1000)
