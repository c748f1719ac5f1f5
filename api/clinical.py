"""Guideline statistics and alerts of residents, as documents. Hearth is no diagnostic device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import numpy as np
from pydantic import ConfigDict

from api.access import Principal
from api.archive import Archive
from gateway.gatt.times import from_ms, ms_since_epoch
from gateway.guidelines import body_weight, daily, news2
from gateway.guidelines.home_pressure import (
    PressureRules,
    WeekOfPressure,
    excluded,
    sessions_of,
    weeks_of,
)
from gateway.guidelines.samples import (
    DAY_MS,
    SHANGHAI_OFFSET_MS,
    Floats,
    Samples,
    local_days,
    samples,
)
from gateway.platform.postgres import class_row, load_queries, sql
from gateway.stored import FLAG_ARTEFACT, FLAG_UNUSUAL
from gateway.vitals import BY_CODE, QUANTITIES, SIGNS
from gateway.vitals.activity import STEPS
from gateway.vitals.blood_pressure import PULSE_RATE, SYSTOLIC
from gateway.vitals.body_temperature import BODY_TEMPERATURE
from gateway.vitals.pulse_oximetry import OXYGEN_SATURATION
from gateway.vitals.water_intake import WATER

DAYS = 14
"""Statistics look back so many local days; the longest window in them is a week."""
NEWS2_HOURS = 24
"""A partial score takes the latest of each parameter, none older than this."""
_EPOCH = date(1970, 1, 1)
_QUERIES = load_queries(Path(__file__).parent / "sql" / "clinical.sql")
_DOCUMENTED = ConfigDict(use_attribute_docstrings=True)
_READINGS = _QUERIES["readings"].format(
    quantities=sql.SQL(", ").join(sql.Identifier("m", quantity.name) for quantity in QUANTITIES)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PressurePair:
    """A mean, null where nothing was measured."""

    systolic_mmhg: float | None
    diastolic_mmhg: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcludedReadings:
    """How many readings of the window were left out, and why."""

    artefact: int
    unusual: int
    absent: int
    other_hours: int
    surplus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HomePressure:
    """Home blood pressure by one rule set, over its days up to the day asked for."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    rule_set: str
    source: str
    version: str
    days: int
    mean: PressurePair
    morning: PressurePair
    evening: PressurePair
    deviation: PressurePair
    """Standard deviation between sessions."""
    sessions: int
    readings: int
    full_days: int
    """Days with a complete morning and a complete evening session."""
    adequate: bool
    """Whether the rule set has enough to judge by."""
    elevated: bool | None
    """Whether the mean reaches a threshold of the rule set; null: not enough to say."""
    excluded: ExcludedReadings


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightTrend:
    """How the latest weight changed; null where nothing was measured before."""

    change_3d_kg: float | None
    change_7d_kg: float | None
    gain_3d_kg: float | None
    source: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperaturePeak:
    """The highest temperature of a local day."""

    day: date
    peak_celsius: float
    peak_at: datetime
    readings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DayTotal:
    """The sum of a local day."""

    day: date
    total: float
    readings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialNews2:
    """NEWS2 in part: a home has no respiration rate, consciousness or oxygen supply."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    label: str
    score: int
    """Of what is there. A low partial score says nothing good."""
    present: Sequence[str]
    of_parameters: int
    single_three: bool
    """One parameter alone scores 3."""
    source: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Statistics by published guidelines, by the time of measurement; local days are Shanghai's."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    notice: str
    day: date
    """The last local day that counts."""
    home_pressure: HomePressure
    weight: WeightTrend
    temperature: Sequence[TemperaturePeak]
    water_ml: Sequence[DayTotal]
    steps: Sequence[DayTotal]
    news2: PartialNews2


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDocument:
    """One alert: a rule that a stretch of a resident's readings meets."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    id: UUID
    resident: UUID
    rule: str
    title: Mapping[str, str]
    source: str
    version: str
    stage: int
    """1: a repeat of the measurement is asked for; 2: alarm."""
    state: str
    """open, acknowledged, resolved, withdrawn."""
    is_note: bool
    """Became known too late to alarm anyone."""
    started_at: datetime
    last_at: datetime
    cleared_at: datetime | None
    alarm_at: datetime | None
    raised_at: datetime
    changed_at: datetime
    readings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertEvent:
    """What happened to an alert, or what somebody said of it."""

    at: datetime
    actor: str
    what: str
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertHistory:
    """An alert and all that happened to it."""

    alert: AlertDocument
    events: Sequence[AlertEvent]


NOTICE = "供医务人员参考, 不作诊断之用 / supports clinicians, no diagnostic device"
PARTIAL = "部分 NEWS2, 不完整 / partial NEWS2, incomplete"


