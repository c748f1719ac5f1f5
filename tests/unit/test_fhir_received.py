"""Observations that come in: the way back of what goes out, and what is refused with its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from api.fhir.observations import Row
from api.fhir.outcomes import OutcomeError
from api.fhir.received import Made, Received, measurements, read_json, receive
from api.fhir.vocabulary import PHD_IDENTIFIER, USER_SLOT
from gateway.gatt.times import TimeType, ms_since_epoch
from gateway.measurement import TimeQuality
from gateway.quantity import Absent
from gateway.vital_sign import MeasurementStatus, Status
from gateway.vitals import BY_CODE, BY_NAME
from tests.observations import MEASURED_AT, made_of, rows_of_every_kind

LATER = MEASURED_AT + timedelta(minutes=1)
LOST = {
    MeasurementStatus.INVALID,
    MeasurementStatus.NOT_AVAILABLE,
    MeasurementStatus.MANUALLY_ENTERED,
}
"""What goes out with them says less than what came in: no value, or a note."""


def taken(*documents: dict[str, Any]) -> list[Made]:
    return measurements([received(document) for document in documents], LATER)


def received(document: dict[str, Any]) -> Received:
    return receive(read_json(json.dumps(document).encode()))


def quantity(value: object, unit: str) -> dict[str, Any]:
    return {"value": value, "system": "http://unitsofmeasure.org", "code": unit}


def coded(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://loinc.org", "code": code}]}


def a_panel(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """A blood pressure as a usual gateway sends it; None takes an element away."""
    good = {
        "resourceType": "Observation",
        "status": "final",
        "code": coded("85354-9"),
        "effectiveDateTime": "2026-11-20T12:00:00+08:00",
        "device": {"reference": "Device/C026DA010203"},
        "component": [
            {"code": coded("8480-6"), "valueQuantity": quantity(128, "mm[Hg]")},
            {"code": coded("8462-4"), "valueQuantity": quantity(82, "mm[Hg]")},
        ],
    }
    return {name: value for name, value in (good | changed).items() if value is not None}


def a_pulse(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    pulse = {"code": coded("8867-4"), "valueQuantity": quantity(71, "/min"), "component": None}
    return a_panel(**(pulse | changed))


LOINC_PULSE = {"system": "http://loinc.org", "code": "8867-4"}


def a_mdc(code: str) -> dict[str, str]:
    return {"system": "urn:iso:std:iso:11073:10101", "code": code}


def refusal(*documents: dict[str, Any]) -> str:
    """The place that is named."""
    with pytest.raises(OutcomeError) as refused:
        taken(*documents)
    return refused.value.finding.parameter or ""


def rows_that_say_all() -> Iterator[tuple[str, Row]]:
    """Those of which something goes out, and all that came in."""
    for name, row in rows_of_every_kind():
        sign = BY_CODE[row[3]]
        said = statuses_of(row)
        noted = any(not (s.meaning or s.body_site or sign.status_mdc) for s in said)
        if made_of(row) and not noted and not {status.meaning for status in said} & LOST:
            yield name, row


def statuses_of(row: Row) -> list[Status]:
    return [s for s in BY_CODE[row[3]].statuses if row[11] & s.mask == s.value]


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in rows_that_say_all()])
def test_what_goes_out_comes_in_as_the_same_measurement(row: Row) -> None:
    sign = BY_CODE[row[3]]
    resources = [read_json(made.json) for made in made_of(row)]
    (made,) = measurements([receive(resource) for resource in resources], LATER)
    measurement = made.measurement
    assert len(made.members) == len(resources)
    assert (measurement.sign, measurement.device) == (sign.code, 0xC026DA010203)
    assert measurement.measured_at == MEASURED_AT
    if row[7] is not None:
        assert measurement.utc_offset_min == row[7] * 15
    assert measurement.reading.unit_set == row[9] or sign.unit_sets[row[9]].units == (
        sign.unit_sets[measurement.reading.unit_set].units
    )
    bits = 0
    for status in statuses_of(row):
        bits |= status.value
    assert measurement.reading.status == bits
    told = [made_again(measurement.reading.values[i], row, i) for i in range(len(sign.quantities))]
    assert all(told), measurement.reading.values


def made_again(value: object, row: Row, place: int) -> bool:
    absence = row[10] >> (40 + 4 * place) & 0xF
    if absence:
        return isinstance(value, Absent)
    exponent = row[10] >> (8 * place) & 0xFF
    exponent -= 0x100 if exponent & 0x80 else 0
    return isinstance(value, Decimal) and int(value.as_tuple().exponent) == min(exponent, 0)


def test_a_panel_and_the_pulse_beside_it_are_one_reading() -> None:
    (made,) = taken(a_panel(), a_pulse())
    assert made.measurement.sign == BY_NAME["blood_pressure"].code
    assert made.measurement.reading.values == (
        Decimal(128), Decimal(82), Absent.NOT_SENT, Decimal(71),
    )  # fmt: skip
    assert made.measurement.utc_offset_min == 480
    assert made.measurement.time_quality is TimeQuality.MAPPED
    assert [member.part.suffix for member in made.members] == ["p", "3"]


def test_a_pulse_within_the_panel_is_taken_too() -> None:
    document = a_panel()
    document["component"].append(
        {"code": coded("8867-4"), "valueQuantity": quantity(71, "{beats}/min")}
    )
    (made,) = taken(document)
    assert made.measurement.reading.values[3] == Decimal(71)


def test_digits_come_in_as_they_are_written() -> None:
    body = json.dumps(
        a_panel(code=coded("8310-5"), component=None, valueQuantity=quantity(0, "Cel"))
    )
    document = read_json(body.replace('"value": 0', '"value": 36.60').encode())
    (made,) = measurements([receive(document)], LATER)
    assert str(made.measurement.reading.values[0]) == "36.60"


def test_the_recipes_identifier_tells_the_devices_own_time() -> None:
    value = "C026DA010203-a-patient-of-theirs-150020-848318400"
    (made,) = taken(a_panel(identifier=[{"system": PHD_IDENTIFIER, "value": value}], device=None))
    told = made.measurement.reading.device_time
    assert told is not None
    assert told.type is TimeType.LOCAL
    assert told.ms == ms_since_epoch(datetime(2026, 11, 18, 12, 0, tzinfo=UTC))
    assert told.resolution_ms == 1000


@pytest.mark.parametrize(
    ("after_the_type", "ms", "resolution_ms", "offset_min"),
    [
        ("848318400-150588", 0, 1000, None),
        ("848318400.567-150588-150600", 567, 1, None),
        ("848318400.567+32..1.000", 567, 1, 480),
        ("848318400+32..1.000-150588", 0, 1000, 480),
        ("20261118120000.00-150588", 0, 10, None),
        ("20261118120000", 0, 1000, None),
    ],
)
def test_the_recipe_may_tell_more_than_the_time(
    after_the_type: str, ms: int, resolution_ms: int, offset_min: int | None
) -> None:
    """The guide's own example: 74E8FFFEFF051C00-sisansarahId-...-149530-20181113175903.00-150588."""
    value = f"C026DA010203-sisansarahId-urn:oid:2.999.1.2-150020-150020-{after_the_type}"
    (made,) = taken(a_panel(identifier=[{"system": PHD_IDENTIFIER, "value": value}], device=None))
    told = made.measurement.reading.device_time
    assert told is not None
    assert told.ms == ms_since_epoch(datetime(2026, 11, 18, 12, 0, tzinfo=UTC)) + ms
    assert (told.resolution_ms, told.utc_offset_min) == (resolution_ms, offset_min)


