"""Guideline statistics and alerts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import Field

from api import clinical
from api.access import CurrentPrincipal, ForbiddenError, Role
from api.clinical import AlertDocument, AlertHistory, Statistics
from api.documents import Page
from api.openapi import UNKNOWN_RESIDENT
from api.problems import problem
from api.routes.parameters import (
    LIMIT_DEFAULT,
    PREFIX,
    AfterId,
    ArchiveOfApp,
    Limit,
    ResidentId,
    json_response,
    page_of,
)
from gateway.guidelines.home_pressure import CHINA_2024, RULE_SETS

router = APIRouter(prefix=PREFIX, tags=["指南统计与告警 / statistics and alerts"])

NOTE_CHARS_MAX = 500
DAY_MIN, DAY_MAX = date(2000, 1, 1), date(2199, 12, 31)
"""The days that statistics can be asked for."""
_SETTLED: dict[int | str, dict[str, Any]] = {
    HTTPStatus.CONFLICT: {"description": "已处理或不存在 / not there, or settled already"}
}

RuleSet = Enum("RuleSet", {name: name for name in RULE_SETS})  # type: ignore[misc]  # of the registry
_BY_DEFAULT = RuleSet(CHINA_2024.name)
AlertId = Annotated[UUID, Path(description="告警编号 / the alert's id")]


class AlertState(Enum):
    """Where an alert stands with people."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What somebody says when settling an alert."""

    note: Annotated[str | None, Field(max_length=NOTE_CHARS_MAX)] = None


@router.get(
    "/residents/{resident}/statistics",
    summary="按指南统计 / statistics by guideline",
    response_model=Statistics,
    responses=UNKNOWN_RESIDENT,
)
async def read_statistics(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    rule_set: Annotated[
        RuleSet, Query(description="血压规则 / whose rules judge the blood pressure")
    ] = _BY_DEFAULT,
    day: Annotated[
        date | None,
        Query(
            ge=DAY_MIN,
            le=DAY_MAX,
            description="截止日 (上海时间) / up to the end of this day in Shanghai; default: today",
        ),
    ] = None,
) -> Response:
    """Return home blood pressure, weight, temperature, water, steps and partial NEWS2."""
    rules = RULE_SETS[rule_set.value]
    until = day or clinical.today_in_shanghai()
    return json_response(await clinical.read_statistics(archive, principal, resident, rules, until))


@router.get(
    "/alerts",
    summary="所管居民的告警 / alerts of those in one's care",
    response_model=Page[AlertDocument],
)
async def list_alerts(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    state: Annotated[
        list[AlertState] | None,
        Query(description="状态, 可重复 / in these states (may repeat); default: open"),
    ] = None,
    after: AfterId = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List alerts of all whom the one who asks may see, newest first."""
    return await _page(archive, principal, None, state, after, limit)


@router.get(
    "/residents/{resident}/alerts",
    summary="居民的告警 / a resident's alerts",
    response_model=Page[AlertDocument],
    responses=UNKNOWN_RESIDENT,
)
async def list_alerts_of(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    state: Annotated[
        list[AlertState] | None,
        Query(description="状态, 可重复 / in these states (may repeat); default: open"),
    ] = None,
    after: AfterId = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List a resident's alerts, newest first."""
    return await _page(archive, principal, resident, state, after, limit)


@router.get(
    "/residents/{resident}/alerts/{alert}",
    summary="一条告警及其经过 / an alert and what happened to it",
    response_model=AlertHistory,
    responses=UNKNOWN_RESIDENT,
)
async def read_alert(
    archive: ArchiveOfApp, principal: CurrentPrincipal, resident: ResidentId, alert: AlertId
) -> Response:
    """Return one alert with its events."""
    found = await clinical.read_alert(archive, principal, resident, alert)
    return problem(HTTPStatus.NOT_FOUND) if found is None else json_response(found)


@router.post(
    "/residents/{resident}/alerts/{alert}/acknowledge",
    summary="确认告警 / acknowledge an alert",
    status_code=HTTPStatus.NO_CONTENT,
    response_class=Response,
    responses=UNKNOWN_RESIDENT | _SETTLED,
)
async def acknowledge(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    alert: AlertId,
    remark: Remark,
) -> Response:
    """Say that somebody has seen it and cares for it."""
    return await _settle(archive, principal, resident, alert, "acknowledged", remark)


@router.post(
    "/residents/{resident}/alerts/{alert}/resolve",
    summary="结束告警 / resolve an alert",
    status_code=HTTPStatus.NO_CONTENT,
    response_class=Response,
    responses=UNKNOWN_RESIDENT | _SETTLED,
)
async def resolve(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    alert: AlertId,
    remark: Remark,
) -> Response:
    """Say that nothing more is to be done."""
    return await _settle(archive, principal, resident, alert, "resolved", remark)


async def _page(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: UUID | None,
    states: list[AlertState] | None,
    after: UUID | None,
    limit: int,
) -> Response:
    items = await clinical.list_alerts(
        archive,
        principal,
        resident=resident,
        states=[state.value for state in states or [AlertState.OPEN]],
        after=after,
        limit=limit + 1,
    )
    return json_response(page_of(items, limit, key=lambda alert: alert.id))


async def _settle(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: UUID,
    alert: UUID,
    state: str,
    remark: Remark,
) -> Response:
    if principal.role is Role.RESIDENT:
        raise ForbiddenError("role")  # one's own alert is for the care team to settle
    settled = await clinical.settle_alert(
        archive, principal, resident, alert, state=state, note=remark.note
    )
    return Response(status_code=HTTPStatus.NO_CONTENT) if settled else problem(HTTPStatus.CONFLICT)
