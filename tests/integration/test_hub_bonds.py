"""Devices that want a bond: made when it is needed, renewed when it was lost, never forced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge.agent import AGENT_PATH
from edge.roster import Outcome
from gateway.hub_state import Trouble
from gateway.measurement import device_id
from gateway.vitals import BY_NAME
from tests.hub_agent import HURRY, hub_agent
from tests.simulated import bonding, model_of, simulated_home, typical

pytestmark = pytest.mark.integration

CUFF = BY_NAME["blood_pressure"]
IMPATIENT = replace(HURRY, central=replace(HURRY.central, connect_s_max=1.0))
"""A connection to a device that has lost its bond only times out."""


async def test_a_device_that_wants_a_bond_is_paired_and_read(
    bluetooth: str, tmp_path: Path
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(bonding(model_of(CUFF)))
        device.take(typical(CUFF))
        await hub.measurements(1)
        assert home.peripheral(device).bonded
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        device.take(typical(CUFF, more=1))
        await hub.measurements(2)


async def test_a_device_that_lost_its_bond_is_paired_again(bluetooth: str, tmp_path: Path) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path, IMPATIENT) as hub:
        device = home.add(bonding(model_of(CUFF)))
        device.take(typical(CUFF))
        await hub.measurements(1)
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        home.peripheral(device).forget_bonds()
        device.take(typical(CUFF, more=1))
        await hub.measurements(2)
        assert hub.counts.bonds_renewed == 1
        assert hub.counts.sessions[Outcome.BOND_LOST] == 1
        await hub.until(lambda: hub.troubles.devices == {device_id(device.address): None})
        assert home.peripheral(device).bonded


async def test_a_hub_tells_which_device_has_lost_its_bond_and_which_does_not_pair(
    bluetooth: str, tmp_path: Path
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path, IMPATIENT) as hub:
        device = home.add(bonding(model_of(CUFF)))
        who = device_id(device.address)
        device.take(typical(CUFF))
        await hub.measurements(1)
        await hub.until(lambda: hub.troubles.devices == {who: None})
        home.peripheral(device).forget_bonds()
        home.peripheral(device).pairs = False
        device.take(typical(CUFF, more=1))
        await hub.until(lambda: hub.troubles.devices == {who: Trouble.BOND_LOST})
        await hub.until(lambda: hub.troubles.devices == {who: Trouble.PAIRING_REFUSED})


async def test_the_agent_is_there_again_after_bluetoothd_has_started_anew(
    bluetooth: str, tmp_path: Path
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        await hub.until(lambda: hub.collector.is_scanning)
        await home.bluez.stop(crash=True)
        await hub.until(lambda: not hub.collector.is_scanning)
        await home.bluez.start()
        device = home.add(bonding(model_of(CUFF)))
        device.take(typical(CUFF))
        await hub.measurements(1)
        assert home.peripheral(device).bonded


async def test_a_device_that_begins_to_pair_itself_is_let(bluetooth: str, tmp_path: Path) -> None:
    model = replace(bonding(model_of(CUFF)), asks_for_security=True)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model)
        device.take(typical(CUFF))
        await hub.measurements(1)
        assert home.peripheral(device).bonded


def test_the_agent_has_a_path_of_its_own() -> None:
    assert AGENT_PATH.startswith("/hearth/")