@pytest.mark.parametrize(
    "value",
    [
        "C026DA010203-p-150020",
        "C026DA010203-p-150021-848318400",
        "C026DA010203-150020-848318400",
        "C026DA010203-p-150020-848318400-x",
        "C026DA010203-p-150020-20261318120000",
        "C026DA010203-p-" + "150020-848318400-" * 4_000,
    ],
)
def test_what_is_not_by_the_recipe_is_refused(value: str) -> None:
    with pytest.raises(OutcomeError):
        receive(a_panel(identifier=[{"system": PHD_IDENTIFIER, "value": value}], device=None))


def test_an_mdc_code_tells_what_loinc_leaves_open() -> None:
    for mdc, name in (("149546", "blood_pressure"), ("149530", "pulse_oximetry")):
        (made,) = taken(a_pulse(code={"coding": [LOINC_PULSE, a_mdc(mdc)]}))
        assert made.measurement.sign == BY_NAME[name].code


def test_a_code_that_a_sign_leads_with_is_that_sign() -> None:
    weight = a_pulse(code=coded("29463-7"), valueQuantity=quantity(70, "kg"))
    (made,) = taken(weight)
    assert made.measurement.sign == BY_NAME["body_weight"].code


def test_a_user_slot_is_told_by_our_extension() -> None:
    (made,) = taken(a_panel(extension=[{"url": USER_SLOT, "valueUnsignedInt": 2}]))
    assert made.measurement.reading.user_slot == 2


