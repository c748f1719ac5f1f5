"""Live events of new readings and of alerts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from api.access import CurrentPrincipal, Needs, Role, require
from api.live import Feed, Follower, TooManyFollowersError, read_place, stream
from api.openapi import UNKNOWN_RESIDENT
from api.problems import ParameterError, problem
from api.routes.parameters import PREFIX

router = APIRouter(prefix=PREFIX, tags=["实时 / live"])

RESIDENTS_MAX = 50
"""More residents by name are refused; without any, all whom you may see are followed."""
MEDIA_TYPE = "text/event-stream"
_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string"},
        "id": {"type": "string"},
        "data": {
            "type": "string",
            "description": "JSON: `resident` and `measurement`, or `resident`, `what`, `at` and `alert`",
        },
    },
    "required": ["event", "data"],
}
STREAM: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK: {
        "description": "事件流, 无尽 / a stream of events, without end",
        "content": {MEDIA_TYPE: {"schema": _EVENT}},
    },
}


async def _feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


FeedOfApp = Annotated[Feed, Depends(_feed)]


@router.get(
    "/live",
    summary="实时测量 / new readings as they are stored",
    response_class=StreamingResponse,
    responses=STREAM | UNKNOWN_RESIDENT,
)
async def follow(
    feed: FeedOfApp,
    principal: CurrentPrincipal,
    resident: Annotated[
        list[UUID] | None,
        Query(description="只看这些居民 / of these residents only", max_length=RESIDENTS_MAX),
    ] = None,
    last_event_id: Annotated[
        str | None, Header(description="从此处继续 / go on behind this event's id", max_length=40)
    ] = None,
) -> Response:
    """Follow new readings and alerts of those whom you may see: late and re-attributed readings too.

    Events: `measurement`; `alert` (raised, cleared, acknowledged, …); `ready` (nothing is missed from here on); `reset` (too much was missed: read
    the measurements anew); `dropped` (you read too slowly) and `reconnect`, after which the stream ends
    and goes on with Last-Event-ID; `signed_out`.
    """
    require(principal, Needs.VALUES)
    if principal.role is Role.SERVICE and not resident:
        raise ParameterError("resident", "请指明居民 / a service names the residents")
    try:
        after = read_place(last_event_id)
    except ValueError as error:
        raise ParameterError("last-event-id", f"不是有效的编号 / {error}") from error
    events = stream(feed, Follower(principal=principal, only=resident), after)
    try:
        first = await anext(events)  # who may not follow is told so before the stream begins
    except TooManyFollowersError as error:
        if error.of_one:
            return problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "此账户的订阅过多: 请先关闭其他页面 / this account follows too often: close other pages",
            )
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, "订阅者过多 / too many clients follow")

    async def whole() -> AsyncIterator[bytes]:
        async with aclosing(events):
            yield first
            async for event in events:
                yield event

    return StreamingResponse(whole(), media_type=MEDIA_TYPE)
