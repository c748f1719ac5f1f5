"""Every rule of ingest, on arrays; one bad measurement never costs its neighbours."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import wire
from gateway.gatt.times import ms_since_epoch
from gateway.measurement import Measurement, TimeQuality
from gateway.quantity import Absent
from gateway.vitals import BY_CODE, SIGNS
from ingest.batches import RECORD_DTYPE, Flush, hub_homes, read_messages, reference_ms
from ingest.registry import Registry
from ingest.verdicts import REASONS, Judged, Verdict, judge, tables_of
from tests.worlds import (
    CUFF_ID,
    HUB,
    NOON,
    OTHER_HUB,
    OTHER_RESIDENT,
    RESIDENT,
    SCALE_ID,
    STRANGER,
    a_message,
    a_pressure,
    a_registry,
    a_weight,
    as_message,
)

TABLES = tables_of()
LATER_MS = ms_since_epoch(NOON + timedelta(days=365))


def judged(*measurements: Measurement, hub: int = HUB, registry: Registry | None = None) -> Judged:
    registry = registry or a_registry()
    flush = read_messages([a_message(*measurements, hub=hub)], registry)
    return judge_flush(flush, registry)


def judge_flush(flush: Flush, registry: Registry) -> Judged:
    return judge(flush.records, reference_ms(flush), hub_homes(flush), registry, TABLES, LATER_MS)


def verdict_of(measurement: Measurement, hub: int = HUB) -> Verdict:
    return Verdict(judged(measurement, hub=hub).verdict[0])


def test_a_plausible_linked_measurement_is_stored_with_its_resident() -> None:
    result = judged(a_pressure(), a_weight())
    assert result.verdict.tolist() == [Verdict.STORED, Verdict.STORED]
    assert result.resident_id.tolist() == [RESIDENT, RESIDENT]
    assert result.device_id.tolist() == [CUFF_ID, SCALE_ID]
    assert result.values[0, :2].tolist() == [128.0, 82.0]


@pytest.mark.parametrize(
    ("measurement", "verdict"),
    [
        (a_pressure(device=STRANGER), Verdict.DEVICE_UNKNOWN),
        (replace(a_pressure(), sign=200), Verdict.SIGN_UNKNOWN),
        (replace(a_pressure(), time_quality=TimeQuality.UNPLACED), Verdict.TIME_UNPLACED),
        (a_pressure(Decimal(301)), Verdict.IMPLAUSIBLE),
        (a_pressure(Decimal(0)), Verdict.IMPLAUSIBLE),
        (a_pressure(Decimal(80), Decimal(82)), Verdict.CROSS_FIELD),
        (a_pressure(Decimal(82), Decimal(82)), Verdict.CROSS_FIELD),
        (a_weight(slot=2), Verdict.UNLINKED),
        (a_weight(slot=None), Verdict.UNLINKED),
        (replace(a_pressure(), measured_at=NOON.replace(year=1999)), Verdict.TIME_TOO_OLD),
        (replace(a_pressure(), measured_at=NOON + timedelta(minutes=6)), Verdict.TIME_FUTURE),
        (replace(a_pressure(), received_at=NOON.replace(year=2030)), Verdict.HUB_CLOCK),
    ],
)
def test_each_rule_gives_its_own_reason(measurement: Measurement, verdict: Verdict) -> None:
    assert verdict_of(measurement) is verdict


def test_a_device_of_another_home_is_kept_apart() -> None:
    assert verdict_of(a_pressure(), hub=OTHER_HUB) is Verdict.DEVICE_ELSEWHERE


def test_the_place_of_the_implausible_value_is_told() -> None:
    assert judged(a_pressure(Decimal(128), Decimal(12))).detail.tolist() == [1]


def test_an_absent_value_breaks_no_rule() -> None:
    result = judged(a_pressure(Absent.NOT_A_NUMBER))
    assert result.verdict.tolist() == [Verdict.STORED]
    assert np.isnan(result.values[0, 0])


@pytest.mark.parametrize("sign", SIGNS, ids=[sign.name for sign in SIGNS])
def test_both_ends_of_every_range_hold(sign: object) -> None:
    """The tables carry the registry's ranges, for each sign and quantity."""
    from gateway.vital_sign import VitalSign  # noqa: PLC0415 - for the narrowing below

    assert isinstance(sign, VitalSign)
    for index, quantity in enumerate(sign.quantities):
        assert TABLES.low[sign.code, index] == quantity.plausible.low
        assert TABLES.high[sign.code, index] == quantity.plausible.high


