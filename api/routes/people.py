"""Residents as people: search, profile, limits of their own, a copy of all that is kept."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Header, HTTPException, Request
from fastapi.responses import Response, StreamingResponse

from api.access import CurrentPrincipal
from api.conditional import entity_tag, is_known
from api.openapi import UNKNOWN_RESIDENT, shown
from api.people import (
    FoundResident,
    FoundResidents,
    PersonDocument,
    ResidentSearch,
    Targets,
    person,
    search,
    set_targets,
    targets_of,
)
from api.profile import Target
from api.resident_file import FILE_NAME, MEDIA_TYPE, pieces, resident_file
from api.routes.parameters import PREFIX, ArchiveOfApp, ResidentId, json_body, json_response
from api.vault import IdentityVault
from gateway.errors import UnavailableError

router = APIRouter(prefix=PREFIX, tags=["居民 / residents"])

CHANGED: dict[int | str, dict[str, Any]] = {
    HTTPStatus.PRECONDITION_FAILED: {"description": "已被更改 / it was changed meanwhile"},
}
_EXAMPLE_ID = UUID("00177908-b24b-455b-a35a-d7e197746439")
_FOUND = FoundResidents(
    items=[FoundResident(id=_EXAMPLE_ID, visible=False, name=None, birth_date=None)]
)
_TARGETS = Targets(targets={"systolic_mmhg": Target(high=130)})


async def _identities(request: Request) -> IdentityVault:
    identities: IdentityVault | None = request.app.state.identities
    if identities is None:
        raise UnavailableError("the keys of the residents' identities are not here")
    return identities


Identities = Annotated[IdentityVault, Depends(_identities)]


@router.post(
    "/residents/search",
    summary="查找居民 / find a resident",
    response_model=FoundResidents,
    responses=shown(_FOUND),
)
async def search_residents(
    archive: ArchiveOfApp,
    vault: Identities,
    principal: CurrentPrincipal,
    wanted: Annotated[
        ResidentSearch,
        Body(
            openapi_examples={
                "number": {"value": {"national_id": "11010519491231002X"}},
                "card": {"value": {"health_card": "A12345678"}},
            }
        ),
    ],
) -> Response:
    """Find residents by identity number, health card, or name and date of birth together.

    What is looked for stands in the body: it reaches no address and no log. Whom you may not see is
    told by the opaque id alone.
    """
    today = datetime.now(UTC).date()
    return json_response(await search(archive, vault, principal, wanted, today))


@router.get("/residents/search", include_in_schema=False)
async def refuse_search_by_address() -> Response:
    """Refuse: else "search" would be taken for a resident's id."""
    raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)


@router.get(
    "/residents/{resident}/profile",
    summary="居民资料 / a resident's profile",
    response_model=PersonDocument,
    responses=UNKNOWN_RESIDENT,
)
async def read_profile(
    archive: ArchiveOfApp, vault: Identities, principal: CurrentPrincipal, resident: ResidentId
) -> Response:
    """Return what is known of one resident beside the measurements, name and numbers too."""
    return json_response(await person(archive, vault, principal, resident))


@router.get(
    "/residents/{resident}/targets",
    summary="个人目标 / a resident's own limits",
    response_model=Targets,
    responses=shown(_TARGETS) | UNKNOWN_RESIDENT,
)
async def read_targets(
    archive: ArchiveOfApp, principal: CurrentPrincipal, resident: ResidentId
) -> Response:
    """Return the limits that override those of the rule sets."""
    return json_response(await targets_of(archive, principal, resident))


@router.put(
    "/residents/{resident}/targets",
    summary="设定个人目标 / set a resident's own limits",
    response_model=Targets,
    responses=shown(_TARGETS) | UNKNOWN_RESIDENT | CHANGED,
)
async def write_targets(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    resident: ResidentId,
    targets: Annotated[
        Targets,
        Body(
            openapi_examples={"pressure": {"value": {"targets": {"systolic_mmhg": {"high": 130}}}}}
        ),
    ],
    if_match: Annotated[
        str | None,
        Header(description="`ETag` of the limits to be replaced", max_length=1000),
    ] = None,
) -> Response:
    """Set all of a resident's own limits; with If-Match, only if nobody changed them meanwhile."""
    before = None
    if if_match is not None and if_match.strip() != "*":
        before = await targets_of(archive, principal, resident)
        if not is_known(entity_tag(json_body(before)), if_match):
            before = Targets(targets={"": Target()})  # what no one has: the write is refused
    done = await set_targets(archive, principal, resident, targets, before)
    response = json_response(done)
    response.headers["ETag"] = entity_tag(json_body(done))
    return response


@router.get(
    "/residents/{resident}/copy",
    summary="档案副本 / a copy of the archive",
    response_class=Response,
    responses={
        HTTPStatus.OK: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
    }
    | UNKNOWN_RESIDENT,
)
async def read_copy(
    request: Request,
    archive: ArchiveOfApp,
    vault: Identities,
    principal: CurrentPrincipal,
    resident: ResidentId,
) -> Response:
    """Return all that is kept of a resident as one archive file (ZIP with JSON, CSV and FHIR)."""
    turns: asyncio.Semaphore = request.app.state.copies
    async with turns:
        file = await resident_file(archive, vault, principal, resident)
    return StreamingResponse(
        pieces(file),
        media_type=MEDIA_TYPE,
        headers={"Content-Disposition": f'attachment; filename="{FILE_NAME}"'},
    )
