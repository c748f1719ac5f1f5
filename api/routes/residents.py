"""Residents and their measurements."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from api.access import CurrentPrincipal
from api.cursor import BEFORE_ALL, BEHIND_ALL, TOKEN_CHARS, Place, decode_place
from api.documents import LatestOfSign, MeasurementDocument, Page, ResidentDocument
from api.json_pages import latest_json, page_json
from api.measurement_rows import Order, Selection
from api.moments import Moment
from api.openapi import EXAMPLE, UNKNOWN_RESIDENT, shown
from api.problems import ParameterError
from api.records import Resident
from api.routes.parameters import (
    LIMIT_DEFAULT,
    PREFIX,
    AfterId,
    ArchiveOfApp,
    Limit,
    ResidentId,
    json_bytes,
    json_response,
    page_of,
)
from api.series import (
    BUCKETS_MAX,
    ZONE_DEFAULT,
    SeriesDocument,
    SeriesSelection,
    Width,
    fits,
    fitting_width,
    is_zone,
)
from gateway.vital_sign import VitalSign
from gateway.vitals import BY_NAME, SIGNS

SIGNS_MAX = 32
"""More names of signs in one request are refused."""
router = APIRouter(prefix=PREFIX, tags=["居民 / residents"])


@router.get(
    "/residents",
    summary="居民列表 / residents",
    response_model=Page[Resident],
)
async def list_residents(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    after: AfterId = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List residents in the order of their ids."""
    items = await archive.residents(principal, after, limit + 1)
    return json_response(page_of(items, limit, key=lambda resident: resident.id))


@router.get(
    "/residents/{resident}",
    summary="一位居民 / one resident",
    response_model=ResidentDocument,
    responses=UNKNOWN_RESIDENT,
)
async def read_resident(
    archive: ArchiveOfApp, principal: CurrentPrincipal, resident: ResidentId
) -> Response:
    """Return one resident and who is measured by what, past links too."""
    return json_response(await archive.resident(principal, resident))


@router.get(
    "/residents/{resident}/measurements",
    summary="测量 / measurements",
    response_model=Page[MeasurementDocument],
    responses=shown(Page(items=[EXAMPLE], next=EXAMPLE.id)) | UNKNOWN_RESIDENT,
)
async def list_measurements(  # noqa: PLR0913, PLR0917 - each is a parameter of the route
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    sign: Annotated[
        list[str] | None,
        Query(
            description="体征, 可重复 / of these signs (may repeat); default: all",
            max_length=SIGNS_MAX,
        ),
    ] = None,
    from_at: Annotated[
        Moment | None,
        Query(alias="from", description="起始时间, 含 / measured at or after"),
    ] = None,
    to_at: Annotated[
        Moment | None,
        Query(alias="to", description="结束时间, 不含 / measured before"),
    ] = None,
    order: Annotated[
        Order, Query(description="最新在前或最早在前 / newest or oldest first")
    ] = Order.DESC,
    after: Annotated[
        str | None,
        Query(
            description="上一页的 `next`, 即末条测量的编号 / `next` of the page before: the id of "
            "its last measurement",
            min_length=TOKEN_CHARS,
            max_length=TOKEN_CHARS,
        ),
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List a resident's measurements by when they were measured, not by when they came."""
    selection = Selection(
        signs=_signs(sign),
        from_at=from_at or BEFORE_ALL.measured_at,
        to_at=to_at or BEHIND_ALL.measured_at,
        order=order,
        after=_place(after),
        limit=limit + 1,
    )
    rows = await archive.measurement_rows(principal, resident, selection)
    return json_bytes(page_json(rows, limit))


@router.get(
    "/residents/{resident}/latest",
    summary="最新测量 / latest",
    response_model=dict[str, LatestOfSign],
    responses=shown({EXAMPLE.sign: LatestOfSign(latest=EXAMPLE, latest_without_artefact=EXAMPLE)})
    | UNKNOWN_RESIDENT,
)
async def read_latest(
    archive: ArchiveOfApp, principal: CurrentPrincipal, resident: ResidentId
) -> Response:
    """Return the latest of each sign by when it was measured, and the latest undisturbed one."""
    return json_bytes(latest_json(await archive.latest(principal, resident)))


@router.get(
    "/residents/{resident}/series",
    summary="曲线 / series for charts",
    response_model=SeriesDocument,
    responses=UNKNOWN_RESIDENT,
)
async def read_series(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    from_at: Annotated[
        Moment, Query(alias="from", description="起始时间, 含 / measured at or after")
    ],
    to_at: Annotated[Moment, Query(alias="to", description="结束时间, 不含 / measured before")],
    sign: Annotated[
        list[str] | None,
        Query(
            description="体征, 可重复 / of these signs (may repeat); default: all",
            max_length=SIGNS_MAX,
        ),
    ] = None,
    width: Annotated[
        Width | None,
        Query(
            description=f"桶宽, 默认自动 / default: the narrowest that makes {BUCKETS_MAX} or less"
        ),
    ] = None,
    zone: Annotated[
        str, Query(description="按此时区的时钟分日 / days are by this zone's clock", max_length=64)
    ] = ZONE_DEFAULT,
) -> Response:
    """Return mean, least and greatest of each quantity in buckets, on one axis for all signs.

    Disturbed measurements (artefacts) are counted and left out of the numbers.
    """
    if not is_zone(zone):
        raise ParameterError("zone", "未知时区 / unknown; such as Asia/Shanghai")
    if from_at >= to_at:
        raise ParameterError("to", "不晚于起始时间 / not after `from`")
    taken = width or fitting_width(from_at, to_at)
    if taken is None or not fits(taken, from_at, to_at):
        raise ParameterError("width", f"超过 {BUCKETS_MAX} 桶 / more than {BUCKETS_MAX} buckets")
    selection = SeriesSelection(
        signs=_signs(sign), from_at=from_at, to_at=to_at, width=taken, zone=zone
    )
    return json_response(await archive.series(principal, resident, selection))


def _signs(names: list[str] | None) -> list[VitalSign]:
    if names is None:
        return list(SIGNS)
    unknown = next((name for name in names if name not in BY_NAME), None)
    if unknown is not None:
        raise ParameterError("sign", f"未知体征 / unknown; known are: {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in dict.fromkeys(names)]


def _place(token: str | None) -> Place | None:
    if token is None:
        return None
    try:
        return decode_place(token)
    except ValueError as error:
        raise ParameterError("after", f"不是有效的位置 / {error}") from error
