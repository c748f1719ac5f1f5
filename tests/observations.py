"""Stored rows of every kind that can occur, and the Observations that FHIR makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from api.fhir.observations import Made, Row, Wanted, observations
from api.fhir.parts import PARTS_OF
from gateway.gatt.times import TimeType
from gateway.measurement import TimeQuality
from gateway.quantity import Absent
from gateway.stored import ABSENCE_BITS, ABSENCES_AT, EXPONENT_BITS, FLAG_ARTEFACT
from gateway.vital_sign import VitalSign
from gateway.vitals import QUANTITIES, SIGNS
from gateway.wire import OFFSET_OF_DEVICE, RESOLUTION_SHIFT, RESOLUTIONS_MS

MEASURED_AT = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
RESIDENT = "3f0c8a52-7a0e-4d0d-9f6a-0d3f5f1b2c11"
EVERYTHING = Wanted(parts=PARTS_OF)


def a_row(  # noqa: PLR0913 - one argument a column that matters
    sign: VitalSign,
    values: Sequence[float | Absent] | None = None,
    *,
    unit_set: int = 0,
    status: int = 0,
    time_quality: TimeQuality = TimeQuality.MAPPED,
    utc_offset: int | None = 32,
    time_type: int = TimeType.LOCAL,
    resolution: int = 0,
    of_device: bool = False,
) -> Row:
    """A row of the store as FHIR reads it; by default with typical values."""
    if values is None:
        values = [quantity.typical.mean for quantity in sign.quantities]
    steps = [int(step.as_tuple().exponent) for step in sign.unit_sets[unit_set].steps]
    digits = 0
    for place, (value, exponent) in enumerate(zip(values, steps, strict=True)):
        if isinstance(value, Absent):
            digits |= value.value << (ABSENCES_AT + ABSENCE_BITS * place)
        else:
            digits |= (exponent & 0xFF) << (EXPONENT_BITS * place)
    columns: list[float | None] = [None] * len(QUANTITIES)
    first = QUANTITIES.index(sign.quantities[0])
    for place, value in enumerate(values):
        columns[first + place] = None if isinstance(value, Absent) else value
    artefact = any(status & s.mask == s.value for s in sign.artefact_statuses)
    flags = time_type | resolution << RESOLUTION_SHIFT | (OFFSET_OF_DEVICE if of_device else 0)
    return (
        MEASURED_AT, 11, 255, sign.code, 1_795_147_200_000_000, MEASURED_AT, 1.5, utc_offset,
        int(time_quality), unit_set, digits, status, FLAG_ARTEFACT if artefact else 0, flags,
        "00000000000000a1", "C0:26:DA:01:02:03", RESIDENT, *columns,
    )  # fmt: skip


def rows_of_every_kind() -> Iterator[tuple[str, Row]]:
    """Yield (what it shows, row): each sign, unit set, absence, status, time quality, clock."""
    for sign in SIGNS:
        for unit_set in range(len(sign.unit_sets)):
            yield f"{sign.name} unit set {unit_set}", a_row(sign, unit_set=unit_set)
        yield from _absences(sign)
        yield from _statuses(sign)
        yield from _times(sign)


def _absences(sign: VitalSign) -> Iterator[tuple[str, Row]]:
    typical = [quantity.typical.mean for quantity in sign.quantities]
    for absent in Absent:
        for place, quantity in enumerate(sign.quantities):
            values: list[float | Absent] = [*typical]
            values[place] = absent
            yield f"{quantity.name} {absent.name}", a_row(sign, values)
        if absent is not Absent.NOT_SENT:
            yield f"{sign.name} all {absent.name}", a_row(sign, [absent] * len(typical))


def _statuses(sign: VitalSign) -> Iterator[tuple[str, Row]]:
    every = 0
    for status in sign.statuses:
        every |= status.value
        yield f"{sign.name} {status.name}", a_row(sign, status=status.value)
    yield f"{sign.name} status {every:#x}", a_row(sign, status=every)


def _times(sign: VitalSign) -> Iterator[tuple[str, Row]]:
    for quality in TimeQuality:
        for offset in (None, -14, 0, 23, 32):
            yield (
                f"{sign.name} {quality.name} {offset}",
                a_row(sign, time_quality=quality, utc_offset=offset),
            )
    for time_type in (0, *TimeType):
        for resolution in range(len(RESOLUTIONS_MS)):
            yield (
                f"{sign.name} clock {time_type} {resolution}",
                a_row(sign, time_type=time_type, resolution=resolution, of_device=True),
            )


def made_of(row: Row, wanted: Wanted = EVERYTHING) -> list[Made]:
    """The Observations of a row."""
    return list(observations(row, wanted))


def resources_of(row: Row, wanted: Wanted = EVERYTHING) -> list[dict[str, Any]]:
    """The same as objects."""
    return [json.loads(made.json) for made in made_of(row, wanted)]
