"""The days of all homes, one home after the other: devices used, hubs met, batches sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from numpy.random import Generator, default_rng

from firmware_sim.device import SimulatedDevice
from firmware_sim.journal import Event
from firmware_sim.month import (
    BEGINS_AT,
    GUEST,
    Household,
    NewBattery,
    Resend,
    Use,
    happenings,
    month_facts,
)
from firmware_sim.physiology import Body
from gateway.cli.month.hub import MonthHub
from gateway.cli.month.world import World, WorldJournal
from gateway.vitals import BY_NAME
from ingest.batches import Message

_LUCK = 14
"""What a random stream is for: delays, links that break, which of two hubs comes first."""
_DAY = timedelta(days=1)
_HEARD_LATER = timedelta(milliseconds=700)
"""An advertisement reaches a second hub with another of its repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """A hub that gives way to another; `last` is what it still had to send."""

    household: Household
    old: str
    new: str
    last: list[Message]


class House:
    """One household with its devices and the hubs that are there now."""

    def __init__(self, household: Household, world: World) -> None:
        home = household.home
        zone = household.zone_at(BEGINS_AT)
        offset = BEGINS_AT.astimezone(zone).utcoffset() or timedelta(0)
        self.household = household
        self.devices = [
            SimulatedDevice(
                described.model,
                BY_NAME[described.model.sign],
                described.address,
                journal=WorldJournal(world),
                utc_offset=offset,
                now=world.now,
            )
            for described in home.devices
        ]
        self.numbers = [world.add(device) for device in self.devices]
        first, second, _replacement = household.hubs
        names = [first, second] if household.has_second_hub else [first]
        self.hubs = [MonthHub(name, 1, world, zone) for name in names]
        self.is_replaced = False


class Street:
    """All houses. `live` lets a day pass in one of them."""

    def __init__(self, households: Sequence[Household], world: World) -> None:
        self._world = world
        self.houses = [House(household, world) for household in households]
        self._bodies: dict[int, Body] = {
            person: body for household in households for person, body in household.bodies.items()
        }

    def replace_hubs(self, day: int) -> list[Replaced]:
        """Replace the hubs whose time has come; the old ones send what they still hold."""
        now = BEGINS_AT + day * _DAY
        replaced = []
        for house in self.houses:
            at = house.household.replaced_at
            if at is None or house.is_replaced or at > now:
                continue
            house.is_replaced = True
            old, new = house.hubs[0], house.household.hubs[-1]
            zone = house.household.zone_at(now)
            house.hubs[0] = MonthHub(new, 2, self._world, zone)
            replaced.append(
                Replaced(household=house.household, old=old.name, new=new, last=old.send(now))
            )
        return replaced

    async def live(self, house: House, day: int) -> None:
        """Let a day pass in one home."""
        household = house.household
        luck = default_rng([household.home.seed, household.home.index, _LUCK, day])
        for happening in happenings(household, day):
            self._world.turn_to(happening.at)
            device = house.devices[happening.device]
            match happening:
                case NewBattery():
                    device.replace_battery()
                    continue
                case Resend():
                    device.resend()
                case Use():
                    self._use(house, device, happening, luck)
            await self._meet_hub(house, happening.device, luck)

    def send(self, house: House, day: int) -> list[Message]:
        """Return what a home's hubs send at the end of a day; nothing while they cannot."""
        now = BEGINS_AT + (day + 1) * _DAY
        if any(stretch.holds(now) for stretch in house.household.offline):
            return []
        return [message for hub in house.hubs for message in hub.send(now)]

    def send_all(self, day: int) -> list[Message]:
        """Return what is left everywhere, once everything is online again."""
        now = BEGINS_AT + (day + 1) * _DAY
        return [m for house in self.houses for hub in house.hubs for m in hub.send(now)]

    def _use(self, house: House, device: SimulatedDevice, use: Use, luck: Generator) -> None:
        household = house.household
        body = household.guest if use.person == GUEST else self._bodies[use.person]
        local = use.at.astimezone(household.zone_at(use.at))
        values = body.measure(device.sign, device.model.unit_set, local, luck)
        record = device.take(values, person=use.person, slot=use.slot)
        self._world.note_taken(device, record)

    async def _meet_hub(self, house: House, place: int, luck: Generator) -> None:
        """Let a device that has something to say meet a hub, if one is there."""
        device = house.devices[place]
        faults = month_facts().faults
        delay_s, break_luck, hub_luck = luck.uniform(*faults.delay_s), luck.random(), luck.random()
        is_often = device.model.per_day > faults.often_per_day
        if is_often and len(device.memory) < faults.syncs_every:
            return
        there = self._where_it_is(house, place)
        hubs = [] if self._is_off(there) else there.hubs
        for hub in hubs:
            hub.zone = there.household.zone_at(self._world.now())
        if device.sign.advertised:
            await self._advertise(device, hubs)
        elif hubs and len(device.memory):
            self._world.pass_time(timedelta(seconds=delay_s))
            # Without a time-stamp a record that is sent twice would pass for two.
            breaks = break_luck < faults.link_breaks and device.model.clock.time_stamps
            await hubs[int(hub_luck * len(hubs))].talk(device, breaks=breaks)

    async def _advertise(self, device: SimulatedDevice, hubs: Sequence[MonthHub]) -> None:
        """Let every hub hear the device's readings; nobody knows of those that none hears."""
        (source,) = device.sign.advertised
        for record in device.memory:
            payload = device.payload(record, source)
            for hub in hubs:
                self._world.pass_time(_HEARD_LATER)
                self._world.note_reception(device, record)
                await hub.hear(device, record, payload)
            if hubs:
                device.delivered(record, Event.CONFIRMED)
            else:
                device.memory.release(record.number)

    def _where_it_is(self, house: House, place: int) -> House:
        for lent in house.household.lent:
            if lent.device == place and lent.slot is None and lent.during.holds(self._world.now()):
                return self.houses[house.household.home.index ^ 1]
        return house

    def _is_off(self, house: House) -> bool:
        return any(stretch.holds(self._world.now()) for stretch in house.household.off)
