"""Where hubs ask for certificates: open to all, believed for their proof only, and bounded."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.enrolment import Office, RefusedError
from api.origin import origin_of
from api.problems import problem
from gateway.errors import DataError
from gateway.platform.enrolment import BODY_BYTES_MAX, ENROL_PATH, RENEW_PATH
from gateway.platform.logs import get_logger

REQUESTS_PER_S = 10.0
REQUESTS_BURST = 100
"""Enrolments and renewals beyond this are answered 429: hubs come back by themselves, and the archive
goes on for everybody else."""
AT_ONCE_MAX = 2
"""Further requests wait for their turn."""

_BASE64 = {"type": "string", "contentEncoding": "base64"}


def _body(**first: dict[str, Any]) -> dict[str, Any]:
    fields = first | dict.fromkeys(("nonce", "request", "signature"), _BASE64)
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema}},
            "description": "docs/hub-identity.md",
        }
    }


_RESPONSES: dict[int | str, dict[str, Any]] = {
    HTTPStatus.BAD_REQUEST: {"description": "请求格式错误 / no enrolment"},
    HTTPStatus.FORBIDDEN: {"description": "不予登记 / refused"},
    HTTPStatus.LENGTH_REQUIRED: {"description": "须有 Content-Length / of unknown length"},
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: {"description": "请求过大 / too large"},
    HTTPStatus.TOO_MANY_REQUESTS: {"description": "请求过多 / too many requests"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"description": "此处不办理 / not here, or not now"},
}

router = APIRouter(tags=["设备 / equipment"])
_log = get_logger(__name__)


class Desk:
    """The desk of the office: how many are served in a second, and at once."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._free = asyncio.Semaphore(AT_ONCE_MAX)
        self._tokens = float(REQUESTS_BURST)
        self._at_s = time.monotonic()

    async def serve(self, request: Request) -> Response:
        """Answer a hub."""
        if not self._takes(time.monotonic()):
            response = problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "请求过多, 请稍后再试 / too many requests: try again later",
            )
            response.headers["Retry-After"] = str(int(REQUESTS_BURST / REQUESTS_PER_S))
            return response
        body = await _bounded_body(request)
        if body is None:
            return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        origin = origin_of(request.scope)
        is_first = request.url.path == ENROL_PATH
        work = self._office.enrol if is_first else self._office.renew
        try:
            async with self._free:
                answer = await asyncio.to_thread(work, body, origin)
        except RefusedError as error:
            _log.warning("hub_refused", path=request.url.path, why=error.why)
            return problem(
                HTTPStatus.FORBIDDEN,
                "登记码无效、已使用或已过期 / the code is unknown, used, expired or was tried too often"
                if is_first
                else "证书已吊销或不可续期 / the certificate is revoked or cannot be renewed",
            )
        except DataError as error:
            _log.warning("hub_request_unreadable", path=request.url.path, why=str(error))
            return problem(HTTPStatus.BAD_REQUEST, "请求格式错误 / the request is no enrolment")
        return Response(answer, media_type="application/json")

    def _takes(self, now_s: float) -> bool:
        grown = self._tokens + (now_s - self._at_s) * REQUESTS_PER_S
        self._tokens = min(grown, float(REQUESTS_BURST))
        self._at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@router.post(
    ENROL_PATH,
    summary="网关登记 / a hub's first certificate",
    responses=_RESPONSES,
    openapi_extra=_body(code={"type": "string"}),
)
async def enrol(request: Request) -> Response:
    """Answer a hub that has a one-time code."""
    return await _serve(request)


@router.post(
    RENEW_PATH,
    summary="证书续期 / a hub's next certificate",
    responses=_RESPONSES,
    openapi_extra=_body(certificate=_BASE64),
)
async def renew(request: Request) -> Response:
    """Answer a hub that has a certificate."""
    return await _serve(request)


async def _serve(request: Request) -> Response:
    desk: Desk | None = request.app.state.enrolment
    if desk is None:
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "此处不办理网关登记 / this API does not enrol hubs"
        )
    return await desk.serve(request)


async def _bounded_body(request: Request) -> bytes | None:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            return None
    return body
