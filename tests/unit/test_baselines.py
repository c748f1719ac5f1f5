"""What is unusual for a resident: the rule one by one, the memory against the rule."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.vital_sign import QUANTITIES_MAX
from gateway.vitals import BY_NAME
from ingest.baselines.memory import Memory
from ingest.baselines.rule import (
    AGE_MS_MAX,
    READINGS_MIN,
    WINDOW,
    Series,
    key_of,
    least_widths,
    unusual,
)

WEIGHT = BY_NAME["body_weight"].code
PRESSURE = BY_NAME["blood_pressure"].code
DAY_MS = 86_400_000
LEAST = float(least_widths()[WEIGHT, 0])


def key(resident: int = 101, sign: int = WEIGHT) -> int:
    return int(key_of(np.array([resident]), np.array([sign]))[0])


def values(kg: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    columns = np.full((len(kg), QUANTITIES_MAX), np.nan, np.float32)
    columns[:, 0] = kg
    return columns


def weights(kg: list[float], days: list[float] | None = None) -> Series:
    days = days or [float(day) for day in range(len(kg))]
    return Series(
        key=np.full(len(kg), key(), np.int64),
        at_ms=np.array([int(day * DAY_MS) for day in days], np.int64),
        value=values(kg),
        asked=np.ones(len(kg), np.bool_),
    )


def test_a_reading_far_from_the_last_ones_is_unusual_and_its_neighbours_are_not() -> None:
    usual = [70.0, 70.2, 69.9, 70.1, 70.3, 70.0, 69.8]
    assert unusual(weights([*usual, 78.0, 70.1])).tolist() == [False] * 7 + [True, False]


def test_with_few_readings_nothing_is_unusual_yet() -> None:
    assert not unusual(weights([70.0] * (READINGS_MIN - 1) + [95.0])).any()
    assert unusual(weights([70.0] * READINGS_MIN + [95.0])).any()


def test_a_new_level_is_usual_once_half_of_the_window_has_it() -> None:
    marks = unusual(weights([70.0] * 16 + [78.0] * 12)).tolist()
    assert marks[16:] == [True] * 8 + [False] * 4


def test_the_same_odd_value_again_is_unusual_again() -> None:
    marks = unusual(weights([70.0] * 10 + [78.0] + [70.0] * 3 + [78.0])).tolist()
    assert [place for place, mark in enumerate(marks) if mark] == [10, 14]


def test_what_lies_long_ago_tells_nothing() -> None:
    days = [*range(10), 11 + AGE_MS_MAX / DAY_MS]
    assert not unusual(weights([70.0] * 10 + [95.0], days)).any()


def test_after_a_pause_more_is_usual() -> None:
    then = 70.0 + 6.5 * LEAST
    assert unusual(weights([70.0] * 10 + [then])).any()
    assert not unusual(weights([70.0] * 10 + [then], [*range(10), 60.0])).any()


def test_each_resident_and_sign_has_its_own_usual() -> None:
    series = weights([70.0] * 8 + [50.0] * 8)
    keys = np.array([key(101)] * 8 + [key(102)] * 8)
    assert not unusual(
        Series(key=keys, at_ms=series.at_ms, value=series.value, asked=series.asked)
    ).any()


def test_an_absent_value_is_not_unusual_and_counts_for_nothing() -> None:
    assert not unusual(weights([70.0] * 5 + [float("nan")] * 5 + [95.0])).any()


def by_hand(kg: list[float], days: list[float]) -> list[bool]:
    marks = []
    for place, (value, day) in enumerate(zip(kg, days, strict=True)):
        window = [
            (kg[i], day - days[i])
            for i in range(max(place - WINDOW, 0), place)
            if 0 < day - days[i] <= AGE_MS_MAX / DAY_MS
        ]
        if len(window) < READINGS_MIN:
            marks.append(False)
            continue
        levels = [level for level, _apart in window]
        middle = statistics.median(levels)
        spread = 1.4826 * statistics.median([abs(level - middle) for level in levels])
        drift = 0.25 * LEAST * min(apart for _level, apart in window) ** 0.5
        width = (max(spread, LEAST) ** 2 + drift**2) ** 0.5
        marks.append(abs(value - middle) > 6 * width)
    return marks


@given(st.lists(st.tuples(st.integers(140, 170), st.integers(1, 30)), min_size=1, max_size=40))
def test_arrays_say_what_is_said_by_hand(readings: list[tuple[int, int]]) -> None:
    kg = [half / 2 for half, _step in readings]
    days = np.cumsum([step / 2 for _half, step in readings]).tolist()
    assert unusual(weights(kg, days)).tolist() == by_hand(kg, days)


@given(
    st.lists(st.integers(140, 170), min_size=1, max_size=60),
    st.lists(st.integers(1, 12), min_size=1, max_size=30),
)
def test_the_memory_flush_by_flush_says_what_the_whole_series_says(
    halves: list[int], flushes: list[int]
) -> None:
    series = weights([half / 2 for half in halves])
    memory = Memory()
    nothing = weights([])
    memory.add(np.array([key()]), nothing)
    found: list[bool] = []
    while len(found) < len(halves):
        part = slice(len(found), len(found) + flushes[len(found) % len(flushes)])
        marks, unknown = memory.judge(series.key[part], series.at_ms[part], series.value[part])
        assert not unknown.any()
        found += marks.tolist()
    assert found == unusual(series).tolist()


def test_the_memory_does_not_judge_what_comes_late_or_is_not_loaded() -> None:
    memory = Memory()
    series = weights([70.0] * 10)
    _marks, unknown = memory.judge(series.key, series.at_ms, series.value)
    assert unknown.all()
    memory.add(np.array([key()]), series)
    _marks, unknown = memory.judge(
        series.key[:3], series.at_ms[:3] + 10 * DAY_MS - 1, series.value[:3]
    )
    assert unknown.tolist() == [False] * 3
    _marks, unknown = memory.judge(series.key[:1], series.at_ms[:1], series.value[:1])
    assert unknown.all()


def test_what_is_forgotten_is_missing() -> None:
    memory = Memory()
    keys = np.array([key(101), key(101, PRESSURE), key(102)])
    keys.sort()
    memory.add(keys, weights([]))
    assert len(memory.missing(keys)) == 0
    memory.forget(np.array([101]))
    assert memory.missing(keys).tolist() == [k for k in keys.tolist() if k >> 8 == 101]
    memory.forget(None)
    assert len(memory) == 0


@pytest.mark.parametrize("pairs_max", [10, 20])
def test_a_full_memory_keeps_those_that_were_used_last(pairs_max: int) -> None:
    memory = Memory(pairs_max)
    for resident in range(1, 100):
        memory.add(np.array([key(resident)]), weights([]))
        assert len(memory) <= pairs_max
    assert len(memory.missing(np.array([key(99)]))) == 0
    assert len(memory.missing(np.array([key(1)]))) == 1
