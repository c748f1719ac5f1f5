"""Who I am, who looked at my data, what I do not consent to; and access in an emergency."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from fastapi.responses import Response

from api.access import CurrentPrincipal
from api.documents import (
    AuditEntry,
    BreakGlass,
    BrokenGlass,
    ConsentChange,
    Me,
    NoticeDocument,
    Objection,
    Page,
)
from api.openapi import UNKNOWN_RESIDENT
from api.problems import ParameterError
from api.routes.parameters import (
    LIMIT_DEFAULT,
    PREFIX,
    AfterNumber,
    ArchiveOfApp,
    Limit,
    ResidentId,
    json_response,
    page_of,
)
from gateway.vital_sign import VitalSign
from gateway.vitals import BY_NAME

router = APIRouter(prefix=PREFIX, tags=["访问 / access"])


@router.get("/me", summary="我是谁 / who I am", response_model=Me)
async def read_me(archive: ArchiveOfApp, principal: CurrentPrincipal) -> Response:
    """Return who asks."""
    await archive.vouch(principal)
    me = Me(
        id=principal.user,
        role=principal.role.value,
        resident=principal.resident,
        scopes=sorted(principal.scopes),
    )
    return json_response(me)


@router.get(
    "/notices",
    summary="通知 / notices",
    response_model=Page[NoticeDocument],
)
async def list_notices(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    after: AfterNumber = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List what the one who asks is told, the latest first: a resident, or who reads the audit."""
    items = await archive.notices(principal, after, limit + 1)
    return json_response(page_of(items, limit, key=lambda notice: notice.id))


@router.get(
    "/residents/{resident}/audit",
    summary="谁看过 / who looked",
    response_model=Page[AuditEntry],
    responses=UNKNOWN_RESIDENT,
)
async def list_audit(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    after: AfterNumber = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List every read and write of a resident's data, refused ones too, the latest first."""
    items = await archive.audit(principal, resident, after, limit + 1)
    return json_response(page_of(items, limit, key=lambda entry: entry.id))


@router.get(
    "/residents/{resident}/consent",
    summary="不同意的事项 / what is not consented to",
    response_model=list[Objection],
    responses=UNKNOWN_RESIDENT,
)
async def read_consent(
    archive: ArchiveOfApp, principal: CurrentPrincipal, resident: ResidentId
) -> Response:
    """List the signs that the resident withholds and the accounts that are refused."""
    return json_response(await archive.objections(principal, resident))


@router.post(
    "/residents/{resident}/consent",
    summary="更改同意 / change consent",
    response_model=list[Objection],
)
async def change_consent(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    change: ConsentChange,
) -> Response:
    """Withhold a sign from everyone else, or refuse a clinician; or allow it again."""
    if (change.sign is None) == (change.account is None):
        raise ParameterError(
            "sign", "需给出体征或账户之一 / give a sign or an account, one of them"
        )
    await archive.change_consent(
        principal,
        resident,
        sign=_sign(change.sign),
        account=change.account,
        allow=change.allow,
    )
    return json_response(await archive.objections(principal, resident))


@router.post(
    "/residents/{resident}/break-glass",
    summary="紧急访问 / access in an emergency",
    response_model=BrokenGlass,
    status_code=HTTPStatus.CREATED,
    responses=UNKNOWN_RESIDENT,
)
async def break_glass(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    given: BreakGlass,
) -> Response:
    """Open a resident's archive for an hour, with a reason that the resident is told."""
    expires_at = await archive.break_glass(principal, resident, given.reason)
    response = json_response(BrokenGlass(resident=resident, expires_at=expires_at))
    response.status_code = HTTPStatus.CREATED
    return response


def _sign(name: str | None) -> VitalSign | None:
    if name is None:
        return None
    if name not in BY_NAME:
        raise ParameterError("sign", f"未知体征 / unknown; known are: {', '.join(BY_NAME)}")
    return BY_NAME[name]
