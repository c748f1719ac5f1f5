"""What a FHIR request asks, out of its address, a form or a Parameters resource. FHIR R4, Search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import orjson
from fastapi import Request

from api.cursor import BEFORE_ALL
from api.fhir.dates import parse_date
from api.fhir.outcomes import Issue, OutcomeError, not_found
from api.fhir.search import COUNT_DEFAULT, COUNT_MAX
from api.fhir.vocabulary import MEDIA_TYPE

JSON_FORMATS = frozenset(
    {"json", "application/json", MEDIA_TYPE, "application/fhir json", "text/json"}
)
FORM = "application/x-www-form-urlencoded"
FIELDS_MAX = 100
"""A search has at most so many parameters."""


def known(
    request: Request, pairs: Sequence[tuple[str, str]], names: set[str]
) -> list[tuple[str, str]]:
    """Return the parameters of a small search that are known; refuse others where that is asked."""
    require_json(pairs)
    others = [name for name, _value in pairs if name not in names | {"_format", "_pretty"}]
    if others and is_strict(request):
        raise OutcomeError(
            Issue.NOT_SUPPORTED, f"已知的参数 / known are: {', '.join(sorted(names))}"
        )
    return [(name, value) for name, value in pairs if name in names and value]


def require_json(pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse a request that wants something other than JSON."""
    formats = [value for name, value in pairs if name == "_format"]
    if any(value.split(";")[0].strip() not in JSON_FORMATS for value in formats):
        raise OutcomeError(
            Issue.NOT_SUPPORTED,
            "只提供 JSON / JSON only",
            parameter="_format",
            status=HTTPStatus.NOT_ACCEPTABLE,
        )


def is_strict(request: Request) -> bool:
    """Tell whether the one who asks wants unknown parameters refused (Prefer: handling=strict)."""
    return any(
        "handling=strict" in value.replace(" ", "") for value in request.headers.getlist("prefer")
    )


def query(request: Request) -> list[tuple[str, str]]:
    """Return the parameters of the address."""
    return _bounded(list(request.query_params.multi_items()))


async def form(request: Request) -> list[tuple[str, str]]:
    """Return the parameters of the address and of a form in the body."""
    pairs = list(request.query_params.multi_items())
    body = await request.body()
    if request.headers.get("content-type", FORM).split(";")[0].strip() != FORM and body:
        raise OutcomeError(
            Issue.NOT_SUPPORTED, f"应为 / {FORM}", status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        )
    try:
        pairs += parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise OutcomeError(Issue.INVALID, "请求体有误 / not a form") from error
    return _bounded(pairs)


async def parameters(request: Request) -> list[tuple[str, str]]:
    """Return an operation's parameters: of the query, and of a Parameters resource in the body."""
    pairs = query(request)
    body = await request.body()
    if not body:
        return pairs
    try:
        document = orjson.loads(body)
        if document["resourceType"] != "Parameters":
            raise ValueError("another resource")  # noqa: TRY301 - told below, like all the others
        for parameter in document["parameter"]:
            ((kind, value),) = [(k, v) for k, v in parameter.items() if k.startswith("value")]
            if not isinstance(parameter["name"], str) or not (
                kind != "valueString" or isinstance(value, str)
            ):
                raise TypeError("no text")  # noqa: TRY301
            pairs.append((parameter["name"], _plain(value)))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutcomeError(Issue.INVALID, "应为 Parameters 资源 / a Parameters resource") from error
    return _bounded(pairs)


def _plain(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, Mapping):
        if "reference" in value:
            return str(value["reference"])
        if "code" in value:
            return f"{value['system']}|{value['code']}" if "system" in value else str(value["code"])
        if "start" in value:
            return str(value["start"])
    return str(value)


def _bounded(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if len(pairs) > FIELDS_MAX:
        raise OutcomeError(Issue.TOO_COSTLY, f"参数过多 / at most {FIELDS_MAX} parameters")
    return pairs


def page_count(used: Mapping[str, str]) -> int:
    """Return how many a page may have at most."""
    text = used.get("_count", str(COUNT_DEFAULT))
    if not text.isdecimal() or int(text[:9]) < 1:
        raise OutcomeError(Issue.INVALID, "应为正整数 / a whole number from 1", parameter="_count")
    return min(int(text[:9]), COUNT_MAX)


def hours(value: str) -> float:
    """Read a duration of `$stats`."""
    try:
        hours = float(value)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= 24 * 366 * 10:
        raise OutcomeError(
            Issue.INVALID, "应为小时数 / hours, up to ten years", parameter="duration"
        )
    return hours


def moment(value: str, name: str) -> datetime:
    """Read a bound of a period; `name` is its parameter."""
    try:
        search = parse_date(value, BEFORE_ALL.measured_at)
    except ValueError as error:
        raise OutcomeError(Issue.INVALID, f"日期有误 / {error}", parameter=name) from error
    return search.high if name == "end" else search.low


def uuid_of(text: str) -> UUID:
    """Return a resident's opaque id; one that is none is of nobody.

    Raises:
        OutcomeError: not found.
    """
    try:
        return UUID(text)
    except ValueError as error:
        raise not_found() from error
