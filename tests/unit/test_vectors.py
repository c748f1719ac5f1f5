"""Every vector from outside decodes to its values; every damaged one is a located error or valid."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DecodeError
from gateway.gatt.health_observation import decode_observation, read_elapsed_time
from gateway.gatt.numbers import FLOAT, SFLOAT, DecimalFormat, read_decimal
from gateway.gatt.payload import PayloadReader
from gateway.gatt.times import DeviceTime, decode_current_time, ms_since_epoch, read_date_time
from gateway.quantity import Absent, Value
from gateway.vital_sign import Reading
from gateway.vitals import blood_pressure, body_temperature, body_weight, water_intake
from tests.vectors import VECTORS, Vector

Decoded = dict[str, Any]

SPECIALS = {
    "NaN": Absent.NOT_A_NUMBER,
    "NRes": Absent.NOT_AT_THIS_RESOLUTION,
    "+INF": Absent.POSITIVE_INFINITY,
    "-INF": Absent.NEGATIVE_INFINITY,
    "reserved": Absent.RESERVED,
}
ELAPSED_EPOCH = ms_since_epoch(datetime(2000, 1, 1, tzinfo=UTC))


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
    return calendar(decode_current_time(payload)) | {
        "dow": payload[7],
        "fractions256": payload[8],
        "reason": payload[9],
    }


def decode_elapsed(payload: bytes) -> Decoded:
    time = read_elapsed_time(PayloadReader(payload))
    decoded: Decoded = {
        "type": time.type.name,
        "seconds": (time.ms - ELAPSED_EPOCH) // 1000,
        "ticks_ms": time.ms,
        "current": time.current,
        "synced": time.synced,
        "offset_min": time.utc_offset_min,
        "resolution_ms": time.resolution_ms,
    }
    return decoded


def decode_sign(
    decode: Callable[[bytes], Reading], names: tuple[str, ...], units: tuple[str, ...]
) -> Callable[[bytes], Decoded]:
    def decode_reading(payload: bytes) -> Decoded:
        reading = decode(payload)
        decoded: Decoded = dict(zip(names, reading.values, strict=True))
        decoded |= {"unit": units[reading.unit_set], "user_id": reading.user_slot}
        decoded |= {"status": reading.status, "type": reading.status}
        decoded["timestamp"] = calendar(reading.device_time)
        return decoded

    return decode_reading


def decode_weight(payload: bytes) -> Decoded:
    decoded = decode_sign(body_weight.decode, ("weight", "bmi", "height"), ("kg", "lb"))(payload)
    if decoded["unit"] == "kg" and isinstance(decoded["height"], Decimal):
        decoded["height"] /= 100  # the vectors have metres as on the air, the canonical unit is cm
    return decoded


def calendar(time: DeviceTime | None) -> Decoded:
    if time is None:
        return {}
    moment = datetime.fromtimestamp(time.ms // 1000, UTC)
    fields = ("year", "month", "day", "hour", "minute", "second")
    return {field: getattr(moment, field) for field in fields}


DECODERS: dict[str, Callable[[bytes], Decoded]] = {
    "SFLOAT": decode_number(SFLOAT),
    "FLOAT": decode_number(FLOAT),
    "0x2A08": decode_date,
    "0x2A2B": decode_clock,
    "0x2A35": decode_sign(
        blood_pressure.decode, ("systolic", "diastolic", "map", "pulse"), ("mmHg", "kPa")
    ),
    "0x2A1C": decode_sign(body_temperature.decode, ("temperature",), ("C", "F")),
    "0x2A9D": decode_weight,
    "0x2B8B": lambda payload: {"observation": decode_observation(payload)},
    "BTHome": decode_sign(water_intake.decode, ("volume",), ("mL", "L")),
    "ElapsedTime": decode_elapsed,
}

IN_SCOPE = [vector for vector in VECTORS if vector.format in DECODERS]
REFUSED = [vector for vector in IN_SCOPE if "error" in vector.expect]
READ = [vector for vector in IN_SCOPE if "error" not in vector.expect]


def by_id(vectors: list[Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=[vector.id for vector in vectors])


@by_id(READ)
def test_vector_decodes_to_its_values(vector: Vector) -> None:
    decoded = DECODERS[vector.format](vector.payload)
    for name, expected in vector.expect.items():
        assert same(decoded[name], name, expected), (name, decoded[name], expected)


@by_id(REFUSED)
def test_wrong_vector_is_refused_with_its_place(vector: Vector) -> None:
    with pytest.raises(DecodeError) as caught:
        DECODERS[vector.format](vector.payload)
    assert 0 <= caught.value.offset <= len(vector.payload)
    assert f"at byte {caught.value.offset}" in str(caught.value)


@by_id(IN_SCOPE)
def test_every_truncation_is_a_located_error_or_a_valid_reading(vector: Vector) -> None:
    for length in range(len(vector.payload)):
        decode_or_locate(vector, vector.payload[:length])


@by_id(READ)
def test_losing_the_last_byte_of_a_field_is_never_a_reading(vector: Vector) -> None:
    """No format here has an optional last byte: flags announce every field."""
    with pytest.raises(DecodeError):
        DECODERS[vector.format](vector.payload[:-1])


@by_id(IN_SCOPE)
@given(data=st.data())
def test_every_mutation_is_a_located_error_or_a_valid_reading(
    vector: Vector, data: st.DataObject
) -> None:
    mutated = bytearray(vector.payload)
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(mutated) - 1))
        mutated[index] = data.draw(st.integers(0, 255))
    decode_or_locate(vector, bytes(mutated))


@given(vector=st.sampled_from(IN_SCOPE), payload=st.binary(max_size=64))
def test_random_bytes_are_a_located_error_or_a_valid_reading(
    vector: Vector, payload: bytes
) -> None:
    decode_or_locate(vector, payload)


def decode_or_locate(vector: Vector, payload: bytes) -> None:
    try:
        DECODERS[vector.format](payload)
    except DecodeError as error:
        assert 0 <= error.offset <= len(payload)  # noqa: PT017 - most mutations are wrong


def same(actual: object, name: str, expected: object) -> bool:
    if isinstance(actual, Decimal):
        return actual == Decimal(str(expected))
    if name == "special":
        return actual is SPECIALS[str(expected)]
    return actual == expected


def test_height_in_metres_is_kept_in_centimetres_without_rounding() -> None:
    """Vector 2a9d-user-bmi says 1.75 m; the canonical unit is cm, one decimal as sent."""
    vector = next(v for v in VECTORS if v.id == "2a9d-user-bmi")
    height: Value = body_weight.decode(vector.payload).values[2]
    assert str(height) == "175.0"
