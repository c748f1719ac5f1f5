"""True time, and what really happened in it: the truth that the archive is held against."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from firmware_sim.device import SimulatedDevice
from firmware_sim.journal import Event, Journal
from firmware_sim.memory import Record
from gateway.gatt.times import DeviceTime, ms_since_epoch
from gateway.vital_sign import NO_USER_SLOT
from gateway.wire import NO_TIME

FATE_TAKEN, FATE_DELIVERED, FATE_OVERWRITTEN = 0, 1, 2


@dataclass(slots=True, kw_only=True)
class Truth:
    """Every reading that was ever taken, one entry each in every array.

    `device`: the number of `World.devices`. `slot`, `stamp_ms`: what the reading says of itself,
    NO_USER_SLOT and NO_TIME where it says nothing. `received_ms`: its first reception by a hub.
    """

    device: array[int] = field(default_factory=lambda: array("i"))
    person: array[int] = field(default_factory=lambda: array("i"))
    slot: array[int] = field(default_factory=lambda: array("h"))
    taken_ms: array[int] = field(default_factory=lambda: array("q"))
    stamp_ms: array[int] = field(default_factory=lambda: array("q"))
    received_ms: array[int] = field(default_factory=lambda: array("q"))
    fate: array[int] = field(default_factory=lambda: array("b"))

    def __len__(self) -> int:
        return len(self.device)


class World:
    """One clock for all homes, and one record of the truth."""

    def __init__(self, begins_at: datetime) -> None:
        self._now = begins_at
        self.truth = Truth()
        self.devices: list[SimulatedDevice] = []
        self._numbers: dict[str, int] = {}
        self._places: dict[tuple[int, int], int] = {}
        """Where the truth has the records that no hub has yet, by device and record number."""

    def now(self) -> datetime:
        """Return the true time."""
        return self._now

    def turn_to(self, moment: datetime) -> None:
        """Turn to a moment; another home's may have been later."""
        self._now = moment

    def pass_time(self, span: timedelta) -> None:
        """Let time pass."""
        self._now += span

    def add(self, device: SimulatedDevice) -> int:
        """Take a device into the record; return its number."""
        number = len(self.devices)
        self.devices.append(device)
        self._numbers[device.address] = number
        return number

    def note_taken(self, device: SimulatedDevice, record: Record) -> None:
        """Note a reading, just taken."""
        truth = self.truth
        number = self._numbers[device.address]
        shown = device.clock.device_time(record.stamp)
        slot = record.reading.user_slot
        self._places[number, record.number] = len(truth)
        truth.device.append(number)
        truth.person.append(record.person or 0)
        truth.slot.append(NO_USER_SLOT if slot is None else slot)
        truth.taken_ms.append(ms_since_epoch(record.taken_at))
        truth.stamp_ms.append(NO_TIME if shown is None else shown.ms)
        truth.received_ms.append(NO_TIME)
        truth.fate.append(FATE_TAKEN)

    def note_reception(self, device: SimulatedDevice, record: Record) -> None:
        """Note that a record is on its way to a hub, now."""
        place = self._places.get((self._numbers[device.address], record.number))
        if place is not None and self.truth.received_ms[place] == NO_TIME:
            self.truth.received_ms[place] = ms_since_epoch(self._now)

    def note_fate(self, address: str, record: Record, fate: int) -> None:
        """Note what became of a record on the device; it is told once."""
        place = self._places.pop((self._numbers[address], record.number), None)
        if place is not None:
            self.truth.fate[place] = fate


class WorldJournal(Journal):
    """Lets devices tell the world what becomes of their records."""

    def __init__(self, world: World) -> None:
        super().__init__(None)
        self._world = world

    def taken(
        self,
        device: str,
        sign: int,
        record: Record,
        *,
        device_time: DeviceTime | None,
        garbled: bool,
    ) -> None:
        """Say nothing: `World.note_taken` has it."""

    def note(self, event: Event, device: str, record: Record) -> None:
        """Note what became of a record."""
        if event is Event.OVERWRITTEN:
            self._world.note_fate(device, record, FATE_OVERWRITTEN)
        elif event is not Event.ADVERTISED:
            self._world.note_fate(device, record, FATE_DELIVERED)
