"""What went wrong, as OperationOutcome. FHIR R4, OperationOutcome; Chinese first, English second.

No outcome repeats a value that was sent: it could be one that must not reach a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

import orjson
from fastapi.responses import Response

from api.fhir.vocabulary import MEDIA_TYPE


class Issue(Enum):
    """The kinds of issue that are told here: codes of R4's issue-type."""

    INVALID = "invalid"
    NOT_SUPPORTED = "not-supported"
    NOT_FOUND = "not-found"
    FORBIDDEN = "forbidden"
    LOGIN = "login"
    THROTTLED = "throttled"
    TOO_COSTLY = "too-costly"
    EXCEPTION = "exception"
    TRANSIENT = "transient"
    PROCESSING = "processing"
    CONFLICT = "conflict"
    INFORMATIONAL = "informational"


STATUS_OF: dict[Issue, HTTPStatus] = {
    Issue.INVALID: HTTPStatus.BAD_REQUEST,
    Issue.NOT_SUPPORTED: HTTPStatus.BAD_REQUEST,
    Issue.TOO_COSTLY: HTTPStatus.BAD_REQUEST,
    Issue.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Issue.FORBIDDEN: HTTPStatus.FORBIDDEN,
    Issue.LOGIN: HTTPStatus.UNAUTHORIZED,
    Issue.THROTTLED: HTTPStatus.TOO_MANY_REQUESTS,
    Issue.EXCEPTION: HTTPStatus.INTERNAL_SERVER_ERROR,
    Issue.TRANSIENT: HTTPStatus.SERVICE_UNAVAILABLE,
    Issue.PROCESSING: HTTPStatus.UNPROCESSABLE_ENTITY,
    Issue.CONFLICT: HTTPStatus.PRECONDITION_FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One issue of an outcome. `parameter`: the name of what is wrong, where there is one."""

    issue: Issue
    text: str
    parameter: str | None = None
    severity: str = "error"


class OutcomeError(Exception):
    """A request ends with an outcome instead of what it asked for."""

    def __init__(
        self,
        issue: Issue,
        text: str,
        *,
        parameter: str | None = None,
        status: HTTPStatus | None = None,
    ) -> None:
        super().__init__(text)
        self.finding = Finding(issue=issue, text=text, parameter=parameter)
        self.status = status or STATUS_OF[issue]


def outcome(*findings: Finding) -> dict[str, object]:
    """Return an OperationOutcome."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": finding.severity,
                "code": finding.issue.value,
                "diagnostics": finding.text,
                **({} if finding.parameter is None else {"expression": [finding.parameter]}),
            }
            for finding in findings
        ],
    }


def outcome_response(status: HTTPStatus, *findings: Finding) -> Response:
    """Return an OperationOutcome as the response."""
    return Response(orjson.dumps(outcome(*findings)), status_code=status, media_type=MEDIA_TYPE)


def not_found() -> OutcomeError:
    """Return what is said where there is nothing, or nothing for the one who asks."""
    return OutcomeError(Issue.NOT_FOUND, "没有此资源 / there is no such resource")


def patient_not_named() -> OutcomeError:
    """Return what is said to a search through all residents."""
    return OutcomeError(
        Issue.TOO_COSTLY,
        "请指明居民 / name a patient: patient=ID; for all residents use $export",
        parameter="patient",
    )
