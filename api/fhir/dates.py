"""Dates of a search as bounds on when something began and ended. FHIR R4, search, 3.1.1.4.7.

A partial date is a range ([2026-05-01, 2026-05-02)); a date without a zone is the archive's local
time. What is searched is an interval too, [starts, ends], a point where both are the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum

LOCAL_ZONE = timezone(timedelta(hours=8))
"""Asia/Shanghai, which has had no daylight saving since 1991."""
AROUND = 0.1
"""`ap` widens a date by a tenth of its distance from now, as R4 recommends, at least its own length."""

_DATE = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:T(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>Z|[+-]\d\d:\d\d)?)?)?)?"
)


class Prefix(Enum):
    """How a value compares with a date."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    LT = "lt"
    GE = "ge"
    LE = "le"
    SA = "sa"
    EB = "eb"
    AP = "ap"


@dataclass(frozen=True, slots=True, kw_only=True)
class DateSearch:
    """A prefix and the half-open range that the given date means."""

    prefix: Prefix
    low: datetime
    high: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """Holds where a value began before, or at or after, one moment, or ended so; or both.

    Each is a bound that is asked for, None where it is not. `either`: one of them is enough.
    """

    starts_from: datetime | None = None
    starts_before: datetime | None = None
    ends_from: datetime | None = None
    ends_before: datetime | None = None
    either: bool = False


def parse_date(text: str, now: datetime) -> DateSearch:
    """Return what a date parameter means.

    Raises:
        ValueError: it is none; the text does not repeat it.
    """
    prefix = Prefix.EQ
    if text[:2].isalpha():
        try:
            prefix = Prefix(text[:2])
        except ValueError:
            raise ValueError("the prefix is none of eq ne gt lt ge le sa eb ap") from None
        text = text[2:]
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(
            "not a date: YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm[:ss[.fff]][zone]"
        )
    try:
        low, high = _range(match)
    except (ValueError, OverflowError):
        raise ValueError("there is no such date") from None
    if prefix is Prefix.AP:
        margin = max(abs(now - low) * AROUND, high - low)
        low, high = _within_years(low, -margin), _within_years(high, margin)
    return DateSearch(prefix=prefix, low=low, high=high)


def clause_of(search: DateSearch) -> Clause:  # noqa: PLR0911 - one a prefix
    """Return the bounds that a date search puts on an interval."""
    low, high = search.low, search.high
    match search.prefix:
        case Prefix.EQ:
            return Clause(starts_from=low, ends_before=high)
        case Prefix.NE:
            return Clause(starts_before=low, ends_from=high, either=True)
        case Prefix.GT:
            return Clause(ends_from=high)
        case Prefix.LT:
            return Clause(starts_before=low)
        case Prefix.GE:
            return Clause(starts_from=low, ends_from=high, either=True)
        case Prefix.LE:
            return Clause(starts_before=low, ends_before=high, either=True)
        case Prefix.SA:
            return Clause(starts_from=high)
        case Prefix.EB:
            return Clause(ends_before=low)
        case Prefix.AP:
            return Clause(starts_before=high, ends_from=low)


def holds(clause: Clause, starts: datetime, ends: datetime) -> bool:
    """Tell whether an interval satisfies a clause; what the store's condition says in SQL."""
    bounds = [
        met
        for bound, met in (
            (clause.starts_from, clause.starts_from is None or starts >= clause.starts_from),
            (clause.starts_before, clause.starts_before is None or starts < clause.starts_before),
            (clause.ends_from, clause.ends_from is None or ends >= clause.ends_from),
            (clause.ends_before, clause.ends_before is None or ends < clause.ends_before),
        )
        if bound is not None
    ]
    return any(bounds) if clause.either else all(bounds)


def _range(match: re.Match[str]) -> tuple[datetime, datetime]:
    part = match.groupdict()
    year, month, day = int(part["year"]), int(part["month"] or 1), int(part["day"] or 1)
    if part["hour"] is None:
        low = datetime(year, month, day, tzinfo=LOCAL_ZONE)
        if part["day"]:
            high = low + timedelta(days=1)
        elif part["month"]:
            high = low.replace(year=year + month // 12, month=month % 12 + 1)
        else:
            high = low.replace(year=year + 1)
        return low.astimezone(UTC), high.astimezone(UTC)
    fraction = part["fraction"]
    low = datetime(
        year,
        month,
        day,
        int(part["hour"]),
        int(part["minute"]),
        int(part["second"] or 0),
        int((fraction or "0")[:6].ljust(6, "0")),
        tzinfo=_zone(part["zone"]),
    )
    if fraction is not None:
        length = timedelta(microseconds=10 ** max(6 - len(fraction), 0))
    else:
        length = timedelta(minutes=1) if part["second"] is None else timedelta(seconds=1)
    return low.astimezone(UTC), (low + length).astimezone(UTC)


def _zone(text: str | None) -> timezone:
    if text is None:
        return LOCAL_ZONE
    if text == "Z":
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[4:6]))
    return timezone(-offset if text[0] == "-" else offset)


def _within_years(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return moment
