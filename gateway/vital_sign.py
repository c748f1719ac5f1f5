"""One vital sign as a record of facts, with the sources its payloads come from.

Code outside `gateway.vitals` knows no sign by name: dtype, columns, plausibility, FHIR, the
simulated GATT service and the documentation table are all derived from these records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any

from gateway.gatt.times import DeviceTime
from gateway.quantity import Absent, Quantity, Text, Unit, Value

QUANTITIES_MAX = 5
"""A wire record (v1) has room for five values; a sign with more needs a second sign or wire v2."""
NO_USER_SLOT = 0xFF
"""User ID 0xFF means "unknown user" (Blood Pressure 1.1.1, 3.1; Weight Scale 1.0.1, 3.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSet:
    """The units that a device uses together, one for each quantity of its sign.

    `steps` are those in which a usual device counts, with the digits it sends ("0.050": a scale
    that shows 50 g and sends three decimals); the simulator rounds to them.
    """

    units: tuple[Unit, ...]
    steps: tuple[Decimal, ...]


def unit_set(*pairs: tuple[Unit, str]) -> UnitSet:
    """Return the unit set of these (unit, step) pairs, in the order of the sign's quantities."""
    return UnitSet(
        units=tuple(unit for unit, _step in pairs),
        steps=tuple(Decimal(step) for _unit, step in pairs),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one payload says, nothing added.

    `values` stand in the order of the sign's `quantities`, each in the unit that the sign's
    `unit_sets[unit_set]` gives it. `status` is the device's status field as sent. `beyond`: how many
    values the payload says that the sign has no quantity for; the hub counts them.
    """

    values: tuple[Value, ...]
    unit_set: int = 0
    device_time: DeviceTime | None = None
    user_slot: int | None = None
    status: int = 0
    beyond: int = 0


class MeasurementStatus(Enum):
    """The conditions of a measurement that IEEE 11073-10206 (Measurement Status) tells apart."""

    INVALID = "invalid"
    QUESTIONABLE = "questionable"
    NOT_AVAILABLE = "not_available"
    CALIBRATING = "calibrating"
    TEST_DATA = "test_data"
    EARLY_ESTIMATE = "early_estimate"
    MANUALLY_ENTERED = "manually_entered"


class Category(Enum):
    """Under which heading a chart shows a sign: codes of HL7's observation-category."""

    VITAL_SIGNS = "vital-signs"
    ACTIVITY = "activity"
    LABORATORY = "laboratory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One thing that a status field can say: `status & mask == value`."""

    mask: int
    value: int
    name: str
    title: Text
    artefact: bool = False
    """The reading is stored and shown, flagged, and left out of averages."""
    meaning: MeasurementStatus | None = None
    """The general condition that it stands for."""
    body_site: str | None = None
    """Where it says that the sensor was: a SNOMED CT body structure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFieldRule:
    """A relation between a sign's quantities that no true measurement breaks.

    `broken` gets the quantities by name, each a float64 array in the canonical unit with NaN where
    absent, and returns a boolean array; a comparison with NaN is False, so absence breaks no rule.
    """

    name: str
    says: Text
    broken: Callable[[Mapping[str, Any]], Any]


class Framing(Enum):
    """How a characteristic's values make payloads (gateway.gatt.health_observation)."""

    WHOLE = "whole"
    """Each value is one payload."""
    SEGMENTS = "segments"
    """A payload comes in segments, each with a header byte."""
    STORED_SEGMENTS = "stored_segments"
    """The same with a record number in front, sent on request (Record Access Control Point)."""
    STORED = "stored"
    """Each value is one payload, a stored record that is sent on request."""

    @property
    def is_stored(self) -> bool:
        """Whether records are sent on request only."""
        return self in (Framing.STORED, Framing.STORED_SEGMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class GattSource:
    """A characteristic that notifies or indicates one reading a payload.

    `decode` and `encode` are of whole payloads, without segment headers and record number.
    `recognises` tells whether a payload is of this sign, for characteristics that carry several.
    `tells_time`: whether its payloads can carry a time-stamp.
    """

    title: str
    service: int
    characteristic: int
    decode: Callable[[bytes], Reading]
    encode: Callable[[Reading], bytes]
    framing: Framing = Framing.WHOLE
    tells_time: bool = True
    recognises: Callable[[bytes], bool] = field(default=lambda _payload: True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvertisedSource:
    """Service data of an advertisement that carries one reading; else as a `GattSource`."""

    title: str
    service_data: int
    decode: Callable[[bytes], Reading]
    encode: Callable[[Reading], bytes]
    tells_time: bool = True
    recognises: Callable[[bytes], bool] = field(default=lambda _payload: True)


@dataclass(frozen=True, slots=True, kw_only=True)
class VitalSign:
    """One panel of quantities and how its payloads decode and encode.

    `code` is the wire format's and the store's number for the sign: given once, never reused.
    `unit_sets` lists what a device may choose between, the canonical units first. `user_slots`
    tells whether its payloads can say which user was measured.
    """

    code: int
    name: str
    title: Text
    quantities: tuple[Quantity, ...]
    unit_sets: tuple[UnitSet, ...]
    user_slots: bool = False
    gatt: tuple[GattSource, ...] = ()
    advertised: tuple[AdvertisedSource, ...] = ()
    loinc: str | None = None
    """The panel's code, where the sign is a panel."""
    mdc: int | None = None
    panel: tuple[Quantity, ...] = ()
    """The quantities that are one observation under the panel's code; each other is its own."""
    period: Quantity | None = None
    """The quantity that says how long the time was which a reading covers, in seconds."""
    category: Category = Category.VITAL_SIGNS
    rules: tuple[CrossFieldRule, ...] = ()
    statuses: tuple[Status, ...] = ()
    status_mdc: int | None = None
    """The status field's own code, where IEEE 11073 numbers its bits as observations."""
    broadcast_number: int = 0
    """A status bit: the bits below it number the broadcast, by which two hubs know it for the same."""

    def __post_init__(self) -> None:
        """Refuse a record that contradicts itself: a mistake of ours, found at import."""
        assert 1 <= len(self.quantities) <= QUANTITIES_MAX, self.name  # noqa: S101
        for unit_set in self.unit_sets:
            lengths = {len(unit_set.units), len(unit_set.steps), len(self.quantities)}
            assert len(lengths) == 1, self.name  # noqa: S101
        canonical = tuple(quantity.unit for quantity in self.quantities)
        assert self.unit_sets[0].units == canonical, self.name  # noqa: S101
        assert set(self.panel) <= set(self.quantities), self.name  # noqa: S101
        assert not self.panel or self.loinc or self.mdc, self.name  # noqa: S101

    @property
    def sources(self) -> tuple[GattSource | AdvertisedSource, ...]:
        """All ways by which the sign's payloads come."""
        return (*self.gatt, *self.advertised)

    @property
    def artefact_statuses(self) -> tuple[Status, ...]:
        """The statuses that keep a reading out of averages."""
        return tuple(status for status in self.statuses if status.artefact)

    def canonical(self, reading: Reading) -> tuple[float | Absent, ...]:
        """Return `reading`'s values in the canonical units, absences as they are."""
        units = self.unit_sets[reading.unit_set].units
        return tuple(
            value if isinstance(value, Absent) else unit.to_canonical(value)
            for value, unit in zip(reading.values, units, strict=True)
        )
