"""What routes have in common: the archive they read, paging, and the JSON they answer with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar
from uuid import UUID

import orjson
from fastapi import Depends, Path, Query, Request
from fastapi.responses import Response

from api.archive import Archive
from api.documents import Page

PREFIX = "/api/v1"
LIMIT_DEFAULT, LIMIT_MAX = 100, 1000
"""A page has at most so many items; a larger limit is refused (422)."""
HUB_PATTERN = "^[0-9a-f]{16}$"
ADDRESS_PATTERN = "^([0-9A-F]{2}:){5}([0-9A-F]{2}|([0-9A-F]{2}:){2}[0-9A-F]{2})$"

_Item = TypeVar("_Item")


async def _archive(request: Request) -> Archive:
    archive: Archive = request.app.state.archive
    return archive


ArchiveOfApp = Annotated[Archive, Depends(_archive)]
_AFTER = "上一页的 `next` / `next` of the page before"
ResidentId = Annotated[UUID, Path(description="居民的公开编号 / the resident's public id")]
AfterNumber = Annotated[int | None, Query(ge=1, le=2**63 - 1, description=_AFTER)]
Limit = Annotated[
    int,
    Query(ge=1, le=LIMIT_MAX, description="每页条数 / at most so many items"),
]
AfterId = Annotated[UUID | None, Query(description=_AFTER)]
AfterHub = Annotated[str | None, Query(description=_AFTER, pattern=HUB_PATTERN)]
AfterDevice = Annotated[str | None, Query(description=_AFTER, pattern=ADDRESS_PATTERN)]
HomeFilter = Annotated[UUID | None, Query(description="只列此家庭的 / only those of this home")]


def json_response(document: object) -> Response:
    """Return a document as JSON; times in UTC end in Z."""
    return json_bytes(json_body(document))


def json_bytes(body: bytes) -> Response:
    """Return what is JSON already."""
    return Response(body, media_type="application/json")


def json_body(document: object) -> bytes:
    """Return the bytes of a document."""
    return orjson.dumps(document, option=orjson.OPT_UTC_Z)


def page_of(items: Sequence[_Item], limit: int, key: Callable[[_Item], object]) -> Page[_Item]:
    """Return the first `limit` of the items; `next` names the last where there are more."""
    shown = items[:limit]
    more = len(items) > limit
    return Page(items=shown, next=str(key(shown[-1])) if more else None)
