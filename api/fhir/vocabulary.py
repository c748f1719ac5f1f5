"""The names that FHIR gives to things: code systems, extensions, profiles.

Facts of FHIR R4 (hl7.org/fhir/R4), HL7 Terminology (terminology.hl7.org) and the PHD guide.
"""

from __future__ import annotations

from types import MappingProxyType

from gateway.quantity import Absent
from gateway.vital_sign import MeasurementStatus

FHIR_VERSION = "4.0.1"
MEDIA_TYPE = "application/fhir+json"
NDJSON = "application/fhir+ndjson"

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
MDC = "urn:iso:std:iso:11073:10101"
SNOMED = "http://snomed.info/sct"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
PHD_CATEGORY = "http://hl7.org/fhir/uv/phd/CodeSystem/PhdObservationCategories"
PHD = "phd"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
MEASUREMENT_STATUS = "http://hl7.org/fhir/uv/pocd/CodeSystem/measurement-status"
ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
OBSERVATION_VALUE = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
BITS = "http://terminology.hl7.org/CodeSystem/ASN1ToHL7"
PHD_DEVICE_IDENTIFIERS = "http://terminology.hl7.org/CodeSystem/ContinuaDeviceIdentifiers"
PHD_IDENTIFIER = "http://hl7.org/fhir/uv/phd/StructureDefinition/PhdBaseObservation"
"""The system of the identifier by the PHD guide's recipe."""
BLUETOOTH_ADDRESS = "http://hl7.org/fhir/sid/eui-48/bluetooth"
EUI64 = "urn:oid:1.2.840.10004.1.1.1.0.0.1.0.0.1.2680"

GATEWAY_DEVICE = "http://hl7.org/fhir/StructureDefinition/observation-gatewayDevice"
TRANSLATION = "http://hl7.org/fhir/StructureDefinition/iso21090-PQ-translation"
"""The same physical quantity in another unit: here as the device sent it."""

OURS = "https://github.com/hearth-gateway/hearth/fhir"
TIME_QUALITY = f"{OURS}/StructureDefinition/time-quality"
"""On the effective time: how it came about (the names of `gateway.measurement.TimeQuality`)."""
USER_SLOT = f"{OURS}/StructureDefinition/user-slot"
"""On an Observation that comes in: which of a device's users was measured."""
QUANTITY = f"{OURS}/CodeSystem/quantity"
"""The code system of quantities that no other one has a code for: their names in the registry."""
RESIDENT_ID = f"{OURS}/sid/resident"
"""The system of a resident's opaque id."""
HUB_ID = f"{OURS}/sid/hub"

PROFILE = "http://hl7.org/fhir/StructureDefinition"
VITAL_SIGN_PROFILES = MappingProxyType(
    {
        "85354-9": "bp",
        "8867-4": "heartrate",
        "8310-5": "bodytemp",
        "29463-7": "bodyweight",
        "8302-2": "bodyheight",
        "39156-5": "bmi",
        "2708-6": "oxygensat",
        "9279-1": "resprate",
    }
)
"""By LOINC: the R4 vital signs profile whose code it is; any other is of the base profile."""
ALSO_CODED = MappingProxyType({"2708-6": ("59408-5",), "59408-5": ("2708-6",)})
"""LOINC codes that stand together: the R4 profile wants one, pulse oximeters the other."""

ABSENT_REASONS = MappingProxyType(
    {
        Absent.NOT_SENT: "unknown",
        Absent.NOT_A_NUMBER: "not-a-number",
        Absent.NOT_AT_THIS_RESOLUTION: "error",
        Absent.POSITIVE_INFINITY: "positive-infinity",
        Absent.NEGATIVE_INFINITY: "negative-infinity",
        Absent.RESERVED: "error",
        Absent.UNSUCCESSFUL: "error",
        Absent.UNKNOWN: "unknown",
    }
)
"""data-absent-reason; special numbers as in the PHD guide, "Special FLOAT and SFLOAT Values"."""

STATUS_OF = MappingProxyType(
    {
        MeasurementStatus.INVALID: "entered-in-error",
        MeasurementStatus.EARLY_ESTIMATE: "preliminary",
    }
)
"""Observation.status; what is not here is final. PHD guide, "Measurement Status", as all below."""
REASON_OF = MappingProxyType(
    {
        MeasurementStatus.INVALID: "error",
        MeasurementStatus.NOT_AVAILABLE: "not-performed",
    }
)
"""data-absent-reason that takes the value's place."""
INTERPRETATION_OF = MappingProxyType(
    {
        MeasurementStatus.QUESTIONABLE: "questionable",
        MeasurementStatus.CALIBRATING: "calibration-ongoing",
        MeasurementStatus.EARLY_ESTIMATE: "early-indication",
    }
)
NOTED = frozenset({MeasurementStatus.MANUALLY_ENTERED})
"""Conditions that are told in a note."""


def loinc_codes(code: str) -> tuple[str, ...]:
    """Return a LOINC code and those that stand beside it."""
    return (code, *ALSO_CODED.get(code, ()))
