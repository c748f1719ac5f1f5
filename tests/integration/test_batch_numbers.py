"""A batch under the number of another: kept apart and told, whatever its hub thinks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import pytest
import structlog

from gateway import wire
from gateway.platform.postgres import connect
from ingest.ledger import read_ledger
from ingest.pipeline import tell_differing
from ingest.store import Store
from ingest.verdicts import Verdict
from tests.flushes import committed
from tests.worlds import EPOCH, HUB, NOON, a_message, a_pressure, enter_registry, query

pytestmark = pytest.mark.integration


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    enter_registry(database)
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        yield Store(session)


@pytest.mark.parametrize("flushes_count", [1, 2])
async def test_another_batch_under_a_number_is_kept_apart_told_and_receipted_as_the_first(
    store: Store, database: str, flushes_count: int
) -> None:
    """Two hubs with one identity, or an outbox that counts anew: neither's readings are to be lost unseen."""
    first = a_message(a_pressure(Decimal(128)), a_pressure(at=NOON - timedelta(hours=1)))
    other = a_message(a_pressure(Decimal(150), at=NOON - timedelta(hours=2)))
    flushes = [[first, other]] if flushes_count == 1 else [[first], [other]]
    done = [await committed(store, *flush) for flush in flushes][-1]
    (outcome,) = done.outcomes
    assert (outcome.stored, outcome.duplicate, outcome.quarantined) == (2, 0, 0)
    (rejected,) = done.rejected
    assert rejected.reason is Verdict.BATCH_DIFFERS
    with structlog.testing.capture_logs() as logs:
        tell_differing(done)
    assert [(log["event"], log["hub"], log["which"]) for log in logs] == [
        (
            "batch_differs",
            wire.hub_name(HUB),
            f"epoch {EPOCH}, sequence 1: another batch came before",
        )
    ]
    again = await committed(store, other)
    assert [one.reason for one in again.rejected] == [Verdict.BATCH_DIFFERS]
    ((kind, reason, seen, content),) = query(
        database, "SELECT kind, reason, seen, content FROM quarantine"
    )
    assert (kind, reason, seen, bytes(content)) == (3, 74, 2, other.payload)
    assert query(database, "SELECT count(*) FROM measurement") == [(2,)]
    ledger = read_ledger(database)
    assert (ledger.balanced, ledger.rejected) == (True, 2)


async def test_a_batch_from_before_there_were_checksums_differs_from_none(
    store: Store, database: str
) -> None:
    await committed(store, a_message(a_pressure()))
    query(database, "UPDATE batch SET checksum = NULL")
    done = await committed(store, a_message(a_pressure(Decimal(150))))
    assert (done.outcomes[0].again, done.rejected) == (True, ())