@pytest.mark.parametrize("slot", ["1E999999", "255", "-1", "1.5", '"1"', "true"])
def test_no_other_number_is_a_user_slot(slot: str) -> None:
    document = json.dumps(a_panel(extension=[{"url": USER_SLOT, "valueUnsignedInt": 77}]))
    with pytest.raises(OutcomeError):
        receive(read_json(document.replace("77", slot).encode()))


def test_the_devices_own_word_of_its_offset_comes_first() -> None:
    value = "C026DA010203-p-150020-848318400+36"
    (made,) = taken(a_panel(identifier=[{"system": PHD_IDENTIFIER, "value": value}]))
    assert made.measurement.utc_offset_min == 540
    told = made.measurement.reading.device_time
    assert told is not None
    assert (told.type, told.utc_offset_min) == (TimeType.UTC, 540)


@pytest.mark.parametrize(
    ("spoilt", "place"),
    [
        (a_panel(status="entered-in-error"), "Observation.status"),
        (a_panel(status="preliminary"), "Observation.status"),
        (a_panel(code=coded("1234-5")), "Observation.code"),
        (a_panel(device=None), "Observation.device"),
        (a_panel(device={"reference": "Device/1"}), "Observation.device.reference"),
        (a_panel(effectiveDateTime="2026-11-20"), "Observation.effectiveDateTime"),
        (a_panel(effectiveDateTime="2026-11-20T12:00:00"), "Observation.effectiveDateTime"),
        (a_panel(effectiveDateTime="2026-02-30T12:00:00Z"), "Observation.effectiveDateTime"),
        (a_panel(effectiveDateTime="2026-11-20T12:00:00.0001Z"), "Observation.effectiveDateTime"),
        (a_panel(component=[]), "Observation.component"),
        (a_panel(modifierExtension=[{"url": "x"}]), "Observation.modifierExtension"),
        (
            a_panel(identifier=[{"system": PHD_IDENTIFIER, "value": "rubbish"}]),
            "Observation.identifier",
        ),
        (
            a_panel(
                identifier=[{"system": PHD_IDENTIFIER, "value": "C026DA0F0F0F-p-150020-848318400"}]
            ),
            "Observation.identifier",
        ),
        (
            a_panel(component=[{"code": coded("8480-6"), "valueQuantity": quantity(128, "kg")}]),
            "Observation.valueQuantity.code",
        ),
        (
            a_panel(
                component=[{"code": coded("8480-6"), "valueQuantity": quantity("128", "mm[Hg]")}]
            ),
            "Observation.component[0].valueQuantity.value",
        ),
        (
            a_panel(
                component=[
                    {"code": coded("8480-6"), "valueQuantity": quantity(12345678901, "mm[Hg]")}
                ]
            ),
            "Observation.value",
        ),
        (
            a_panel(component=[{"code": coded("29463-7"), "valueQuantity": quantity(70, "kg")}]),
            "Observation.component[0]",
        ),
        (
            a_pulse(code={"coding": [LOINC_PULSE, a_mdc("149546"), a_mdc("149530")]}),
            "Observation.code",
        ),
        (
            a_panel(
                interpretation=[
                    {
                        "coding": [
                            {
                                "system": "http://hl7.org/fhir/uv/pocd/CodeSystem/measurement-status",
                                "code": "questionable",
                            }
                        ]
                    }
                ]
            ),
            "Observation.interpretation",
        ),
    ],
)
def test_what_cannot_be_kept_as_it_is_said_is_refused_with_its_place(
    spoilt: dict[str, Any], place: str
) -> None:
    assert refusal(spoilt) == place


def test_two_of_one_time_that_contradict_each_other_are_refused() -> None:
    other = a_panel(component=[{"code": coded("8480-6"), "valueQuantity": quantity(130, "mm[Hg]")}])
    assert refusal(a_panel(), other) == "Observation.value"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"value": NaN}', b'{"a":' * 50_000, b'{"value": 1%s}' % (b"0" * 5000)],
)
def test_what_is_no_resource_is_refused(body: bytes) -> None:
    with pytest.raises(OutcomeError):
        read_json(body)


@pytest.mark.parametrize("element", ["code", "effectiveDateTime", "device", "component", "status"])
@pytest.mark.parametrize("rubbish", [1, "x", [], [1], {}, True, [[{}]]])
def test_an_element_of_another_form_is_refused_and_crashes_nothing(
    element: str, rubbish: object
) -> None:
    with pytest.raises(OutcomeError):
        taken(a_panel(**{element: rubbish}))
