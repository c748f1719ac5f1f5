"""Stored measurements as the API's documents. Derived from the registry of signs alone.

What the numbers of the columns mean is the wire format's (gateway.wire) and the schema's comments.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import orjson

from api.cursor import encode_place
from api.documents import (
    AbsentValue,
    Attribution,
    ConvertedValue,
    LatestOfSign,
    MeasurementDocument,
    PresentValue,
)
from api.json_numbers import converted_number, number_as_sent, original_value
from api.measurement_rows import StoredMeasurement
from gateway.measurement import TimeQuality
from gateway.quantity import Absent, Quantity, Unit
from gateway.stored import (
    ABSENCE_BITS,
    ABSENCES_AT,
    EXPONENT_BITS,
    FLAG_ARTEFACT,
    FLAG_CLAIMED,
    FLAG_INFERRED,
    FLAG_UNUSUAL,
)
from gateway.vital_sign import NO_USER_SLOT, VitalSign
from gateway.vitals import BY_CODE
from gateway.wire import OFFSET_STEP_MIN


def measurement_document(stored: StoredMeasurement) -> MeasurementDocument:
    """Return what the API says of one measurement."""
    place = stored.place
    sign = BY_CODE[place.sign]
    received_at = place.measured_at + timedelta(seconds=stored.received_after_s)
    return MeasurementDocument(
        id=encode_place(place),
        sign=sign.name,
        device=stored.device,
        user_slot=None if place.user_slot == NO_USER_SLOT else place.user_slot,
        measured_at=_instant(place.measured_at, stored.utc_offset),
        received_at=_instant(received_at, None),
        stored_at=_instant(stored.stored_at, None),
        time_quality=TimeQuality(stored.time_quality).name.lower(),
        values={
            quantity.name: _value(stored, index, quantity, unit)
            for index, (quantity, unit) in enumerate(
                zip(sign.quantities, sign.unit_sets[stored.unit_set].units, strict=True)
            )
        },
        statuses=_statuses(sign, stored.status),
        artefact=bool(stored.flags & FLAG_ARTEFACT),
        unusual=bool(stored.flags & FLAG_UNUSUAL),
        attribution=attribution_of(stored.flags),
    )


def attribution_of(flags: int) -> Attribution:
    """Return how a measurement's resident was found."""
    if flags & FLAG_CLAIMED:
        return "confirmed"
    return "inferred" if flags & FLAG_INFERRED else "linked"


def latest_documents(rows: Sequence[StoredMeasurement]) -> dict[str, LatestOfSign]:
    """Return the latest of each sign by the sign's name, from what `Archive.latest` returns."""
    documents = {}
    for sign in BY_CODE.values():
        of_sign = [row for row in rows if row.place.sign == sign.code]
        if of_sign:
            newest = max(of_sign, key=lambda row: row.place)
            clean = next((row for row in of_sign if not row.flags & FLAG_ARTEFACT), None)
            documents[sign.name] = LatestOfSign(
                latest=measurement_document(newest),
                latest_without_artefact=None if clean is None else measurement_document(clean),
            )
    return documents


def _value(
    stored: StoredMeasurement, index: int, quantity: Quantity, unit: Unit
) -> PresentValue | ConvertedValue | AbsentValue:
    value = stored.values[index]
    if value is None:
        absence = stored.digits >> (ABSENCES_AT + ABSENCE_BITS * index) & 0xF
        return AbsentValue(absent=Absent(absence).name.lower())
    exponent = _signed_byte(stored.digits >> (EXPONENT_BITS * index) & 0xFF)
    if unit == quantity.unit:
        return PresentValue(value=orjson.Fragment(number_as_sent(value, exponent)), unit=unit.ucum)
    original = number_as_sent(original_value(value, unit), exponent)
    return ConvertedValue(
        value=orjson.Fragment(converted_number(value, unit, exponent)),
        unit=quantity.unit.ucum,
        original=PresentValue(value=orjson.Fragment(original), unit=unit.ucum),
    )


def _statuses(sign: VitalSign, status: int) -> list[str]:
    return [entry.name for entry in sign.statuses if status & entry.mask == entry.value]


def _instant(moment: datetime, utc_offset: int | None) -> str:
    """Return RFC 3339; Z where the local offset is not known (RFC 9557, 2)."""
    if utc_offset is None:
        utc = moment.astimezone(UTC).replace(tzinfo=None)
        return f"{utc.isoformat(timespec='milliseconds')}Z"
    zone = timezone(timedelta(minutes=OFFSET_STEP_MIN * utc_offset))
    return moment.astimezone(zone).isoformat(timespec="milliseconds")


def _signed_byte(byte: int) -> int:
    return byte - 0x100 if byte & 0x80 else byte
