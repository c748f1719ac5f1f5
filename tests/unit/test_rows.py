"""Repeats inside a flush, and rows as PostgreSQL's binary COPY."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.gatt.times import ms_since_epoch
from gateway.measurement import Measurement
from ingest.batches import hub_homes, read_messages, reference_ms
from ingest.copy_binary import Column, Type, encode_rows
from ingest.rows import (
    Rows,
    Stored,
    content_hashes,
    device_keys,
    settle_against,
    settle_within,
)
from ingest.verdicts import Verdict, judge, tables_of
from tests.worlds import NOON, a_message, a_pressure, a_registry, a_weight

TABLES = tables_of()


def rows_of(*measurements: Measurement) -> Rows:
    registry = a_registry()
    flush = read_messages([a_message(*measurements)], registry)
    judged = judge(
        flush.records,
        reference_ms(flush),
        hub_homes(flush),
        registry,
        TABLES,
        ms_since_epoch(NOON) + 10**9,
    )
    return Rows(
        records=flush.records,
        judged=judged,
        batch_id=np.zeros(len(flush.records), np.int64),
        content_hash=content_hashes(flush.records),
    )


def settled(*measurements: Measurement) -> tuple[list[int], list[int]]:
    rows = rows_of(*measurements)
    verdict = rows.judged.verdict.copy()
    places = settle_within(rows, verdict)
    return verdict.tolist(), places.tolist()


def mapped_to(measurement: Measurement, seconds: float) -> Measurement:
    """The same reading, its clock corrected: another measured_at, the device's time unchanged."""
    return replace(measurement, measured_at=measurement.measured_at + timedelta(seconds=seconds))


def test_different_readings_are_all_stored_in_the_order_of_the_index() -> None:
    later = a_pressure(at=NOON + timedelta(minutes=1))
    verdicts, places = settled(a_weight(), later, a_pressure())
    assert verdicts == [Verdict.STORED] * 3
    assert places == [2, 1, 0]


def test_the_same_reading_twice_in_a_flush_is_one_row() -> None:
    verdicts, places = settled(a_pressure(), a_pressure())
    assert verdicts == [Verdict.STORED, Verdict.DUPLICATE]
    assert places == [0]


def test_the_same_reading_with_a_corrected_clock_is_one_row() -> None:
    verdicts, places = settled(a_pressure(), mapped_to(a_pressure(), 90))
    assert verdicts == [Verdict.STORED, Verdict.DUPLICATE]
    assert places == [0]


def test_other_values_with_the_same_identity_are_kept_apart() -> None:
    verdicts, places = settled(a_pressure(Decimal(128)), a_pressure(Decimal(131)))
    assert verdicts == [Verdict.STORED, Verdict.CONFLICT]
    assert places == [0]


def test_a_repeat_behind_a_conflict_is_still_a_repeat() -> None:
    one, other = a_pressure(Decimal(128)), mapped_to(a_pressure(Decimal(131)), 5)
    verdicts, places = settled(one, other, mapped_to(one, 6))
    assert verdicts == [Verdict.STORED, Verdict.STORED, Verdict.DUPLICATE]
    assert places == [0, 1]


def test_the_same_device_time_after_the_clock_began_anew_is_another_reading() -> None:
    other = mapped_to(a_pressure(Decimal(131)), -90 * 86400)
    verdicts, _places = settled(a_pressure(), other)
    assert verdicts == [Verdict.STORED, Verdict.STORED]


def test_of_a_clock_that_may_have_begun_twice_the_same_values_again_wait_apart() -> None:
    """Sent again and mapped on the later time line, or measured again: nobody knows."""
    first, again = (mapped_to(a_pressure(), days * 86400) for days in (-32, -16))
    verdicts, places = settled(first, again)
    assert verdicts == [Verdict.STORED, Verdict.CONFLICT]
    assert places == [0]


def test_what_the_store_has_is_a_duplicate_or_a_conflict() -> None:
    rows = rows_of(a_pressure(), a_weight(), a_pressure(at=NOON + timedelta(minutes=1)))
    verdict = rows.judged.verdict.copy()
    places = np.array([0, 1, 2])
    stored = Stored(
        key=device_keys(rows, places)[:2],
        identity_ms=rows.judged.identity_ms[:2],
        content_hash=rows.content_hash[:2] ^ np.array([0, 1], np.int32),
        measured_ms=rows.judged.measured_ms[:2] + np.array([7, 0]),
        received_after_s=np.ones(2, np.float32),
    )
    settle_against(rows, verdict, places, stored)
    assert verdict.tolist() == [Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.STORED]


@given(st.permutations(range(6)))
def test_any_order_of_arrival_stores_the_same_readings(order: list[int]) -> None:
    readings = [
        a_pressure(),
        a_pressure(),
        a_pressure(at=NOON + timedelta(minutes=1)),
        mapped_to(a_pressure(), 30),
        a_weight(),
        a_weight(at=NOON + timedelta(minutes=1)),
    ]
    rows = rows_of(*(readings[i] for i in order))
    verdict = rows.judged.verdict.copy()
    stored = settle_within(rows, verdict)
    identities = {(int(rows.judged.device_id[p]), int(rows.judged.identity_ms[p])) for p in stored}
    assert len(identities) == len(stored) == 4


def test_the_hash_sees_values_and_not_times() -> None:
    first, moved, other = content_hashes(
        rows_of(a_pressure(), mapped_to(a_pressure(), 9), a_pressure(Decimal(129))).records
    )
    assert first == moved
    assert first != other


def test_rows_are_the_bytes_of_the_postgresql_documentation() -> None:
    stream = encode_rows(
        [
            Column(name="a", type=Type.INT4, values=np.array([1, -2])),
            Column(
                name="b",
                type=Type.FLOAT8,
                values=np.array([1.5, 0.0]),
                present=np.array([True, False]),
            ),
            Column(name="c", type=Type.BYTES, values=np.array([[1, 2], [3, 4]], np.uint8)),
        ]
    )
    assert bytes(stream) == (
        b"PGCOPY\n\xff\r\n\x00" + bytes(8)
        + struct.pack(">hiiidi2s", 3, 4, 1, 8, 1.5, 2, b"\x01\x02")
        + struct.pack(">hiiii2s", 3, 4, -2, -1, 2, b"\x03\x04")
        + b"\xff\xff"
    )  # fmt: skip


@given(
    st.lists(
        st.tuples(st.integers(-(2**31), 2**31 - 1), st.none() | st.floats(allow_nan=False)),
        min_size=1,
        max_size=30,
    )
)
def test_columns_encode_as_row_by_row(rows: list[tuple[int, float | None]]) -> None:
    stream = encode_rows(
        [
            Column(name="a", type=Type.INT4, values=np.array([a for a, _ in rows])),
            Column(
                name="b",
                type=Type.FLOAT8,
                values=np.array([b or 0.0 for _, b in rows]),
                present=np.array([b is not None for _, b in rows]),
            ),
        ]
    )
    expected = b"".join(
        struct.pack(">hii", 2, 4, a)
        + (struct.pack(">i", -1) if b is None else struct.pack(">id", 8, b or 0.0))
        for a, b in rows
    )
    assert bytes(stream)[19:-2] == expected


@pytest.mark.parametrize("count", [1, 3])
def test_a_single_null_column_leaves_the_others_whole(count: int) -> None:
    column = Column(
        name="a", type=Type.INT2, values=np.zeros(count, np.int16), present=np.zeros(count, bool)
    )
    assert len(encode_rows([column])) == 19 + count * 6 + 2
