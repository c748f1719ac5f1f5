"""Statistics by published guidelines as `$stats` answers them: Observations that name their rule set.

What they are is computed where REST has it from (api.clinical, gateway.guidelines); here they are only
written as FHIR. R4's operation lets a server have statistics of its own (`statistic` is extensible);
these have a code system of ours. Means of home blood pressure also bear the LOINC codes of US Core's
Average Blood Pressure profile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from api.clinical import DayTotal, PressurePair, Statistics, WeightTrend
from api.fhir.parts import Part
from api.fhir.resources import instant
from api.fhir.vocabulary import ABSENT, CATEGORY, LOINC, OURS, UCUM
from gateway.gatt.times import from_ms
from gateway.guidelines.samples import DAY_MS, SHANGHAI_OFFSET_MS
from gateway.quantity import Quantity, Text
from gateway.vital_sign import Category
from gateway.vitals.activity import STEPS
from gateway.vitals.blood_pressure import DIASTOLIC, PULSE_RATE, SYSTOLIC
from gateway.vitals.body_temperature import BODY_TEMPERATURE
from gateway.vitals.body_weight import WEIGHT
from gateway.vitals.pulse_oximetry import OXYGEN_SATURATION
from gateway.vitals.water_intake import WATER

STATISTIC = f"{OURS}/CodeSystem/guideline-statistic"
MEAN_PANEL, MEAN_SYSTOLIC, MEAN_DIASTOLIC = "96607-7", "96608-5", "96609-3"
"""LOINC, as in US Core's Average Blood Pressure profile."""

_EPOCH = date(1970, 1, 1)

