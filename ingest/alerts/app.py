"""The alerts service: of each of its works one does it, any number stand by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from gateway.errors import UnavailableError
from gateway.platform.backoff import Backoff
from gateway.platform.changes import (
    CHANGES_A_READ,
    NOTHING,
    Changed,
    Place,
    end_of_changes,
    is_whole,
    merged,
    prune_changes,
    read_changes,
)
from gateway.platform.health import serve_health
from gateway.platform.logs import get_logger
from gateway.platform.postgres import AsyncConnection, connect, connect_blocking, translated
from gateway.platform.pruning import Hourly
from gateway.platform.secret_files import secret
from gateway.platform.service import run_until_signalled
from gateway.platform.webhook_hosts import WebhookHosts, open_client
from ingest.alerts import metrics
from ingest.alerts.delivery import ANSWER_S_MAX, Deliverer, prune_deliveries
from ingest.alerts.evaluator import Evaluated, Evaluator
from ingest.alerts.rules import (
    QUERIES,
    SILENCE,
    TROUBLE,
    Pace,
    RuleInForce,
    rules_in_force,
    seed_rules,
)
from ingest.alerts.silence import look_for_silence, look_for_trouble

POLL_S = 0.25
"""How often the feed of changes is read; part of how long an alert takes."""
RESTS = 20.0
"""After a step it rests so many times as long as the step took, up to `REST_S_MAX`: the more comes in, the
more changes of a resident a step takes together, and their readings are read once for all."""
REST_S_MAX = 5.0
"""It rests no longer than this, so that an alert does not wait for the sake of the ingest."""
OVER_DAYS_S = 600.0
"""Rules that look back over days are evaluated at most this often, and no later than this after a
reading: a resident who measures ten times in it costs the readings of a week once."""
TURN_S = 2.0
"""How often one that stands by tries to take over."""
READS_A_CATCH_UP = 1_000
"""A step over days takes at most so many reads of the feed together; the next follows at once."""
LOOK_S = 300.0
"""How often silence and trouble are looked for."""
DELIVER_S = 1.0
"""How often deliveries are looked for."""
BACKOFF = Backoff(first_s=0.5, longest_s=10.0)

_log = get_logger(__name__)


class Work(IntEnum):
    """What the services take turns at, each over a connection of its own: the advisory lock's key."""

    PROMPT = 0
    OVER_DAYS = 1
    LOOKING = 2
    DELIVERING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsConfig:
    """What the service needs to know. `home` holds the keys that sign webhooks."""

    dsn: str
    home: Path
    webhook_hosts: WebhookHosts
    metrics_port: int = 0


async def run(config: AlertsConfig) -> None:
    """Run until SIGTERM or SIGINT."""
    service = _Service(config)
    async with serve_health(config.metrics_port, service.not_ready) as port:
        _log.info("alerts_started", metrics_port=port)
        await run_until_signalled(service.start)
    _log.info("alerts_stopped")


async def follow(connection: AsyncConnection, evaluator: Evaluator) -> Evaluated | None:
    """Evaluate a read of what has changed; None when nothing has.

    Raises:
        UnavailableError: the database is down; the place is where it was.
    """
    return await _follow(connection, evaluator, reads=1)


async def catch_up(connection: AsyncConnection, evaluator: Evaluator) -> Evaluated | None:
    """Evaluate all that has changed, each resident once; None when nothing has.

    Raises:
        UnavailableError: the database is down; the place is where it was.
    """
    return await _follow(connection, evaluator, reads=READS_A_CATCH_UP)


async def _follow(
    connection: AsyncConnection, evaluator: Evaluator, *, reads: int
) -> Evaluated | None:
    with translated():
        place = await evaluator.place()
        if place is None or not await is_whole(connection, place):
            return await evaluator.begin_anew(await end_of_changes(connection), _now_ms())
        changed, end, changes = await _changed_behind(connection, place, reads)
        if not changes:
            return None
        return await evaluator.follow(changed, end, _now_ms(), changes=changes)


async def _changed_behind(
    connection: AsyncConnection, place: Place, reads: int
) -> tuple[Changed, Place, int]:
    """Return what changed behind a place, where that ends, and how many changes it was."""
    changed, count = NOTHING, 0
    for _read in range(reads):
        changes = await read_changes(connection, place)
        if changes:
            changed = merged([changed, *(change.changed for change in changes)])
            place, count = changes[-1].place, count + len(changes)
        if len(changes) < CHANGES_A_READ:
            break
    return changed, place, count


def rest_s(took_s: float, changes: int) -> float:
    """Return how long to rest after a step; one that is behind by more than a read does not."""
    if changes >= CHANGES_A_READ:
        return 0.0
    return min(max(POLL_S, took_s * RESTS), REST_S_MAX)


