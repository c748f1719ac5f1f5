"""What the description of the API says of FHIR's routes: parameters, bodies, answers, refusals.

FHIR's own description is /fhir/metadata; this is the same in the words of OpenAPI 3.1, as far as it has
them: a resource is an object that names its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPMethod, HTTPStatus
from types import MappingProxyType
from typing import Any

from api.fhir.creation import ENTRIES_MAX
from api.fhir.errors import PREFIX
from api.fhir.vocabulary import MEDIA_TYPE, NDJSON
from api.openapi import ERRORS

_FORM = "application/x-www-form-urlencoded"


def _resource(kind: str) -> dict[str, Any]:
    """Return the schema of a resource of one kind."""
    return {
        "type": "object",
        "properties": {"resourceType": {"const": kind}},
        "required": ["resourceType"],
    }


def _content(kind: str) -> dict[str, Any]:
    return {MEDIA_TYPE: {"schema": _resource(kind)}}


REFUSALS: Mapping[str, Any] = {
    str(int(status)): {
        "description": description["description"],
        "content": _content("OperationOutcome"),
    }
    for status, description in (
        ERRORS
        | {
            HTTPStatus.NOT_FOUND: {"description": "没有此资源 / there is no such resource"},
            HTTPStatus.NOT_ACCEPTABLE: {"description": "只提供 JSON / JSON only"},
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE: {"description": "请求体格式不符 / not such a body"},
            HTTPStatus.UNPROCESSABLE_ENTITY: {"description": "参数有误 / a parameter is wrong"},
            HTTPStatus.NOT_IMPLEMENTED: {"description": "此处未开启 / not turned on here"},
        }
    ).items()
}
"""Every refusal under /fhir is an OperationOutcome (api.fhir.errors)."""


_TEXT: Mapping[str, Any] = MappingProxyType({"type": "string"})
_PARAMETERS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "patient": ("居民 / the resident: id, Patient/id", _TEXT),
        "code": ("代码 / code, system|code", _TEXT),
        "category": ("类别 / category", _TEXT),
        "date": (
            "测量时间 / when it was measured",
            {"type": "string", "pattern": r"^(eq|ne|gt|lt|ge|le|sa|eb|ap)?20\d\d(-0[1-9])?$"},
        ),
        "status": ("状态 / status", _TEXT),
        "device": ("设备 / Device/id", _TEXT),
        "identifier": ("标识 / identifier", _TEXT),
        "target": ("Observation/id", _TEXT),
        "statistic": ("统计 / average, std-dev, …", _TEXT),
        "ruleSet": ("指南 / the guideline's rule set", _TEXT),
        "_id": ("资源编号 / ids", _TEXT),
        "_count": (
            "每页条数 / at most so many",
            {"type": "integer", "minimum": 1},
        ),
        "_sort": ("顺序 / order by date", _TEXT),
        "_summary": ("摘要 / summary", {"enum": ["true", "false", "count", "data", "text"]}),
        "_total": ("总数 / total", {"enum": ["none", "estimate", "accurate"]}),
        "max": (
            "每个代码几项 / so many of a code",
            {"type": "integer", "minimum": 1, "maximum": 100},
        ),
        "duration": ("小时 / hours", {"type": "number", "exclusiveMinimum": 0, "maximum": 87_840}),
        "_type": ("资源种类 / kinds of resource, with commas", _TEXT),
        "_since": ("此后的 / what is newer", {"type": "string", "format": "date"}),
        "_outputFormat": ("格式 / format", {"enum": [NDJSON, "ndjson"]}),
    }
)


def _takes(*names: str) -> dict[str, Any]:
    """Return the description of an address that takes these parameters."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": _PARAMETERS[name][0],
                "schema": dict(_PARAMETERS[name][1]),
            }
            for name in names
        ]
    }


def _takes_form(*names: str) -> dict[str, Any]:
    """Return the description of a search whose parameters are in a form."""
    properties = {name: dict(_PARAMETERS[name][1]) for name in names}
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"required": False, "content": {_FORM: {"schema": schema}}}}


def _takes_resource(kind: str, *, required: bool = True, **properties: object) -> dict[str, Any]:
    """Return the description of a body that is a resource."""
    schema = _resource(kind)
    schema["properties"] |= properties
    schema["required"] += list(properties)
    return {"requestBody": {"required": required, "content": {MEDIA_TYPE: {"schema": schema}}}}


