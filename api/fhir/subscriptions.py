"""Subscriptions, rest-hook: HL7 Subscriptions R5 Backport 1.1 on R4.

Events come from the feed of changes, so that late and re-attributed readings are told too, once they
are committed. At least once: an event counts as delivered when the endpoint has answered 2xx; until
then it is sent again, ever more rarely, and in the end is dead, but still there for `$events`.
Every notification is signed: X-Hearth-Signature: t=SECONDS,v1=HMAC-SHA256(secret, "SECONDS.body").
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID, uuid4

import orjson

from api.access import ForbiddenError, Principal, SignedOutError
from api.archive import Archive, UnknownResidentError
from api.fhir.access import SEARCH, parts_for
from api.fhir.export import principal_from_json, principal_to_json
from api.fhir.observations import Made
from api.fhir.outcomes import OutcomeError
from api.fhir.resources import instant
from api.fhir.search import Search, parse_observation_id, parse_search
from api.fhir.store import FhirStore
from api.fhir.vocabulary import MEDIA_TYPE, OURS
from api.fhir.webhooks import Webhooks
from gateway.errors import UnavailableError, UsageError
from gateway.platform.changes import (
    START,
    Change,
    Place,
    end_of_changes,
    is_whole,
    read_changes,
)
from gateway.platform.logs import get_logger
from gateway.platform.postgres import AsyncConnection, Jsonb, TupleRow, load_queries
from gateway.platform.pruning import TOLD_KEPT_DAYS, UNTOLD_KEPT_DAYS, Hourly, prune
from gateway.platform.webhook_hosts import Client, open_client
from gateway.platform.webhook_signature import signature

TOPIC = f"{OURS}/SubscriptionTopic/observation"
"""New Observations of a resident, and those that were re-attributed."""
CONTENTS = ("empty", "id-only", "full-resource")
SUBSCRIPTIONS_MAX = 20
"""An account has at most so many; a further one is refused."""
EVENTS_A_NOTIFICATION = 50
"""A notification tells at most so many events."""
OBSERVATIONS_AN_EVENT_MAX = 1000
"""An event names at most so many Observations, the latest; the asker then searches for the others."""
ATTEMPTS_MAX = 12
"""After so many failures in a row (some six hours) the delivery is given up."""
WAIT_S, WAIT_S_MAX = 5, 3600
"""Before the second attempt, and at most; it doubles with each."""
LEASE_S = 60
ANSWER_S_MAX = 10.0
"""An endpoint that takes longer has not answered."""
LOOK_S = 1.0
"""How often the feed is read."""

_SQL = load_queries(Path(__file__).parents[1] / "sql" / "fhir_subscription.sql")
_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
_MAY_NOT_READ = (ForbiddenError, SignedOutError, UnknownResidentError, OutcomeError)
_log = get_logger(__name__)


class TooManySubscriptionsError(Exception):
    """The account has as many as it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A subscription as asked for."""

    resident: UUID
    criteria: str
    endpoint: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscription as kept."""

    id: UUID
    principal: Principal
    resident: UUID
    resident_id: int
    criteria: str
    endpoint: str
    sealed: bytes | None
    """The secret of its signatures (api.fhir.webhooks); None: it is not sealed yet."""
    content: str
    status: str
    place: Place
    events: int
    delivered: int
    attempts: int
    error: str | None


def search_of(criteria: str, principal: Principal) -> Search:
    """Return the search of a criteria ("Observation?patient=ID&code=..."), within what is seen.

    Raises:
        OutcomeError: it is wrong or says what no subscription can.
    """
    return parse_search(
        parse_qsl(criteria.partition("?")[2], keep_blank_values=True),
        allowed=parts_for(principal, SEARCH),
        now=datetime.now(UTC),
        strict=True,
    )


