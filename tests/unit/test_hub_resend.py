"""What a hub keeps after its receipt, and sends again when it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from edge import outbox as outbox_module
from edge.outbox import Batch, Limits, Order, Outbox, Policy, Tally
from gateway.errors import DecodeError
from gateway.gatt.times import ms_since_epoch
from gateway.resend import ResendRequest, decode_resend, encode_resend
from tests.outboxes import (
    NOON,
    close_all,
    items_of,
    measurement,
    number_of,
    open_outbox,
    receipt_for,
)

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    close_all()


def batch_at(outbox: Outbox, number: int, at: datetime) -> Batch:
    """Keep, seal and receipt one batch, whose receipt came at a time."""
    outbox.append([measurement(number)])
    outbox.seal()
    (batch,) = outbox.batches(limit=10)
    assert outbox.receipted([receipt_for(batch)], ms_since_epoch(at))
    return batch


def asked(since: datetime) -> ResendRequest:
    return ResendRequest(id=uuid4(), since=since)


def keys(batches: list[Batch]) -> list[tuple[int, int, bytes]]:
    return [(batch.epoch, batch.sequence, batch.message) for batch in batches]


def test_what_was_receipted_since_comes_again_with_the_same_bytes(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    batches = [batch_at(outbox, n, NOON + n * DAY) for n in range(4)]
    assert outbox.depth.held == 0
    assert outbox.resend(asked(NOON + 2 * DAY)) == 2
    assert keys(outbox.batches(limit=10)) == keys(batches[2:])
    assert outbox.depth.records == 2


def test_an_hour_more_than_asked_comes_again(tmp_path: Path) -> None:
    """The hub's clock need not agree with the store's."""
    outbox = open_outbox(tmp_path)
    batch_at(outbox, 1, NOON - timedelta(minutes=59))
    assert outbox.resend(asked(NOON)) == 1


def test_one_request_is_met_once_also_after_a_restart(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    batch = batch_at(outbox, 1, NOON)
    request = asked(NOON)
    assert outbox.resend(request) == 1
    outbox.receipted([receipt_for(batch)], ms_since_epoch(NOON))
    assert outbox.resend(request) is None
    assert open_outbox(tmp_path).resend(request) is None
    assert outbox.resend(asked(NOON)) == 1


def test_a_second_receipt_is_counted_nowhere_again(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    batch = batch_at(outbox, 1, NOON)
    outbox.resend(asked(NOON))
    outbox.receipted([receipt_for(batch)], ms_since_epoch(NOON))
    tallies = outbox.tallies()
    assert tallies[Tally.STORED] == tallies[Tally.BATCHES_RECEIPTED] == 1
    assert tallies[Tally.BATCHES_RESENT] == 1
    assert outbox.depth.held == 0


def test_after_the_named_days_it_is_forgotten(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, Limits(kept_days=14))
    batch_at(outbox, 1, NOON)
    batch_at(outbox, 2, NOON + 10 * DAY)
    batch_at(outbox, 3, NOON + 15 * DAY)
    assert outbox.resend(asked(NOON - DAY)) == 2


def test_what_is_kept_is_bounded_and_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "KEPT_RECORDS_MAX", 3)
    outbox = open_outbox(tmp_path)
    batches = [batch_at(outbox, n, NOON + n * DAY) for n in range(5)]
    assert outbox.resend(asked(NOON - DAY)) == 3
    assert keys(outbox.batches(limit=10)) == keys(batches[2:])


def test_what_was_receipted_while_the_hub_did_not_know_the_time_comes_again_and_is_kept(
    tmp_path: Path,
) -> None:
    """After a power cut the backlog goes out before the clock is set: its receipts have no time."""
    outbox = open_outbox(tmp_path, Limits(kept_days=14))
    outbox.append([measurement(1)])
    outbox.seal()
    (batch,) = outbox.batches(limit=10)
    assert outbox.receipted([receipt_for(batch)], None)
    batch_at(outbox, 2, NOON)
    assert outbox.resend(asked(NOON)) == 2
    outbox.receipted([receipt_for(batch) for batch in outbox.batches(limit=10)], None)
    batch_at(outbox, 3, NOON + DAY)
    batch_at(outbox, 4, NOON + 16 * DAY)
    assert outbox.resend(asked(NOON - DAY)) == 1


@pytest.mark.parametrize("policy", Policy)
def test_what_is_sent_again_takes_no_room_from_what_never_had_a_receipt(
    tmp_path: Path, policy: Policy
) -> None:
    """The archive may still have the one, and has not had the other."""
    limits = Limits(capacity=3, policy=policy)
    outbox = open_outbox(tmp_path, limits)
    again = [batch_at(outbox, n, NOON) for n in range(3)]
    outbox.append([measurement(3)])
    outbox.seal()
    assert outbox.resend(asked(NOON)) == 3
    assert outbox.append([measurement(4)]) == 1
    close_all()

    outbox = open_outbox(tmp_path, limits)
    assert (outbox.room, outbox.depth.held) == (1, 5)
    assert outbox.append([measurement(5)]) == 1
    outbox.seal()
    waiting = outbox.batches(limit=10)
    assert sorted(number_of(item) for b in waiting for item in items_of(b)) == list(range(6))
    outbox.receipted([receipt_for(batch) for batch in again], ms_since_epoch(NOON))
    assert (outbox.room, outbox.depth.held) == (0, 3)
    tallies = outbox.tallies()
    assert tallies[Tally.REFUSED] == tallies[Tally.DROPPED] == 0
    assert outbox.append([measurement(6)]) == (policy is Policy.DROP_OLDEST)


def test_the_newest_go_first_where_that_was_chosen(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, Limits(batch_records=1, first=Order.NEWEST))
    outbox.append([measurement(n) for n in range(5)])
    outbox.seal()
    first = outbox.next_batches(after=0, in_flight=(), limit=2)
    assert [batch.sequence for batch in first] == [5, 4]
    flying = [batch.id for batch in first]
    outbox.append([measurement(5)])
    outbox.seal()
    more = outbox.next_batches(after=max(flying), in_flight=flying, limit=2)
    assert [batch.sequence for batch in more] == [6, 3]


def test_the_oldest_go_first_otherwise(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, Limits(batch_records=1))
    outbox.append([measurement(n) for n in range(3)])
    outbox.seal()
    (first,) = outbox.next_batches(after=0, in_flight=(), limit=1)
    (second,) = outbox.next_batches(after=first.id, in_flight=[first.id], limit=1)
    assert [first.sequence, second.sequence] == [1, 2]


def test_a_request_reads_back_as_it_was_written() -> None:
    request = ResendRequest(id=uuid4(), since=datetime(2026, 11, 1, tzinfo=UTC))
    assert decode_resend(encode_resend(request)) == request


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b'{"request": "format", "id": "x", "since": "2026-11-01T00:00Z"}',
        b'{"request": "resend", "id": "x", "since": "2026-11-01T00:00Z"}',
        b'{"request": "resend", "id": "8c7dbd3e-1f9e-4b0e-a2ac-0f5f7f6b5f5e", "since": "2026-11-01"}',
        b'{"request": "resend", "id": 7, "since": 7}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_request_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_resend(payload)
