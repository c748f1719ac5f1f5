"""Statistics and rules by guideline, against published tables and against a plain second opinion."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.guidelines import body_weight, daily, news2
from gateway.guidelines.alerts import (
    DEFAULT_RULES,
    REPEAT_MS_MAX,
    Episodes,
    Stage,
    Targets,
    episodes_of,
    evaluate,
    silent,
)
from gateway.guidelines.home_pressure import (
    AHA_ACC_2025,
    CHINA_2024,
    MORNING,
    excluded,
    sessions_of,
    weeks_of,
)
from gateway.guidelines.samples import DAY_MS, Samples, samples
from gateway.vitals.water_intake import WATER

CHINA = timezone(timedelta(hours=8))
MONDAY = datetime(2026, 11, 2, tzinfo=CHINA)
MINUTE_MS = 60_000
RULES = {rule.name: rule for rule in DEFAULT_RULES}

Pressure = tuple[datetime, float, float]


def at(day: int, hour: int, minute: int = 0, second: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute, seconds=second)


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def pressures(
    readings: Sequence[Pressure],
    *,
    artefact: Sequence[bool] = (),
    resident: int = 1,
) -> Samples:
    return samples(
        [resident] * len(readings),
        [ms(moment) for moment, _systolic, _diastolic in readings],
        {
            "systolic_mmhg": [systolic for _moment, systolic, _diastolic in readings],
            "diastolic_mmhg": [diastolic for _moment, _systolic, diastolic in readings],
        },
        artefact=artefact or False,
    )


def week(systolic: float, diastolic: float, days: int = 7) -> list[Pressure]:
    """Two readings 45 s apart, morning and evening."""
    return [
        (at(day, hour, 30, 45 * place), systolic, diastolic)
        for day in range(days)
        for hour in (7, 21)
        for place in (0, 1)
    ]


@pytest.mark.parametrize(
    ("systolic", "diastolic", "elevated"),
    [(135, 70, True), (134, 84, False), (120, 85, True), (134.9, 84.9, False)],
)
def test_a_week_is_elevated_from_135_or_85_on_by_the_chinese_guideline(
    systolic: float, diastolic: float, *, elevated: bool
) -> None:
    found = weeks_of(sessions_of(pressures(week(systolic, diastolic)), CHINA_2024), CHINA_2024)
    assert found.adequate[-1]
    assert found.elevated[-1] == elevated
    assert (found.systolic[-1], found.diastolic[-1]) == (systolic, diastolic)


def test_a_week_is_elevated_from_130_or_80_on_by_the_american_guideline() -> None:
    readings = pressures(week(131, 70))
    assert weeks_of(sessions_of(readings, AHA_ACC_2025), AHA_ACC_2025).elevated[-1]
    assert not weeks_of(sessions_of(readings, CHINA_2024), CHINA_2024).elevated[-1]


def test_four_full_days_are_too_few_and_five_are_enough() -> None:
    found = weeks_of(sessions_of(pressures(week(150, 90)), CHINA_2024), CHINA_2024)
    assert found.full_days.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert found.adequate.tolist() == [False] * 4 + [True] * 3
    assert found.elevated.tolist() == [False] * 4 + [True] * 3


def test_two_readings_that_differ_by_more_than_10_want_a_third_and_the_mean_of_three() -> None:
    pair = [(at(0, 7), 150, 90), (at(0, 7, 1), 139, 90)]
    lacking = sessions_of(pressures(pair), CHINA_2024)
    assert lacking.third_lacking.tolist() == [True]
    assert lacking.complete.tolist() == [False]
    third = sessions_of(pressures([*pair, (at(0, 7, 2), 140, 90)]), CHINA_2024)
    assert third.complete.tolist() == [True]
    assert third.systolic.tolist() == [143]  # (150 + 139 + 140) / 3


def test_two_readings_that_differ_by_10_are_averaged_and_a_third_is_surplus() -> None:
    readings = pressures([(at(0, 7), 150, 90), (at(0, 7, 1), 140, 88), (at(0, 7, 2), 100, 60)])
    found = sessions_of(readings, CHINA_2024)
    assert (found.systolic.tolist(), found.diastolic.tolist()) == ([145], [89])
    assert excluded(readings, CHINA_2024).surplus == 1


def test_morning_and_evening_are_told_apart_and_other_hours_left_out() -> None:
    readings = pressures(
        [
            (at(0, 4), 140, 80),
            (at(0, 11, 59), 130, 80),
            (at(0, 14), 200, 99),
            (at(0, 23, 59), 120, 70),
        ]
    )
    found = weeks_of(sessions_of(readings, CHINA_2024), CHINA_2024)
    assert found.morning_systolic.tolist() == [140]  # the first session of the morning
    assert found.evening_systolic.tolist() == [120]
    assert excluded(readings, CHINA_2024).other_hours == 1


def test_artefacts_are_left_out_and_counted() -> None:
    readings = pressures([(at(0, 7), 190, 120), (at(0, 7, 1), 130, 80)], artefact=[True, False])
    assert sessions_of(readings, CHINA_2024).systolic.tolist() == [130]
    assert excluded(readings, CHINA_2024).artefact == 1


def test_a_local_day_begins_at_midnight_in_shanghai() -> None:
    before, behind = at(0, 23, 59), at(1, 4)
    found = sessions_of(pressures([(before, 120, 80), (behind, 130, 80)]), CHINA_2024)
    assert np.diff(found.day).tolist() == [1]
    assert found.half.tolist() == [1, MORNING]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 20 * 24 * 60), st.integers(80, 200), st.integers(40, 120), st.booleans()
        ),
        max_size=60,
    ),
    st.randoms(use_true_random=False),
)
def test_any_order_of_arrival_gives_what_a_plain_reckoning_gives(
    readings: list[tuple[int, int, int, bool]], random: object
) -> None:
    given_order = [(at(0, 0, minute), s, d) for minute, s, d, _artefact in readings]
    artefacts = [artefact for *_rest, artefact in readings]
    places = list(range(len(readings)))
    random.shuffle(places)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    one = pressures(given_order, artefact=artefacts)
    other = pressures([given_order[i] for i in places], artefact=[artefacts[i] for i in places])
    found = [weeks_of(sessions_of(each, CHINA_2024), CHINA_2024) for each in (one, other)]
    for name in ("systolic", "diastolic", "systolic_sd", "sessions", "readings", "full_days"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))
    plain = _plain_weeks(one)
    assert found[0].day.tolist() == sorted(plain)
    np.testing.assert_allclose(found[0].systolic, [plain[day] for day in sorted(plain)], atol=1e-5)


def _plain_weeks(readings: Samples) -> dict[int, float]:
    """The mean of each day's week, without an array: a second opinion."""
    halves: dict[tuple[int, str], list[tuple[int, float, float]]] = defaultdict(list)
    rows = zip(
        readings.measured_ms.tolist(),
        readings.values["systolic_mmhg"].tolist(),
        readings.values["diastolic_mmhg"].tolist(),
        readings.artefact.tolist(),
        strict=True,
    )
    for when, systolic, diastolic, artefact in rows:
        local = datetime.fromtimestamp(when / 1000, CHINA)
        half = "am" if 4 <= local.hour < 12 else "pm" if local.hour >= 17 else None
        if half and not artefact:
            day = (local.replace(tzinfo=None) - datetime(1970, 1, 1)).days  # noqa: DTZ001
            halves[day, half].append((when, systolic, diastolic))
    values: dict[int, list[float]] = defaultdict(list)
    for (day, _half), taken in halves.items():
        values[day].append(_plain_session(taken))
    return {
        day: statistics.fmean(
            [value for other in values for value in values[other] if day - 7 < other <= day]
        )
        for day in values
    }


