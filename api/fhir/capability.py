"""What this server can do, and where tokens come from: /fhir/metadata, .well-known/smart-configuration.

FHIR R4 CapabilityStatement; SMART App Launch 2.2, conformance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.fhir.search import INCLUDES, REVINCLUDES
from api.fhir.vocabulary import FHIR_VERSION, MEDIA_TYPE, PROFILE, VITAL_SIGN_PROFILES
from gateway import __version__

PUBLISHED = "2026-11-25"
"""When what the statement says last changed."""
OBSERVATION_PARAMETERS = (
    ("_id", "token", "编号 / ids, at most 200"),
    ("patient", "reference", "居民 / the resident; one a search"),
    ("subject", "reference", "同上 / the same"),
    ("code", "token", "代码 / LOINC or MDC, with or without the system"),
    ("component-code", "token", "分量代码 / of a component of a panel"),
    ("combo-code", "token", "代码或分量代码 / of the panel or of a component"),
    ("category", "token", "类别 / vital-signs, activity, laboratory, phd"),
    ("date", "date", "测量时间, 可加前缀 / eq ne gt lt ge le sa eb ap"),
    ("device", "reference", "测量设备 / the device that measured"),
    ("status", "token", "状态 / final, preliminary, entered-in-error"),
    ("_lastUpdated", "date", "入库时间 / when it was stored or changed"),
)
_OPERATION = "http://hl7.org/fhir/OperationDefinition"
_BULK = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition"


def capability(base: str) -> Mapping[str, Any]:
    """Return the CapabilityStatement of the server at `base` (…/fhir)."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": PUBLISHED,
        "kind": "instance",
        "software": {"name": "Hearth", "version": __version__},
        "implementation": {"description": "Hearth 家庭体征档案 / home vital signs", "url": base},
        "fhirVersion": FHIR_VERSION,
        "format": [MEDIA_TYPE, "json"],
        "instantiates": ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"],
        "rest": [
            {
                "mode": "server",
                "documentation": "每次查询 Observation 需指明居民或编号 / a search of Observations names "
                "a patient or ids; Prefer: handling=strict refuses unknown parameters.",
                "security": {
                    "service": [
                        {
                            "coding": [
                                {
                                    "system": "http://terminology.hl7.org/CodeSystem/"
                                    "restful-security-service",
                                    "code": "SMART-on-FHIR",
                                }
                            ]
                        }
                    ]
                },
                "resource": [
                    _observation(),
                    _resource(
                        "Patient",
                        [("_id", "token"), ("identifier", "token")],
                        ["everything", "export"],
                    ),
                    _resource("Device", [("_id", "token"), ("patient", "reference")]),
                    _resource("Provenance", [("target", "reference")]),
                    _resource("AuditEvent", [("patient", "reference")], read=False),
                ],
                "interaction": [{"code": "transaction"}],
                "operation": [
                    {"name": "export", "definition": f"{_BULK}/export"},
                ],
            }
        ],
    }


def smart_configuration(origin: str) -> Mapping[str, Any]:
    """Return where an app or a backend service gets its tokens and what they can say."""
    return {
        "issuer": origin,
        "authorization_endpoint": f"{origin}/oauth/authorize",
        "token_endpoint": f"{origin}/oauth/token",
        "jwks_uri": f"{origin}/oauth/jwks",
        "grant_types_supported": ["authorization_code", "client_credentials"],
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "scopes_supported": [
            "openid",
            "fhirUser",
            "launch/patient",
            "patient/*.rs",
            "patient/Observation.rs",
            "user/Observation.rs",
            "system/*.rs",
            "system/Observation.rs",
            "system/Observation.rs?category=vital-signs",
            "system/Observation.c",
            "system/Observation.crs",
        ],
        "capabilities": [
            "launch-standalone",
            "client-public",
            "client-confidential-asymmetric",
            "context-standalone-patient",
            "permission-patient",
            "permission-user",
            "permission-v2",
        ],
    }


def _observation() -> Mapping[str, Any]:
    return {
        "type": "Observation",
        "profile": f"{PROFILE}/vitalsigns",
        "supportedProfile": sorted(f"{PROFILE}/{name}" for name in VITAL_SIGN_PROFILES.values()),
        "interaction": [{"code": "read"}, {"code": "search-type"}, {"code": "create"}],
        "versioning": "no-version",
        "conditionalCreate": True,
        "searchInclude": list(INCLUDES),
        "searchRevInclude": list(REVINCLUDES),
        "searchParam": [
            {"name": name, "type": kind, "documentation": text}
            for name, kind, text in OBSERVATION_PARAMETERS
        ],
        "operation": [
            {"name": "lastn", "definition": f"{_OPERATION}/Observation-lastn"},
            {"name": "stats", "definition": f"{_OPERATION}/Observation-stats"},
        ],
    }


def _resource(
    kind: str,
    parameters: list[tuple[str, str]],
    operations: list[str] | None = None,
    *,
    read: bool = True,
) -> Mapping[str, Any]:
    definitions = {
        "everything": f"{_OPERATION}/Patient-everything",
        "export": f"{_BULK}/patient-export",
    }
    interactions = ["read", "search-type"] if read else ["search-type"]
    entry: dict[str, Any] = {
        "type": kind,
        "interaction": [{"code": code} for code in interactions],
        "searchParam": [{"name": name, "type": form} for name, form in parameters],
    }
    if operations:
        entry["operation"] = [
            {"name": name, "definition": definitions[name]} for name in operations
        ]
    return entry
