"""Patients, devices, hubs, provenance and audit events as FHIR resources; few of them, so trees."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from api.fhir.observations import Made
from api.fhir.store import AuditRecord, DeviceRecord, PatientRecord
from api.fhir.vocabulary import (
    BLUETOOTH_ADDRESS,
    EUI64,
    HUB_ID,
    MDC,
    PHD_DEVICE_IDENTIFIERS,
    RESIDENT_ID,
)

Resource = Mapping[str, Any]

_EUI48_PAIRS = 6
_PHD, _PHG = "65573", "531981"
"""Device.type by the PHD guide: MDC_MOC_VMS_MDS_SIMP, MDC_MOC_VMS_MDS_AHD."""
_PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_EVENT = "http://terminology.hl7.org/CodeSystem/audit-event-type"
HUB_PREFIX = "hub-"
"""Hubs and devices share the ids of Device."""
PROVENANCE_SUFFIX = "-v"
"""The id of an Observation's Provenance is the Observation's and this."""


def patient(record: PatientRecord) -> Resource:
    """Return a resident, known by an opaque id."""
    return {
        "resourceType": "Patient",
        "id": record.id,
        "meta": {"lastUpdated": instant(record.created_at)},
        "identifier": [{"system": RESIDENT_ID, "value": record.id}],
        "active": True,
    }


def device(record: DeviceRecord) -> Resource:
    """Return a device in the home, as the PHD guide has it."""
    pairs = record.address.split(":")
    bluetooth = len(pairs) == _EUI48_PAIRS
    return {
        "resourceType": "Device",
        "id": "".join(pairs),
        "meta": {"lastUpdated": instant(record.created_at)},
        "identifier": [
            {
                "type": _concept(PHD_DEVICE_IDENTIFIERS, "BTMAC" if bluetooth else "SYSID"),
                "system": BLUETOOTH_ADDRESS if bluetooth else EUI64,
                "value": "-".join(pairs),
            }
        ],
        "status": "active",
        **({} if record.model is None else {"modelNumber": record.model}),
        "type": _concept(MDC, _PHD, "家用健康设备 Personal health device"),
    }


def hub(name: str) -> Resource:
    """Return a hub: the gateway device of Observations."""
    return {
        "resourceType": "Device",
        "id": f"{HUB_PREFIX}{name}",
        "identifier": [{"system": HUB_ID, "value": name}],
        "type": _concept(MDC, _PHG, "家庭网关 Personal health gateway"),
    }


def provenance(made: Made) -> Resource:
    """Return how an Observation came to be: who measured it, which hub brought it, and when."""
    stored_at, received_at = made.row[5], made.row[0] + timedelta(seconds=made.row[6])
    return {
        "resourceType": "Provenance",
        "id": f"{made.id}{PROVENANCE_SUFFIX}",
        "target": [{"reference": f"Observation/{made.id}"}],
        "occurredDateTime": instant(received_at),
        "recorded": instant(stored_at),
        "activity": _concept("http://terminology.hl7.org/CodeSystem/v3-DataOperation", "CREATE"),
        "agent": [
            {
                "type": _concept(_PARTICIPANT, kind),
                "who": {"display": "未知 unknown"}
                if known is None
                else {"reference": f"Device/{known}"},
            }
            for kind, known in (
                ("performer", made.device and made.device.replace(":", "")),
                ("assembler", made.hub and f"{HUB_PREFIX}{made.hub}"),
            )
        ],
    }


def audit_event(record: AuditRecord) -> Resource:
    """Return one act upon a resident's data. RESTful or not, it is told as the archive noted it."""
    refused = "refused" in record.detail
    return {
        "resourceType": "AuditEvent",
        "id": str(record.id),
        "type": {"system": _EVENT, "code": "rest", "display": "RESTful Operation"},
        "subtype": [{"system": f"{HUB_ID.rsplit('/', 1)[0]}/action", "code": record.action}],
        "action": "R",
        "recorded": instant(record.at),
        "outcome": "4" if refused else "0",
        **({} if record.reason is None else {"purposeOfEvent": [{"text": record.reason}]}),
        "agent": [
            {
                "who": {"identifier": {"value": record.actor}},
                "requestor": True,
                **(
                    {}
                    if record.origin is None
                    else {"network": {"address": record.origin, "type": "2"}}
                ),
            }
        ],
        "source": {"observer": {"display": "Hearth"}},
        "entity": [{"what": {"reference": f"Patient/{record.resident}"}}],
    }


def instant(moment: datetime) -> str:
    """Return an instant in UTC with milliseconds."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{text}Z"


def _concept(system: str, code: str, text: str | None = None) -> dict[str, Any]:
    concept: dict[str, Any] = {"coding": [{"system": system, "code": code}]}
    return concept if text is None else concept | {"text": text}
