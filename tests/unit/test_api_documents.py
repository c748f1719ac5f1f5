"""What the API says of a stored measurement: every digit, every absence, its own local time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from api.cursor import TOKEN_CHARS, Place, decode_place, encode_place
from api.json_numbers import converted_number, number_as_sent, original_value
from api.json_rows import latest_documents, measurement_document
from api.measurement_rows import StoredMeasurement
from gateway.measurement import TimeQuality
from gateway.quantity import Absent, Unit
from gateway.stored import FLAG_ARTEFACT
from gateway.vital_sign import NO_USER_SLOT
from gateway.vitals import BY_NAME, SIGNS
from gateway.vitals.units import CELSIUS, FAHRENHEIT, KPA, LB, LITRE_TO_ML, MMHG

MEASURED_AT = datetime(2026, 5, 1, 0, 30, tzinfo=UTC)
INT32_MAX = (1 << 31) - 1

places = st.builds(
    Place,
    measured_at=st.datetimes(timezones=st.just(UTC)),
    device_id=st.integers(0, INT32_MAX),
    user_slot=st.integers(0, 255),
    sign=st.integers(0, 255),
    identity_us=st.integers(-(1 << 62), 1 << 62),
)


def a_stored(
    sign: str,
    *values: float | None,
    exponents: Sequence[int] = (),
    absences: Sequence[Absent | None] = (),
) -> StoredMeasurement:
    """A row as the store keeps it; `exponents` and `absences` go by place."""
    digits = sum((exponent & 0xFF) << (8 * i) for i, exponent in enumerate(exponents))
    digits |= sum(a.value << (40 + 4 * i) for i, a in enumerate(absences) if a)
    return StoredMeasurement(
        place=Place(
            measured_at=MEASURED_AT,
            device_id=11,
            user_slot=NO_USER_SLOT,
            sign=BY_NAME[sign].code,
            identity_us=0,
        ),
        stored_at=MEASURED_AT.replace(second=9),
        received_after_s=2.5,
        utc_offset=32,
        time_quality=TimeQuality.MAPPED,
        unit_set=0,
        digits=digits,
        status=0,
        flags=0,
        values=values,
        device="C0:26:DA:01:02:03",
    )


def as_text(row: StoredMeasurement) -> str:
    return orjson.dumps(measurement_document(row)).decode()


def stored_value(mantissa: int, exponent: int, unit: Unit) -> float:
    """The canonical value, as ingest computes it from what the device sent."""
    power = 10.0 ** abs(exponent)
    return (mantissa / power if exponent < 0 else mantissa * power) * unit.scale + unit.offset


@given(st.integers(-INT32_MAX, INT32_MAX), st.integers(-60, 60))
def test_every_decimal_that_fits_the_wire_comes_back_with_its_digits(
    mantissa: int, exponent: int
) -> None:
    sent = Decimal(mantissa).scaleb(exponent)
    said = number_as_sent(stored_value(mantissa, exponent, MMHG), exponent).decode()
    assert Decimal(said).as_tuple() == sent.as_tuple() or (sent == 0 and Decimal(said) == 0)
    assert orjson.loads(said) == float(sent)


@pytest.mark.parametrize(
    "unit",
    {u.name: u for s in SIGNS for units in s.unit_sets for u in units.units}.values(),
    ids=lambda unit: unit.name,
)
@given(mantissa=st.integers(1, 99_999), exponent=st.integers(-3, 2))
def test_what_was_sent_in_any_unit_comes_back_in_it(
    unit: Unit, mantissa: int, exponent: int
) -> None:
    canonical = stored_value(mantissa, exponent, unit)
    said = number_as_sent(original_value(canonical, unit), exponent).decode()
    assert Decimal(said) == Decimal(mantissa).scaleb(exponent)


@pytest.mark.parametrize(
    ("mantissa", "exponent", "unit", "canonical"),
    [
        (986, -1, FAHRENHEIT, "37.00"),
        (160, -1, KPA, "120.0"),
        (1543, -1, LB, "69.99"),
        (15, -1, LITRE_TO_ML, "1500"),
        (366, -1, CELSIUS, "36.6"),
    ],
)
def test_a_converted_value_has_the_decimals_that_the_devices_step_has_there(
    mantissa: int, exponent: int, unit: Unit, canonical: str
) -> None:
    value = stored_value(mantissa, exponent, unit)
    assert converted_number(value, unit, exponent).decode() == canonical


@given(st.sampled_from([KPA, FAHRENHEIT, LB]), st.integers(100, 9_999), st.integers(-2, 0))
def test_neighbouring_steps_of_a_device_stay_apart_when_converted(
    unit: Unit, mantissa: int, exponent: int
) -> None:
    here, there = (
        converted_number(stored_value(m, exponent, unit), unit, exponent)
        for m in (mantissa, mantissa + 1)
    )
    assert here != there


def test_trailing_zeros_are_kept() -> None:
    assert '"value":36.60' in as_text(a_stored("body_temperature", 36.6, exponents=[-2]))


def test_a_value_sent_in_tens_says_no_more_digits_than_that() -> None:
    row = a_stored("water_intake", 250.0, exponents=[1])
    assert '"value":25e1' in as_text(row)
    assert orjson.loads(as_text(row))["values"]["water_intake_ml"]["value"] == 250


def test_a_value_sent_in_another_unit_is_given_in_both() -> None:
    row = replace(a_stored("body_temperature", 37.0, exponents=[-1]), unit_set=1)
    value = orjson.loads(as_text(row))["values"]["body_temperature_celsius"]
    assert value == {"value": 37.0, "unit": "Cel", "original": {"value": 98.6, "unit": "[degF]"}}


@pytest.mark.parametrize("absent", Absent)
def test_an_absent_value_says_why(absent: Absent) -> None:
    row = a_stored("body_temperature", None, absences=[absent])
    values = measurement_document(row).values
    assert orjson.loads(orjson.dumps(values)) == {
        "body_temperature_celsius": {"absent": absent.name.lower()}
    }


def test_every_quantity_of_the_sign_is_there_and_no_other() -> None:
    for sign in SIGNS:
        row = a_stored(sign.name, *(q.typical.mean for q in sign.quantities))
        assert list(measurement_document(row).values) == [q.name for q in sign.quantities]


def test_the_time_has_the_offset_of_where_it_was_measured() -> None:
    document = measurement_document(a_stored("body_temperature", 36.6))
    assert document.measured_at == "2026-05-01T08:30:00.000+08:00"
    assert document.received_at == "2026-05-01T00:30:02.500Z"
    assert document.stored_at == "2026-05-01T00:30:09.000Z"
    assert document.time_quality == "mapped"


def test_an_offset_that_is_unknown_becomes_z() -> None:
    document = measurement_document(replace(a_stored("body_temperature", 36.6), utc_offset=None))
    assert document.measured_at.endswith("Z")


def test_statuses_are_named_and_an_artefact_is_marked() -> None:
    # Blood Pressure Service 1.1.1, 3.1.1.7: bit 1 cuff too loose, bits 3-4 = 01 rate above range
    row = a_stored("blood_pressure", 128, 82, 97, 71)
    document = measurement_document(replace(row, status=0b01010, flags=FLAG_ARTEFACT))
    assert document.statuses == ["cuff_too_loose", "pulse_rate_above_range"]
    assert document.artefact


def test_a_slot_is_named_only_where_the_device_did() -> None:
    nobody = a_stored("body_temperature", 36.6)
    someone = replace(nobody, place=replace(nobody.place, user_slot=2))
    assert measurement_document(nobody).user_slot is None
    assert measurement_document(someone).user_slot == 2


def test_the_latest_without_artefact_stands_beside_a_latest_that_is_one() -> None:
    clean = a_stored("blood_pressure", 128, 82, 97, 71)
    later = replace(clean.place, measured_at=MEASURED_AT.replace(hour=9))
    artefact = replace(clean, place=later, flags=FLAG_ARTEFACT)
    latest = latest_documents([clean, artefact])["blood_pressure"]
    assert latest.latest.artefact
    assert orjson.dumps(latest.latest_without_artefact) == orjson.dumps(measurement_document(clean))
    alone = latest_documents([artefact])["blood_pressure"]
    assert alone.latest_without_artefact is None


@given(places)
def test_a_place_survives_as_a_token(place: Place) -> None:
    token = encode_place(place)
    assert decode_place(token) == place
    assert len(token) == TOKEN_CHARS
    assert token.isalnum()
    assert token == token.lower()


@given(st.text(max_size=50) | st.from_regex(r"[0-9a-fA-F ]{44}", fullmatch=True))
def test_a_token_that_was_not_given_out_is_refused(token: str) -> None:
    try:
        place = decode_place(token)
    except ValueError:
        return
    assert encode_place(place) == token


@given(places, places)
def test_different_places_have_different_tokens(one: Place, other: Place) -> None:
    assume(one != other)
    assert encode_place(one) != encode_place(other)
