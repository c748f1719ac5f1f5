"""The API's own description: OpenAPI 3.1, with examples that are made by the code they describe."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter

from api.cursor import Place
from api.documents import MeasurementDocument
from api.idempotency import KEY_PATTERN, is_write
from api.json_rows import measurement_document
from api.measurement_rows import StoredMeasurement
from api.problems import MEDIA_TYPE, Problem
from gateway import __version__
from gateway.gatt.times import ms_since_epoch
from gateway.measurement import TimeQuality, device_address
from gateway.vitals import SIGNS

TITLE = "Hearth 家庭体征档案 / home vital signs"
DESCRIPTION = """\
居民在家中测得的体征。所有数值与设备发送的位数一致; 错误以 RFC 9457 表示。

The vital signs that residents measured at home. Values have exactly the digits that the device
sent; what is absent says why. Pages go on with `after`, the `next` of the page before, and neither
skip nor repeat what was there, whatever arrives in between. Errors are problem details (RFC 9457).
"""
BEARER = HTTPBearer(auto_error=False, description="`Authorization: Bearer TOKEN`")
"""For the description only; api.auth refuses who bears no token."""

ERRORS: dict[int | str, dict[str, Any]] = {
    HTTPStatus.BAD_REQUEST: {"description": "无法读取请求 / the request cannot be read"},
    HTTPStatus.UNAUTHORIZED: {"description": "没有有效令牌 / no valid token"},
    HTTPStatus.FORBIDDEN: {"description": "无权访问 / the one who asks may not have this"},
    HTTPStatus.LENGTH_REQUIRED: {"description": "须有 Content-Length / a body of unknown length"},
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: {"description": "请求过大 / the body is too large"},
    HTTPStatus.REQUEST_URI_TOO_LONG: {"description": "地址过长 / the address is too long"},
    HTTPStatus.TOO_MANY_REQUESTS: {"description": "请求过于频繁 / too many requests"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"description": "数据库无响应 / the database does not answer"},
}
UNKNOWN_RESIDENT: dict[int | str, dict[str, Any]] = {
    HTTPStatus.NOT_FOUND: {"description": "没有这位居民 / no such resident"},
}


def shown(document: object) -> dict[int | str, dict[str, Any]]:
    """Return the description of a route's response that shows `document`."""
    example = orjson.loads(orjson.dumps(document))
    return {HTTPStatus.OK: {"content": {"application/json": {"example": example}}}}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the description of the application, its errors as problems."""
    schema = get_openapi(
        title=TITLE, version=__version__, description=DESCRIPTION, routes=app.routes
    )
    problem = TypeAdapter(Problem).json_schema(ref_template="#/components/schemas/{model}")
    schemas = schema["components"]["schemas"]
    schemas |= {"Problem": problem} | problem.pop("$defs")
    for superseded in ("HTTPValidationError", "ValidationError"):
        schemas.pop(superseded, None)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if is_write(method.upper(), path) and "security" in operation:
                _describe_key(operation)
            for status, response in operation["responses"].items():
                if int(status) >= HTTPStatus.BAD_REQUEST and _is_undescribed(response):
                    response["content"] = content
    return schema


def _describe_key(operation: dict[str, Any]) -> None:
    """Say that a write may bear an idempotency key, and what becomes of the second one."""
    operation.setdefault("parameters", []).append(
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "同一键只做一次, 24 小时内再答 / done once by a key, answered again for 24 hours.",
            "schema": {"type": "string", "pattern": KEY_PATTERN},
        }
    )
    operation["responses"].setdefault(
        str(HTTPStatus.CONFLICT.value),
        {"description": "同一请求正在处理 / the same request is under way, or it contradicts"},
    )


def _is_undescribed(response: dict[str, Any]) -> bool:
    """Tell whether no route said what this refusal looks like: FastAPI's own word does not count."""
    return "content" not in response or "HTTPValidationError" in str(response["content"])


def _example() -> MeasurementDocument:
    """Return a usual measurement of the first sign of the registry."""
    sign = SIGNS[0]
    measured_at = datetime(2026, 5, 1, 0, 30, tzinfo=UTC)
    exponents = [Decimal(step).as_tuple().exponent for step in sign.unit_sets[0].steps]
    return measurement_document(
        StoredMeasurement(
            place=Place(
                measured_at=measured_at,
                device_id=1,
                user_slot=1,  # FastAPI leaves nulls out of examples
                sign=sign.code,
                identity_us=ms_since_epoch(measured_at) * 1000,
            ),
            stored_at=measured_at.replace(second=9),
            received_after_s=2.5,
            utc_offset=32,
            time_quality=TimeQuality.MAPPED,
            unit_set=0,
            digits=sum((int(e) & 0xFF) << (8 * i) for i, e in enumerate(exponents)),
            status=0,
            flags=0,
            values=tuple(quantity.typical.mean for quantity in sign.quantities),
            device=device_address(0xC0FFEE000001),
        )
    )


EXAMPLE = _example()
