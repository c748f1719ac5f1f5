"""Pairing as BlueZ does it: with an agent, lost on one side, and what an eager device loses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from bleak import BleakClient
from bleak.exc import BleakDBusError, BleakGATTProtocolError

from firmware_sim.device import SimulatedDevice
from firmware_sim.model import DeviceModel
from gateway.vitals import BY_NAME
from tests.fixtures.agent import Agent, registered_agent
from tests.simulated import (
    Ending,
    SimulatedHome,
    Subscription,
    bonding,
    heard,
    model_of,
    simulated_home,
    typical,
)

pytestmark = pytest.mark.integration

CUFF = BY_NAME["blood_pressure"]
SOURCE = CUFF.gatt[0]
LOST_BOND_S = 1.0
"""How long a test waits for a connection that never comes."""


@asynccontextmanager
async def home_with_agent(bus: str) -> AsyncIterator[tuple[SimulatedHome, Agent]]:
    async with simulated_home(bus) as home, registered_agent(bus) as agent:
        yield home, agent


async def pair_and_read(home: SimulatedHome, device: SimulatedDevice) -> list[bytes]:
    """Pair a device and take what it holds."""
    waiting = len(device.memory)
    subscription, ending = Subscription(), Ending()
    async with BleakClient(await heard(), ending, pair=True) as client:
        await subscription.subscribe(client, SOURCE)
        await ending.wait()
    assert len(subscription.values) == waiting
    assert home.peripheral(device).bonded
    return subscription.values


async def test_a_device_that_wants_a_bond_is_read_after_pairing(bluetooth: str) -> None:
    async with home_with_agent(bluetooth) as (home, _agent):
        device = home.add(bonding(model_of(CUFF)))
        device.take(typical(CUFF))
        await pair_and_read(home, device)


async def test_without_an_agent_pairing_fails(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        home.add(bonding(model_of(CUFF))).take(typical(CUFF))
        with pytest.raises(BleakDBusError) as failure:
            async with BleakClient(await heard(), pair=True):
                pass
        assert failure.value.dbus_error == "org.bluez.Error.AuthenticationFailed"


async def test_without_a_bond_the_readings_are_not_permitted(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        home.add(bonding(model_of(CUFF))).take(typical(CUFF))
        async with BleakClient(await heard()) as client:
            with pytest.raises((BleakDBusError, BleakGATTProtocolError), match="Not paired"):
                await Subscription().subscribe(client, SOURCE)


async def test_subscribing_pairs_when_the_agent_agrees(bluetooth: str) -> None:
    async with home_with_agent(bluetooth) as (home, agent):
        home.add(bonding(model_of(CUFF))).take(typical(CUFF))
        subscription = Subscription()
        async with BleakClient(await heard()) as client:
            await subscription.subscribe(client, SOURCE)
            await subscription.wait_for(1)
        assert agent.asked == 1


async def test_a_device_can_ask_for_security_itself(bluetooth: str) -> None:
    async with home_with_agent(bluetooth) as (home, agent):
        device = home.add(replace(bonding(model_of(CUFF)), asks_for_security=True))
        device.take(typical(CUFF))
        subscription = Subscription()
        async with BleakClient(await heard()) as client:
            await subscription.subscribe(client, SOURCE)
            await subscription.wait_for(1)
        assert agent.asked == 1


async def test_a_bonded_device_is_read_again_without_pairing(bluetooth: str) -> None:
    async with home_with_agent(bluetooth) as (home, agent):
        device = home.add(bonding(model_of(CUFF)))
        device.take(typical(CUFF))
        await pair_and_read(home, device)
        device.take(typical(CUFF))
        subscription = Subscription()
        async with BleakClient(await heard()) as client:
            await subscription.subscribe(client, SOURCE)
            await subscription.wait_for(1)
        assert agent.asked == 0


async def test_a_device_that_lost_its_bond_is_paired_again(bluetooth: str) -> None:
    async with home_with_agent(bluetooth) as (home, _agent):
        device = home.add(bonding(model_of(CUFF)))
        device.take(typical(CUFF))
        await pair_and_read(home, device)
        home.peripheral(device).forget_bonds()
        device.take(typical(CUFF))
        lost = BleakClient(await heard(), timeout=LOST_BOND_S)
        with pytest.raises(TimeoutError):
            await lost.connect()
        await lost.unpair()
        device.take(typical(CUFF))
        await pair_and_read(home, device)


async def test_what_an_eager_device_sends_before_the_subscription_is_lost(bluetooth: str) -> None:
    """The radio confirms it, so the device deletes it, but no application ever sees it."""
    async with home_with_agent(bluetooth) as (home, _agent):
        device = home.add(eager(model_of(CUFF)))
        device.take(typical(CUFF))
        await pair_and_read(home, device)
        device.take(typical(CUFF, more=1))
        subscription, ending = Subscription(), Ending()
        async with BleakClient(await heard(), ending) as client:
            await subscription.subscribe(client, SOURCE)
            await ending.wait()
        assert subscription.values == []
        assert len(device.memory) == 0


def eager(model: DeviceModel) -> DeviceModel:
    return replace(bonding(model), eager=True)