def _plain_session(taken: list[tuple[int, float, float]]) -> float:
    bursts = [[taken[0]]]
    for before, reading in pairwise(taken):
        if reading[0] - before[0] > 10 * MINUTE_MS:
            bursts.append([])
        bursts[-1].append(reading)
    means = []
    for burst in bursts:
        apart = len(burst) > 1 and (
            abs(burst[0][1] - burst[1][1]) > 10 or abs(burst[0][2] - burst[1][2]) > 10
        )
        wanted = 3 if apart else 2
        used = burst[:wanted]
        means.append((len(used) < wanted, statistics.fmean(value for _when, value, _d in used)))
    return min(means, key=lambda mean: mean[0])[1]


@pytest.mark.parametrize(
    ("parameter", "bands"),
    [
        # Royal College of Physicians, NEWS2, chart 1: value, score
        ("oxygen_saturation_percent", [(91, 3), (92, 2), (93, 2), (94, 1), (95, 1), (96, 0)]),
        (
            "systolic_mmhg",
            [(90, 3), (91, 2), (100, 2), (101, 1), (110, 1), (111, 0), (219, 0), (220, 3)],
        ),
        (
            "pulse_rate_per_min",
            [
                (40, 3),
                (41, 1),
                (50, 1),
                (51, 0),
                (90, 0),
                (91, 1),
                (110, 1),
                (111, 2),
                (130, 2),
                (131, 3),
            ],
        ),
        (
            "body_temperature_celsius",
            [
                (35.0, 3),
                (35.1, 1),
                (36.0, 1),
                (36.1, 0),
                (38.0, 0),
                (38.1, 1),
                (39.0, 1),
                (39.1, 2),
            ],
        ),
    ],
)
def test_news2_scores_each_band_of_the_chart(
    parameter: str, bands: list[tuple[float, int]]
) -> None:
    values = np.array([value for value, _score in bands])
    scored = news2.partial_news2({parameter: values})
    assert scored.score.tolist() == [score for _value, score in bands]
    assert scored.single_three.tolist() == [score == 3 for _value, score in bands]