async def read_statistics(
    archive: Archive, principal: Principal, resident: UUID, rules: PressureRules, day: date
) -> Statistics:
    """Return a resident's statistics up to the end of a local day.

    Raises:
        UnknownResidentError, ForbiddenError: as `Archive.reading`.
    """
    end_ms = ((day - _EPOCH).days + 1) * DAY_MS - SHANGHAI_OFFSET_MS
    parameters = {
        "resident": resident,
        "signs": list(BY_CODE),
        "from_at": from_ms(end_ms - DAYS * DAY_MS),
        "to_at": from_ms(end_ms),
    }
    async with archive.reading(
        principal, action="measurement.statistics", resident=resident
    ) as connection:
        cursor = await connection.execute(_READINGS, parameters, prepare=True)
        rows = await cursor.fetchall()
    return statistics_of(rows, rules, day, end_ms)


def statistics_of(
    rows: Sequence[tuple[Any, ...]], rules: PressureRules, day: date, end_ms: int
) -> Statistics:
    """Return the statistics of readings: sign, milliseconds, flags, all quantities in order."""
    by_sign = _by_sign(rows)
    pressure, weight = by_sign["blood_pressure"], by_sign["body_weight"]
    return Statistics(
        notice=NOTICE,
        day=day,
        home_pressure=_home_pressure(pressure, rules, (day - _EPOCH).days),
        weight=_weight(weight),
        temperature=_peaks(by_sign["body_temperature"]),
        water_ml=_totals(daily.daily_totals(by_sign["water_intake"], WATER)),
        steps=_totals(daily.daily_totals(by_sign["activity"], STEPS)),
        news2=_news2(by_sign, end_ms),
    )


async def list_alerts(
    archive: Archive,
    principal: Principal,
    *,
    resident: UUID | None,
    states: Sequence[str] | None,
    after: UUID | None,
    limit: int,
) -> list[AlertDocument]:
    """Return alerts, newest first: a resident's, or of all whom the principal cares for."""
    async with archive.reading(principal, action="alert.list", resident=resident) as connection:
        parameters = {"states": states and list(states), "after": after, "limit": limit}
        async with connection.cursor(row_factory=class_row(AlertDocument)) as cursor:
            await cursor.execute(_QUERIES["alerts"], parameters)
            return await cursor.fetchall()


async def read_alert(
    archive: Archive, principal: Principal, resident: UUID, alert: UUID
) -> AlertHistory | None:
    """Return a resident's alert with what happened to it; None: there is none."""
    async with archive.reading(principal, action="alert.read", resident=resident) as connection:
        async with connection.cursor(row_factory=class_row(AlertDocument)) as cursor:
            await cursor.execute(_QUERIES["alert"], {"alert": alert})
            found = await cursor.fetchone()
        if found is None:
            return None
        async with connection.cursor(row_factory=class_row(AlertEvent)) as events:
            await events.execute(_QUERIES["events"], {"alert": alert})
            return AlertHistory(alert=found, events=await events.fetchall())


async def settle_alert(
    archive: Archive,
    principal: Principal,
    resident: UUID,
    alert: UUID,
    *,
    state: str,
    note: str | None,
) -> bool:
    """Acknowledge or resolve a resident's alert; False: it is not there or stands there already."""
    parameters = {"alert": alert, "reader": principal.user, "state": state, "note": note}
    async with archive.reading(principal, action=f"alert.{state}", resident=resident) as connection:
        cursor = await connection.execute(_QUERIES["settle"], parameters)
        ((settled,),) = await cursor.fetchall()
    return bool(settled)


def today_in_shanghai(now: datetime | None = None) -> date:
    """Return the local day of a moment, by default of now."""
    day = local_days(np.array([ms_since_epoch(now or datetime.now(UTC))], np.int64))[0]
    return _EPOCH + timedelta(days=int(day))


def _by_sign(rows: Sequence[tuple[Any, ...]]) -> dict[str, Samples]:
    table = np.array(rows, np.float64).reshape(len(rows), 3 + len(QUANTITIES))
    place = {quantity.name: 3 + index for index, quantity in enumerate(QUANTITIES)}
    found = {}
    for sign in SIGNS:
        own = table[table[:, 0] == sign.code]
        found[sign.name] = samples(
            np.zeros(len(own), np.int64),
            own[:, 1].astype(np.int64),
            {quantity.name: own[:, place[quantity.name]] for quantity in sign.quantities},
            artefact=(own[:, 2].astype(np.int64) & FLAG_ARTEFACT) != 0,
            unusual=(own[:, 2].astype(np.int64) & FLAG_UNUSUAL) != 0,
        )
    return found


