"""Home blood pressure by rule sets: sessions, the mean of a week, whether it is enough, crises.

Chinese guideline: 中国高血压防治指南 (2024 年修订版), home measurement: morning and evening, two readings
30 to 60 s apart, a third where they differ by more than 10 mmHg and then the mean of the three; the
mean of 5 to 7 days is elevated from 135/85 mmHg; referral from 180 systolic or 110 diastolic.
American: 2025 AHA/ACC guideline for high blood pressure in adults, home mean from 130/80 mmHg, severe
above 180/120 mmHg; at least 12 readings over at least 3 days: AHA/AMA joint policy statement on
self-measured blood pressure at home, 2020.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from gateway.guidelines.samples import (
    SHANGHAI_OFFSET_MS,
    Bools,
    Floats,
    Ints,
    Samples,
    day_keys,
    local_days,
    local_hours,
    starts,
    window_sums,
)
from gateway.quantity import Text
from gateway.vitals.blood_pressure import DIASTOLIC, SYSTOLIC

SESSION_GAP_MS = 10 * 60_000
"""Readings further apart than this belong to two sessions. Hearth's own: it lets a person rest,
sit down again and repeat, which guidelines leave open."""
MORNING_HOURS = range(4, 12)
EVENING_HOURS = range(17, 24)
"""Local hours of a morning and of an evening session. Hearth's own: guidelines say "within an hour of
rising" and "before going to bed", which no device knows. Others are counted and left out."""
READINGS_A_SESSION = 3
"""A session's further readings are counted as surplus: the guidelines average two or three."""
MORNING, EVENING = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureRules:
    """One guideline's rules. Thresholds are reached from their value on, `severe_*` too."""

    name: str
    title: Text
    source: str
    version: str
    elevated_systolic_mmhg: float
    elevated_diastolic_mmhg: float
    severe_systolic_mmhg: float
    severe_diastolic_mmhg: float
    days: int
    """The window, in local days up to and with the day asked for."""
    days_min: int
    """So many days with a complete morning and a complete evening session are enough."""
    readings_min: int
    third_reading_mmhg: float | None
    """Where two readings differ by more, a third is asked for; None: not by this guideline."""