class Subscriptions:
    """The subscriptions of an archive, and the work of telling them."""

    def __init__(self, archive: Archive, webhooks: Webhooks) -> None:
        self._archive = archive
        self._webhooks = webhooks
        self._store = FhirStore(archive)

    async def create(self, principal: Principal, wish: Wish) -> tuple[Subscription, str]:
        """Enter a subscription to what comes from now on; return it and its secret.

        Raises:
            TooManySubscriptionsError: the account has as many as it may.
        """
        async with self._archive.reading(
            principal, action="subscription.create", resident=wish.resident
        ) as connection:
            cursor = await connection.execute(_SQL["resident_key"], {"resident": wish.resident})
            key = await cursor.fetchone()
            place = await end_of_changes(connection)
        if key is None:
            raise UnknownResidentError
        subscription, secret = uuid4(), secrets.token_urlsafe(32)
        rows = await self._archive.write(
            _SQL["create"],
            {
                "subscription": subscription,
                "account": principal.user,
                "principal": Jsonb(principal_to_json(principal)),
                "resident": wish.resident,
                "resident_id": key[0],
                "criteria": wish.criteria,
                "endpoint": wish.endpoint,
                "sealed": self._webhooks.seal(subscription, secret),
                "content": wish.content,
                "transaction": place.transaction,
                "change": place.change,
                "most": SUBSCRIPTIONS_MAX,
            },
        )
        if not rows:
            raise TooManySubscriptionsError
        made = await self.read(principal, subscription)
        assert made is not None  # noqa: S101 - it was entered just now
        return made, secret

    async def read(self, principal: Principal, subscription: UUID) -> Subscription | None:
        """Return a subscription of this principal.

        Raises:
            SignedOutError: the account does not stand any more.
        """
        await self._archive.vouch(principal)
        parameters = {"subscription": subscription, "account": principal.user}
        rows = await self._archive.rows(_SQL["read"], parameters)
        return _subscription(rows[0]) if rows else None

    async def delete(self, principal: Principal, subscription: UUID) -> bool:
        """Forget a subscription of this principal; tells whether there was one.

        Raises:
            SignedOutError: the account does not stand any more.
        """
        await self._archive.vouch(principal)
        parameters = {"subscription": subscription, "account": principal.user}
        return bool(await self._archive.write(_SQL["delete"], parameters))

    async def notification(
        self, one: Subscription, base: str, after: int, until: int, kind: str
    ) -> tuple[bytes, int]:
        """Return the bundle that tells the events (after, until], and the number of its last.

        What may not be read any more (consent, erasure, another's now) is not told, its id neither.

        Raises:
            ForbiddenError, SignedOutError, UnknownResidentError: nothing may be read any more.
            OutcomeError: the criteria ask for what may not be read any more.
        """
        rows = await self._archive.rows(
            _SQL["events"],
            {
                "subscription": one.id,
                "after": after,
                "until": until,
                "limit": EVENTS_A_NOTIFICATION,
            },
        )
        told: list[Made] = []
        if one.content != "empty":
            search = search_of(one.criteria, one.principal)
            wanted = [parse_observation_id(name) for _n, _at, names in rows for name in names]
            told = await self._store.by_ids(one.principal, wanted, search)
        readable = {made.id for made in told}
        events = [(n, at, [name for name in names if name in readable]) for n, at, names in rows]
        status = status_resource(one, base, kind, events)
        about = f"Subscription/{one.id}/$status"
        bundle = {
            "resourceType": "Bundle",
            "id": str(uuid4()),
            "type": "history",
            "timestamp": instant(datetime.now(UTC)),
            "entry": [
                _history(f"urn:uuid:{status['id']}", status, about),
                *(
                    _history(
                        f"{base}/Observation/{made.id}",
                        orjson.Fragment(made.json),
                        f"Observation/{made.id}",
                    )
                    for made in told
                    if one.content == "full-resource"
                ),
            ],
        }
        return orjson.dumps(bundle), rows[-1][0] if rows else after

    async def run_forever(self, base: str) -> None:
        """Follow the feed, tell what it says, and forget what was told long ago."""
        hourly = Hourly()
        async with open_client(ANSWER_S_MAX) as client:
            while True:
                try:
                    await self.seal()
                    if hourly.is_due():
                        await self.forget()
                    await self.follow()
                    while await self.deliver(client, base):
                        pass
                except UnavailableError as error:
                    _log.warning("subscriptions_wait", why=str(error))
                await asyncio.sleep(LOOK_S)

    async def seal(self) -> None:
        """Seal the secrets that were entered before they were sealed."""
        for subscription, plain in await self._archive.rows(_SQL["plain"], {}):
            sealed = self._webhooks.seal(subscription, plain)
            parameters = {"subscription": subscription, "sealed": sealed}
            await self._archive.write(_SQL["seal"], parameters)

    async def forget(self) -> int:
        """Forget events that were told long ago, or longer ago and to nobody; return how many."""

        async def remove(rows: int) -> int:
            kept = {
                "told_days": TOLD_KEPT_DAYS,
                "untold_days": UNTOLD_KEPT_DAYS,
                "rows": rows,
            }
            return len(await self._archive.write(_SQL["forget_events"], kept))

        return await prune(remove)

    async def follow(self) -> None:
        """Make events of what has changed since each subscription looked last."""
        for row in await self._archive.rows(_SQL["following"], {}):
            one = _subscription(row)
            async with self._archive.connection() as connection:
                changes = await self._behind(connection, one)
            place = one.place
            try:
                for change in changes:
                    await self._advance(one, place, change)
                    place = change.place
            except _MAY_NOT_READ:
                await self._turn_off(one)

    async def _behind(self, connection: AsyncConnection, one: Subscription) -> Sequence[Change]:
        """Return what has changed since a subscription looked last; all that is kept where that is gone."""
        if await is_whole(connection, one.place):
            return await read_changes(connection, one.place)
        changes = await read_changes(connection, START)
        if changes:
            _log.warning("subscription_reads_all_changes", subscription=str(one.id))
        return changes

    async def deliver(self, client: Client, base: str) -> bool:
        """Tell one subscription what is due; tells whether there was one."""
        rows = await self._archive.write(_SQL["due"], {"lease_s": LEASE_S})
        if not rows:
            return False
        one = _subscription(rows[0])
        try:
            body, last = await self.notification(
                one, base, one.delivered, one.events, "event-notification"
            )
        except _MAY_NOT_READ:
            await self._turn_off(one)
            return True
        error = await self._post(client, one, body)
        if error is None:
            parameters = {"subscription": one.id, "number": last}
            await self._archive.write(_SQL["delivered"], parameters)
        elif one.attempts + 1 >= ATTEMPTS_MAX:
            dead = {"subscription": one.id, "delivered": one.delivered, "error": error}
            await self._archive.write(_SQL["give_up"], dead)
            _log.error("subscription_given_up", subscription=str(one.id), why=error)
        else:
            wait_s = min(WAIT_S * 2**one.attempts, WAIT_S_MAX)
            failed = {"subscription": one.id, "wait_s": wait_s, "error": error}
            await self._archive.write(_SQL["failed"], failed)
            _log.warning("subscription_failed", subscription=str(one.id), why=error)
        return True

    async def _turn_off(self, one: Subscription) -> None:
        parameters = {"subscription": one.id, "error": "may not read any more"}
        await self._archive.write(_SQL["turn_off"], parameters)
        _log.warning("subscription_turned_off", subscription=str(one.id))

    async def _post(self, client: Client, one: Subscription, body: bytes) -> str | None:
        """Return None where the endpoint took it, else why it did not."""
        if one.sealed is None:
            return "not sealed yet"
        try:
            secret = self._webhooks.open(one.id, one.sealed)
        except UsageError:
            return "webhook key is missing"
        headers = {"Content-Type": MEDIA_TYPE, "X-Hearth-Signature": signature(secret, body)}
        return await self._webhooks.hosts.post(one.endpoint, body, headers, client)

    async def _advance(self, one: Subscription, before: Place, change: Change) -> None:
        changed = change.changed
        search = search_of(one.criteria, one.principal)
        signs = {part.sign.code for part in search.parts}
        touched = [
            (int(oldest), int(newest))
            for resident, sign, oldest, newest in zip(
                changed.resident, changed.sign, changed.oldest_ms, changed.newest_ms, strict=True
            )
            if resident == one.resident_id and int(sign) in signs
        ]
        ids: list[str] = []
        if touched:
            made = await self._store.stored_at(
                one.principal,
                one.resident,
                search,
                stored_at_ms=change.stored_at_ms,
                oldest_ms=min(oldest for oldest, _newest in touched),
                newest_ms=max(newest for _oldest, newest in touched),
                limit=OBSERVATIONS_AN_EVENT_MAX,
            )
            ids = [m.id for m in made]
        await self._archive.write(
            _SQL["advance"],
            {
                "subscription": one.id,
                "transaction": change.place.transaction,
                "change": change.place.change,
                "before_transaction": before.transaction,
                "before_change": before.change,
                "observations": ids,
            },
        )


