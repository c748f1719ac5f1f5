"""What the decoders of formats with more fields than a row count, place, and refuse."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from gateway.errors import DecodeError, EncodeError, Fault
from gateway.gatt.times import from_ms
from gateway.quantity import Absent
from gateway.vitals import (
    blood_glucose,
    body_composition,
    gatt_sources,
    heart_rate,
    pulse_oximetry,
)

# Glucose Service 1.0.1, table 3.1: flags, sequence 6, 2020-04-13 16:38:10, then what the flags say.
# The first is the capture 2a18-rnble-capture of tests/vectors/blood_glucose.json.
GLUCOSE = bytes.fromhex("030600e407040d10260a000078b0f1")
OFFSET_AT, KIND_AT = 10, 14


def glucose(*, offset: str = "0000", kind: str = "f1") -> bytes:
    return GLUCOSE[:OFFSET_AT] + bytes.fromhex(offset) + GLUCOSE[12:KIND_AT] + bytes.fromhex(kind)


@pytest.mark.parametrize(
    ("offset", "shown"), [("0000", "16:38:10"), ("5a00", "18:08:10"), ("a6ff", "15:08:10")]
)
def test_a_meters_time_is_the_one_that_it_shows_its_user(offset: str, shown: str) -> None:
    time = blood_glucose.decode(glucose(offset=offset)).device_time
    assert time is not None
    assert from_ms(time.ms).strftime("%H:%M:%S") == shown


def test_a_concentration_keeps_its_digits_in_the_unit_that_people_read() -> None:
    """120 mg/dL is 120 * 10^-5 kg/L on the air, 6.50 mmol/L is 650 * 10^-5 mol/L."""
    assert str(blood_glucose.decode(GLUCOSE).values[0]) == "120"
    moles = bytes.fromhex("060100ea0701010000008ab200")
    reading = blood_glucose.decode(moles)
    assert (str(reading.values[0]), reading.unit_set) == ("6.50", 0)


@pytest.mark.parametrize(
    ("kind", "type_", "beyond", "is_artefact"),
    [("f1", 1, 0, False), ("11", 1, 1, False), ("32", 2, 1, False), ("4a", 10, 0, True)],
)
def test_the_type_of_a_sample_is_a_status_and_its_place_is_counted(
    kind: str, type_: int, *, beyond: int, is_artefact: bool
) -> None:
    reading = blood_glucose.decode(glucose(kind=kind))
    assert (reading.status >> 12, reading.beyond) == (type_, beyond)
    artefacts = blood_glucose.SIGN.artefact_statuses
    assert any(reading.status & s.mask == s.value for s in artefacts) is is_artefact


@pytest.mark.parametrize(
    ("payload", "field", "offset"),
    [
        (glucose(offset="ff7f"), "Time Offset", OFFSET_AT),
        (glucose(offset="0080"), "Time Offset", OFFSET_AT),
        (glucose(kind="41"), "Type-Sample Location", KIND_AT),
        (b"\x0b" + GLUCOSE[1:] + b"\x00\x10", "Sensor Status Annunciation", 15),
        (
            bytes.fromhex("010600") + bytes.fromhex("0f270c1f173b3b") + b"\x01\x00",
            "Time Offset",
            OFFSET_AT,
        ),
    ],
    ids=[
        "overrun",
        "underrun",
        "control solution of blood",
        "reserved bits",
        "after the year 9999",
    ],
)
def test_glucose_that_cannot_be_believed_is_refused_at_its_field(
    payload: bytes, field: str, offset: int
) -> None:
    with pytest.raises(DecodeError) as refused:
        blood_glucose.decode(payload)
    assert (refused.value.fault, refused.value.field, refused.value.offset) == (
        Fault.INVALID, field, offset,
    )  # fmt: skip


def test_half_of_a_body_composition_waits_for_its_other_half() -> None:
    with pytest.raises(DecodeError) as refused:
        body_composition.decode(bytes.fromhex("00107800"))
    assert refused.value.fault is Fault.UNSUPPORTED


def test_a_body_composition_that_failed_says_so() -> None:
    reading = body_composition.decode(bytes.fromhex("0000ffff"))
    assert reading.values == (Absent.UNSUCCESSFUL, *[Absent.NOT_SENT] * 4)


def test_a_body_composition_in_pounds_is_of_the_second_unit_set() -> None:
    reading = body_composition.decode(bytes.fromhex("01040001f03c"))  # 25.6 %, 156.00 lb
    assert (reading.unit_set, reading.values[0]) == (1, Decimal("25.6"))
    assert str(reading.values[4]) == "156.00"


@pytest.mark.parametrize(
    ("characteristic", "payload", "beyond"),
    [
        (0x2A37, "1f0101320101000201ffff", 3),  # three RR-intervals
        (0x2A5F, "1fdef3caf3caf35af5d4f3b2f220010000007ae3", 4),  # the fast and the slow pair
        (0x2A9C, "c0015000e02e1027401f", 1),  # fat free mass
        (0x2A9C, "000e4600401fb036e803", 2),  # impedance and height
        (0x2A9C, "0c007800054006", 1),  # basal metabolism
        (0x2A9C, "00003200", 0),
    ],
)
def test_what_a_payload_says_beyond_its_sign_is_counted(
    characteristic: int, payload: str, beyond: int
) -> None:
    """Payloads of tests/vectors."""
    ((_sign, source),) = gatt_sources(characteristic)
    assert source.decode(bytes.fromhex(payload)).beyond == beyond


def test_formats_without_a_time_stamp_refuse_to_write_one() -> None:
    timed = blood_glucose.decode(GLUCOSE).device_time
    for decode, encode, payload in (
        (heart_rate.decode, heart_rate.encode, "0648"),
        (
            pulse_oximetry.decode_continuous,
            pulse_oximetry.encode_continuous,
            "0061004800",
        ),
    ):
        reading = decode(bytes.fromhex(payload))
        assert encode(reading) == bytes.fromhex(payload)
        with pytest.raises(EncodeError, match="no time-stamp"):
            encode(replace(reading, device_time=timed))
