"""Alert rules as data, and the episodes in which each was met, as pure functions of the readings.

An episode is a stretch of a resident's readings, in the order of measurement, all of which meet a
rule. Whatever order readings arrive in, and whatever is re-attributed, the same readings give the
same episodes; what people said of an episode (acknowledged, resolved) is kept beside it by whoever
stores them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from gateway.guidelines import body_weight, daily, home_pressure
from gateway.guidelines.home_pressure import CHINA_2024, RULE_SETS
from gateway.guidelines.samples import (
    DAY_MS,
    HOUR_MS,
    SHANGHAI_OFFSET_MS,
    Bools,
    Floats,
    Ints,
    Samples,
)
from gateway.quantity import Text
from gateway.vitals.blood_pressure import DIASTOLIC, SYSTOLIC
from gateway.vitals.body_temperature import BODY_TEMPERATURE

REPEAT_MS_MAX = 60 * 60_000
"""A severe reading is repeated by another severe one, the next, within this. Hearth's own: guidelines
say "after some minutes of rest", and a resident may have to be asked first."""
REACH_MS = {
    "pressure_mean": 8 * DAY_MS,
    "pressure_crisis": REPEAT_MS_MAX,
    "weight_gain": (body_weight.GAIN_DAYS + 1) * DAY_MS,
}
"""Of each kind of rule, how far back it looks; a day more than its window, for the day's bounds."""
FRESH_MS = 24 * HOUR_MS
"""An episode whose last reading is older when it becomes known raises no alarm but a note."""