def _home_pressure(readings: Samples, rules: PressureRules, day: int) -> HomePressure:
    days = local_days(readings.measured_ms)
    window = readings.where((days > day - rules.days) & (days <= day))
    week = weeks_of(sessions_of(window, rules), rules)
    left_out = excluded(window, rules)
    last = len(week.day) - 1  # its window reaches back to the first day of ours
    adequate = last >= 0 and bool(week.adequate[last])
    return HomePressure(
        rule_set=rules.name,
        source=rules.source,
        version=rules.version,
        days=rules.days,
        mean=_pair(week, "systolic", "diastolic"),
        morning=_pair(week, "morning_systolic", "morning_diastolic"),
        evening=_pair(week, "evening_systolic", "evening_diastolic"),
        deviation=_pair(week, "systolic_sd", "diastolic_sd"),
        sessions=int(week.sessions[last]) if last >= 0 else 0,
        readings=int(week.readings[last]) if last >= 0 else 0,
        full_days=int(week.full_days[last]) if last >= 0 else 0,
        adequate=adequate,
        elevated=bool(week.elevated[last]) if adequate else None,
        excluded=ExcludedReadings(
            artefact=left_out.artefact,
            unusual=left_out.unusual,
            absent=left_out.absent,
            other_hours=left_out.other_hours,
            surplus=left_out.surplus,
        ),
    )


def _pair(week: WeekOfPressure, systolic: str, diastolic: str) -> PressurePair:
    return PressurePair(
        systolic_mmhg=_last(getattr(week, systolic)), diastolic_mmhg=_last(getattr(week, diastolic))
    )


def _last(values: Floats) -> float | None:
    """Return the last value with a decimal more than cuffs show; None for none."""
    return None if not len(values) or np.isnan(values[-1]) else round(float(values[-1]), 1)


def _weight(readings: Samples) -> WeightTrend:
    changes = body_weight.weight_changes(readings)

    def last(values: Floats) -> float | None:
        return None if not len(values) or np.isnan(values[-1]) else round(float(values[-1]), 3)

    return WeightTrend(
        change_3d_kg=last(changes.change_3d_kg),
        change_7d_kg=last(changes.change_7d_kg),
        gain_3d_kg=last(changes.gain_3d_kg),
        source=body_weight.SOURCE,
        version=body_weight.VERSION,
    )


def _peaks(readings: Samples) -> list[TemperaturePeak]:
    peaks = daily.daily_peaks(readings)
    return [
        TemperaturePeak(
            day=_EPOCH + timedelta(days=int(peaks.day[index])),
            peak_celsius=float(peaks.peak_celsius[index]),
            peak_at=from_ms(int(peaks.peak_at_ms[index])),
            readings=int(peaks.readings[index]),
        )
        for index in range(len(peaks.day))
    ]


def _totals(totals: daily.DailyTotals) -> list[DayTotal]:
    return [
        DayTotal(
            day=_EPOCH + timedelta(days=int(totals.day[index])),
            total=float(totals.total[index]),
            readings=int(totals.readings[index]),
        )
        for index in range(len(totals.day))
    ]


def _news2(by_sign: Mapping[str, Samples], end_ms: int) -> PartialNews2:
    latest = {
        parameter: _latest(by_sign[sign], quantity, end_ms)
        for parameter, (sign, quantity) in _NEWS2_FROM.items()
    }
    scored = news2.partial_news2({name: np.array([value]) for name, value in latest.items()})
    return PartialNews2(
        label=PARTIAL,
        score=int(scored.score[0]),
        present=[name for name, value in latest.items() if not np.isnan(value)],
        of_parameters=news2.PARAMETERS_OF_NEWS2,
        single_three=bool(scored.single_three[0]),
        source=news2.SOURCE,
        version=news2.VERSION,
    )


def _latest(readings: Samples, quantity: str, end_ms: int) -> float:
    """Return the latest undisturbed value of the last NEWS2_HOURS; NaN: none."""
    values = readings.values[quantity]
    fresh = readings.measured_ms > end_ms - NEWS2_HOURS * 3_600_000
    there = values[fresh & ~readings.artefact & ~np.isnan(values)]
    return float(there[-1]) if len(there) else float("nan")


_NEWS2_FROM = {
    "oxygen_saturation_percent": ("pulse_oximetry", OXYGEN_SATURATION.name),
    "systolic_mmhg": ("blood_pressure", SYSTOLIC.name),
    "pulse_rate_per_min": ("blood_pressure", PULSE_RATE.name),
    "body_temperature_celsius": ("body_temperature", BODY_TEMPERATURE.name),
}
