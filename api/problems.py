"""What went wrong, for whoever asked: problem details (RFC 9457), Chinese first, English second.

No problem repeats a value that was sent: it could be one that must not reach a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from api.access import ForbiddenError, SignedOutError
from api.archive import UnknownResidentError
from api.people import ChangedMeanwhileError
from api.profile import ProfileError
from api.refusals import audit_refusal
from gateway.errors import DataError, UnavailableError
from gateway.platform.logs import get_logger

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
"""What a client is asked to wait when the database does not answer."""

_DETAILS = {
    HTTPStatus.UNAUTHORIZED: "需要有效的访问令牌 / a valid bearer token is needed",
    HTTPStatus.FORBIDDEN: "无权访问 / you may not have this",
    HTTPStatus.NOT_FOUND: "没有此地址 / there is nothing at this address",
    HTTPStatus.METHOD_NOT_ALLOWED: "不支持此方法 / the method is not allowed here",
    HTTPStatus.LENGTH_REQUIRED: "需要 Content-Length / the request's length is needed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "请求过大 / the request is too large",
    HTTPStatus.REQUEST_URI_TOO_LONG: "地址过长 / the address is too long",
    HTTPStatus.PRECONDITION_FAILED: "已被他人更改, 请重新读取 / it was changed meanwhile; read it again",
    HTTPStatus.TOO_MANY_REQUESTS: "请求过于频繁 / too many requests; wait as Retry-After says",
    HTTPStatus.UNPROCESSABLE_ENTITY: "参数有误 / a parameter is wrong",
    HTTPStatus.INTERNAL_SERVER_ERROR: "服务内部错误, 已记录 / an error of the service; it is logged",
    HTTPStatus.SERVICE_UNAVAILABLE: "暂时无法提供服务 / the archive does not answer now",
}
_UNKNOWN_RESIDENT = "没有这位居民 / there is no such resident"
_REFUSALS = {
    "role": "此角色无权访问 / your role may not have this",
    "scope": "令牌的范围不包含此项 / the token's scopes do not cover this",
    "other": "只能查看自己的档案 / you may see your own archive only",
    "outside": "居民不在您的照护团队; 紧急情况可说明理由后临时访问 / the resident is not in your care team; "
    "in an emergency, access with a reason can be opened for a time",
    "refused": "居民拒绝了您的访问 / the resident refuses you access",
    "nobody": "没有此账户 / there is no such account",
    "everyone": "请指明居民 / name the residents",
}
"""By the words of access.begin."""

_log = get_logger(__name__)


class ParameterError(Exception):
    """A parameter that only the route can judge is wrong."""

    def __init__(self, parameter: str, detail: str) -> None:
        super().__init__(detail)
        self.fault = Fault(parameter=parameter, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with one parameter."""

    parameter: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Problem details (RFC 9457)."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    type: str = "about:blank"
    """No more than the status says."""
    title: str
    """The status in words."""
    status: int
    detail: str
    errors: Sequence[Fault] = ()
    """Of a wrong request: which parameters, and why."""


def problem(
    status: HTTPStatus, detail: str | None = None, errors: Sequence[Fault] = ()
) -> Response:
    """Return the response that says `status` and why."""
    document = Problem(
        title=status.phrase,
        status=status,
        detail=detail or _DETAILS.get(status, status.description),
        errors=errors,
    )
    response = Response(orjson.dumps(document), status_code=status, media_type=MEDIA_TYPE)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def answer_problems(app: FastAPI) -> None:
    """Let the application answer its errors as problems."""
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(RequestValidationError)(_wrong_parameters)
    app.exception_handler(ParameterError)(_wrong_parameter)
    app.exception_handler(UnknownResidentError)(_unknown_resident)
    app.exception_handler(ForbiddenError)(_forbidden)
    app.exception_handler(SignedOutError)(_signed_out)
    app.exception_handler(ProfileError)(_wrong_profile)
    app.exception_handler(ChangedMeanwhileError)(_changed_meanwhile)
    app.exception_handler(UnavailableError)(_unavailable)
    app.exception_handler(DataError)(_refused_by_the_store)


async def _http(request: Request, error: HTTPException) -> Response:
    response = problem(HTTPStatus(error.status_code))
    response.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return response


def _methods(request: Request) -> set[str]:
    """Return all methods of an address: the router names those of its first match only."""
    paths = request.app.openapi()["paths"]
    if request.scope["path"] in paths:  # an address of its own is not an id of another one
        return {method.upper() for method in paths[request.scope["path"]]}
    found: set[str] = set()
    for path, operations in paths.items():
        # A word of ours is not taken for an id.
        template = path.replace("{resident}", "{resident:uuid}")
        if compile_path(template)[0].fullmatch(request.scope["path"]):
            found |= {method.upper() for method in operations}
    return found


async def _wrong_parameters(_request: Request, error: RequestValidationError) -> Response:
    faults = [
        Fault(parameter=str(fault["loc"][1] if len(fault["loc"]) > 1 else ""), detail=fault["msg"])
        for fault in error.errors()
    ]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, errors=faults)


async def _wrong_parameter(_request: Request, error: ParameterError) -> Response:
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, errors=[error.fault])


async def _unknown_resident(_request: Request, _error: UnknownResidentError) -> Response:
    return problem(HTTPStatus.NOT_FOUND, _UNKNOWN_RESIDENT)


async def _forbidden(request: Request, error: ForbiddenError) -> Response:
    if not error.is_audited:
        await audit_refusal(request, error.why)
    return problem(HTTPStatus.FORBIDDEN, _REFUSALS.get(error.why))


async def _signed_out(_request: Request, _error: SignedOutError) -> Response:
    return problem(HTTPStatus.UNAUTHORIZED)


async def _wrong_profile(_request: Request, error: ProfileError) -> Response:
    fault = Fault(parameter=error.column, detail=error.why)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, errors=[fault])


async def _changed_meanwhile(_request: Request, _error: ChangedMeanwhileError) -> Response:
    return problem(HTTPStatus.PRECONDITION_FAILED)


async def _refused_by_the_store(_request: Request, error: DataError) -> Response:
    """Answer for what the database takes no value of, such as a NUL: the request's fault."""
    _log.info("value_refused", why=type(error).__name__)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY)


async def _unavailable(_request: Request, error: UnavailableError) -> Response:
    _log.warning("archive_unavailable", why=str(error))
    return problem(HTTPStatus.SERVICE_UNAVAILABLE)