class Stage(IntEnum):
    """How far a rule is met by a reading."""

    CLEAR = 0
    ASK_REPEAT = 1
    """A single severe reading: the resident is asked for another before anyone is called."""
    ALARM = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Personal thresholds that take a rule's place. `resident` (r,) int64 sorted.

    `values` by the parameter's name, (r,) float64, NaN where a resident has none.
    """

    resident: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    values: Mapping[str, Floats] = field(default_factory=dict)

    def of(self, resident: Ints, parameter: str, otherwise: float) -> Floats:
        """Return (n,) the threshold of each resident."""
        thresholds = np.full(len(resident), otherwise)
        own = self.values.get(parameter)
        if own is None or not len(self.resident):
            return thresholds
        place = np.minimum(np.searchsorted(self.resident, resident), len(self.resident) - 1)
        has = (self.resident[place] == resident) & ~np.isnan(own[place])
        thresholds[has] = own[place[has]]
        return thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """One rule as data. `kind` names the function, `parameters` its numbers by name.

    Readings further apart than `gap_ms` are two episodes.
    """

    name: str
    title: Text
    kind: str
    sign: str
    source: str
    version: str
    gap_ms: int
    parameters: Mapping[str, float]
    rule_set: str | None = None
    marked_only: bool = False
    """Only for residents who are marked for it (weight, in heart failure)."""

    @property
    def reach_ms(self) -> int:
        """How far before a reading others count for what the rule says of it."""
        return REACH_MS.get(self.kind, 0)

    @property
    def is_low(self) -> bool:
        """Whether the rule is about low values."""
        return self.kind == "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """What a rule says of each moment, sorted by resident and time; (n,) each.

    `value` is the number that counts: a mean, a reading, a gain.
    """

    resident: Ints
    at_ms: Ints
    stage: Ints
    value: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """Stretches in which a rule was met, sorted by resident and start; (e,) each.

    `last_ms`: the last reading that met it. `cleared_ms`: the first that did not, -1 while none
    has. `stage`: the highest reached; `alarm_ms`: when ALARM was first reached, -1 where never.
    `peak`: the highest value (the lowest, where the rule is about low values).
    """

    resident: Ints
    started_ms: Ints
    last_ms: Ints
    cleared_ms: Ints
    alarm_ms: Ints
    stage: Ints
    peak: Floats
    readings: Ints


DEFAULT_RULES: tuple[AlertRule, ...] = (
    AlertRule(
        name="pressure-mean",
        title=Text(zh="家庭血压均值升高", en="Home blood pressure mean is elevated"),
        kind="pressure_mean",
        sign="blood_pressure",
        source=CHINA_2024.source,
        version=CHINA_2024.version,
        gap_ms=CHINA_2024.days * DAY_MS,
        parameters={
            "systolic_mmhg": CHINA_2024.elevated_systolic_mmhg,
            "diastolic_mmhg": CHINA_2024.elevated_diastolic_mmhg,
        },
        rule_set=CHINA_2024.name,
    ),
    AlertRule(
        name="pressure-crisis",
        title=Text(zh="血压危急值", en="Blood pressure is severe"),
        kind="pressure_crisis",
        sign="blood_pressure",
        source=CHINA_2024.source,
        version=CHINA_2024.version,
        gap_ms=DAY_MS,
        parameters={
            "severe_systolic_mmhg": CHINA_2024.severe_systolic_mmhg,
            "severe_diastolic_mmhg": CHINA_2024.severe_diastolic_mmhg,
        },
        rule_set=CHINA_2024.name,
    ),
    AlertRule(
        name="fever",
        title=Text(zh="发热", en="Fever"),
        kind="high",
        sign="body_temperature",
        source=daily.FEVER_SOURCE,
        version=daily.FEVER_VERSION,
        gap_ms=2 * DAY_MS,
        parameters={BODY_TEMPERATURE.name: daily.FEVER_CELSIUS},
    ),
    AlertRule(
        name="weight-gain",
        title=Text(zh="体重快速增加", en="Weight has risen fast"),
        kind="weight_gain",
        sign="body_weight",
        source=body_weight.SOURCE,
        version=body_weight.VERSION,
        gap_ms=body_weight.GAIN_DAYS * DAY_MS,
        parameters={"gain_kg": body_weight.GAIN_KG},
        marked_only=True,
    ),
    AlertRule(
        name="oxygen-low",
        title=Text(zh="血氧饱和度低", en="Oxygen saturation is low"),
        kind="low",
        sign="pulse_oximetry",
        source="Royal College of Physicians, NEWS2: scores 3",
        version="2017",
        gap_ms=DAY_MS,
        parameters={"oxygen_saturation_percent": 91},
    ),
)


def evaluate(
    rule: AlertRule,
    samples: Samples,
    targets: Targets | None = None,
    offset_ms: int = SHANGHAI_OFFSET_MS,
) -> Points:
    """Return what a rule says of these readings of its sign."""
    return KINDS[rule.kind](rule, samples, targets or Targets(), offset_ms)


def episodes_of(points: Points, gap_ms: int, *, low: bool = False) -> Episodes:
    """Return the episodes of a rule's points; `low`: the peak is the lowest value."""
    met = points.stage > Stage.CLEAR
    count = len(met)
    begins = met.copy()
    same = np.zeros(count, np.bool_)
    same[1:] = (points.resident[1:] == points.resident[:-1]) & met[:-1]
    same[1:] &= points.at_ms[1:] - points.at_ms[:-1] <= gap_ms
    begins &= ~same
    first = np.flatnonzero(begins)
    kept = np.flatnonzero(met)
    of_kept = np.searchsorted(kept, first)
    size = np.diff(np.append(of_kept, len(kept)))
    last = kept[np.append(of_kept[1:], len(kept))[: len(first)] - 1] if len(first) else first
    after = np.minimum(last + 1, max(count - 1, 0))
    clears = (after > last) & (points.resident[after] == points.resident[last])
    clears &= ~met[after]
    extreme = np.minimum if low else np.maximum
    stages, values = points.stage[kept], points.value[kept]
    alarms = np.where(stages == Stage.ALARM, points.at_ms[kept], np.iinfo(np.int64).max)
    nothing = np.empty(0, np.int64)
    alarm_ms = np.minimum.reduceat(alarms, of_kept) if len(first) else nothing
    return Episodes(
        resident=points.resident[first],
        started_ms=points.at_ms[first],
        last_ms=points.at_ms[last],
        cleared_ms=np.where(clears, points.at_ms[after], -1) if len(first) else nothing,
        alarm_ms=np.where(alarm_ms == np.iinfo(np.int64).max, -1, alarm_ms),
        stage=np.maximum.reduceat(stages, of_kept) if len(first) else nothing,
        peak=extreme.reduceat(values, of_kept) if len(first) else np.empty(0),
        readings=size.astype(np.int64),
    )


def silent(resident: Ints, last_ms: Ints, now_ms: int, days: Ints | int) -> np.ndarray:
    """Return (n,) whose last reading is `days` or more ago; -1 as last: never any."""
    quiet: np.ndarray = (last_ms < 0) | (now_ms - last_ms >= np.asarray(days, np.int64) * DAY_MS)
    return quiet & (resident >= 0)


