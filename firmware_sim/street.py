"""A street of homes behind the simulated BlueZ: an adapter and an air for each home."""

from __future__ import annotations

from asyncio import TaskGroup
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from firmware_sim.air import Air
from firmware_sim.bluez.adapter import Adapter
from firmware_sim.bluez.service import Bluez, run_bluez
from firmware_sim.device import SimulatedDevice
from firmware_sim.homes import Home
from firmware_sim.journal import Journal
from firmware_sim.radios import RadioOf, radio_of
from firmware_sim.scenario import Life, Pace
from gateway.vitals import BY_NAME

_ADAPTERS = 0x02_00_5E << 24
"""The adapters' public addresses: locally administered, counting up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """One home that is lived in."""

    home: Home
    adapter: Adapter
    air: Air
    radios: tuple[RadioOf, ...]


@asynccontextmanager
async def run_street(
    homes: Sequence[Home],
    *,
    bus_address: str,
    journal: Journal,
    pace: Pace,
    wait_for_hubs: bool = False,
) -> AsyncIterator[tuple[House, ...]]:
    """Let `homes` live until the context ends; their adapters are hci0, hci1 and so on.

    `wait_for_hubs`: a home comes to life only when its hub listens for the first time, so that
    nothing is advertised that nobody could hear.
    """
    async with run_bluez(bus_address) as bluez, TaskGroup() as tasks:
        houses = [await _build(home, bluez, journal) for home in homes]
        living = [
            tasks.create_task(_live(house, pace, wait_for_hub=wait_for_hubs)) for house in houses
        ]
        try:
            yield tuple(houses)
        finally:
            for task in living:
                task.cancel()


async def _live(house: House, pace: Pace, *, wait_for_hub: bool) -> None:
    if wait_for_hub:
        await house.adapter.listened.wait()
    life = Life(house.home, [radio.device for radio in house.radios], pace)
    life.fill_memories()
    async with TaskGroup() as tasks:
        for radio in house.radios:
            tasks.create_task(radio.run())
        life.start(tasks)


async def _build(home: Home, bluez: Bluez, journal: Journal) -> House:
    air = Air(seed=home.index)
    address = (_ADAPTERS | home.index).to_bytes(6, "big").hex(":").upper()
    adapter = await bluez.add_adapter(air, address)
    utc_offset = datetime.now(ZoneInfo(home.zone)).utcoffset() or timedelta(0)
    devices = [
        SimulatedDevice(
            described.model,
            BY_NAME[described.model.sign],
            described.address,
            journal=journal,
            utc_offset=utc_offset,
            now=_now,
        )
        for described in home.devices
    ]
    radios = tuple(radio_of(device, air) for device in devices)
    return House(home=home, adapter=adapter, air=air, radios=radios)


def _now() -> datetime:
    return datetime.now(UTC)
