"""Every vector from outside decodes to its values; every damaged one is a located error or valid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DecodeError
from gateway.gatt.health_observation import read_elapsed_time
from gateway.gatt.numbers import FLOAT, SFLOAT, DecimalFormat, read_decimal
from gateway.gatt.payload import PayloadReader
from gateway.gatt.record_access import decode_response
from gateway.gatt.times import DeviceTime, decode_current_time, ms_since_epoch, read_date_time
from gateway.quantity import Absent
from gateway.vital_sign import GattSource, Reading
from gateway.vitals import (
    BY_NAME,
    SIGNS,
    blood_glucose,
    body_composition,
    heart_rate,
    pulse_oximetry,
)
from tests.vectors import PRIMITIVES, SIGN_VECTORS, WORDS, Vector

Decoded = dict[str, Any]

SPECIALS = {
    "NaN": Absent.NOT_A_NUMBER,
    "NRes": Absent.NOT_AT_THIS_RESOLUTION,
    "+INF": Absent.POSITIVE_INFINITY,
    "-INF": Absent.NEGATIVE_INFINITY,
    "reserved": Absent.RESERVED,
}
ELAPSED_EPOCH_MS = ms_since_epoch(datetime(2000, 1, 1, tzinfo=UTC))
CALENDAR = ("year", "month", "day", "hour", "minute", "second")


def decode_sign(vector: Vector) -> Decoded:
    """Decode by the first source of the sign that reads the payload; else raise what it says.

    Where a sign has several formats, the vector says which it is.
    """
    sign = BY_NAME[vector.sign]
    error: DecodeError | None = None
    for source in sign.sources:
        if vector.format and source not in of_format(vector):
            continue
        try:
            words = in_the_sources_words(vector.sign, source.decode(vector.payload))
            return words | RECORDS.get(vector.format, _nothing_more)(vector.payload)
        except DecodeError as refused:
            error = error or refused
    assert error is not None
    raise error


def of_format(vector: Vector) -> list[GattSource]:
    sources = BY_NAME[vector.sign].gatt
    return [each for each in sources if each.characteristic == int(vector.format, 16)]


def in_the_sources_words(sign: str, reading: Reading) -> Decoded:
    words = WORDS[sign]
    names = [quantity.name for quantity in BY_NAME[sign].quantities]
    return {
        **{theirs: reading.values[names.index(ours)] for theirs, ours in words.values.items()},
        "unit": words.units[reading.unit_set] if words.units else None,
        "user_id": reading.user_slot,
        "status": reading.status,
        "type": reading.status,
        "timestamp": calendar(reading.device_time),
    }


def _nothing_more(_payload: bytes) -> Decoded:
    return {}


def decode_heart_rate(payload: bytes) -> Decoded:
    measured = heart_rate.read(payload)
    has_contact = {0b10: False, 0b11: True}.get(measured.contact)
    return {"contact": has_contact, "energy": measured.energy, "rr": list(measured.rr)}


def decode_glucose(payload: bytes) -> Decoded:
    measured = blood_glucose.read(payload)
    concentration = measured.concentration
    mg_dl = concentration * 100_000 if isinstance(concentration, Decimal) else concentration
    return {
        "sequence": measured.sequence,
        "timestamp": calendar(measured.time),
        "offset_min": measured.offset_min,
        "unit": "mol/L" if measured.in_moles else "kg/L",
        "concentration": concentration,
        "mg_dl": mg_dl,
        "type": measured.type,
        "location": measured.location,
    }


def decode_continuous(payload: bytes) -> Decoded:
    measured = pulse_oximetry.read_continuous(payload)
    pairs = {"": measured.normal, "_fast": measured.fast, "_slow": measured.slow}
    return {
        **{f"spo2{suffix}": pair[0] for suffix, pair in pairs.items()},
        **{f"pulse{suffix}": pair[1] for suffix, pair in pairs.items()},
        "status": measured.status,
        "device": measured.sensor_status,
        "pai": measured.amplitude,
    }


def decode_composition(payload: bytes) -> Decoded:
    measured = body_composition.read(payload)
    return asdict(measured) | {"unit": "lb" if measured.imperial else "kg"}


RECORDS: dict[str, Callable[[bytes], Decoded]] = {
    "0x2A18": decode_glucose,
    "0x2A37": decode_heart_rate,
    "0x2A5F": decode_continuous,
    "0x2A9C": decode_composition,
}
"""Of the formats that say more than a reading keeps: all that they say."""


def decode_number(number: DecimalFormat) -> Callable[[bytes], Decoded]:
    def decode(payload: bytes) -> Decoded:
        reader = PayloadReader(payload)
        value = read_decimal(reader, number.name, number)
        reader.finish()
        return {"special": value} if isinstance(value, Absent) else {"value": value}

    return decode


def decode_date(payload: bytes) -> Decoded:
    reader = PayloadReader(payload)
    time = read_date_time(reader)
    reader.finish()
    return calendar(time)


def decode_clock(payload: bytes) -> Decoded:
    clock = calendar(decode_current_time(payload))
    return clock | {"dow": payload[7], "fractions256": payload[8], "reason": payload[9]}


def decode_elapsed(payload: bytes) -> Decoded:
    time = read_elapsed_time(PayloadReader(payload))
    return {
        "type": time.type.name,
        "seconds": (time.ms - ELAPSED_EPOCH_MS) // 1000,
        "ticks_ms": time.ms,
        "current": time.current,
        "synced": time.synced,
        "offset_min": time.utc_offset_min,
        "resolution_ms": time.resolution_ms,
    }


def decode_record_access(payload: bytes) -> Decoded:
    response = decode_response(payload)
    return {
        "opcode": payload[0],
        "request": response.request,
        "response": response.code,
        "count": response.records,
    }


def decode_features(payload: bytes) -> Decoded:
    """PLX Features (0x2A60): the payload reader alone."""
    reader = PayloadReader(payload)
    fields = (("features", 2), ("status_support", 2), ("device_support", 3))
    decoded = {name: reader.unsigned(name, size) for name, size in fields}
    reader.finish()
    return decoded


def calendar(time: DeviceTime | None) -> Decoded:
    if time is None:
        return {}
    moment = datetime.fromtimestamp(time.ms // 1000, UTC)
    return {field: getattr(moment, field) for field in CALENDAR}


PRIMITIVE_DECODERS: dict[str, Callable[[bytes], Decoded]] = {
    "SFLOAT": decode_number(SFLOAT),
    "FLOAT": decode_number(FLOAT),
    "0x2A08": decode_date,
    "0x2A2B": decode_clock,
    "0x2A52": decode_record_access,
    "0x2A60": decode_features,
    "ElapsedTime": decode_elapsed,
}
VECTORS = [*SIGN_VECTORS, *PRIMITIVES]


def decode(vector: Vector) -> Decoded:
    if vector.sign:
        return decode_sign(vector)
    return PRIMITIVE_DECODERS[vector.format](vector.payload)


def altered(vector: Vector, payload: bytes) -> Vector:
    return Vector(id=vector.id, payload=payload, expect={}, sign=vector.sign, format=vector.format)


def by_id(vectors: list[Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=[vector.id for vector in vectors])


def test_every_format_that_a_sign_reads_has_vectors_from_outside() -> None:
    """By the ids, which begin with the characteristic; and the rest is what all formats share."""
    read = {f"{source.characteristic:04x}" for sign in SIGNS for source in sign.gatt}
    of_formats = {vector.id[:4] for vector in SIGN_VECTORS}
    assert read - {"2bdd"} <= of_formats  # stored observations are the live ones with a number


@by_id([vector for vector in VECTORS if "error" not in vector.expect])
def test_vector_decodes_to_its_values(vector: Vector) -> None:
    decoded = decode(vector)
    for name, expected in vector.expect.items():
        assert same(decoded[name], expected), (name, decoded[name], expected)


@by_id([vector for vector in VECTORS if "error" in vector.expect])
def test_wrong_vector_is_refused_with_its_place(vector: Vector) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(vector)
    assert 0 <= caught.value.offset <= len(vector.payload)
    assert f"at byte {caught.value.offset}" in str(caught.value)


@by_id(VECTORS)
def test_every_truncation_is_a_located_error_or_a_valid_reading(vector: Vector) -> None:
    for length in range(len(vector.payload)):
        decode_or_locate(altered(vector, vector.payload[:length]))


@by_id([vector for vector in SIGN_VECTORS if "error" not in vector.expect])
def test_losing_the_last_byte_of_a_field_is_never_a_reading(vector: Vector) -> None:
    """No format here has an optional last byte: flags announce every field."""
    with pytest.raises(DecodeError):
        decode(altered(vector, vector.payload[:-1]))


@by_id(VECTORS)
@given(data=st.data())
def test_every_mutation_is_a_located_error_or_a_valid_reading(
    vector: Vector, data: st.DataObject
) -> None:
    mutated = bytearray(vector.payload)
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(mutated) - 1))
        mutated[index] = data.draw(st.integers(0, 255))
    decode_or_locate(altered(vector, bytes(mutated)))


@given(vector=st.sampled_from(VECTORS), payload=st.binary(max_size=64))
def test_random_bytes_are_a_located_error_or_a_valid_reading(
    vector: Vector, payload: bytes
) -> None:
    decode_or_locate(altered(vector, payload))


def decode_or_locate(vector: Vector) -> None:
    try:
        decode(vector)
    except DecodeError as error:
        assert 0 <= error.offset <= len(vector.payload)  # noqa: PT017 - most are no payload


def same(actual: object, expected: object) -> bool:
    if isinstance(actual, Decimal):
        return actual == Decimal(str(expected))
    if isinstance(actual, Absent):
        return actual is SPECIALS[str(expected)]
    return actual == expected