def test_news2_from_a_home_says_how_little_it_knows() -> None:
    scored = news2.partial_news2(
        {"systolic_mmhg": np.array([95.0, np.nan]), "pulse_rate_per_min": np.array([120.0, np.nan])}
    )
    assert scored.score.tolist() == [4, 0]
    assert scored.present.tolist() == [2, 0]
    assert news2.PARAMETERS_OF_NEWS2 == 7


def weights(*days_and_kg: tuple[float, float]) -> Samples:
    count = len(days_and_kg)
    return samples(
        [1] * count,
        [ms(MONDAY) + round(day * DAY_MS) for day, _kg in days_and_kg],
        {"body_weight_kg": [kg for _day, kg in days_and_kg]},
    )


def test_a_gain_of_2_kg_in_3_days_is_found_and_a_slower_one_is_not() -> None:
    fast = body_weight.weight_changes(weights((0, 70.4), (1, 70.0), (3.9, 72.0)))
    assert body_weight.has_gained(fast).tolist() == [False, False, True]
    slow = body_weight.weight_changes(weights((0, 70), (2, 71), (4, 72), (6, 73)))
    assert not body_weight.has_gained(slow).any()
    assert slow.gain_7d_kg[-1] == 3


@given(
    st.lists(
        st.tuples(st.integers(0, 14 * 24), st.integers(500, 900), st.integers(1, 3)), max_size=40
    )
)
def test_gains_are_what_a_plain_reckoning_gives(taken: list[tuple[int, int, int]]) -> None:
    given_order = samples(
        [who for _hour, _kg, who in taken],
        [hour * 3_600_000 for hour, _kg, _who in taken],
        {"body_weight_kg": [kg / 10 for _hour, kg, _who in taken]},
    )
    found = body_weight.weight_changes(given_order)
    kg = found.weight_kg
    for place in range(len(kg)):
        before = [
            kg[other]
            for other in range(place)
            if found.resident[other] == found.resident[place]
            and found.measured_ms[place] - found.measured_ms[other] <= 3 * DAY_MS
        ]
        if before:
            assert found.gain_3d_kg[place] == pytest.approx(kg[place] - min(before), abs=1e-6)
            assert found.change_3d_kg[place] == pytest.approx(kg[place] - before[0], abs=1e-6)
        else:
            assert np.isnan(found.gain_3d_kg[place])


def test_water_is_summed_by_the_local_day() -> None:
    drinks = samples(
        [1, 1, 1, 2],
        [ms(at(0, 23, 59)), ms(at(1, 0)), ms(at(1, 12)), ms(at(0, 8))],
        {"water_intake_ml": [100, 250, 300, 500]},
    )
    found = daily.daily_totals(drinks, WATER)
    assert found.resident.tolist() == [1, 1, 2]
    assert found.total.tolist() == [100, 550, 500]


def test_the_peak_of_a_day_is_the_first_time_it_was_reached() -> None:
    found = daily.daily_peaks(
        samples(
            [1] * 4,
            [ms(at(0, hour)) for hour in (8, 12, 16, 20)],
            {"body_temperature_celsius": [37.0, 38.6, 38.6, 37.2]},
        )
    )
    assert found.peak_celsius.tolist() == [38.6]
    assert found.peak_at_ms.tolist() == [ms(at(0, 12))]


def found_episodes(rule: str, given: Samples, targets: Targets | None = None) -> Episodes:
    chosen = RULES[rule]
    return episodes_of(evaluate(chosen, given, targets), chosen.gap_ms)


def test_one_severe_reading_asks_for_a_repeat_and_a_second_alarms() -> None:
    once = found_episodes("pressure-crisis", pressures([(at(0, 8), 182, 95)]))
    assert once.stage.tolist() == [Stage.ASK_REPEAT]
    assert once.alarm_ms.tolist() == [-1]
    twice = found_episodes(
        "pressure-crisis", pressures([(at(0, 8), 182, 95), (at(0, 8, 5), 150, 110)])
    )
    assert twice.stage.tolist() == [Stage.ALARM]
    assert twice.alarm_ms.tolist() == [ms(at(0, 8, 5))]


