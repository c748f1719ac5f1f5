"""Alerts in tests: readings that arrive, and are evaluated as the service does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

from gateway.measurement import Measurement
from gateway.platform.postgres import AsyncConnection, connect, connect_blocking
from ingest.alerts.app import catch_up, follow
from ingest.alerts.evaluator import Evaluator
from ingest.alerts.rules import Pace, seed_rules
from ingest.store import Store
from tests.flushes import committed
from tests.worlds import a_message, a_pressure, enter_registry

BY = ("cli:test", "here")
SETTLED_S_MAX = 60.0
NOW = datetime.now(UTC).replace(microsecond=0)
sequences = count(1)


@asynccontextmanager
async def alerting(database: str) -> AsyncIterator[AsyncConnection]:
    """A connection to a registered world whose rules are entered."""
    enter_registry(database)
    with connect_blocking(database, application="hearth-tests") as seeding:
        seed_rules(seeding)
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        yield session


def severe(at: datetime, systolic: int = 185) -> Measurement:
    return a_pressure(Decimal(systolic), Decimal(95), at=at)


async def arrive(connection: AsyncConnection, *flushes: Sequence[Measurement]) -> None:
    """Let readings arrive, a flush each, and evaluate after each."""
    store = Store(connection)
    for flush in flushes:
        await committed(store, a_message(*flush, sequence=next(sequences)))
        await evaluate(connection)


async def evaluate(connection: AsyncConnection) -> None:
    """Evaluate all that has changed; another test's transaction may hold the feed up a while."""
    async with asyncio.timeout(SETTLED_S_MAX):
        while await _behind(connection):
            done = [
                await follow(connection, Evaluator(connection)),
                await catch_up(connection, Evaluator(connection, Pace.OVER_DAYS)),
            ]
            if done == [None, None]:
                await asyncio.sleep(0.05)


async def _behind(connection: AsyncConnection) -> bool:
    cursor = await connection.execute(
        "SELECT count(*) FROM alert_progress WHERE"
        " change_id = coalesce((SELECT change_id FROM change"
        " ORDER BY transaction_id DESC, change_id DESC LIMIT 1), 0)"
        " AND rules_entered = (SELECT count(*) FROM alert_rule)"
    )
    ((at_the_end,),) = await cursor.fetchall()
    return int(at_the_end) < len(Pace)
