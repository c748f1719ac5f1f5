"""Every kind of Observation that can occur, by two validators that nobody here wrote.

fhir.resources (R4B models) and fhirclient (R4 models): independent code, both from HL7's definitions.
Neither refuses any of HL7's own examples that these tests hold against it, so no error of theirs is
known to be false; what a third one says falsely stands in docs/fhir.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.device import Device
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.operationoutcome import OperationOutcome
from fhir.resources.R4B.patient import Patient
from fhir.resources.R4B.provenance import Provenance
from fhirclient.models import (  # type: ignore[import-untyped]  # it has no annotations
    auditevent,
    bundle,
    capabilitystatement,
    device,
    observation,
    operationoutcome,
    patient,
    provenance,
)
from fhirclient.models.fhirabstractbase import (  # type: ignore[import-untyped]
    FHIRValidationError,
)
from pydantic import ValidationError

from api.fhir.bundles import Entry, Link
from api.fhir.bundles import bundle as make_bundle
from api.fhir.capability import capability
from api.fhir.observations import SUMMARY, Wanted
from api.fhir.outcomes import Finding, Issue, outcome
from api.fhir.parts import PARTS, PARTS_OF, Kind
from api.fhir.resources import audit_event, hub
from api.fhir.resources import device as make_device
from api.fhir.resources import patient as make_patient
from api.fhir.resources import provenance as make_provenance
from api.fhir.store import AuditRecord, DeviceRecord, PatientRecord
from api.fhir.vocabulary import CATEGORY, LOINC, UCUM, VITAL_SIGN_PROFILES
from gateway.vital_sign import VitalSign
from gateway.vitals import SIGNS
from tests.observations import (
    MEASURED_AT,
    RESIDENT,
    a_row,
    made_of,
    resources_of,
    rows_of_every_kind,
)

EVERY_KIND = list(rows_of_every_kind())
FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.name)
def test_two_validators_accept_every_kind_of_observation(sign: VitalSign) -> None:
    kinds = 0
    for name, row in EVERY_KIND:
        if row[3] != sign.code:
            continue
        for made in made_of(row):
            try:
                Observation.model_validate_json(made.json)
                observation.Observation(json.loads(made.json))
            except (ValidationError, FHIRValidationError) as error:
                pytest.fail(f"{name}: {error}")
            kinds += 1
    assert kinds > 20


@pytest.mark.parametrize(
    "spoil",
    [
        lambda resource: resource.pop("status"),
        lambda resource: resource.update(effectiveDateTime="2026-11-20T12:00"),
        lambda resource: resource.update(effectivePeriod={"start": "2026-11-20"}),
        lambda resource: resource.update(issued="yesterday"),
        lambda resource: resource.update(colour="red"),
        lambda resource: resource.update(subject="Patient/1"),
    ],
)
def test_the_validators_do_refuse_what_is_wrong(spoil: Callable[[dict[str, Any]], object]) -> None:
    (resource,) = resources_of(a_row(SIGNS[1]))
    spoil(resource)
    refusals = 0
    for validate in (
        lambda: Observation.model_validate(resource),
        lambda: observation.Observation(resource),
    ):
        try:
            validate()
        except (ValidationError, FHIRValidationError):
            refusals += 1
    assert refusals


# The shape of an example that HL7 publishes: "Blood Pressure example with no mean" of the PHD guide
# 2.0.0 (two categories, two codings, the gateway in an extension), its figures and references.
HL7_PANEL: dict[str, Any] = {
    "resourceType": "Observation",
    "extension": [
        {
            "url": "http://hl7.org/fhir/StructureDefinition/observation-gatewayDevice",
            "valueReference": {"reference": "Device/phg-ecde3d4e58532d31.000000000000"},
        }
    ],
    "status": "final",
    "category": [
        {"coding": [{"system": CATEGORY, "code": "vital-signs"}]},
        {
            "coding": [
                {
                    "system": "http://hl7.org/fhir/uv/phd/CodeSystem/PhdObservationCategories",
                    "code": "phd",
                }
            ]
        },
    ],
    "code": {
        "coding": [
            {"system": "urn:iso:std:iso:11073:10101", "code": "150020"},
            {"system": LOINC, "code": "85354-9"},
        ]
    },
    "subject": {"reference": "Patient/patientExample-1"},
    "effectiveDateTime": "2018-11-11T11:38:15-05:00",
    "component": [
        {
            "code": {
                "coding": [
                    {"system": "urn:iso:std:iso:11073:10101", "code": mdc},
                    {"system": LOINC, "code": loinc},
                ]
            },
            "valueQuantity": {"value": value, "system": UCUM, "code": "mm[Hg]"},
        }
        for mdc, loinc, value in (("150021", "8480-6", 116), ("150022", "8462-4", 71))
    ],
}


def test_the_validators_accept_the_shape_of_hl7s_own_example() -> None:
    Observation.model_validate(HL7_PANEL)
    observation.Observation(HL7_PANEL)


def test_our_panel_has_what_hl7s_own_example_has() -> None:
    panel = resources_of(a_row(SIGNS[0]))[0]
    assert set(HL7_PANEL) <= set(panel)
    for name in ("code", "component"):
        for ours, theirs in zip(
            panel[name] if name == "component" else [panel],
            HL7_PANEL[name] if name == "component" else [HL7_PANEL],
            strict=False,
        ):
            codes = [sorted(c["code"] for c in one["code"]["coding"]) for one in (ours, theirs)]
            assert codes[0] == codes[1]
    assert panel["category"] == HL7_PANEL["category"]
    assert panel["component"][0]["valueQuantity"]["code"] == "mm[Hg]"


def test_vital_signs_follow_their_profile() -> None:
    """The rules of R4's vital signs profiles that a resource's own model does not hold."""
    for name, row in EVERY_KIND:
        for made, resource in zip(made_of(row), resources_of(row), strict=True):
            assert FHIR_ID.fullmatch(resource["id"])
            profile = made.part.profile
            if profile is None:
                continue
            assert {"system": CATEGORY, "code": "vital-signs"} in [
                coding for concept in resource["category"] for coding in concept["coding"]
            ], name
            assert resource["subject"]["reference"] == f"Patient/{RESIDENT}"
            loinc = [c["code"] for c in resource["code"]["coding"] if c["system"] == LOINC]
            assert VITAL_SIGN_PROFILES.get(next(iter(loinc), ""), "vitalsigns") == profile
            told = [resource, *resource.get("component", [])]
            values = [one for one in told if "valueQuantity" in one]
            reasons = [one for one in told if "dataAbsentReason" in one]
            assert not any(one in values for one in reasons)  # obs-6
            if made.part.kind is Kind.SINGLE:
                assert len(values) + len(reasons) == 1  # vs-2
            for one in values:
                assert one["valueQuantity"]["system"] == UCUM
            when = resource.get("effectiveDateTime") or resource["effectivePeriod"]["start"]
            assert re.search(r"T.*(Z|[+-]\d\d:\d\d)$", when)  # vs-1 and the zone


def test_ids_and_suffixes_never_change() -> None:
    assert {part.suffix for part in PARTS} <= {"p", "s", *"01234"}
    for parts in PARTS_OF.values():
        assert len({part.suffix for part in parts}) == len(parts)


def test_subsets_are_valid_and_say_so() -> None:
    for elements in (SUMMARY, frozenset(), frozenset({"value"}), frozenset({"dataAbsentReason"})):
        for _name, row in EVERY_KIND[:20]:
            for made in made_of(row, Wanted(parts=PARTS_OF, elements=elements)):
                resource = json.loads(made.json)
                Observation.model_validate(resource)
                assert resource["meta"]["tag"][0]["code"] == "SUBSETTED"


def test_all_other_resources_are_valid() -> None:
    made = made_of(a_row(SIGNS[0]))
    records = DeviceRecord(address="C0:26:DA:01:02:03", model="X1", created_at=MEASURED_AT)
    long = DeviceRecord(address="C0:26:DA:FF:FE:01:02:03", model=None, created_at=MEASURED_AT)
    act = AuditRecord(
        id=7, at=MEASURED_AT, actor="user:1", action="observation.read", reason="care",
        origin="127.0.0.1", detail={"refused": "outside"}, resident=RESIDENT,
    )  # fmt: skip
    refused = outcome(Finding(issue=Issue.INVALID, text="x", parameter="date"))
    for resource, first, second in (
        (
            make_patient(PatientRecord(id=RESIDENT, created_at=MEASURED_AT)),
            Patient,
            patient.Patient,
        ),
        (make_device(records), Device, device.Device),
        (make_device(long), Device, device.Device),
        (hub("00000000000000a1"), Device, device.Device),
        (make_provenance(made[0]), Provenance, provenance.Provenance),
        (audit_event(act), AuditEvent, auditevent.AuditEvent),
        (refused, OperationOutcome, operationoutcome.OperationOutcome),
        (
            capability("http://127.0.0.1/fhir"),
            CapabilityStatement,
            capabilitystatement.CapabilityStatement,
        ),
    ):
        plain = json.loads(json.dumps(resource))
        first.model_validate(plain)
        second(plain)


def test_a_page_is_a_valid_bundle() -> None:
    made = made_of(a_row(SIGNS[0]))
    entries = [Entry(url=f"http://127.0.0.1/fhir/Observation/{m.id}", json=m.json) for m in made]
    text = make_bundle(
        entries,
        links=[Link(relation="self", url="http://127.0.0.1/fhir/Observation")],
        total=len(made),
        now=MEASURED_AT,
    )
    Bundle.model_validate_json(text)
    bundle.Bundle(json.loads(text))
