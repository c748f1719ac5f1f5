"""`Observation/$stats`: FHIR R4, operation Observation-stats. One Observation a quantity, by component.

The basic statistics, by the time of measurement and without artefacts; those of guidelines are in
api.fhir.guideline_statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from api.clinical import today_in_shanghai
from api.cursor import BEHIND_ALL
from api.fhir.asked import hours, moment, uuid_of
from api.fhir.guideline_statistics import ALL, STATISTICS, GuidelineStatistic, within
from api.fhir.outcomes import Issue, OutcomeError, patient_not_named
from api.fhir.parts import Coding, Part, quantity_codings
from api.fhir.resources import instant
from api.fhir.search import reference_id
from api.fhir.store import Statistics
from api.fhir.tokens import parse_token, parse_tokens, places_with_code
from api.fhir.vocabulary import CATEGORY, UCUM
from gateway.guidelines.home_pressure import CHINA_2024, RULE_SETS, PressureRules
from gateway.quantity import Quantity
from gateway.vital_sign import VitalSign

SYSTEM = "http://terminology.hl7.org/CodeSystem/observation-statistics"
KNOWN = ("average", "minimum", "maximum", "count", "std-dev")
"""The statistics that are computed, by R4's codes."""
STATS_DEFAULT = timedelta(days=30)
"""What `$stats` covers when neither period nor duration is given, up to now."""
DIGITS = 6
"""Means and deviations are given with so many significant digits."""

STATS_DEFAULT = timedelta(days=30)
"""What `$stats` covers when neither period nor duration is given, up to now."""

NO_DATA_BEFORE = datetime(2000, 1, 1, tzinfo=UTC)
"""Statistics of guidelines up to an earlier day are those up to this one: of nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What `$stats` was asked for: quantities, statistics, and the time.

    `guidelines`: those of guidelines, by the rules of `rules`, up to the local day `day`.
    """

    quantities: Sequence[tuple[VitalSign, Quantity]]
    statistics: Sequence[str]
    guidelines: Sequence[GuidelineStatistic]
    rules: PressureRules
    day: date
    from_at: datetime
    to_at: datetime


def parse_asked(  # noqa: C901 - one case a parameter
    pairs: Sequence[tuple[str, str]], now: datetime, allowed: Sequence[Part]
) -> tuple[UUID, Asked]:
    """Return whom and what `$stats` was asked for, within what may be seen.

    Raises:
        OutcomeError: it is wrong or names nobody.
    """
    resident: UUID | None = None
    chosen = [(part, part.places) for part in allowed]
    statistics: list[str] = []
    rules = CHINA_2024
    from_at, to_at = now - STATS_DEFAULT, BEHIND_ALL.measured_at
    for name, value in pairs:
        match name:
            case "subject" | "patient":
                resident = uuid_of(reference_id(value, "Patient"))
            case "code" | "coding":
                tokens = parse_tokens(value)
                chosen = [(part, places_with_code(part, tokens)) for part, _places in chosen]
            case "statistic":
                statistics += [parse_token(text).code or "" for text in value.split(",")]
            case "duration":
                from_at = now - timedelta(hours=hours(value))
            case "period" | "start":
                from_at = moment(value, name)
            case "end":
                to_at = moment(value, name)
            case "ruleSet":
                rules = _rules(value)
            case _:
                raise OutcomeError(
                    Issue.NOT_SUPPORTED,
                    "未知参数 / unknown parameter",
                    parameter=name if name.isalnum() else None,
                )
    unknown = set(statistics) - {*KNOWN, *STATISTICS, ALL}
    if unknown:
        raise OutcomeError(
            Issue.NOT_SUPPORTED,
            f"已知的统计 / known are: {', '.join((*KNOWN, *STATISTICS, ALL))}",
            parameter="statistic",
        )
    if resident is None:
        raise patient_not_named()
    basic = [name for name in statistics if name in KNOWN]
    guidelines = within([replace(part, places=places) for part, places in chosen])
    quantities = [
        (part.sign, part.sign.quantities[place]) for part, places in chosen for place in places
    ]
    return resident, Asked(
        quantities=quantities if basic or not statistics else (),
        statistics=basic or list(KNOWN),
        guidelines=[one for one in guidelines if {one.code, ALL} & set(statistics)],
        rules=rules,
        day=today_in_shanghai(max(NO_DATA_BEFORE, min(now, to_at - timedelta(milliseconds=1)))),
        from_at=from_at,
        to_at=to_at,
    )


def stats_document(
    resident: UUID,
    asked: Asked,
    found: Sequence[Statistics],
    left_out: Mapping[int, int],
    more: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the operation's Parameters: an Observation a quantity, and `more` of guidelines."""
    return {
        "resourceType": "Parameters",
        "parameter": [
            *(
                {
                    "name": "statistics",
                    "resource": _observation(
                        resident, asked, sign, quantity, statistics, left_out.get(sign.code, 0)
                    ),
                }
                for (sign, quantity), statistics in zip(asked.quantities, found, strict=True)
            ),
            *more,
        ],
    }


def _observation(
    resident: UUID,
    asked: Asked,
    sign: VitalSign,
    quantity: Quantity,
    statistics: Statistics,
    left_out: int,
) -> dict[str, Any]:
    period = {}
    if statistics.first_at is not None and statistics.last_at is not None:
        period = {"start": instant(statistics.first_at), "end": instant(statistics.last_at)}
    else:
        period = {"start": instant(asked.from_at), "end": instant(asked.to_at)}
    concept = _concept(quantity_codings(quantity), quantity)
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": sign.category.value}]}],
        "code": concept,
        "subject": {"reference": f"Patient/{resident}"},
        "effectivePeriod": period,
        "note": [{"text": f"已排除伪差 / artefacts left out: {left_out}"}],
        "component": [_component(name, quantity, statistics) for name in asked.statistics],
    }


def _component(name: str, quantity: Quantity, statistics: Statistics) -> dict[str, Any]:
    code = {"coding": [{"system": SYSTEM, "code": name}]}
    if name == "count":
        return {"code": code, "valueQuantity": _quantity(statistics.count, "1")}
    value = {
        "average": statistics.average,
        "minimum": statistics.minimum,
        "maximum": statistics.maximum,
        "std-dev": statistics.deviation,
    }[name]
    if value is None:
        reason = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
        return {
            "code": code,
            "dataAbsentReason": {"coding": [{"system": reason, "code": "not-performed"}]},
        }
    return {
        "code": code,
        "valueQuantity": _quantity(float(f"{value:.{DIGITS}g}"), quantity.unit.ucum),
    }


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def _concept(codes: Sequence[Coding], quantity: Quantity) -> dict[str, Any]:
    return {
        "coding": [{"system": code.system, "code": code.code} for code in codes],
        "text": f"{quantity.title.zh} {quantity.title.en}",
    }


def _rules(name: str) -> PressureRules:
    try:
        return RULE_SETS[name]
    except KeyError:
        raise OutcomeError(
            Issue.NOT_SUPPORTED,
            f"已知的规则 / known are: {', '.join(RULE_SETS)}",
            parameter="ruleSet",
        ) from None