_OBSERVATIONS = (
    "patient",
    "code",
    "category",
    "date",
    "status",
    "device",
    "_id",
    "_count",
    "_sort",
)
_LAST = ("patient", "code", "category", "date", "max")
_STATISTICS = ("patient", "code", "statistic", "duration", "ruleSet")
_OPERATION = _takes_resource(
    "Parameters",
    required=False,
    parameter={
        "type": "array",
        "maxItems": 20,
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "valueString": {"type": "string"},
            },
            "required": ["name", "valueString"],
        },
    },
)
_SUBSCRIPTION = _takes_resource(
    "Subscription",
    criteria={"type": "string"},
    channel={
        "type": "object",
        "properties": {"type": {"const": "rest-hook"}, "endpoint": {"type": "string"}},
        "required": ["type", "endpoint"],
    },
)
_EXPORT = {
    "parameters": [
        *_takes("_type", "_since", "_outputFormat")["parameters"],
        {
            "name": "Prefer",
            "in": "header",
            "required": True,
            "schema": {"const": "respond-async"},
        },
    ]
}

_CREATED = _takes_resource("Observation") | {
    "responses": {
        "200": {"description": "已有此项 / it was there", "content": _content("Observation")},
        "202": {"description": "已收下, 尚未入库 / taken, not stored yet"},
        "412": {
            "description": "有多项符合条件 / several fit the condition",
            "content": _content("OperationOutcome"),
        },
    }
}
_TRANSACTION = _takes_resource(
    "Bundle",
    type={"const": "transaction"},
    entry={"type": "array", "maxItems": ENTRIES_MAX, "items": {"type": "object"}},
)

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_ANSWERS: Mapping[tuple[str, str], tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        ("get", "/metadata"): ("CapabilityStatement", _NOTHING),
        ("get", "/Observation"): ("Bundle", _takes(*_OBSERVATIONS)),
        ("post", "/Observation/_search"): ("Bundle", _takes_form(*_OBSERVATIONS)),
        ("get", "/Observation/$lastn"): ("Bundle", _takes(*_LAST)),
        ("post", "/Observation/$lastn"): ("Bundle", _OPERATION),
        ("get", "/Observation/$stats"): ("Parameters", _takes(*_STATISTICS)),
        ("post", "/Observation/$stats"): ("Parameters", _OPERATION),
        ("post", "/Observation"): ("Observation", _CREATED),
        ("post", ""): ("Bundle", _TRANSACTION),
        ("get", "/Observation/{id}"): ("Observation", _NOTHING),
        ("get", "/Patient"): ("Bundle", _takes("_id", "identifier", "_count")),
        ("post", "/Patient/_search"): ("Bundle", _takes_form("_id", "identifier", "_count")),
        ("get", "/Patient/{resident}"): ("Patient", _NOTHING),
        ("get", "/Patient/{resident}/$everything"): ("Bundle", _takes("_count", "_type", "_since")),
        ("get", "/Device"): ("Bundle", _takes("_id", "patient", "_count")),
        ("get", "/Device/{id}"): ("Device", _NOTHING),
        ("get", "/Provenance"): ("Bundle", _takes("target", "_count")),
        ("get", "/Provenance/{id}"): ("Provenance", _NOTHING),
        ("get", "/AuditEvent"): ("Bundle", _takes("patient", "_count")),
        ("post", "/Subscription"): ("Subscription", _SUBSCRIPTION),
        ("get", "/Subscription/{subscription}"): ("Subscription", _NOTHING),
        ("get", "/Subscription/{subscription}/$status"): ("Parameters", _NOTHING),
        ("get", "/Subscription/{subscription}/$events"): ("Bundle", _NOTHING),
    }
)
"""By method and path: which resource is the answer, and what is taken."""
_EXPORTS: Mapping[tuple[str, str], Mapping[str, Any]] = MappingProxyType(
    {
        ("get", "/$export"): _EXPORT,
        ("get", "/Patient/$export"): _EXPORT,
        ("get", "/$export-status/{export}"): {
            "responses": {"202": {"description": "进行中 / it is under way"}}
        },
        ("get", "/$export-file/{export}/{kind}.ndjson"): {
            "responses": {
                "200": {
                    "description": "资源, 每行一个 / resources, one a line",
                    "content": {NDJSON: {"schema": {"type": "string"}}},
                }
            }
        },
    }
)
"""What is no resource: bulk export."""


def describe_fhir(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the description of the API with what is known of FHIR's routes."""
    for path, operations in schema["paths"].items():
        if path != PREFIX and not path.startswith(f"{PREFIX}/"):
            continue
        for method in operations.keys() & {method.lower() for method in HTTPMethod}:
            key = (method, path.removeprefix(PREFIX))
            kind, taken = _ANSWERS.get(key, (None, _EXPORTS.get(key, _NOTHING)))
            _describe(operations[method], kind, taken)
    return schema


def _describe(operation: dict[str, Any], kind: str | None, taken: Mapping[str, Any]) -> None:
    operation.setdefault("parameters", []).extend(taken.get("parameters", ()))
    if "requestBody" in taken:
        operation["requestBody"] = taken["requestBody"]
    responses = operation["responses"]
    responses |= taken.get("responses", {}) | REFUSALS
    for status, response in responses.items():
        if kind is not None and int(status) < HTTPStatus.BAD_REQUEST and "content" in response:
            response["content"] = _content(kind)