def test_a_repeat_that_is_not_severe_clears_and_one_too_late_asks_again() -> None:
    cleared = found_episodes(
        "pressure-crisis", pressures([(at(0, 8), 182, 95), (at(0, 8, 5), 150, 90)])
    )
    assert cleared.cleared_ms.tolist() == [ms(at(0, 8, 5))]
    late = at(0, 8) + timedelta(milliseconds=REPEAT_MS_MAX + 1)
    asked = found_episodes("pressure-crisis", pressures([(at(0, 8), 182, 95), (late, 182, 95)]))
    assert asked.stage.tolist() == [Stage.ASK_REPEAT]


def test_a_measurement_that_failed_is_no_repeat_that_was_well() -> None:
    failed = (at(0, 8, 3), math.nan, math.nan)
    asked = found_episodes("pressure-crisis", pressures([(at(0, 8), 182, 95), failed]))
    assert (asked.stage.tolist(), asked.cleared_ms.tolist()) == ([Stage.ASK_REPEAT], [-1])
    alarmed = found_episodes(
        "pressure-crisis", pressures([(at(0, 8), 182, 95), failed, (at(0, 8, 5), 185, 95)])
    )
    assert alarmed.stage.tolist() == [Stage.ALARM]
    half = (at(0, 8, 3), 150, math.nan)  # it may be the diastolic pressure that is severe
    asked = found_episodes("pressure-crisis", pressures([(at(0, 8), 150, 112), half]))
    assert asked.cleared_ms.tolist() == [-1]
    severe = (at(0, 8, 3), 185, math.nan)
    alarmed = found_episodes("pressure-crisis", pressures([(at(0, 8), 182, 95), severe]))
    assert alarmed.stage.tolist() == [Stage.ALARM]


def test_a_weight_with_none_before_it_does_not_clear_a_gain() -> None:
    gained = found_episodes("weight-gain", weights((0, 70), (1, 72.5), (6, 74)))
    assert (gained.stage.tolist(), gained.cleared_ms.tolist()) == ([Stage.ALARM], [-1])
    lost = found_episodes("weight-gain", weights((0, 70), (1, 72.5), (6, 71), (7, 71)))
    assert lost.cleared_ms.tolist() == [ms(at(7, 0))]


def test_a_fever_of_days_is_one_episode_with_its_peak() -> None:
    temperatures = [38.4, 39.2, 38.2, 37.0, 38.5]
    given_order = samples(
        [1] * 5,
        [ms(at(day, 8)) for day in range(5)],
        {"body_temperature_celsius": temperatures},
    )
    found = found_episodes("fever", given_order)
    assert found.readings.tolist() == [3, 1]
    assert found.peak.tolist() == [39.2, 38.5]
    assert found.cleared_ms.tolist() == [ms(at(3, 8)), -1]


def test_a_personal_target_takes_the_place_of_the_rules_threshold() -> None:
    given_order = pressures(week(128, 78))
    assert not len(found_episodes("pressure-mean", given_order).resident)
    own = Targets(resident=np.array([1]), values={"systolic_mmhg": np.array([125.0])})
    assert found_episodes("pressure-mean", given_order, own).stage.tolist() == [Stage.ALARM]


def test_residents_do_not_mix() -> None:
    given_order = samples(
        [1, 2],
        [ms(at(0, 8)), ms(at(0, 8, 1))],
        {"systolic_mmhg": [185, 185], "diastolic_mmhg": [90, 90]},
    )
    assert found_episodes("pressure-crisis", given_order).stage.tolist() == [Stage.ASK_REPEAT] * 2


@pytest.mark.parametrize("rule", sorted(RULES))
def test_no_readings_give_no_episodes(rule: str) -> None:
    names = (
        "systolic_mmhg",
        "diastolic_mmhg",
        "body_temperature_celsius",
        "body_weight_kg",
        "oxygen_saturation_percent",
    )
    nothing = samples([], [], {name: [] for name in names})
    assert not len(found_episodes(rule, nothing).resident)


def test_who_has_not_measured_for_days_is_silent() -> None:
    now = ms(at(10, 12))
    last = np.array([ms(at(9, 12)), ms(at(7, 12)), -1])
    assert silent(np.array([1, 2, 3]), last, now, 3).tolist() == [False, True, True]
