"""The worklist of readings without an owner: look, claim, re-assign."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Body, Query
from fastapi.responses import Response
from pydantic import ConfigDict, Field

from api.access import CurrentPrincipal
from api.corrections import CLAIMS_MAX
from api.cursor import TOKEN_CHARS
from api.documents import Page
from api.openapi import UNKNOWN_RESIDENT, shown
from api.problems import ParameterError, problem
from api.routes.lists import Done
from api.routes.parameters import (
    LIMIT_DEFAULT,
    PREFIX,
    ArchiveOfApp,
    Limit,
    ResidentId,
    json_response,
    page_of,
)
from api.worklist import WaitingReading, claim, list_waiting
from gateway.errors import UsageError

router = APIRouter(prefix=PREFIX, tags=["名单 / lists"])

READING_PATTERN = f"^[0-9a-f]{{{TOKEN_CHARS}}}$"
REASON_CHARS_MAX = 500
ReadingId = Annotated[str, Field(pattern=READING_PATTERN)]
NO_READING: dict[int | str, dict[str, Any]] = {
    HTTPStatus.NOT_FOUND: {
        "description": "没有此居民或测量 / there is no such resident, or a reading is not there to be claimed"
    },
}
_EXAMPLE = {
    "readings": ["000643febb1910000000000bff01000644056fb63000"],
    "reason": "早上是我称的 / it was me who stood on the scale",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClaim:
    """Readings that somebody knows the owner of."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        use_attribute_docstrings=True, extra="forbid"
    )

    readings: Annotated[list[ReadingId], Field(min_length=1, max_length=CLAIMS_MAX)]
    """Their ids: from the worklist, or of measurements that are another's."""
    reason: Annotated[str | None, Field(max_length=REASON_CHARS_MAX)] = None
    """For the audit."""


@router.get(
    "/residents/{resident}/unassigned",
    summary="待认领的测量 / readings without an owner",
    response_model=Page[WaitingReading],
    responses=UNKNOWN_RESIDENT,
)
async def read_unassigned(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    after: Annotated[
        str | None,
        Query(description="上一页的 `next` / `next` of the page before", pattern=READING_PATTERN),
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List readings that may be this resident's, the newest first. No values: they may be another's."""
    try:
        items = await list_waiting(archive, principal, resident, after, limit + 1)
    except UsageError as error:
        raise ParameterError("after", "没有此测量 / there is no such reading") from error
    return json_response(page_of(items, limit, key=lambda reading: reading.id))


@router.post(
    "/residents/{resident}/unassigned/claim",
    summary="认领或改判 / claim readings",
    response_model=Done,
    responses=shown(Done()) | NO_READING,
)
async def write_claim(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    new: Annotated[NewClaim, Body(openapi_examples={"scale": {"value": _EXAMPLE}})],
) -> Response:
    """Say that readings are this resident's; the household's history learns from it.

    Residents claim what is nobody's, of devices that are linked to them or that they share. Coordinators
    also re-assign what is another's, where both are residents of their care team.
    """
    try:
        found = await claim(archive, principal, resident, new.readings, new.reason)
    except UsageError as error:
        raise ParameterError("readings", "没有此测量 / there is no such reading") from error
    if not found:
        return problem(HTTPStatus.NOT_FOUND, "没有此测量 / a reading is not there to be claimed")
    return json_response(Done())
