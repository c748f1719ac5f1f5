"""Links and their changes, what was kept apart, and who was last measured when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from http import HTTPStatus
from typing import Annotated, Any, ClassVar
from uuid import UUID

from fastapi import APIRouter, Body, Query
from fastapi.responses import Response
from pydantic import ConfigDict, Field

from api.access import CurrentPrincipal
from api.documents import Page
from api.lists import (
    LastMeasured,
    LinkEntry,
    QuarantineEntry,
    add_link,
    end_link,
    last_measured,
    list_links,
    list_quarantine,
)
from api.moments import Moment
from api.openapi import UNKNOWN_RESIDENT, shown
from api.problems import ParameterError, problem
from api.records import Link
from api.routes.parameters import (
    ADDRESS_PATTERN,
    LIMIT_DEFAULT,
    PREFIX,
    AfterId,
    ArchiveOfApp,
    Limit,
    json_response,
    page_of,
)
from gateway.errors import DataError
from gateway.stored import QUARANTINE_REASONS
from gateway.vital_sign import NO_USER_SLOT

router = APIRouter(prefix=PREFIX, tags=["名单 / lists"])

Reason = Enum("Reason", {name.upper(): name for name in QUARANTINE_REASONS.values()})  # type: ignore[misc]
"""Why something was kept apart."""
KEY_MAX = 2**31 - 1
LONG_KEY_MAX = 2**63 - 1
OVERLAPS: dict[int | str, dict[str, Any]] = {
    HTTPStatus.CONFLICT: {"description": "时间重叠 / the slot is another resident's at that time"},
}
NO_LINK: dict[int | str, dict[str, Any]] = {
    HTTPStatus.NOT_FOUND: {"description": "没有此关联 / there is no such link"},
}
_EXAMPLE = {
    "device": "C0:26:DA:01:02:03",
    "user_slot": 1,
    "resident": "00177908-b24b-455b-a35a-d7e197746439",
}
_CLOSED = ConfigDict(use_attribute_docstrings=True, extra="forbid")


class State(Enum):
    """What became of something that was kept apart."""

    WAITING = "waiting"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLink:
    """Who is to be measured by a slot of a device."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    device: Annotated[str, Field(pattern=ADDRESS_PATTERN)]
    user_slot: Annotated[int, Field(ge=0, le=NO_USER_SLOT)] = NO_USER_SLOT
    """255: readings that name no slot."""
    resident: UUID
    starts_at: Moment | None = None
    """null: from now."""
    ends_at: Moment | None = None
    """null: for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEnd:
    """Which link is to end."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    device: Annotated[str, Field(pattern=ADDRESS_PATTERN)]
    user_slot: Annotated[int, Field(ge=0, le=NO_USER_SLOT)] = NO_USER_SLOT
    resident: UUID
    at: Moment | None = None
    """null: now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A write is done, now or before."""

    done: bool = True


@router.get(
    "/links",
    summary="关联列表 / links",
    response_model=Page[LinkEntry],
    responses=UNKNOWN_RESIDENT,
)
async def read_links(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    device: Annotated[
        str | None, Query(description="只列此设备的 / of this device", pattern=ADDRESS_PATTERN)
    ] = None,
    resident: Annotated[UUID | None, Query(description="只列此居民的 / of this resident")] = None,
    after: Annotated[
        int | None,
        Query(ge=1, le=KEY_MAX, description="上一页的 `next` / `next` of the page before"),
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List the links in force of the residents whom you may see, past ones too."""
    items = await list_links(
        archive, principal, device=device, resident=resident, after=after, page=limit
    )
    return json_response(page_of(items, limit, key=lambda link: link.id))


@router.post(
    "/links",
    summary="新增关联 / link a resident",
    response_model=Done,
    responses=shown(Done()) | UNKNOWN_RESIDENT | OVERLAPS,
)
async def write_link(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    new: Annotated[NewLink, Body(openapi_examples={"cuff": {"value": _EXAMPLE}})],
) -> Response:
    """Link a resident to a slot of a device; what stands already stays."""
    starts_at = new.starts_at or datetime.now(UTC)
    if new.ends_at is not None and new.ends_at <= starts_at:
        raise ParameterError("ends_at", "早于开始 / it would end before it begins")
    link = Link(
        device=new.device,
        user_slot=new.user_slot,
        resident=new.resident,
        starts_at=starts_at,
        ends_at=new.ends_at,
    )
    try:
        known = await add_link(archive, principal, link)
    except DataError as error:
        if type(error) is not DataError:
            raise
        detail = "该槽位此时属于另一居民 / the slot is another resident's at that time: 请先结束该关联 / end that link first"
        return problem(HTTPStatus.CONFLICT, detail)
    if not known:
        raise ParameterError("device", "设备未登记 / the device is not entered")
    return json_response(Done())


@router.post(
    "/links/end",
    summary="结束关联 / end a link",
    response_model=Done,
    responses=shown(Done()) | NO_LINK,
)
async def write_link_end(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    end: Annotated[LinkEnd, Body(openapi_examples={"cuff": {"value": _EXAMPLE}})],
) -> Response:
    """End a link; measurements that are stored stay as they are."""
    found = await end_link(
        archive,
        principal,
        device=end.device,
        user_slot=end.user_slot,
        resident=end.resident,
        at=end.at or datetime.now(UTC),
    )
    if not found:
        return problem(HTTPStatus.NOT_FOUND, "没有此关联 / there is no such link at that time")
    return json_response(Done())


@router.get("/quarantine", summary="隔离区 / kept apart", response_model=Page[QuarantineEntry])
async def read_quarantine(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    state: Annotated[State | None, Query(description="状态 / its state")] = None,
    reason: Annotated[Reason | None, Query(description="原因 / why")] = None,
    after: Annotated[
        int | None,
        Query(ge=1, le=LONG_KEY_MAX, description="上一页的 `next` / `next` of the page before"),
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List what was kept apart and why, the newest first; its bytes are not shown."""
    items = await list_quarantine(
        archive,
        principal,
        state=state.value if state else None,
        reason=reason.value if reason else None,
        after=after,
        limit=limit + 1,
    )
    return json_response(page_of(items, limit, key=lambda entry: entry.id))


@router.get(
    "/worklists/last-measured",
    summary="最近测量时间 / who was last measured when",
    response_model=Page[LastMeasured],
)
async def read_last_measured(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    after: AfterId = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List when the residents of your care team were last measured: who needs a call. No values."""
    items = await last_measured(archive, principal, after, limit)
    return json_response(page_of(items, limit, key=lambda entry: entry.resident))
