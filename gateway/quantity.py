"""One number and its meaning: unit, codes, plausible range; and how its absence is named.

Codes are LOINC (loinc.org), UCUM (ucum.org) and the MDC reference identifiers of
IEEE 11073-10101; each quantity's own module names the source of its codes and of its range.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum


class Absent(Enum):
    """Why a value is absent. The numbers are the wire format's; 0 there means present.

    No IntEnum: an absence never equals a number. The special numbers are those of IEEE 11073-20601 SFLOAT-Type and FLOAT-Type.
    """

    NOT_SENT = 1
    """The payload does not carry the field."""
    NOT_A_NUMBER = 2
    NOT_AT_THIS_RESOLUTION = 3
    POSITIVE_INFINITY = 4
    NEGATIVE_INFINITY = 5
    RESERVED = 6
    UNSUCCESSFUL = 7
    """The device says that its measurement failed (Weight Scale 1.0.1: 0xFFFF)."""
    UNKNOWN = 8
    """The device says that it does not know the value."""


Value = Decimal | Absent
"""A number exactly as the device sent it, trailing zeros included, or the name of its absence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What a person reads: Simplified Chinese first, English second."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit and the way to the canonical unit of its dimension: `value * scale + offset`."""

    name: str
    ucum: str
    mdc: int | None = None
    scale: float = 1.0
    offset: float = 0.0

    def to_canonical(self, value: Decimal) -> float:
        """Return `value`, given in this unit, in the canonical unit of its dimension."""
        if self.scale == 1.0 and self.offset == 0.0:
            return float(value)
        return float(value) * self.scale + self.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Plausible:
    """The closed range, in the canonical unit, outside which a value is kept apart."""

    low: float
    high: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Typical:
    """How the quantity behaves in an adult at home; what the simulator draws from.

    `mean` over people, `between` the standard deviation from person to person, `within` from
    reading to reading, `daily` the amplitude of the daily rhythm, which is highest at `peak_hour`
    local time. All in the canonical unit.
    """

    mean: float
    between: float
    within: float
    daily: float = 0.0
    peak_hour: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number and its meaning. `name` ends in its unit and is the column's name in the store."""

    name: str
    title: Text
    unit: Unit
    loinc: str | None
    mdc: int | None
    plausible: Plausible
    typical: Typical
