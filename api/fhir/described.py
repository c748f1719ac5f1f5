"""What the description of the API says of FHIR's routes: parameters, bodies, answers, refusals.

FHIR's own description is /fhir/metadata; this is the same in the words of OpenAPI 3.1, as far as it has
them: a resource is an object that names its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from api.fhir.vocabulary import MEDIA_TYPE, NDJSON
from api.openapi import ERRORS

Described = dict[int | str, dict[str, Any]]
"""As FastAPI takes them: by status."""

_FORM = "application/x-www-form-urlencoded"


def a_resource(kind: str) -> dict[str, Any]:
    """Return the schema of a resource of one kind."""
    return {
        "type": "object",
        "properties": {"resourceType": {"const": kind}},
        "required": ["resourceType"],
    }


def _content(kind: str) -> dict[str, Any]:
    return {MEDIA_TYPE: {"schema": a_resource(kind)}}


REFUSALS: Described = {
    status: {"description": description["description"], "content": _content("OperationOutcome")}
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


def answers(kind: str, status: HTTPStatus = HTTPStatus.OK) -> Described:
    """Return the description of an answer that is a resource."""
    return {status: {"content": _content(kind)}}


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


def takes(*names: str) -> dict[str, Any]:
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


def takes_form(*names: str) -> dict[str, Any]:
    """Return the description of a search whose parameters are in a form."""
    properties = {name: dict(_PARAMETERS[name][1]) for name in names}
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"required": False, "content": {_FORM: {"schema": schema}}}}


def takes_resource(kind: str, *, required: bool = True, **properties: object) -> dict[str, Any]:
    """Return the description of a body that is a resource."""
    schema = a_resource(kind)
    schema["properties"] |= properties
    schema["required"] += list(properties)
    return {"requestBody": {"required": required, "content": {MEDIA_TYPE: {"schema": schema}}}}


OBSERVATIONS = ("patient", "code", "category", "date", "status", "device", "_id", "_count", "_sort")
LAST = ("patient", "code", "category", "date", "max")
STATISTICS = ("patient", "code", "statistic", "duration")
OPERATION = takes_resource(
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
SUBSCRIPTION = takes_resource(
    "Subscription",
    criteria={"type": "string"},
    channel={
        "type": "object",
        "properties": {"type": {"const": "rest-hook"}, "endpoint": {"type": "string"}},
        "required": ["type", "endpoint"],
    },
)
EXPORT = {
    "parameters": [
        *takes("_type", "_since", "_outputFormat")["parameters"],
        {
            "name": "Prefer",
            "in": "header",
            "required": True,
            "schema": {"const": "respond-async"},
        },
    ]
}
