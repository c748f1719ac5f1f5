"""One simulated device: takes readings, keeps them, tells them as payloads; no radio yet.

Derived from its sign's record in the registry and its `DeviceModel`; it knows no sign by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from firmware_sim.clock import DeviceClock
from firmware_sim.journal import Event, Journal
from firmware_sim.memory import Memory, Record
from firmware_sim.model import DeviceModel, Garble
from gateway.errors import EncodeError
from gateway.quantity import Absent, Value
from gateway.vital_sign import AdvertisedSource, GattSource, Reading, VitalSign

PADDED_BYTES = 20
"""What fits one packet at the smallest ATT_MTU, to which some devices pad."""

_FAILURES = (Absent.UNSUCCESSFUL, Absent.NOT_A_NUMBER, Absent.NOT_AT_THIS_RESOLUTION)


class SimulatedDevice:
    """A device of one home.

    `address` is its Bluetooth address in capital hexadecimal pairs; `now` gives true time.
    """

    def __init__(
        self,
        model: DeviceModel,
        sign: VitalSign,
        address: str,
        *,
        journal: Journal,
        utc_offset: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self.model = model
        self.sign = sign
        self.address = address
        self.now = now
        self.clock = DeviceClock.running(model.clock, now(), utc_offset)
        self.memory = Memory(model.memory, keeps=model.keeps)
        self.wake: Callable[[], None] = lambda: None
        """Called when there is something to send; the radio sets it."""
        self._journal = journal
        self._number = 0
        self._failed = failed_values(sign, model)

    def take(
        self,
        values: Sequence[Value],
        *,
        at: datetime | None = None,
        person: int | None = None,
        slot: int | None = None,
    ) -> Record:
        """Take a reading of `values`, in the units of the model's unit set, and want to send it.

        `at` is true time, now unless it was before the simulation began.
        """
        if _is_due(self._number, self.model.battery_lasts) and at is None:
            self.replace_battery()
        taken_at = at or self.now()
        self._number += 1
        record = Record(
            number=self._number,
            reading=self._reading(tuple(values), slot),
            stamp=self.clock.stamp(taken_at),
            taken_at=taken_at,
            person=person,
        )
        self._journal.taken(
            self.address,
            self.sign.code,
            record,
            device_time=self.clock.device_time(record.stamp),
            garbled=self.is_garbled(record),
        )
        lost = self.memory.add(record)
        if lost is not None:
            self._journal.note(Event.OVERWRITTEN, self.address, lost)
        self.wake()
        return record

    def resend(self) -> None:
        """Want to send the whole memory again, as devices do that trust no hub."""
        self.memory.resend()
        if len(self.memory):
            self.wake()

    def replace_battery(self) -> None:
        """Lose the clock."""
        self.clock.replace_battery(self.now())

    def payload(self, record: Record, source: GattSource | AdvertisedSource) -> bytes:
        """Return what is sent of `record`, its time told as the clock stands now."""
        device_time = self.clock.device_time(record.stamp) if source.tells_time else None
        payload = source.encode(dataclasses.replace(record.reading, device_time=device_time))
        return _garble(payload, self.model.garble) if self.is_garbled(record) else payload

    def is_garbled(self, record: Record) -> bool:
        """Tell whether the model breaks this record's payload."""
        if self.model.garble is Garble.NONE:
            return False
        return record.number % self.model.garbled_every == 0

    def advertised(self, record: Record) -> None:
        """Take note that `record` is on the air, whoever hears it."""
        self._journal.note(Event.ADVERTISED, self.address, record)

    def delivered(self, record: Record, event: Event) -> None:
        """Take note that the hub has `record`; `event` says by what the device knows."""
        self._journal.note(event, self.address, record)
        self.memory.release(record.number)

    def _reading(self, values: tuple[Value, ...], slot: int | None) -> Reading:
        model = self.model
        status = model.status
        names = (quantity.name for quantity in self.sign.quantities)
        sent: tuple[Value, ...] = tuple(
            Absent.NOT_SENT if name in model.omits else value
            for name, value in zip(names, values, strict=True)
        )
        if self._failed and _is_due(self._number, model.failed_every):
            sent = self._failed
        artefacts = self.sign.artefact_statuses
        if artefacts and _is_due(self._number, model.artefact_every):
            turn = self._number // model.artefact_every
            status |= artefacts[turn % len(artefacts)].value
        return Reading(
            values=sent,
            unit_set=model.unit_set,
            user_slot=slot if self.sign.user_slots and model.slots else None,
            status=status,
        )


def failed_values(sign: VitalSign, model: DeviceModel) -> tuple[Value, ...] | None:
    """Return how a failed measurement of this sign looks; None where its format has no way."""
    sources: list[GattSource | AdvertisedSource] = [*sign.gatt, *sign.advertised]
    count = len(sign.quantities)
    omitted = [quantity.name in model.omits for quantity in sign.quantities]
    for absent in _FAILURES:
        # Every quantity says so; or only the first does, and the others are not sent.
        for failed in ((absent,) * count, (absent, *(Absent.NOT_SENT,) * (count - 1))):
            values = tuple(
                Absent.NOT_SENT if omit else value
                for omit, value in zip(omitted, failed, strict=True)
            )
            if _encodes(sources[0], Reading(values=values, unit_set=model.unit_set)):
                return values
    return None


def _encodes(source: GattSource | AdvertisedSource, reading: Reading) -> bool:
    try:
        source.encode(reading)
    except EncodeError:
        return False
    return True


def _is_due(number: int, every: int) -> bool:
    return every > 0 and number > 0 and number % every == 0


def _garble(payload: bytes, garble: Garble) -> bytes:
    match garble:
        case Garble.PADDED:
            return payload.ljust(PADDED_BYTES, b"\0")
        case Garble.CUT:
            return payload[:-1]
        case Garble.NONE:
            return payload