CHINA_2024 = PressureRules(
    name="china-2024",
    title=Text(zh="中国高血压防治指南 2024", en="Chinese guideline 2024"),
    source="中国高血压防治指南 (2024 年修订版)",
    version="2024",
    elevated_systolic_mmhg=135,
    elevated_diastolic_mmhg=85,
    severe_systolic_mmhg=180,
    severe_diastolic_mmhg=110,
    days=7,
    days_min=5,
    readings_min=20,
    third_reading_mmhg=10,
)
AHA_ACC_2025 = PressureRules(
    name="aha-acc-2025",
    title=Text(zh="美国 AHA/ACC 指南 2025", en="AHA/ACC guideline 2025"),
    source="2025 AHA/ACC guideline, adults; adequacy: AHA/AMA policy statement 2020",
    version="2025",
    elevated_systolic_mmhg=130,
    elevated_diastolic_mmhg=80,
    severe_systolic_mmhg=181,  # "above 180": cuffs show whole numbers
    severe_diastolic_mmhg=121,
    days=7,
    days_min=3,
    readings_min=12,
    third_reading_mmhg=None,
)
RULE_SETS = {rules.name: rules for rules in (CHINA_2024, AHA_ACC_2025)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Sessions sorted by resident, day, half of the day; (m,) each.

    `half` is MORNING or EVENING; `readings` those averaged; `complete`: as many as the guideline
    asks for; `third_lacking`: two that differ too much, and no third. Of several sessions in one
    half of a day the first complete one stands, else the first.
    """

    resident: Ints
    day: Ints
    half: Ints
    systolic: Floats
    diastolic: Floats
    readings: Ints
    complete: Bools
    third_lacking: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class WeekOfPressure:
    """The mean of the days up to a day, for each resident's day with a session; (k,) each.

    Means and `systolic_sd`, `diastolic_sd` (standard deviation between sessions, n - 1) in mmHg,
    NaN where there is nothing to average. `full_days` had both sessions complete.
    """

    resident: Ints
    day: Ints
    systolic: Floats
    diastolic: Floats
    morning_systolic: Floats
    morning_diastolic: Floats
    evening_systolic: Floats
    evening_diastolic: Floats
    systolic_sd: Floats
    diastolic_sd: Floats
    sessions: Ints
    readings: Ints
    full_days: Ints
    adequate: Bools
    elevated: Bools
    """The mean reaches a threshold; said only where it is adequate."""

    def where(self, kept: Bools) -> WeekOfPressure:
        """Return the days that a mask keeps."""
        return WeekOfPressure(
            **{item.name: getattr(self, item.name)[kept] for item in fields(self)}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """How many readings of a window were left out, and why."""

    artefact: int
    unusual: int
    absent: int
    other_hours: int
    surplus: int


def usable_pressures(samples: Samples) -> Bools:
    """Return (n,) which readings count: both pressures there, no artefact, nothing unusual."""
    usable: Bools = (
        samples.usable
        & ~np.isnan(samples.values[SYSTOLIC.name])
        & ~np.isnan(samples.values[DIASTOLIC.name])
    )
    return usable


def sessions_of(
    samples: Samples, rules: PressureRules, offset_ms: int = SHANGHAI_OFFSET_MS
) -> Sessions:
    """Find the sessions among readings of blood pressure."""
    bursts = _bursts(samples, rules, offset_ms)
    # First complete, then first: stable within a resident's half day.
    key = day_keys(bursts.resident, bursts.day) * 2 + bursts.half
    order = np.lexsort((~bursts.complete, key))  # stable: the earliest of equals
    chosen = order[starts(key[order])]
    return _take_sessions(bursts, chosen)


def weeks_of(sessions: Sessions, rules: PressureRules) -> WeekOfPressure:
    """Return the mean of the rule set's window up to each day that has a session."""
    key = day_keys(sessions.resident, sessions.day)
    first = starts(key)
    position = key[first]

    def window(values: Floats | Ints | Bools) -> Floats:
        daily = np.add.reduceat(values.astype(np.float64), first) if len(first) else np.empty(0)
        return window_sums(position, daily, rules.days)

    morning = sessions.half == MORNING
    count = window(np.ones(len(key)))
    mornings, evenings = window(morning), window(~morning)
    systolic, diastolic = sessions.systolic, sessions.diastolic
    complete_halves = (
        np.add.reduceat(sessions.complete.astype(np.int64), first)
        if len(first)
        else np.empty(0, np.int64)
    )
    full_days = window_sums(position, complete_halves == 2, rules.days).astype(np.int64)  # noqa: PLR2004 - both
    readings = window(sessions.readings).astype(np.int64)
    mean_systolic, mean_diastolic = (
        _ratio(window(systolic), count),
        _ratio(window(diastolic), count),
    )
    adequate = (full_days >= rules.days_min) & (readings >= rules.readings_min)
    return WeekOfPressure(
        resident=sessions.resident[first],
        day=sessions.day[first],
        systolic=mean_systolic,
        diastolic=mean_diastolic,
        morning_systolic=_ratio(window(np.where(morning, systolic, 0)), mornings),
        morning_diastolic=_ratio(window(np.where(morning, diastolic, 0)), mornings),
        evening_systolic=_ratio(window(np.where(morning, 0, systolic)), evenings),
        evening_diastolic=_ratio(window(np.where(morning, 0, diastolic)), evenings),
        systolic_sd=_deviation(window(systolic**2), mean_systolic, count),
        diastolic_sd=_deviation(window(diastolic**2), mean_diastolic, count),
        sessions=count.astype(np.int64),
        readings=readings,
        full_days=full_days,
        adequate=adequate,
        elevated=adequate
        & (
            (mean_systolic >= rules.elevated_systolic_mmhg)
            | (mean_diastolic >= rules.elevated_diastolic_mmhg)
        ),
    )


def excluded(
    samples: Samples, rules: PressureRules, offset_ms: int = SHANGHAI_OFFSET_MS
) -> Excluded:
    """Count what `sessions_of` leaves out of these readings."""
    usable = usable_pressures(samples)
    absent = samples.usable & ~usable
    timed = usable & (_half(samples.measured_ms, offset_ms) >= 0)
    used = int(_bursts(samples, rules, offset_ms).readings.sum())
    return Excluded(
        artefact=int(samples.artefact.sum()),
        unusual=int((samples.unusual & ~samples.artefact).sum()),
        absent=int(absent.sum()),
        other_hours=int((usable & ~timed).sum()),
        surplus=int(timed.sum()) - used,
    )


def is_severe(samples: Samples, rules: PressureRules) -> Bools:
    """Return (n,) which readings reach a severe threshold; an absent pressure does not."""
    severe: Bools = (samples.values[SYSTOLIC.name] >= rules.severe_systolic_mmhg) | (
        samples.values[DIASTOLIC.name] >= rules.severe_diastolic_mmhg
    )
    return severe


def _bursts(samples: Samples, rules: PressureRules, offset_ms: int) -> Sessions:
    half = _half(samples.measured_ms, offset_ms)
    kept = usable_pressures(samples) & (half >= 0)
    samples, half = samples.where(kept), half[kept]
    day = local_days(samples.measured_ms, offset_ms)
    begins = np.zeros(len(samples), np.bool_)
    begins[starts(day_keys(samples.resident, day) * 2 + half)] = True
    begins[1:] |= np.diff(samples.measured_ms) > SESSION_GAP_MS
    first = np.flatnonzero(begins)
    size = np.diff(np.append(first, len(samples)))
    systolic, diastolic = samples.values[SYSTOLIC.name], samples.values[DIASTOLIC.name]
    second = np.minimum(first + 1, max(len(samples) - 1, 0))
    apart = np.zeros(len(first), np.bool_)
    if rules.third_reading_mmhg is not None and len(first):
        apart = (size > 1) & (
            (np.abs(systolic[second] - systolic[first]) > rules.third_reading_mmhg)
            | (np.abs(diastolic[second] - diastolic[first]) > rules.third_reading_mmhg)
        )
    readings = np.minimum(size, np.where(apart, READINGS_A_SESSION, READINGS_A_SESSION - 1))
    return Sessions(
        resident=samples.resident[first],
        day=day[first],
        half=half[first],
        systolic=_mean_of_first(systolic, first, readings),
        diastolic=_mean_of_first(diastolic, first, readings),
        readings=readings,
        complete=readings == np.where(apart, READINGS_A_SESSION, READINGS_A_SESSION - 1),
        third_lacking=apart & (readings < READINGS_A_SESSION),
    )


def _half(measured_ms: Ints, offset_ms: int) -> Ints:
    """Return (n,) MORNING, EVENING, or -1 at other hours."""
    hours = local_hours(measured_ms, offset_ms)
    table = np.full(24, -1, np.int64)
    table[MORNING_HOURS.start : MORNING_HOURS.stop] = MORNING
    table[EVENING_HOURS.start : EVENING_HOURS.stop] = EVENING
    halves: Ints = table[hours]
    return halves


def _mean_of_first(values: Floats, first: np.ndarray, count: Ints) -> Floats:
    total = np.concatenate(([0.0], np.cumsum(values)))
    means: Floats = (total[first + count] - total[first]) / np.maximum(count, 1)
    return means


def _take_sessions(sessions: Sessions, places: np.ndarray) -> Sessions:
    return Sessions(
        resident=sessions.resident[places],
        day=sessions.day[places],
        half=sessions.half[places],
        systolic=sessions.systolic[places],
        diastolic=sessions.diastolic[places],
        readings=sessions.readings[places],
        complete=sessions.complete[places],
        third_lacking=sessions.third_lacking[places],
    )


def _ratio(total: Floats, count: Floats) -> Floats:
    """Divide; NaN for nothing. Rounded, since a mean of thirds must still reach its threshold."""
    ratios: Floats = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return np.round(ratios, 6)


def _deviation(squares: Floats, mean: Floats, count: Floats) -> Floats:
    variance = _ratio(squares - count * mean**2, count - 1)
    deviations: Floats = np.sqrt(np.maximum(variance, 0))
    return deviations
