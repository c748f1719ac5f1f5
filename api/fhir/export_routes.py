"""The routes of Bulk Data: kick-off, status, cancellation, files."""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from api.access import CurrentPrincipal, Principal
from api.cursor import BEFORE_ALL
from api.fhir.access import SEARCH, parts_for, require_scope
from api.fhir.dates import parse_date
from api.fhir.errors import PREFIX
from api.fhir.export import KINDS, RUNNING_MAX, Exports, Status, TooManyExportsError
from api.fhir.outcomes import Finding, Issue, OutcomeError, outcome_response
from api.fhir.resources import instant
from api.fhir.routes import base_of
from api.fhir.vocabulary import NDJSON

RETRY_AFTER_S = 2
"""How long a client is asked to wait between two looks at an export."""
UNDER_WAY_MAX = timedelta(minutes=1)
"""A reading bears the time at which its flush began, and is there once that has committed: an export tells of
all up to so long before it began. Whoever asks for what came since is given the last minute again."""
FORMATS = frozenset({NDJSON, "application/ndjson", "ndjson", "application/fhir ndjson"})

router = APIRouter(prefix=PREFIX, tags=["FHIR"], default_response_class=Response)


async def _exports(request: Request) -> Exports:
    exports: Exports | None = request.app.state.exports
    if exports is None:
        raise OutcomeError(
            Issue.NOT_SUPPORTED,
            "此服务未开启批量导出 / this server has no folder for exports",
            status=HTTPStatus.NOT_IMPLEMENTED,
        )
    return exports


ExportsOfApp = Annotated[Exports, Depends(_exports)]


@router.get(
    "/$export",
    summary="批量导出 / bulk export",
    status_code=HTTPStatus.ACCEPTED,
)
async def begin_export(
    request: Request, exports: ExportsOfApp, principal: CurrentPrincipal
) -> Response:
    """Begin an export of all that the asker may see."""
    return await _begin(request, exports, principal)


@router.get(
    "/Patient/$export",
    summary="批量导出 / bulk export",
    status_code=HTTPStatus.ACCEPTED,
)
async def begin_patient_export(
    request: Request, exports: ExportsOfApp, principal: CurrentPrincipal
) -> Response:
    """Begin an export of all residents whom the asker may see; the same here."""
    return await _begin(request, exports, principal)


@router.get(
    "/$export-status/{export}",
    summary="导出进度 / how far an export is",
    response_class=JSONResponse,
)
async def read_export(
    request: Request, exports: ExportsOfApp, principal: CurrentPrincipal, export: UUID
) -> Response:
    """Tell how far an export is (202), and in the end where its files are."""
    status = await _found(exports, principal, export)
    match status.state:
        case "running":
            headers = {
                "X-Progress": f"{status.done} of {status.all} residents",
                "Retry-After": str(RETRY_AFTER_S),
            }
            return Response(status_code=HTTPStatus.ACCEPTED, headers=headers)
        case "complete":
            document = _manifest(base_of(request), status)
            return Response(orjson.dumps(document), media_type="application/json")
        case _:
            raise OutcomeError(Issue.EXCEPTION, f"导出未完成 / the export failed: {status.error}")


@router.delete(
    "/$export-status/{export}",
    summary="取消导出 / cancel an export",
    status_code=HTTPStatus.ACCEPTED,
)
async def cancel_export(
    exports: ExportsOfApp, principal: CurrentPrincipal, export: UUID
) -> Response:
    """End an export, and remove its files."""
    if not await exports.cancel(principal, export):
        raise _unknown()
    return Response(status_code=HTTPStatus.ACCEPTED)


@router.get(
    "/$export-file/{export}/{kind}.ndjson",
    summary="导出文件 / a file of an export",
)
async def read_export_file(
    exports: ExportsOfApp, principal: CurrentPrincipal, export: UUID, kind: str
) -> Response:
    """Return the resources of one kind, one a line; only to whoever began the export."""
    path = await exports.handed_over(principal, export, kind)
    if path is None:
        raise _unknown()
    return FileResponse(path, media_type=NDJSON)


async def _begin(request: Request, exports: Exports, principal: Principal) -> Response:
    if "respond-async" not in request.headers.get("prefer", ""):
        raise OutcomeError(
            Issue.NOT_SUPPORTED, "需要请求头 / the header is needed: Prefer: respond-async"
        )
    parameters = dict(request.query_params.multi_items())
    kinds = parameters.pop("_type", ",".join(KINDS)).split(",")
    since = _since(parameters.pop("_since", None))
    form = parameters.pop("_outputFormat", NDJSON)
    if set(kinds) - set(KINDS) or form not in FORMATS or parameters:
        raise OutcomeError(
            Issue.NOT_SUPPORTED,
            f"可导出的资源 / _type of {', '.join(KINDS)}; _since; _outputFormat {NDJSON}",
        )
    parts_for(principal, SEARCH)
    for kind in kinds:
        require_scope(principal, kind, SEARCH)
    chosen = list(dict.fromkeys(kinds))
    try:
        export = await exports.begin(principal, str(request.url), chosen, since)
    except TooManyExportsError:
        finding = Finding(
            issue=Issue.THROTTLED,
            text=f"导出任务过多, 请稍后重试 / {RUNNING_MAX} exports are under way: try again later",
        )
        response = outcome_response(HTTPStatus.TOO_MANY_REQUESTS, finding)
        response.headers["Retry-After"] = "60"
        return response
    location = f"{base_of(request)}/$export-status/{export}"
    return Response(status_code=HTTPStatus.ACCEPTED, headers={"Content-Location": location})


def _manifest(base: str, status: Status) -> dict[str, object]:
    return {
        "transactionTime": instant(status.started_at - UNDER_WAY_MAX),
        "request": status.request,
        "requiresAccessToken": True,
        "output": [
            {
                "type": kind,
                "url": f"{base}/$export-file/{status.id}/{kind}.ndjson",
                "count": count,
            }
            for kind, count in sorted(status.counts.items())
            if count
        ],
        "error": [],
    }


async def _found(exports: Exports, principal: Principal, export: UUID) -> Status:
    status = await exports.status(principal, export)
    if status is None or status.state == "cancelled":
        raise _unknown()
    return status


def _unknown() -> OutcomeError:
    return OutcomeError(Issue.NOT_FOUND, "没有此导出 / there is no such export")


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_date(text, BEFORE_ALL.measured_at).low
    except ValueError as error:
        raise OutcomeError(Issue.INVALID, f"时间有误 / {error}", parameter="_since") from error
