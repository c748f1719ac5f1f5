"""People and what a device measures of them: plausible, reproducible, true to the signs' own rules.

Drawn from each quantity's `typical` (gateway.quantity) and data/physiology.toml; no sign is known
here by name. Everything is a function of seed, person and time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cache, lru_cache

import numpy as np
from numpy.random import Generator, default_rng

from firmware_sim.data import FOLDER, exact, load
from gateway.quantity import Quantity, Unit
from gateway.vital_sign import VitalSign
from gateway.vitals import QUANTITIES

DRAWS_MAX = 1000
"""A reading that breaks a rule of its sign is drawn again; so often in vain is a mistake of ours."""
AGE_BASE = 50
HOURS = 24


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A condition that comes and goes."""

    per_day: float
    """The chance that one begins on a day."""
    days: int


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a condition does to a person's levels."""

    share: float
    shift: dict[str, float] = field(default_factory=dict)
    per_day: dict[str, float] = field(default_factory=dict)
    """Change a day since the person's first day, or since an episode began."""
    episode: Episode | None = None


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """A quantity that follows from others: a weighted sum, or a product of powers."""

    quantity: str
    sum: dict[str, float] = field(default_factory=dict)
    product: dict[str, float] = field(default_factory=dict)
    factor: float = 1.0
    noise: float = 0.0
    """Standard deviation, as a share of the value."""

    def value(self, known: Mapping[str, float]) -> float:
        """Return the quantity without its noise."""
        if self.product:
            powers = (math.pow(known[name], power) for name, power in self.product.items())
            return self.factor * math.prod(powers)
        return self.factor * math.fsum(known[name] * w for name, w in self.sum.items())


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What a child of an age is like; other levels are an adult's."""

    age: int
    body_height_cm: float
    bmi_kg_per_m2: float

    @property
    def levels(self) -> dict[str, float]:
        """Return the levels by quantity."""
        return {"body_height_cm": self.body_height_cm, "bmi_kg_per_m2": self.bmi_kg_per_m2}


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class Physiology:
    """The whole of data/physiology.toml."""

    sex: dict[str, dict[str, float]]
    decade: dict[str, float]
    condition: dict[str, Condition]
    level: tuple[Formula, ...]
    reading: tuple[Formula, ...]
    child: tuple[Child, ...]


@cache
def physiology() -> Physiology:
    """Return the facts, read once."""
    return load(FOLDER / "physiology.toml", Physiology)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A person as devices see them: a level of every quantity, and conditions.

    `first_day` is a date's proleptic ordinal, from which trends count.
    """

    seed: tuple[int, ...]
    levels: Mapping[str, float]
    conditions: tuple[str, ...]
    first_day: int

    def measure(
        self, sign: VitalSign, unit_set: int, at: datetime, generator: Generator
    ) -> tuple[Decimal, ...]:
        """Return what a device shows of `sign` in its units, `at` local wall time."""
        steps = sign.unit_sets[unit_set].steps
        units = sign.unit_sets[unit_set].units
        levels = {**self.levels, **self._levels_at(at)}
        for _draw in range(DRAWS_MAX):
            drawn = _draw_reading(sign, levels, at, generator)
            shown = tuple(map(_in_steps, drawn, units, steps))
            canonical = [unit.to_canonical(v) for unit, v in zip(units, shown, strict=True)]
            if _keeps_rules(sign, canonical):
                return shown
        raise AssertionError(f"{sign.name}: no reading of this person keeps the sign's rules")

    def _levels_at(self, at: datetime) -> dict[str, float]:
        """Return the levels that a condition has moved."""
        moved: dict[str, float] = {}
        day = at.toordinal()
        for name in self.conditions:
            condition = physiology().condition[name]
            since = self._day_of(name, condition, day)
            if since is None:
                continue
            for quantity, shift in condition.shift.items():
                moved[quantity] = moved.get(quantity, self.levels[quantity]) + shift
            for quantity, change in condition.per_day.items():
                level = moved.get(quantity, self.levels[quantity])
                moved[quantity] = level + change * since
        return moved

    def _day_of(self, name: str, condition: Condition, day: int) -> int | None:
        """Return how many days a condition has lasted; None where it does not show today."""
        episode = condition.episode
        if episode is None:
            return day - self.first_day
        for since in range(episode.days):
            if _begins(self.seed, name, day - since, episode.per_day):
                return since
        return None


@lru_cache(maxsize=1 << 16)
def _begins(seed: tuple[int, ...], condition: str, day: int, per_day: float) -> bool:
    """Tell whether an episode of a person begins on a day."""
    return bool(default_rng([*seed, *condition.encode(), day]).random() < per_day)


def draw_body(
    seed: Sequence[int],
    *,
    sex: str,
    age: float,
    conditions: tuple[str, ...],
    first_day: int,
    known: Mapping[str, float],
) -> Body:
    """Return a person; the same `seed` and arguments give the same one.

    `known` levels, by quantity, take the place of what would be drawn.
    """
    generator = default_rng(list(seed))
    facts = physiology()
    decades = (age - AGE_BASE) / 10
    levels: dict[str, float] = {}
    for quantity in QUANTITIES:
        level = generator.normal(quantity.typical.mean, quantity.typical.between)
        level += facts.sex.get(sex, {}).get(quantity.name, 0.0)
        level += facts.decade.get(quantity.name, 0.0) * decades
        levels[quantity.name] = _plausible(quantity, level)
    levels.update(known)
    for formula in facts.level:
        levels[formula.quantity] = formula.value(levels)
    levels.update(known)
    return Body(seed=tuple(seed), levels=levels, conditions=conditions, first_day=first_day)


def draw_conditions(generator: Generator) -> tuple[str, ...]:
    """Return what a person has, each with its share."""
    return tuple(
        name
        for name, condition in physiology().condition.items()
        if generator.random() < condition.share
    )


def _draw_reading(
    sign: VitalSign, levels: Mapping[str, float], at: datetime, generator: Generator
) -> list[float]:
    hour = at.hour + at.minute / 60
    known = dict(levels)
    for quantity in sign.quantities:
        typical = quantity.typical
        rhythm = math.cos(2 * math.pi * (hour - typical.peak_hour) / HOURS)
        value = levels[quantity.name] + typical.daily * rhythm
        known[quantity.name] = _plausible(quantity, generator.normal(value, typical.within))
    names = [quantity.name for quantity in sign.quantities]
    for formula in physiology().reading:
        if formula.quantity in names:
            known[formula.quantity] = formula.value(known) * generator.normal(1, formula.noise)
    return [_plausible(quantity, known[quantity.name]) for quantity in sign.quantities]


def _plausible(quantity: Quantity, value: float) -> float:
    return min(max(value, quantity.plausible.low), quantity.plausible.high)


def _in_steps(value: float, unit: Unit, step: Decimal) -> Decimal:
    """Return a canonical value in `unit`, rounded to its step, with the step's decimals."""
    shown = (value - unit.offset) / unit.scale
    return Decimal(round(shown / float(step))) * step


def _keeps_rules(sign: VitalSign, canonical: Sequence[float]) -> bool:
    named = {
        quantity.name: np.array([value])
        for quantity, value in zip(sign.quantities, canonical, strict=True)
    }
    return not any(np.any(rule.broken(named)) for rule in sign.rules)