def test_units_are_converted_and_canonical_digits_kept() -> None:
    pressure = a_pressure(Decimal("18.9"), Decimal("11.0"))
    in_kpa = replace(pressure, reading=replace(pressure.reading, unit_set=1))
    values = judged(in_kpa, a_weight("70.050")).values
    assert values[0, :2] == pytest.approx([141.76, 82.51], abs=0.01)
    assert values[1, 0] == 70.05


def test_a_status_that_makes_an_artefact_is_flagged_not_dropped() -> None:
    result = judged(a_pressure(status=0b1), a_pressure(at=NOON + timedelta(minutes=1)))
    assert result.artefact.tolist() == [True, False]
    assert result.verdict.tolist() == [Verdict.STORED, Verdict.STORED]


def test_one_bad_measurement_never_costs_its_neighbours() -> None:
    result = judged(a_pressure(), a_pressure(Decimal(999)), a_weight())
    assert result.verdict.tolist() == [Verdict.STORED, Verdict.IMPLAUSIBLE, Verdict.STORED]


def test_a_link_holds_for_its_time_only() -> None:
    noon = ms_since_epoch(NOON)
    registry = a_registry(
        [
            (CUFF_ID, 255, noon - 1000, noon, RESIDENT),
            (CUFF_ID, 255, noon, noon + 1000, OTHER_RESIDENT),
            (CUFF_ID, 255, noon + 5000, 1 << 62, RESIDENT),
        ]
    )
    moments = [-1001, -1000, -1, 0, 999, 1000, 4999, 5000]
    owners = judged(
        *(a_pressure(at=NOON + timedelta(milliseconds=ms)) for ms in moments), registry=registry
    ).resident_id
    assert owners.tolist() == [
        0, RESIDENT, RESIDENT, OTHER_RESIDENT, OTHER_RESIDENT, 0, 0, RESIDENT,
    ]  # fmt: skip


@given(
    cuts=st.lists(st.integers(-50, 50), min_size=2, max_size=8, unique=True).map(sorted),
    moments=st.lists(st.integers(-60, 60), min_size=1, max_size=20),
)
def test_links_found_in_arrays_are_those_found_one_by_one(
    cuts: list[int], moments: list[int]
) -> None:
    links = [
        (CUFF_ID, 255, start, end, 100 + index)
        for index, (start, end) in enumerate(itertools.pairwise(cuts))
        if index % 3 != 2  # leave gaps
    ]
    found = a_registry(links).find_residents(
        np.full(len(moments), CUFF_ID, np.int32),
        np.full(len(moments), 255, np.uint8),
        np.array(moments, np.int64),
    )
    expected = [
        next((who for _, _, start, end, who in links if start <= ms < end), 0) for ms in moments
    ]
    assert found.tolist() == expected


@given(st.lists(st.binary(min_size=64, max_size=64), min_size=1, max_size=20))
def test_any_records_get_a_verdict_without_a_fault(contents: list[bytes]) -> None:
    header = wire.Header(
        hub=HUB,
        epoch=1,
        sequence=1,
        kind=wire.Kind.MEASUREMENTS,
        count=len(contents),
        reference_at=NOON,
    )
    message = as_message(wire.encode_batch(header, b"".join(contents)))
    registry = a_registry()
    with np.errstate(all="raise"):
        result = judge_flush(read_messages([message], registry), registry)
    assert {Verdict(value) for value in result.verdict.tolist()} <= set(Verdict)


@given(st.data())
def test_a_mutated_record_is_stored_only_when_every_rule_holds(data: st.DataObject) -> None:
    record = bytearray(wire.encode_record(a_pressure(), NOON + timedelta(seconds=1)))
    for _ in range(data.draw(st.integers(1, 4))):
        record[data.draw(st.integers(0, 63))] = data.draw(st.integers(0, 255))
    result = judge(
        np.frombuffer(bytes(record), RECORD_DTYPE),
        np.array([ms_since_epoch(NOON) + 1000]),
        np.array([1], np.int32),
        a_registry(),
        TABLES,
        LATER_MS,
    )
    if result.verdict[0] == Verdict.STORED:
        sign = BY_CODE[record[28]]
        for quantity, value in zip(sign.quantities, result.values[0].tolist(), strict=False):
            assert np.isnan(value) or quantity.plausible.low <= value <= quantity.plausible.high


def test_every_reason_has_words() -> None:
    assert set(REASONS) == set(Verdict) - {Verdict.STORED, Verdict.DUPLICATE}
