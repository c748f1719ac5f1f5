"""The routes of subscriptions: create, read, delete, `$status`, `$events`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from api.access import CurrentPrincipal, Principal
from api.archive import Archive
from api.fhir.access import CREATE, DELETE, READ, require_scope
from api.fhir.errors import PREFIX
from api.fhir.outcomes import Issue, OutcomeError
from api.fhir.routes import FhirResponse, base_of
from api.fhir.subscriptions import (
    CONTENTS,
    SUBSCRIPTIONS_MAX,
    TOPIC,
    Subscription,
    Subscriptions,
    TooManySubscriptionsError,
    Wish,
    search_of,
    status_resource,
    subscription_resource,
)
from api.fhir.webhooks import Webhooks
from gateway.errors import UnavailableError

router = APIRouter(prefix=PREFIX, tags=["FHIR"], default_response_class=FhirResponse)


async def _subscriptions(request: Request) -> Subscriptions:
    archive: Archive = request.app.state.archive
    return Subscriptions(archive, _webhooks(request))


def _webhooks(request: Request) -> Webhooks:
    webhooks: Webhooks | None = request.app.state.webhooks
    if webhooks is None:
        raise UnavailableError("the key of the webhooks is not here")
    return webhooks


SubscriptionsOfApp = Annotated[Subscriptions, Depends(_subscriptions)]
Number = Annotated[int, Query(ge=0, le=(1 << 62), description="事件序号 / an event's number")]


@router.post(
    "/Subscription",
    summary="订阅 / subscribe",
    status_code=HTTPStatus.CREATED,
)
async def create_subscription(
    request: Request, subscriptions: SubscriptionsOfApp, principal: CurrentPrincipal
) -> Response:
    """Subscribe to a resident's new Observations; the answer alone has the secret of the signatures."""
    require_scope(principal, "Subscription", CREATE)
    wish = _wish(await request.body(), principal, _webhooks(request))
    try:
        one, secret = await subscriptions.create(principal, wish)
    except TooManySubscriptionsError as error:
        raise OutcomeError(
            Issue.TOO_COSTLY, f"订阅过多 / an account has at most {SUBSCRIPTIONS_MAX}"
        ) from error
    headers = {"Location": f"{base_of(request)}/Subscription/{one.id}"}
    body = orjson.dumps(subscription_resource(one, secret))
    return FhirResponse(body, status_code=HTTPStatus.CREATED, headers=headers)


@router.get(
    "/Subscription/{subscription}",
    summary="一项订阅 / one Subscription",
)
async def read_subscription(
    subscriptions: SubscriptionsOfApp, principal: CurrentPrincipal, subscription: UUID
) -> Response:
    """Return a subscription of the asker."""
    one = await _found(subscriptions, principal, subscription)
    return FhirResponse(orjson.dumps(subscription_resource(one)))


@router.delete(
    "/Subscription/{subscription}",
    summary="取消订阅 / unsubscribe",
    status_code=HTTPStatus.NO_CONTENT,
)
async def delete_subscription(
    subscriptions: SubscriptionsOfApp, principal: CurrentPrincipal, subscription: UUID
) -> Response:
    """Forget a subscription of the asker."""
    require_scope(principal, "Subscription", DELETE)
    if not await subscriptions.delete(principal, subscription):
        raise _unknown()
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get(
    "/Subscription/{subscription}/$status",
    summary="订阅状态 / how a Subscription is",
)
async def read_subscription_status(
    request: Request,
    subscriptions: SubscriptionsOfApp,
    principal: CurrentPrincipal,
    subscription: UUID,
) -> Response:
    """Tell how many events there were, and whether they are delivered."""
    one = await _found(subscriptions, principal, subscription)
    return FhirResponse(orjson.dumps(status_resource(one, base_of(request), "query-status")))


@router.get(
    "/Subscription/{subscription}/$events",
    summary="补读事件 / events to catch up with",
)
async def read_subscription_events(
    request: Request,
    subscriptions: SubscriptionsOfApp,
    principal: CurrentPrincipal,
    subscription: UUID,
    since: Annotated[Number, Query(alias="eventsSinceNumber")] = 0,
    until: Annotated[Number, Query(alias="eventsUntilNumber")] = 1 << 62,
) -> Response:
    """Tell events again, from a number on, delivered, dead or not sent yet."""
    one = await _found(subscriptions, principal, subscription)
    body, _last = await subscriptions.notification(
        one, base_of(request), max(since - 1, 0), until, "query-event"
    )
    return FhirResponse(body)


def _wish(body: bytes, principal: Principal, webhooks: Webhooks) -> Wish:
    try:
        document = orjson.loads(body)
        if document["resourceType"] != "Subscription":
            raise TypeError("another resource")  # noqa: TRY301 - told below, like all the others
        channel = document["channel"]
        criteria, kind, endpoint = document["criteria"], channel["type"], channel["endpoint"]
        if criteria == TOPIC:
            criteria = _extension(document["_criteria"], "backport-filter-criteria")
        content = "id-only"
        if "_payload" in channel:
            content = _extension(channel["_payload"], "backport-payload-content")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise OutcomeError(Issue.INVALID, "应为 Subscription 资源 / a Subscription") from error
    if kind != "rest-hook" or content not in CONTENTS:
        raise OutcomeError(Issue.NOT_SUPPORTED, f"rest-hook; {', '.join(CONTENTS)}")
    if not isinstance(endpoint, str) or not webhooks.hosts.may_be_told(endpoint):
        raise OutcomeError(
            Issue.NOT_SUPPORTED,
            "地址须为公网 HTTPS / https to a public host, or one that HEARTH_WEBHOOK_HOSTS names",
            parameter="endpoint",
        )
    if not isinstance(criteria, str) or not criteria.startswith("Observation?"):
        raise OutcomeError(
            Issue.NOT_SUPPORTED, "应为 / Observation?patient=…&code=…", parameter="criteria"
        )
    search = search_of(criteria, principal)
    if search.resident is None or {name for name, _value in search.used} - {
        "patient", "subject", "code", "category", "combo-code", "component-code",
    }:  # fmt: skip
        raise OutcomeError(
            Issue.NOT_SUPPORTED,
            "应有 patient, 可有 code 与 category / patient, code, category",
            parameter="criteria",
        )
    return Wish(resident=search.resident, criteria=criteria, endpoint=endpoint, content=content)


def _extension(element: Mapping[str, Any], name: str) -> str:
    found = next(e for e in element["extension"] if e["url"].endswith(f"/{name}"))
    return str(found["valueString"] if "valueString" in found else found["valueCode"])


async def _found(
    subscriptions: Subscriptions, principal: Principal, subscription: UUID
) -> Subscription:
    require_scope(principal, "Subscription", READ)
    one = await subscriptions.read(principal, subscription)
    if one is None:
        raise _unknown()
    return one


def _unknown() -> OutcomeError:
    return OutcomeError(Issue.NOT_FOUND, "没有此订阅 / there is no such subscription")