class _Service:
    def __init__(self, config: AlertsConfig) -> None:
        self._config = config
        self._is_connected = False

    def start(self, group: asyncio.TaskGroup) -> None:
        for work in (self._evaluate, self._evaluate_over_days, self._look_around, self._deliver):
            group.create_task(self._keep(work))

    def not_ready(self) -> str | None:
        return None if self._is_connected else "the database does not answer"

    async def _keep(self, work: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        """Do `work` over a connection, and again over a new one when that is lost."""
        failures = 0
        while True:
            try:
                connection = await connect(
                    self._config.dsn, application="hearth-alerts", autocommit=True
                )
                async with connection:
                    self._is_connected = True
                    failures = 0
                    with translated():
                        await work(connection)
            except UnavailableError as error:
                self._is_connected = False
                failures += 1
                _log.warning("database_lost", why=str(error))
                await asyncio.sleep(BACKOFF.wait_s(failures))

    async def _evaluate(self, connection: AsyncConnection) -> None:
        await _take_turn(connection, Work.PROMPT)
        await asyncio.to_thread(self._seed)
        evaluator = Evaluator(connection)
        while True:
            began_s = time.monotonic()
            done = await follow(connection, evaluator)
            took_s = time.monotonic() - began_s
            if done is not None:
                _account(done)
            await asyncio.sleep(rest_s(took_s, 0 if done is None else done.changes))

    async def _evaluate_over_days(self, connection: AsyncConnection) -> None:
        await _take_turn(connection, Work.OVER_DAYS)
        await asyncio.to_thread(self._seed)
        evaluator = Evaluator(connection, Pace.OVER_DAYS)
        while True:
            moved_ago_s = await evaluator.moved_ago_s()
            if moved_ago_s is None or moved_ago_s >= OVER_DAYS_S:
                while (done := await catch_up(connection, evaluator)) is not None:
                    _account(done)
                    if done.changes < READS_A_CATCH_UP * CHANGES_A_READ:
                        break
            await asyncio.sleep(REST_S_MAX)

    async def _look_around(self, connection: AsyncConnection) -> None:
        """Look for what no reading tells, and forget old changes and deliveries."""
        await _take_turn(connection, Work.LOOKING)
        await asyncio.to_thread(self._seed)
        evaluator = Evaluator(connection)
        hourly = Hourly()
        while True:
            await self._look(connection, evaluator)
            if hourly.is_due():
                await prune_changes(connection)
                await prune_deliveries(connection)
            await asyncio.sleep(LOOK_S)

    async def _look(self, connection: AsyncConnection, evaluator: Evaluator) -> None:
        rules = await asyncio.to_thread(self._rules)
        for name, look in ((SILENCE, look_for_silence), (TROUBLE, look_for_trouble)):
            found = rules[name]
            if found.enabled:
                await look(connection, evaluator, found.rule_id, _now_ms())

    async def _deliver(self, connection: AsyncConnection) -> None:
        await _take_turn(connection, Work.DELIVERING)
        deliverer = Deliverer(connection, self._config.webhook_hosts, self._key_of)
        async with open_client(ANSWER_S_MAX) as client:
            while True:
                if not await deliverer.deliver_due(client):
                    await asyncio.sleep(DELIVER_S)

    def _key_of(self, webhook: int) -> str:
        return secret(self._config.home, f"webhook_{webhook}")

    def _seed(self) -> None:
        """Enter new built-in rules before anything is evaluated."""
        with connect_blocking(self._config.dsn, application="hearth-alerts") as connection:
            for name in seed_rules(connection):
                _log.info("alert_rule_entered", rule=name)

    def _rules(self) -> dict[str, RuleInForce]:
        with connect_blocking(self._config.dsn, application="hearth-alerts") as connection:
            return {found.rule.name: found for found in rules_in_force(connection)}


async def _take_turn(connection: AsyncConnection, work: Work) -> None:
    """Wait until no other service does this; the turn ends with the connection."""
    while True:
        cursor = await connection.execute(QUERIES["take_turn"], {"work": int(work)})
        ((taken,),) = await cursor.fetchall()
        if taken:
            return
        await asyncio.sleep(TURN_S)


def _account(done: Evaluated) -> None:
    metrics.READINGS.inc(done.readings)
    for what, count in done.told.items():
        metrics.EVENTS.labels(str(what)).inc(count)
    if done.told:
        _log.info(
            "alerts_evaluated",
            residents=done.residents,
            readings=done.readings,
            **{str(what): count for what, count in done.told.items()},
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