def _pressure_mean(rule: AlertRule, samples: Samples, targets: Targets, offset_ms: int) -> Points:
    rules = RULE_SETS[rule.rule_set or CHINA_2024.name]
    week = home_pressure.weeks_of(home_pressure.sessions_of(samples, rules, offset_ms), rules)
    week = week.where(week.adequate)  # too few readings say nothing, neither met nor cleared
    systolic = targets.of(week.resident, "systolic_mmhg", rule.parameters["systolic_mmhg"])
    diastolic = targets.of(week.resident, "diastolic_mmhg", rule.parameters["diastolic_mmhg"])
    met = (week.systolic >= systolic) | (week.diastolic >= diastolic)
    return Points(
        resident=week.resident,
        # A day is judged as a whole: at its end, less the millisecond that is the next day's.
        at_ms=(week.day + 1) * DAY_MS - offset_ms - 1,
        stage=np.where(met, Stage.ALARM, Stage.CLEAR).astype(np.int64),
        value=week.systolic,
    )


def _pressure_crisis(
    rule: AlertRule, samples: Samples, targets: Targets, _offset_ms: int
) -> Points:
    severe = _is_severe(rule, samples, targets)
    # A measurement that failed, in part too, says of no other one that it was well.
    is_whole = ~np.isnan(samples.values[SYSTOLIC.name]) & ~np.isnan(samples.values[DIASTOLIC.name])
    says = ~samples.artefact & (severe | is_whole)
    kept, severe = samples.where(says), severe[says]
    resident, at_ms = kept.resident, kept.measured_ms
    repeated = np.zeros(len(kept), np.bool_)
    repeated[1:] = (
        severe[1:]
        & severe[:-1]
        & (resident[1:] == resident[:-1])
        & (at_ms[1:] - at_ms[:-1] <= REPEAT_MS_MAX)
    )
    stage = np.where(repeated, Stage.ALARM, np.where(severe, Stage.ASK_REPEAT, Stage.CLEAR))
    return Points(
        resident=resident,
        at_ms=at_ms,
        stage=stage.astype(np.int64),
        value=kept.values[SYSTOLIC.name],
    )


def _is_severe(rule: AlertRule, samples: Samples, targets: Targets) -> Bools:
    """Return (n,) which readings reach a severe threshold; an absent pressure does not."""
    severe = np.zeros(len(samples), np.bool_)
    for quantity in (SYSTOLIC, DIASTOLIC):
        name = f"severe_{quantity.name}"
        bound = targets.of(samples.resident, name, rule.parameters[name])
        severe |= samples.values[quantity.name] >= bound
    return severe


def _threshold(rule: AlertRule, samples: Samples, targets: Targets, *, low: bool) -> Points:
    ((name, otherwise),) = rule.parameters.items()
    kept = samples.where(~samples.artefact & ~np.isnan(samples.values[name]))
    value = kept.values[name]
    bound = targets.of(kept.resident, name, otherwise)
    met = value <= bound if low else value >= bound
    return Points(
        resident=kept.resident,
        at_ms=kept.measured_ms,
        stage=np.where(met, Stage.ALARM, Stage.CLEAR).astype(np.int64),
        value=value,
    )


def _high(rule: AlertRule, samples: Samples, targets: Targets, _offset_ms: int) -> Points:
    return _threshold(rule, samples, targets, low=False)


def _low(rule: AlertRule, samples: Samples, targets: Targets, _offset_ms: int) -> Points:
    return _threshold(rule, samples, targets, low=True)


def _weight_gain(rule: AlertRule, samples: Samples, targets: Targets, _offset_ms: int) -> Points:
    # What fluid does to a weight is unusual by nature, so unusual weights count here.
    usual = Samples(
        resident=samples.resident,
        measured_ms=samples.measured_ms,
        values=samples.values,
        artefact=samples.artefact,
        unusual=np.zeros(len(samples), np.bool_),
    )
    changes = body_weight.weight_changes(usual)
    bound = targets.of(changes.resident, "gain_kg", rule.parameters["gain_kg"])
    met = changes.gain_3d_kg >= bound
    known = ~np.isnan(changes.gain_3d_kg)  # without a weight before there is no gain to judge by
    return Points(
        resident=changes.resident[known],
        at_ms=changes.measured_ms[known],
        stage=np.where(met, Stage.ALARM, Stage.CLEAR).astype(np.int64)[known],
        value=changes.gain_3d_kg[known],
    )


KINDS: dict[str, Callable[[AlertRule, Samples, Targets, int], Points]] = {
    "pressure_mean": _pressure_mean,
    "pressure_crisis": _pressure_crisis,
    "high": _high,
    "low": _low,
    "weight_gain": _weight_gain,
}
"""How a rule of each kind is evaluated."""

assert all(rule.kind in KINDS for rule in DEFAULT_RULES)  # noqa: S101
