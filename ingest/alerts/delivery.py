"""Events to webhooks: at least once, signed, with patience, and dead letters in the end.

Hearth-Signature is as gateway.platform.webhook_signature has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from gateway.platform.backoff import Backoff
from gateway.platform.logs import get_logger
from gateway.platform.postgres import AsyncConnection, dict_row, translated
from gateway.platform.pruning import TOLD_KEPT_DAYS, UNTOLD_KEPT_DAYS, prune
from gateway.platform.webhook_hosts import Client, WebhookHosts
from gateway.platform.webhook_signature import signature
from ingest.alerts import metrics
from ingest.alerts.rules import QUERIES

ATTEMPTS_MAX = 12
"""After so many attempts, over about a day, a delivery is a dead letter; `hearth alerts revive`."""
ANSWER_S_MAX = 10.0
"""A receiver that takes longer has not taken it."""
DELIVERIES_A_ROUND = 50
"""Of each webhook; what more there is comes in the next round."""
BACKOFF = Backoff(first_s=2.0, longest_s=4 * 3_600.0)
ERROR_CHARS_MAX = 200

_log = get_logger(__name__)


class Deliverer:
    """Sends what is due to where `hosts` admits. `key_of` returns the signing key of a webhook."""

    def __init__(
        self, connection: AsyncConnection, hosts: WebhookHosts, key_of: Callable[[int], str]
    ) -> None:
        self._connection = connection
        self._hosts = hosts
        self._key_of = key_of

    async def deliver_due(self, client: Client) -> int:
        """Try what is due, all webhooks at the same time; return how much was due.

        Raises:
            UnavailableError: the database is down.
        """
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(QUERIES["due"], {"limit": DELIVERIES_A_ROUND})
            due = await cursor.fetchall()
        rounds = await asyncio.gather(
            *(
                self._deliver_to_one(client, list(rows))
                for _webhook, rows in groupby(due, itemgetter("webhook_id"))
            ),
            return_exceptions=True,  # none is left at work on a connection that is lost
        )
        for tried in rounds:
            if isinstance(tried, BaseException):
                raise tried
        return len(due)

    async def _deliver_to_one(self, client: Client, due: Sequence[Mapping[str, Any]]) -> None:
        """Tell one webhook what is due, up to the first that it does not take: the others stay due."""
        for row in due:
            error = await self._send(client, row)
            if error is not None:
                await self._put_off(row, error)
                return
            metrics.DELIVERIES.labels("delivered").inc()
            await self._connection.execute(QUERIES["delivered"], {"delivery": row["delivery_id"]})

    async def _send(self, client: Client, row: Mapping[str, Any]) -> str | None:
        """Return why it was not taken, None when it was."""
        body = body_of(row)
        headers = {
            "Content-Type": "application/json",
            "Hearth-Event": str(row["event_id"]),
            "Hearth-Signature": signature(self._key_of(row["webhook_id"]), body),
        }
        return await self._hosts.post(row["url"], body, headers, client)

    async def _put_off(self, row: Mapping[str, Any], error: str) -> None:
        cursor = await self._connection.execute(
            QUERIES["put_off"],
            {
                "delivery": row["delivery_id"],
                "error": error[:ERROR_CHARS_MAX],
                "attempts_max": ATTEMPTS_MAX,
                "wait_s": BACKOFF.wait_s(row["attempts"] + 1),
            },
        )
        ((state,),) = await cursor.fetchall()
        metrics.DELIVERIES.labels("dead" if state == "dead" else "put_off").inc()
        if state == "dead":
            _log.error(
                "webhook_dead_letter",
                webhook=row["webhook_id"],
                event_id=row["event_id"],
                why=error,
                cure="hearth alerts revive",
            )


async def prune_deliveries(connection: AsyncConnection) -> int:
    """Forget what was delivered long ago, and what was given up longer ago; return how many deliveries.

    The connection is in autocommit.

    Raises:
        UnavailableError: the database is down.
    """

    async def remove(rows: int) -> int:
        removed = await connection.execute(
            QUERIES["prune_deliveries"],
            {"told_days": TOLD_KEPT_DAYS, "untold_days": UNTOLD_KEPT_DAYS, "rows": rows},
        )
        return removed.rowcount

    with translated():
        return await prune(remove)


def body_of(row: Mapping[str, Any]) -> bytes:
    """Return what a receiver is told: opaque ids, the rule, times; never a value or a name."""
    return json.dumps(
        {
            "event": row["event_id"],
            "what": row["what"],
            "at": row["at"].isoformat(),
            "alert": str(row["alert"]),
            "resident": str(row["resident"]),
            "rule": row["rule"],
            "stage": row["stage"],
            "state": row["state"],
            "started_at": row["started_at"].isoformat(),
            "last_at": row["last_at"].isoformat(),
            "cleared_at": row["cleared_at"] and row["cleared_at"].isoformat(),
        }
    ).encode()
