"""The outbox: durable, in order, bounded, and nothing goes without its receipt."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from edge.outbox import Batch, Limits, Outbox, Policy, Tally
from edge.payloads import Item
from edge.sealing import BATCH_BYTES_MAX, RECEIVED_BEFORE_MS_MAX, batches_of, entry_of, message_of
from gateway import wire
from gateway.errors import UnavailableError
from gateway.gatt.times import ms_since_epoch
from gateway.measurement import Measurement
from tests.outboxes import (
    HUB,
    NOON,
    close_all,
    items_of,
    measurement,
    number_of,
    open_outbox,
    receipt_for,
    undecoded,
)

NOW_MS = ms_since_epoch(NOON)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    close_all()


def all_batches(outbox: Outbox) -> list[Batch]:
    return outbox.batches(limit=100_000)


def numbers_in(outbox: Outbox) -> list[int]:
    return [number_of(item) for batch in all_batches(outbox) for item in items_of(batch)]


def test_what_was_appended_comes_out_in_batches_as_it_was(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    items: list[Item] = [measurement(1), undecoded(2), measurement(3)]
    assert outbox.append(items) == 3
    assert outbox.seal() == 2
    measurements, payloads = all_batches(outbox)
    assert items_of(measurements) == [
        with_all_values(measurement(1)),
        with_all_values(measurement(3)),
    ]
    assert items_of(payloads) == [undecoded(2)]
    assert (measurements.sequence, payloads.sequence) == (1, 2)


def test_a_batch_is_never_larger_than_it_may_be(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, Limits(batch_records=10))
    outbox.append([measurement(n) for n in range(25)])
    outbox.append([undecoded(n, size=4000) for n in range(25)])
    outbox.seal()
    assert [batch.count for batch in all_batches(outbox)][:3] == [10, 10, 5]
    for batch in all_batches(outbox):
        assert len(batch.message) <= wire.HEADER_BYTES + BATCH_BYTES_MAX


def test_receptions_too_far_apart_go_into_batches_of_their_own() -> None:
    span = timedelta(milliseconds=RECEIVED_BEFORE_MS_MAX)
    late = [NOON, NOON + span, NOON + span + timedelta(milliseconds=1)]
    entries = [entry_of(measurement(n, received_at=at)) for n, at in enumerate(late)]
    groups = list(batches_of(entries, records_max=100))
    assert [len(group) for group in groups] == [2, 1]
    message = message_of(groups[0], hub=HUB, epoch=1, sequence=1)
    header, body = wire.decode_batch(message)
    assert wire.decode_record(body[:64], header.reference_at).received_at == NOON


def test_a_clock_of_the_hub_that_jumps_back_does_not_matter(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    times = [NOON, NOON - timedelta(days=30), NOON + timedelta(seconds=1)]
    outbox.append([measurement(n, received_at=at) for n, at in enumerate(times)])
    outbox.seal()
    received = [item.received_at for batch in all_batches(outbox) for item in items_of(batch)]
    assert received == times


def test_only_a_receipt_of_its_epoch_and_sequence_removes_a_batch(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append([measurement(1)])
    outbox.seal()
    (batch,) = all_batches(outbox)
    right = receipt_for(batch)
    assert outbox.receipted([replace(right, epoch=batch.epoch + 1)], NOW_MS) == []
    assert outbox.receipted([replace(right, sequence=batch.sequence + 1)], NOW_MS) == []
    assert all_batches(outbox) == [batch]
    assert outbox.receipted([right, right], NOW_MS) == [right]
    assert all_batches(outbox) == []
    assert outbox.depth.held == 0


def test_receipts_are_added_up_and_checked(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, Limits(batch_records=4))
    outbox.append([measurement(n) for n in range(8)])
    outbox.seal()
    first, second = all_batches(outbox)
    outbox.receipted(
        [receipt_for(first, duplicate=3), replace(receipt_for(second), stored=1)], NOW_MS
    )
    tallies = outbox.tallies()
    assert (tallies[Tally.STORED], tallies[Tally.DUPLICATE]) == (2, 3)
    assert tallies[Tally.RECEIPTS_MISCOUNTED] == 1
    assert tallies[Tally.BATCHES_RECEIPTED] == 2


def test_at_capacity_the_newest_are_refused_and_counted(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, Limits(capacity=10))
    assert outbox.append([measurement(n) for n in range(8)]) == 8
    outbox.seal()
    assert outbox.append([measurement(n) for n in range(8, 12)]) == 2
    assert outbox.room == 0
    assert outbox.append([measurement(99)]) == 0
    outbox.seal()
    assert numbers_in(outbox) == list(range(10))
    assert outbox.tallies()[Tally.REFUSED] == 3


def test_at_capacity_the_oldest_batches_go_if_that_was_chosen(tmp_path: Path) -> None:
    limits = Limits(capacity=10, policy=Policy.DROP_OLDEST, batch_records=4)
    outbox = open_outbox(tmp_path, limits)
    outbox.append([measurement(n) for n in range(10)])
    outbox.seal()
    assert outbox.append([measurement(n) for n in range(10, 13)]) == 3
    outbox.seal()
    assert numbers_in(outbox) == list(range(4, 13))
    assert outbox.tallies()[Tally.DROPPED] == 4
    assert [batch.sequence for batch in all_batches(outbox)] == [2, 3, 4]


def test_a_capacity_that_was_lowered_refuses_until_there_is_room(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append([measurement(n) for n in range(20)])
    smaller = open_outbox(tmp_path, Limits(capacity=10))
    assert smaller.room == 0
    assert smaller.append([measurement(20)]) == 0


def test_counts_and_depth_outlive_a_restart(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append([measurement(1), undecoded(2)])
    outbox.seal()
    outbox.append([measurement(3)])
    again = open_outbox(tmp_path)
    assert again.depth == outbox.depth
    assert again.tallies() == outbox.tallies()
    assert again.epoch == outbox.epoch


def test_a_full_disk_changes_nothing_and_is_survived(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append([measurement(1)])
    connection: sqlite3.Connection = outbox._file._connection
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(UnavailableError, match="full"):
        outbox.append([measurement(n) for n in range(10_000)])
    assert outbox.depth.entries == 1
    connection.execute("PRAGMA max_page_count = 1000000")
    outbox.append([measurement(2)])
    outbox.seal()
    assert numbers_in(outbox) == [1, 2]


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=40), st.integers(1, 7))
def test_grouping_keeps_all_entries_and_their_order(received_ms: list[int], size: int) -> None:
    at = [NOON + timedelta(milliseconds=ms) for ms in received_ms]
    entries = [entry_of(measurement(n, received_at=when)) for n, when in enumerate(at)]
    groups = list(batches_of(entries, records_max=size))
    assert [entry for group in groups for entry in group] == entries
    for group in groups:
        times = [entry.received_ms for entry in group]
        assert max(times) - min(times) <= RECEIVED_BEFORE_MS_MAX
        assert len(group) <= size


class Life(RuleBasedStateMachine):
    """Whatever the order of appending, sealing, publishing, receipts and crashes: nothing is lost.

    And nothing goes without its receipt. The model is the set of numbers that should be there.
    """

    published: Bundle[Any] = Bundle("published")

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.boot = 1
        self.outbox = self.opened()
        self.waiting: set[int] = set()
        self.receipted: set[int] = set()
        self.messages: dict[tuple[int, int], bytes] = {}
        self.next_number = 1

    def opened(self) -> Outbox:
        folder = Path(self.folder.name)
        outbox = open_outbox(folder, Limits(batch_records=3), boot=str(self.boot))
        outbox._file._connection.execute("PRAGMA synchronous = OFF")  # no power is lost here
        return outbox

    @rule(count=st.integers(1, 7), kind=st.booleans())
    def append(self, count: int, *, kind: bool) -> None:
        numbers = range(self.next_number, self.next_number + count)
        make = measurement if kind else undecoded
        assert self.outbox.append([make(n) for n in numbers]) == count
        self.waiting |= set(numbers)
        self.next_number += count

    @rule()
    def seal(self) -> None:
        self.outbox.seal()

    @rule(target=published, limit=st.integers(1, 5))
    def publish(self, limit: int) -> list[Batch]:
        batches = self.outbox.batches(limit=limit)
        for batch in batches:
            # These bytes are what (epoch, sequence) means, for ever.
            key = (batch.epoch, batch.sequence)
            assert self.messages.setdefault(key, batch.message) == batch.message
        return batches

    @rule(batches=published)
    def receipt(self, batches: list[Batch]) -> None:
        """It may come late, twice, and after a crash."""
        self.outbox.receipted([receipt_for(batch) for batch in batches], NOW_MS)
        for batch in batches:
            numbers = {number_of(item) for item in items_of(batch)}
            self.waiting -= numbers
            self.receipted |= numbers

    @rule(epoch=st.integers(1, 2**63 - 1), sequence=st.integers(1, 20))
    def strange_receipt(self, epoch: int, sequence: int) -> None:
        strange = wire.Receipt(epoch=epoch, sequence=sequence, stored=1, duplicate=0, quarantined=0)
        if epoch != self.outbox.epoch:
            self.outbox.receipted([strange], NOW_MS)

    @rule()
    def kill(self) -> None:
        """End without a farewell, as by kill -9: what was not committed is gone."""
        self.outbox._file._connection.close()
        epoch = self.outbox.epoch
        self.outbox = self.opened()
        assert self.outbox.epoch == epoch

    @rule()
    def lose_power(self) -> None:
        """The same, and the machine boots: the disk may have lied, so a new epoch begins."""
        self.outbox._file._connection.close()
        epoch = self.outbox.epoch
        self.boot += 1
        self.outbox = self.opened()
        assert self.outbox.epoch != epoch

    @rule()
    def restart(self) -> None:
        self.outbox._file.close()
        self.boot += 1
        epoch = self.outbox.epoch
        self.outbox = self.opened()
        assert self.outbox.epoch == epoch

    @invariant()
    def nothing_is_lost(self) -> None:
        connection: sqlite3.Connection = self.outbox._file._connection
        pending = connection.execute("SELECT count(*) FROM entry").fetchone()[0]
        sealed = set(numbers_in(self.outbox))
        assert sealed <= self.waiting
        assert len(sealed) + pending == len(self.waiting)
        assert self.outbox.depth.held == len(self.waiting)

    def teardown(self) -> None:
        self.outbox.seal()
        assert set(numbers_in(self.outbox)) == self.waiting
        assert not self.waiting & self.receipted
        assert self.waiting | self.receipted == set(range(1, self.next_number))
        self.outbox._file._connection.close()
        self.folder.cleanup()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def with_all_values(item: Measurement) -> Measurement:
    """On the wire every value has a place; those that a sign has not are NOT_SENT."""
    record = wire.encode_record(item, item.received_at)
    return wire.decode_record(record, item.received_at)