def subscription_resource(one: Subscription, secret: str | None = None) -> dict[str, Any]:
    """Return a subscription as FHIR; its secret only when it is new."""
    resource: dict[str, Any] = {
        "resourceType": "Subscription",
        "id": str(one.id),
        "status": one.status,
        "reason": "新的体征 / new vital signs",
        "criteria": TOPIC,
        "_criteria": {
            "extension": [
                {"url": f"{_BACKPORT}/backport-filter-criteria", "valueString": one.criteria}
            ]
        },
        "channel": {
            "type": "rest-hook",
            "endpoint": one.endpoint,
            "payload": MEDIA_TYPE,
            "_payload": {
                "extension": [
                    {"url": f"{_BACKPORT}/backport-payload-content", "valueCode": one.content}
                ]
            },
        },
    }
    if one.error is not None:
        resource["error"] = one.error
    if secret is not None:
        resource["extension"] = [
            {"url": f"{OURS}/StructureDefinition/signing-secret", "valueString": secret}
        ]
    return resource


def status_resource(
    one: Subscription, base: str, kind: str, events: Sequence[tuple[int, datetime, list[str]]] = ()
) -> dict[str, Any]:
    """Return a SubscriptionStatus, which in R4 is a Parameters resource."""
    parameters: list[dict[str, Any]] = [
        {
            "name": "subscription",
            "valueReference": {"reference": f"{base}/Subscription/{one.id}"},
        },
        {"name": "topic", "valueCanonical": TOPIC},
        {"name": "status", "valueCode": one.status},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(one.events)},
    ]
    for number, at, names in events:
        told: list[dict[str, Any]] = [
            {"name": "event-number", "valueString": str(number)},
            {"name": "timestamp", "valueInstant": instant(at)},
        ]
        if one.content != "empty":
            told += [
                {"name": "focus", "valueReference": {"reference": f"{base}/Observation/{name}"}}
                for name in names
            ]
        parameters.append({"name": "notification-event", "part": told})
    return {
        "resourceType": "Parameters",
        "id": str(uuid4()),
        "meta": {"profile": [f"{_BACKPORT}/backport-subscription-status-r4"]},
        "parameter": parameters,
    }


def _history(url: str, resource: object, address: str) -> dict[str, Any]:
    return {
        "fullUrl": url,
        "resource": resource,
        "request": {"method": "GET", "url": address},
        "response": {"status": "200"},
    }


def _subscription(row: TupleRow) -> Subscription:
    (subscription, _account, principal, resident, resident_id, criteria, endpoint, sealed,
     content, status, transaction, change, events, delivered, attempts, error) = row  # fmt: skip
    return Subscription(
        id=subscription,
        principal=principal_from_json(principal),
        resident=resident,
        resident_id=resident_id,
        criteria=criteria,
        endpoint=endpoint,
        sealed=None if sealed is None else bytes(sealed),
        content=content,
        status=status,
        place=Place(transaction, change),
        events=events,
        delivered=delivered,
        attempts=attempts,
        error=error,
    )
