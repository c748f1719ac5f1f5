"""What goes wrong around the hub: adapter, bluetoothd, discovery, disk. It waits and comes back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge import collector
from edge.hub_clock import FLOOR, HubClock
from edge.outbox import Limits
from edge.roster import Outcome
from edge.storage import RESERVE_ITEMS
from firmware_sim.bluez import names
from firmware_sim.clock import ClockModel, Setting
from gateway.measurement import TimeQuality, device_id
from gateway.vitals import BY_NAME
from tests.hub_agent import HURRY, HubAgent, hub_agent
from tests.simulated import model_of, simulated_home, typical

pytestmark = pytest.mark.integration

CUFF = BY_NAME["blood_pressure"]


async def test_an_adapter_that_is_unplugged_and_comes_back_is_used_again(
    bluetooth: str, tmp_path: Path
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model_of(CUFF))
        device.take(typical(CUFF))
        await hub.measurements(1)
        await home.bluez.unplug(home.adapter)
        await hub.until(lambda: not hub.collector.is_scanning)
        device.take(typical(CUFF, more=1))
        home.bluez.plug_in(home.adapter)
        await hub.measurements(2)
        assert hub.counts.adapter_losses == 1


async def test_an_adapter_that_comes_late_is_waited_for(bluetooth: str, tmp_path: Path) -> None:
    async with simulated_home(bluetooth) as home:
        await home.bluez.unplug(home.adapter)
        async with hub_agent(tmp_path) as hub:
            home.add(model_of(CUFF)).take(typical(CUFF))
            home.bluez.plug_in(home.adapter)
            await hub.measurements(1)


@pytest.mark.parametrize("crash", [False, True])
async def test_bluetoothd_that_ends_in_a_session_costs_no_reading(
    bluetooth: str, tmp_path: Path, *, crash: bool
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(replace(model_of(CUFF), idle_s=30.0))
        device.take(typical(CUFF))
        await hub.measurements(1)
        assert home.peripheral(device).connected
        await home.bluez.stop(crash=crash)
        await hub.until(lambda: sum(hub.counts.sessions.values()) == 1)
        await home.bluez.start()
        device.take(typical(CUFF, more=1))
        await hub.measurements(2)


async def test_a_scan_that_is_refused_is_tried_again(bluetooth: str, tmp_path: Path) -> None:
    async with simulated_home(bluetooth) as home:
        home.adapter.faults.start_discovery_in_progress = 2
        async with hub_agent(tmp_path) as hub:
            home.add(model_of(CUFF)).take(typical(CUFF))
            await hub.measurements(1)


async def test_discovery_that_is_announced_before_its_results_is_read_again(
    bluetooth: str, tmp_path: Path
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        home.adapter.faults.services_before_objects = 1
        home.add(model_of(CUFF)).take(typical(CUFF))
        await hub.measurements(1)
        assert hub.counts.discoveries_repeated > 0
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)


@pytest.mark.parametrize("error", [names.CONNECTION_ABORTED, "le-connection-timeout"])
async def test_a_connection_that_fails_is_made_again(
    bluetooth: str, tmp_path: Path, error: str
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        home.adapter.faults.connect_errors.extend([error, error])
        home.add(model_of(CUFF)).take(typical(CUFF))
        await hub.measurements(1)


async def test_a_passive_scan_hears_the_same(bluetooth: str, tmp_path: Path) -> None:
    passive = replace(HURRY, central=replace(HURRY.central, is_passive=True))
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path, passive) as hub:
        home.add(model_of(CUFF)).take(typical(CUFF))
        bottle = BY_NAME["water_intake"]
        home.add(model_of(bottle), "C0:26:DA:01:02:04").take(typical(bottle))
        measurements = await hub.measurements(2)
    assert {m.sign for m in measurements} == {CUFF.code, bottle.code}


async def test_devices_are_left_alone_while_the_outbox_is_full(
    bluetooth: str, tmp_path: Path
) -> None:
    limits = Limits(capacity=RESERVE_ITEMS - 1)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path, limits=limits) as hub:
        await hub.until(lambda: hub.collector.is_scanning)
        device = home.add(replace(model_of(CUFF), advertises_s=1.0))
        device.take(typical(CUFF))
        await hub.until(lambda: hub.counts.repeats == 0 and not home.peripheral(device).connected)
        assert len(device.memory) == 1
    assert hub.counts.sessions[Outcome.TAKEN] == 0


async def test_devices_are_left_alone_while_the_disk_is_full(
    bluetooth: str, tmp_path: Path
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(replace(model_of(CUFF), memory=1000))
        device.take(typical(CUFF))
        await hub.measurements(1)
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        await fill_disk(hub)
        for more in range(500):
            device.take(typical(CUFF, more=more % 40))
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 2)
        assert hub.storage.refusal is not None
        left_alone = len(device.memory)
        await hub.until(lambda: hub.counts.storage_failures > 1)
        assert len(device.memory) == left_alone > 0
        await free_disk(hub)
        await hub.measurements(501)
    assert hub.counts.lost == 0


async def test_what_a_hub_reads_before_it_knows_the_time_is_placed_once_it_does(
    bluetooth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut, without a battery-backed clock and before the network is there."""
    monkeypatch.setattr(collector, "CLOCK_CHECK_S", 0.02)
    synchronised = asyncio.Event()
    years = timedelta(days=3000)
    clock = HubClock(
        synchronised.is_set,
        wall=lambda: datetime.now(UTC) - (timedelta(0) if synchronised.is_set() else years),
    )
    async with simulated_home(bluetooth) as home:
        bottle, tracker = BY_NAME["water_intake"], BY_NAME["activity"]
        undated_bottle = replace(model_of(bottle), clock=ClockModel(time_stamps=False))
        beacon = home.add(undated_bottle, "C0:26:DA:01:02:04")
        wrong = replace(model_of(CUFF), clock=ClockModel(fast_s=-7200, setting=Setting.IGNORES))
        device = home.add(wrong)
        storing = home.add(model_of(tracker), "C0:26:DA:01:02:05")
        records = [each.take(typical(each.sign)) for each in (beacon, device, storing)]
        async with hub_agent(tmp_path, replace(HURRY, clock=clock)) as hub:
            await hub.until(lambda: hub.storage.undated == 5)  # three readings, two clocks
            assert hub.storage.depth.held == 0
            # The device is told to delete what is durable here.
            await hub.until(lambda: not len(storing.memory))
            assert hub.counts.clocks_set == 0
        async with hub_agent(tmp_path, replace(HURRY, clock=clock)) as hub:
            synchronised.set()
            measurements = await hub.measurements(3)
            assert hub.storage.undated == 0
    by_device = {measurement.device: measurement for measurement in measurements}
    for each, record in zip((beacon, device, storing), records, strict=True):
        measurement = by_device[device_id(each.address)]
        assert abs(measurement.measured_at - record.taken_at) <= timedelta(seconds=3)
        assert measurement.received_at > FLOOR
    assert by_device[device_id(device.address)].time_quality is TimeQuality.MAPPED


async def fill_disk(hub: HubAgent) -> None:
    """Let SQLite find the disk full: it may not take one page more (SQLITE_FULL)."""
    await pragma(hub, "max_page_count = 1")


async def free_disk(hub: HubAgent) -> None:
    await pragma(hub, "max_page_count = 1000000")


async def pragma(hub: HubAgent, setting: str) -> None:
    connection = hub.storage._file._connection
    await hub.storage._on_file(lambda: connection.execute(f"PRAGMA {setting}").fetchall())