Component = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidelineStatistic:
    """A statistic by its code, what it is computed of, and how it is written."""

    code: str
    title: Text
    of: tuple[Quantity, ...]
    written: Callable[[Statistics], Iterator[_Written]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """What one Observation says beside its code; its time: `days` local days up to `until`."""

    until: date
    days: int
    components: Sequence[Component]
    method: str | None = None
    category: Category = Category.VITAL_SIGNS
    loinc: str | None = None


def within(parts: Sequence[Part]) -> list[GuidelineStatistic]:
    """Return the statistics all of whose quantities are among those of some kinds of Observation."""
    seen = {part.sign.quantities[place] for part in parts for place in part.places}
    return [statistic for statistic in STATISTICS.values() if seen.issuperset(statistic.of)]


def parameters_of(
    resident: UUID, statistics: Statistics, wanted: Collection[GuidelineStatistic]
) -> list[dict[str, Any]]:
    """Return the operation's parameters: an Observation a statistic, or a day of it."""
    return [
        {"name": "statistics", "resource": _observation(resident, statistics, one, written)}
        for one in wanted
        for written in one.written(statistics)
    ]


def _observation(
    resident: UUID, statistics: Statistics, one: GuidelineStatistic, written: _Written
) -> dict[str, Any]:
    codes = [{"system": STATISTIC, "code": one.code}]
    if written.loinc is not None:
        codes.append({"system": LOINC, "code": written.loinc})
    start = _begin(written.until - timedelta(days=written.days - 1))
    end = _begin(written.until + timedelta(days=1)) - timedelta(milliseconds=1)
    resource: dict[str, Any] = {
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": written.category.value}]}],
        "code": {"coding": codes, "text": f"{one.title.zh} {one.title.en}"},
        "subject": {"reference": f"Patient/{resident}"},
        "effectivePeriod": {"start": instant(start), "end": instant(end)},
        "note": [{"text": statistics.notice}],
        "component": list(written.components),
    }
    if written.method is not None:
        resource["method"] = {"text": written.method}
    return resource


def _begin(day: date) -> datetime:
    """Return when a local day begins."""
    return from_ms((day - _EPOCH).days * DAY_MS - SHANGHAI_OFFSET_MS).astimezone(UTC)


def _home_pressure(statistics: Statistics) -> Iterator[_Written]:
    found = statistics.home_pressure
    yield _Written(
        until=statistics.day,
        days=found.days,
        method=f"{found.rule_set}: {found.source} ({found.version})",
        loinc=MEAN_PANEL,
        components=[
            *_pair("mean", found.mean, (MEAN_SYSTOLIC, MEAN_DIASTOLIC)),
            *_pair("morning", found.morning),
            *_pair("evening", found.evening),
            *_pair("deviation", found.deviation),
            _number("sessions", found.sessions, "1"),
            _number("readings", found.readings, "1"),
            _number("full-days", found.full_days, "d"),
            _truth("adequate", found.adequate),
            _truth("elevated", found.elevated),
        ],
    )


def _weight(statistics: Statistics) -> Iterator[_Written]:
    found: WeightTrend = statistics.weight
    yield _Written(
        until=statistics.day,
        days=7,
        method=f"{found.source} ({found.version})",
        components=[
            _number("change-3-days", found.change_3d_kg, "kg"),
            _number("change-7-days", found.change_7d_kg, "kg"),
            _number("gain-3-days", found.gain_3d_kg, "kg"),
        ],
    )


def _temperature(statistics: Statistics) -> Iterator[_Written]:
    for peak in statistics.temperature:
        yield _Written(
            until=peak.day,
            days=1,
            components=[
                _number("peak", peak.peak_celsius, "Cel"),
                _coded("peak-at") | {"valueDateTime": instant(peak.peak_at)},
                _number("readings", peak.readings, "1"),
            ],
        )


def _water(statistics: Statistics) -> Iterator[_Written]:
    yield from _totals(statistics.water_ml, WATER.unit.ucum, Category.VITAL_SIGNS)


def _steps(statistics: Statistics) -> Iterator[_Written]:
    yield from _totals(statistics.steps, STEPS.unit.ucum, Category.ACTIVITY)


def _totals(totals: Sequence[DayTotal], unit: str, category: Category) -> Iterator[_Written]:
    for total in totals:
        yield _Written(
            until=total.day,
            days=1,
            category=category,
            components=[
                _number("total", total.total, unit),
                _number("readings", total.readings, "1"),
            ],
        )


def _news2(statistics: Statistics) -> Iterator[_Written]:
    found = statistics.news2
    yield _Written(
        until=statistics.day,
        days=1,
        method=f"{found.label}: {found.source} ({found.version})",
        components=[
            _number("partial-score", found.score if found.present else None, "{score}"),
            _number("parameters", len(found.present), "1"),
            _number("parameters-of-the-whole", found.of_parameters, "1"),
            _truth("single-three", found.single_three if found.present else None),
        ],
    )


def _pair(
    name: str, pair: PressurePair, loinc: tuple[str | None, str | None] = (None, None)
) -> list[Component]:
    return [
        _number(f"{name}-systolic", pair.systolic_mmhg, SYSTOLIC.unit.ucum, loinc[0]),
        _number(f"{name}-diastolic", pair.diastolic_mmhg, DIASTOLIC.unit.ucum, loinc[1]),
    ]


def _number(code: str, value: float | None, unit: str, loinc: str | None = None) -> dict[str, Any]:
    if value is None:
        return _coded(code, loinc) | _ABSENT
    quantity = {"value": value, "unit": unit, "system": UCUM, "code": unit}
    return _coded(code, loinc) | {"valueQuantity": quantity}


def _truth(code: str, value: bool | None) -> dict[str, Any]:  # noqa: FBT001 - it is the value
    return _coded(code) | (_ABSENT if value is None else {"valueBoolean": value})


def _coded(code: str, loinc: str | None = None) -> dict[str, Any]:
    codes = [{"system": STATISTIC, "code": code}]
    if loinc is not None:
        codes.append({"system": LOINC, "code": loinc})
    return {"code": {"coding": codes}}


_ABSENT = {"dataAbsentReason": {"coding": [{"system": ABSENT, "code": "not-performed"}]}}

STATISTICS = {
    statistic.code: statistic
    for statistic in (
        GuidelineStatistic(
            code="home-pressure",
            title=Text(zh="家庭血压", en="Home blood pressure"),
            of=(SYSTOLIC, DIASTOLIC),
            written=_home_pressure,
        ),
        GuidelineStatistic(
            code="weight-change",
            title=Text(zh="体重变化", en="Change of weight"),
            of=(WEIGHT,),
            written=_weight,
        ),
        GuidelineStatistic(
            code="temperature-peak",
            title=Text(zh="每日最高体温", en="Highest temperature of the day"),
            of=(BODY_TEMPERATURE,),
            written=_temperature,
        ),
        GuidelineStatistic(
            code="water-total",
            title=Text(zh="每日饮水量", en="Water of the day"),
            of=(WATER,),
            written=_water,
        ),
        GuidelineStatistic(
            code="steps-total",
            title=Text(zh="每日步数", en="Steps of the day"),
            of=(STEPS,),
            written=_steps,
        ),
        GuidelineStatistic(
            code="news2-partial",
            title=Text(zh="部分 NEWS2", en="NEWS2 in part"),
            of=(OXYGEN_SATURATION, SYSTOLIC, PULSE_RATE, BODY_TEMPERATURE),
            written=_news2,
        ),
    )
}
"""By their codes; the code `guideline` asks for all."""
ALL = "guideline"
