"""How much of one hub is taken: room for a whole outbox, no room for a flood, each hub for itself."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from gateway import wire
from gateway.platform.embedded.broker_config import PACKET_BYTES_MAX
from ingest import fairness
from ingest.batches import Message
from ingest.fairness import BURST_BYTES, RATE_BYTES_PER_S, REJECTED_BYTES, Fairness
from ingest.pipeline import HUB_BYTES_MAX, FlushRule, Gatherer
from ingest.subscriber import MESSAGE_OVERHEAD_BYTES
from tests.worlds import NOON

HUB, OTHER = 0xA1, 0xB2
BATCH_BYTES = wire.HEADER_BYTES + 500 * wire.RECORD_BYTES + MESSAGE_OVERHEAD_BYTES


class Clock:
    now_s = 0.0


def test_a_whole_outbox_is_taken_at_once() -> None:
    hubs = Fairness(lambda: Clock.now_s)
    assert all(hubs.admits(HUB, BATCH_BYTES) for _ in range(200))


def test_what_the_broker_lets_through_is_taken() -> None:
    assert Fairness(lambda: 0.0).admits(HUB, PACKET_BYTES_MAX + MESSAGE_OVERHEAD_BYTES)


def test_a_flood_is_shed_and_the_other_hubs_are_not() -> None:
    clock = Clock()
    hubs = Fairness(lambda: clock.now_s)
    taken = sum(hubs.admits(HUB, 600) for _ in range(100_000))
    assert taken == BURST_BYTES // 600
    assert hubs.admits(OTHER, 600)
    clock.now_s = 1.0
    taken = sum(hubs.admits(HUB, 600) for _ in range(100_000))
    assert abs(taken - RATE_BYTES_PER_S / 600) <= 1


def test_a_shed_message_takes_nothing() -> None:
    hubs = Fairness(lambda: 0.0)
    assert not hubs.admits(HUB, BURST_BYTES + 1)
    assert hubs.admits(HUB, BURST_BYTES)


def test_rubbish_costs_more_than_its_bytes_and_is_paid_off() -> None:
    clock = Clock()
    hubs = Fairness(lambda: clock.now_s)
    for _ in range(1000):
        hubs.charge(HUB, REJECTED_BYTES)
    assert not hubs.admits(HUB, 1)
    clock.now_s = BURST_BYTES / RATE_BYTES_PER_S + 1
    assert hubs.admits(HUB, 1), "what it owes is bounded"


def test_a_hub_over_its_rate_is_told_of_now_and_then() -> None:
    clock = Clock()
    hubs = Fairness(lambda: clock.now_s)
    with structlog.testing.capture_logs() as logs:
        for second in range(12):
            clock.now_s = float(second)
            for _ in range(50):
                hubs.admits(HUB, BURST_BYTES + 1)
    assert [(event["event"], event["hub"]) for event in logs] == [
        ("hub_over_its_rate", "00000000000000a1")
    ] * 2
    assert logs[1]["shed"] == 500


def test_buckets_that_are_full_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "HUBS_MAX", 3)
    clock = Clock()
    hubs = Fairness(lambda: clock.now_s)
    for hub in range(3):
        hubs.admits(hub, 1)
    clock.now_s = 100.0
    hubs.admits(9, 1)
    assert list(hubs._buckets) == [9]


RULE = FlushRule(rows_max=1_000_000, age_s=0.0)


def a_message_of(hub: int, size: int, token: int = 0) -> Message:
    return Message(lane=0, token=token, hub=hub, payload=bytes(size), received_at=NOON)


async def test_each_hub_has_a_share_of_each_flush() -> None:
    gatherer = Gatherer(RULE)
    for token in range(1000):
        gatherer.deliver(a_message_of(HUB, 1000, token))
    gatherer.deliver(a_message_of(OTHER, 1000))
    first = await gatherer.next()
    assert [message.hub for message in first].count(OTHER) == 1
    share = HUB_BYTES_MAX // 1000
    assert [message.hub for message in first].count(HUB) == share
    gatherer.deliver(a_message_of(OTHER, 1000))
    second = await gatherer.next()
    assert [message.hub for message in second].count(OTHER) == 1
    tokens = [message.token for message in (*first, *second) if message.hub == HUB]
    assert tokens == list(range(2 * share)), "each hub's in the order of arrival"


async def test_what_is_longer_than_a_share_goes_by_itself() -> None:
    gatherer = Gatherer(RULE)
    for size in (HUB_BYTES_MAX + 1, 10, 20):
        gatherer.deliver(a_message_of(HUB, size))
    sizes = [[len(message.payload) for message in await gatherer.next()] for _ in range(2)]
    assert sizes == [[HUB_BYTES_MAX + 1], [10, 20]]


async def test_all_that_was_delivered_is_flushed_and_then_there_is_nothing() -> None:
    gatherer = Gatherer(RULE)
    for token in range(3000):
        gatherer.deliver(a_message_of(token % 7, 500 * (token % 3), token))
    flushed: list[int] = []
    while len(flushed) < 3000:
        flushed += [message.token for message in await gatherer.next()]
    assert sorted(flushed) == list(range(3000))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await gatherer.next()
