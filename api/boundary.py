"""Around the whole application: bounds, security headers, the access log, and the last resort.

The log names a request by its route's template; a query, a path or an exception's text could hold
what no log may.
"""

from __future__ import annotations

import time
import traceback
from http import HTTPMethod, HTTPStatus
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import metrics
from api.problems import problem
from gateway.platform.logs import get_logger

BODY_BYTES_MAX = 64 * 1024
"""A request whose body is longer is refused (413) before it is read, one of no length too (411)."""
TARGET_BYTES_MAX = 4096
"""A request whose path and query are longer is refused (414)."""
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every response: OWASP REST Security Cheat Sheet, "Security Headers"."""

CLIENT_LEFT = 499
"""Accounted for as the status of a request whose client went away before the response."""
FRAMES_LOGGED = 8
"""Of a request that failed, so many innermost places are logged."""

_METHODS = frozenset(HTTPMethod)
_log = get_logger(__name__)


class Boundary:
    """ASGI middleware that goes around all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and account for it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            refusal = _refusal(scope)
            if refusal is None:
                await self._app(scope, receive, exchange.send)
            else:
                await problem(refusal)(scope, receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - the process boundary: this request alone fails
            _log_failure(exchange, error)
            if exchange.status is None:
                await problem(HTTPStatus.INTERNAL_SERVER_ERROR)(scope, receive, exchange.send)
        finally:
            exchange.account()


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.id = str(uuid4())
        self.status: int | None = None
        self._scope = scope
        self._send = send
        self._began_s = time.monotonic()

    @property
    def route(self) -> str:
        """The template of the route, "unmatched" where there is none."""
        return getattr(self._scope.get("route"), "path", "unmatched")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)  # a page says its own policy
            headers["X-Request-Id"] = self.id
        await self._send(message)

    def account(self) -> None:
        seconds = time.monotonic() - self._began_s
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        status = self.status or CLIENT_LEFT
        metrics.REQUESTS.labels(method, self.route, status).inc()
        metrics.SECONDS.labels(self.route).observe(seconds)
        _log.info(
            "request",
            request=self.id,
            method=method,
            route=self.route,
            status=status,
            ms=round(seconds * 1000, 1),
        )


def _refusal(scope: Scope) -> HTTPStatus | None:
    if len(scope["raw_path"]) + len(scope["query_string"]) > TARGET_BYTES_MAX:
        return HTTPStatus.REQUEST_URI_TOO_LONG
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        return HTTPStatus.LENGTH_REQUIRED
    if int(headers.get("content-length", "0")) > BODY_BYTES_MAX:  # the server has parsed it
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return None


def _log_failure(exchange: _Exchange, error: Exception) -> None:
    # Where, not what: an exception's own text may quote values.
    where = [
        f"{frame.filename}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)[-FRAMES_LOGGED:]
    ]
    _log.error(
        "request_failed",
        request=exchange.id,
        route=exchange.route,
        error=type(error).__name__,
        where=where,
    )
