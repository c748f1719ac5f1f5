"""The judge of `hearth chaos`: it can fail, and what it plans is fair."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.chaos.comparison import Found, Payloads, compare
from bench.chaos.faults import FAULTS_A_ROUND, Kind, schedule
from bench.chaos.journal import LINE, Entry, Event, Journal, What, read_journal, unfinished
from bench.chaos.load import (
    a_measurement,
    an_undecoded,
    homes_of,
    keys_of,
    number_of_payload,
    numbers_of_times,
    values_of_numbers,
)
from bench.chaos.orders import Events, Orders, give, read_events, read_orders
from gateway import wire
from gateway.gatt.times import ms_since_epoch
from gateway.vitals import BY_NAME

NOON = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
NOTHING = np.empty(0, np.int64)


def keys(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


ALL_WELL = Found(
    offered=keys(1, 2, 3, 4),
    kept=keys(1, 2, 3, 3),
    stored=keys(1, 2),
    altered=NOTHING,
    quarantined=keys(3),
)
NO_PAYLOADS = Payloads(offered=NOTHING, kept=NOTHING, quarantined=NOTHING)


def test_what_is_stored_once_or_kept_apart_is_well() -> None:
    found = compare(ALL_WELL, NO_PAYLOADS)
    assert found.holds
    assert (found.kept, found.quarantined) == (3, 1)


def test_what_a_hub_had_not_yet_confirmed_may_be_there_or_not() -> None:
    assert compare(replace(ALL_WELL, stored=keys(1, 2, 4)), NO_PAYLOADS).holds


def test_a_reading_that_is_nowhere_is_lost() -> None:
    found = compare(replace(ALL_WELL, stored=keys(2)), NO_PAYLOADS)
    assert (found.lost, found.holds) == (1, False)
    assert found.examples == {"lost": [1]}


def test_a_second_row_is_a_doubling() -> None:
    found = compare(replace(ALL_WELL, stored=keys(1, 2, 2, 2)), NO_PAYLOADS)
    assert (found.doubled, found.holds) == (2, False)


def test_a_row_with_another_value_is_altered() -> None:
    found = compare(replace(ALL_WELL, altered=keys(2)), NO_PAYLOADS)
    assert (found.altered, found.holds) == (1, False)


def test_a_row_that_nobody_offered_is_invented() -> None:
    found = compare(replace(ALL_WELL, stored=keys(1, 2, 9)), NO_PAYLOADS)
    assert (found.invented, found.holds) == (1, False)


def test_payloads_are_missed_and_counted_twice_as_well() -> None:
    payloads = Payloads(offered=keys(7, 8), kept=keys(7, 8), quarantined=keys(8, 8))
    found = compare(ALL_WELL, payloads)
    assert (found.lost, found.doubled) == (1, 1)


@given(st.sets(st.integers(0, 200), min_size=1), st.data())
def test_every_loss_and_every_doubling_is_seen(numbers: set[int], data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.sampled_from(sorted(numbers))))
    twice = data.draw(st.sets(st.sampled_from(sorted(numbers)))) - gone
    everything = np.array(sorted(numbers), np.int64)
    stored = np.array(sorted([*(numbers - gone), *twice]), np.int64)
    found = compare(
        Found(
            offered=everything,
            kept=everything,
            stored=stored,
            altered=NOTHING,
            quarantined=NOTHING,
        ),
        NO_PAYLOADS,
    )
    assert (found.lost, found.doubled) == (len(gone), len(twice))


def test_a_hundred_rounds_see_every_kind_of_fault_at_least_fifteen_times() -> None:
    counted = Counter(fault.kind for faults in schedule(7, 100) for fault in faults)
    assert min(counted[kind] for kind in Kind) >= 15
    assert counted.total() == 100 * FAULTS_A_ROUND


def test_the_seed_decides_and_no_round_has_a_kind_twice() -> None:
    assert schedule(7, 50) == schedule(7, 50) != schedule(8, 50)
    for faults in schedule(7, 50):
        assert len({fault.kind for fault in faults}) == FAULTS_A_ROUND


def test_a_number_travels_through_the_wire_and_is_found_again() -> None:
    device = homes_of(1, 2)[0].devices[1]
    record = wire.encode_record(a_measurement(device, 12_345, NOON), NOON)
    read = wire.decode_record(record, NOON)
    assert read.reading.device_time is not None
    numbers = numbers_of_times(np.array([read.reading.device_time.ms]))
    assert numbers.tolist() == [12_345]
    assert float(str(read.reading.values[0])) == values_of_numbers(numbers)[0]
    assert number_of_payload(an_undecoded(device, 77, NOON).payload) == 77


def test_no_two_readings_have_one_key() -> None:
    devices = [device for home in homes_of(9, 3) for device in home.devices]
    made = {int(key) for device in devices for key in keys_of([device] * 3, [1, 2, (1 << 24) - 1])}
    assert len(made) == 3 * len(devices)


def test_all_values_of_the_load_are_plausible_and_no_decoder_reads_its_payloads() -> None:
    sign = BY_NAME["body_temperature"]
    values = values_of_numbers(np.arange(1000))
    plausible = sign.quantities[0].plausible
    assert plausible.low < values.min()
    assert values.max() < plausible.high
    with pytest.raises(Exception, match="truncated"):
        sign.gatt[0].decode(an_undecoded(1, 2, NOON).payload)


def test_every_third_home_has_two_hubs() -> None:
    homes = homes_of(8, 2)
    assert [len(home.hubs) for home in homes] == [1, 1, 2, 1, 1, 2]
    assert len({hub for home in homes for hub in home.hubs}) == 8


def test_a_journal_keeps_whole_lines_over_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "hub.journal"
    entries = [Entry(what=What.READING, device=9, number=n) for n in (1, 2)]
    with Journal(path) as journal:
        journal.note(Event.OFFERED, entries)
        journal.note(Event.KEPT, entries[:1])
    with path.open("ab") as file:
        file.write(b"half a line")
    with Journal(path) as journal:
        journal.note(Event.OFFERED, [Entry(what=What.PAYLOAD, device=9, number=3)])
    lines = read_journal(path)
    assert lines["number"].tolist() == [1, 2, 1, 3]
    assert path.stat().st_size == 4 * LINE.itemsize
    assert [entry.number for entry in unfinished(lines)] == [2, 3]


def test_orders_and_events_pass_between_processes(tmp_path: Path) -> None:
    give(tmp_path / "orders", Orders(clock_ms=-5, duplicate=0.5))
    assert read_orders(tmp_path / "orders") == Orders(clock_ms=-5, duplicate=0.5)
    told: Counter[str] = Counter(duplicated=2)
    for _life in range(2):
        events = Events(tmp_path / "events")
        events.tell(told)
        events.tell(told)
    with (tmp_path / "events").open("a") as file:
        file.write('{"cut sho')
    assert read_events(tmp_path / "events") == Counter(duplicated=4)


def test_measurements_of_the_load_carry_the_hub_s_clock() -> None:
    assert ms_since_epoch(a_measurement(1, 1, NOON).received_at) == ms_since_epoch(NOON)
