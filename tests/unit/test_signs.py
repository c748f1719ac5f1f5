"""What holds for every sign in the registry, without knowing any by name."""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DecodeError
from gateway.quantity import Quantity
from gateway.vital_sign import AdvertisedSource, GattSource, Reading, VitalSign
from gateway.vitals import QUANTITIES, SIGNS

Source = GattSource | AdvertisedSource


SOURCES = [
    pytest.param(sign, source, id=f"{sign.name}-{source.title}")
    for sign in SIGNS
    for source in sign.sources
]
SHARED_CODES = {"8867-4", "29463-7", 188736}
"""Heart rate, whichever device counts it: a cuff (MDC 149546), an oximeter (MDC 149530), a strap (MDC
147842); body weight, from a scale or from one that also analyses (MDC 188736)."""


@pytest.mark.parametrize(("sign", "source"), SOURCES)
@given(data=st.data())
def test_what_decodes_encodes_to_a_payload_that_says_the_same(
    sign: VitalSign, source: Source, data: st.DataObject
) -> None:
    payload = source.encode(data.draw(readings(sign)))
    reading = source.decode(payload)
    assert exactly(source.decode(source.encode(reading))) == exactly(reading)


@pytest.mark.parametrize(("sign", "source"), SOURCES)
@given(data=st.data())
def test_a_reading_survives_the_air_digit_by_digit(
    sign: VitalSign, source: Source, data: st.DataObject
) -> None:
    reading = data.draw(readings(sign))
    decoded = source.decode(source.encode(reading))
    assert decoded.unit_set == reading.unit_set
    assert [str(v) for v in decoded.values] == [str(v) for v in reading.values]


@pytest.mark.parametrize(("sign", "source"), SOURCES)
@given(payload=st.binary(max_size=80))
def test_any_bytes_are_a_reading_or_a_located_error(
    sign: VitalSign, source: Source, payload: bytes
) -> None:
    try:
        reading = source.decode(payload)
    except DecodeError as error:
        assert 0 <= error.offset <= len(payload)  # noqa: PT017 - most bytes are no payload
    else:
        assert len(reading.values) == len(sign.quantities)
        assert 0 <= reading.unit_set < len(sign.unit_sets)


@pytest.mark.parametrize(("sign", "source"), SOURCES)
@given(payload=st.binary(max_size=80))
def test_recognising_a_payload_never_fails(sign: VitalSign, source: Source, payload: bytes) -> None:
    assert source.recognises(payload) in (True, False), sign.name


@pytest.mark.parametrize("system", ["loinc", "mdc", "name"])
def test_no_code_names_two_quantities(system: str) -> None:
    """MDC has one term for distance, in steps and in metres; its unit tells them apart."""
    codes = Counter(
        (getattr(q, system), q.unit.mdc if system == "mdc" else None)
        for q in QUANTITIES
        if getattr(q, system) is not None
    )
    doubled = {code for (code, _unit), count in codes.items() if count > 1}
    assert doubled <= SHARED_CODES


@pytest.mark.parametrize("quantity", QUANTITIES, ids=[q.name for q in QUANTITIES])
def test_every_range_has_a_source_and_holds_what_is_typical(quantity: Quantity) -> None:
    assert quantity.plausible.low < quantity.plausible.high
    assert len(quantity.plausible.source) > 10
    assert quantity.plausible.low <= quantity.typical.mean <= quantity.plausible.high
    assert quantity.title.zh
    assert quantity.title.en


@pytest.mark.parametrize(
    ("unit_name", "value", "canonical"),
    [
        ("kPa", "18.9", 141.8),  # 141.76 mmHg
        ("°F", "98.6", 37.0),
        ("lb", "157.00", 71.2),
        ("in", "68.0", 172.7),
        ("L", "0.250", 250.0),
    ],
)
def test_units_convert_by_their_factors(unit_name: str, value: str, canonical: float) -> None:
    unit = next(
        unit
        for sign in SIGNS
        for unit_set in sign.unit_sets
        for unit in unit_set.units
        if unit.name == unit_name
    )
    assert math.isclose(unit.to_canonical(Decimal(value)), canonical, abs_tol=0.05)


def exactly(reading: Reading) -> tuple[object, ...]:
    """Decimals compare by digits, not by value: 36.60 is not 36.6."""
    return (tuple(str(v) for v in reading.values), *(
        reading.unit_set, reading.device_time, reading.user_slot, reading.status,
    ))  # fmt: skip


@st.composite
def readings(draw: st.DrawFn, sign: VitalSign) -> Reading:
    """Draw readings with the digits that the sign's devices usually send."""
    unit_set = draw(st.integers(0, len(sign.unit_sets) - 1))
    return Reading(
        values=tuple(draw(st.integers(1, 1900)) * step for step in sign.unit_sets[unit_set].steps),
        unit_set=unit_set,
        user_slot=draw(st.none() | st.integers(0, 254)) if sign.user_slots else None,
    )
