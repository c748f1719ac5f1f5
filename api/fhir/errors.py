"""Every error under /fhir is an OperationOutcome, wherever it came from: RFC 9457 problems too."""

from __future__ import annotations

from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.fhir.outcomes import Finding, Issue, OutcomeError, outcome, outcome_response
from api.fhir.vocabulary import MEDIA_TYPE
from api.problems import MEDIA_TYPE as PROBLEM
from api.refusals import audit_refusal

PREFIX = "/fhir"

_ISSUES = {
    HTTPStatus.UNAUTHORIZED: Issue.LOGIN,
    HTTPStatus.FORBIDDEN: Issue.FORBIDDEN,
    HTTPStatus.NOT_FOUND: Issue.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: Issue.NOT_SUPPORTED,
    HTTPStatus.TOO_MANY_REQUESTS: Issue.THROTTLED,
    HTTPStatus.INTERNAL_SERVER_ERROR: Issue.EXCEPTION,
    HTTPStatus.SERVICE_UNAVAILABLE: Issue.TRANSIENT,
}


class SpeakOutcomes:
    """ASGI middleware around all others: a problem that leaves under /fhir becomes an outcome."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        path = scope.get("path", "")
        if scope["type"] == "http" and (path == PREFIX or path.startswith(f"{PREFIX}/")):
            await self._app(scope, receive, _Translator(send).send)
        else:
            await self._app(scope, receive, send)


class _Translator:
    """Holds a problem's head and body back until it is whole."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if MutableHeaders(scope=message).get("content-type") == PROBLEM:
                self._head = message
                return
        elif self._head is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_outcome(self._head)
            return
        await self._send(message)

    async def _send_outcome(self, head: Message) -> None:
        status = HTTPStatus(head["status"])
        document = orjson.loads(self._body)
        text = document["detail"]
        faults = [
            Finding(issue=Issue.INVALID, text=fault["detail"], parameter=fault["parameter"])
            for fault in document["errors"]
        ]
        issue = _ISSUES.get(status, Issue.INVALID)
        body = orjson.dumps(outcome(*(faults or [Finding(issue=issue, text=text)])))
        headers = MutableHeaders(scope=head)
        headers["content-type"] = MEDIA_TYPE
        headers["content-length"] = str(len(body))
        await self._send(head)
        await self._send({"type": "http.response.body", "body": body})


def answer_outcomes(app: FastAPI) -> None:
    """Let the application answer FHIR's own refusals as outcomes."""
    app.exception_handler(OutcomeError)(_refused)


async def _refused(request: Request, error: OutcomeError) -> Response:
    if error.finding.issue is Issue.FORBIDDEN:
        await audit_refusal(request, "scope")
    return outcome_response(error.status, error.finding)
