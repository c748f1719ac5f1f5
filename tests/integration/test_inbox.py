"""The inbox of what came through FHIR: each batch once, gone when committed, counted."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from prometheus_client import REGISTRY

from gateway.platform.postgres import connect_blocking
from ingest import inbox as inbox_module
from ingest.batches import Message
from ingest.inbox import INBOX, Inbox
from tests.hub_agent import until
from tests.worlds import HUB, a_message, a_pressure, query

pytestmark = pytest.mark.integration

BATCHES = 3


def shown(name: str) -> float:
    value = REGISTRY.get_sample_value(name)
    assert value is not None
    return value


async def test_what_waits_and_what_was_taken_is_shown(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "COUNT_S", 0.01)
    hand_over(database)
    delivered: list[Message] = []
    inbox = Inbox(database, delivered.append, lambda: None)
    taken = shown("hearth_ingest_inbox_taken_total")
    reading = asyncio.create_task(inbox.read_forever())
    try:
        await until(lambda: len(delivered) == BATCHES)
        await until(lambda: shown("hearth_ingest_inbox_waiting") == BATCHES)
        assert {(message.lane, message.hub) for message in delivered} == {(INBOX, HUB)}
        for message in delivered:
            inbox.acknowledge(message.token)
        await until(lambda: shown("hearth_ingest_inbox_waiting") == 0)
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    assert len(delivered) == BATCHES
    assert shown("hearth_ingest_inbox_taken_total") - taken == BATCHES
    assert query(database, "SELECT count(*) FROM fhir_inbox") == [(0,)]


def hand_over(database: str) -> None:
    with connect_blocking(database, application="hearth-tests") as connection:
        for sequence in range(1, BATCHES + 1):
            connection.execute(
                "INSERT INTO fhir_inbox (hub, epoch, sequence, received_at, payload)"
                " VALUES (%s, 1, %s, now(), %s)",
                [f"{HUB:016x}", sequence, a_message(a_pressure(), sequence=sequence).payload],
            )
