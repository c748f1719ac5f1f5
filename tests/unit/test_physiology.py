"""Simulated people: reproducible, plausible, and true to every sign's own rules."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from numpy.random import default_rng

from firmware_sim.physiology import Body, draw_body, physiology
from gateway.quantity import Quantity
from gateway.vital_sign import VitalSign
from gateway.vitals import QUANTITIES, SIGNS

MORNING = datetime(2026, 11, 23, 8, 0)  # noqa: DTZ001 - wall time
FIRST_DAY = MORNING.toordinal()
PEOPLE = 60
UNIT_SETS = [
    pytest.param(sign, number, id=f"{sign.name}-{unit_set.units[0].name}")
    for sign in SIGNS
    for number, unit_set in enumerate(sign.unit_sets)
]


def person(number: int, *conditions: str, sex: str = "female", age: float = 65) -> Body:
    return draw_body(
        (1, number), sex=sex, age=age, conditions=conditions, first_day=FIRST_DAY, known={}
    )


def canonical(body: Body, sign: VitalSign, unit_set: int, at: datetime, seed: int) -> list[float]:
    values = body.measure(sign, unit_set, at, default_rng(seed))
    units = sign.unit_sets[unit_set].units
    return [unit.to_canonical(value) for unit, value in zip(units, values, strict=True)]


@pytest.mark.parametrize(("sign", "unit_set"), UNIT_SETS)
def test_every_reading_keeps_its_signs_rules_and_is_plausible(
    sign: VitalSign, unit_set: int
) -> None:
    for number in range(PEOPLE):
        at = MORNING + timedelta(hours=number % 24)
        values = canonical(person(number, "hypertension"), sign, unit_set, at, number)
        for quantity, value in zip(sign.quantities, values, strict=True):
            slack = 0.01 * quantity.plausible.high  # a step of the unit set past the end
            low, high = quantity.plausible.low - slack, quantity.plausible.high + slack
            assert low <= value <= high, quantity.name
        named = {q.name: np.array([v]) for q, v in zip(sign.quantities, values, strict=True)}
        assert not any(rule.broken(named).any() for rule in sign.rules)


@pytest.mark.parametrize(("sign", "unit_set"), UNIT_SETS)
def test_values_have_the_digits_that_devices_send(sign: VitalSign, unit_set: int) -> None:
    values = person(1).measure(sign, unit_set, MORNING, default_rng(1))
    for value, step in zip(values, sign.unit_sets[unit_set].steps, strict=True):
        assert value % step == 0
        assert value.as_tuple().exponent == step.as_tuple().exponent


def test_the_same_seed_gives_the_same_person_and_readings() -> None:
    assert person(3) == person(3)
    for sign in SIGNS:
        again = [person(3).measure(sign, 0, MORNING, default_rng(5)) for _ in range(2)]
        assert again[0] == again[1]


def test_people_differ() -> None:
    assert len({tuple(person(number).levels.values()) for number in range(PEOPLE)}) == PEOPLE


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda q: q.name)
def test_people_are_typical_on_average(quantity: Quantity) -> None:
    typical, name = quantity.typical, quantity.name
    sexes = ("female", "male")
    levels = [person(number, sex=sexes[number % 2], age=50).levels[name] for number in range(400)]
    # The mean of 400 lies within 4 standard errors; derived levels vary a little more.
    assert abs(np.mean(levels) - typical.mean) <= 0.25 * typical.between + 0.05 * typical.mean


def test_a_condition_moves_its_levels() -> None:
    facts = physiology().condition
    for name in facts:
        if facts[name].episode or not facts[name].shift:
            continue
        for quantity, shift in facts[name].shift.items():
            sign = next(s for s in SIGNS if quantity in [q.name for q in s.quantities])
            place = [q.name for q in sign.quantities].index(quantity)
            ill = mean_of(person(1, name), sign, place)
            well = mean_of(person(1), sign, place)
            assert ill - well == pytest.approx(shift, rel=0.5)


def test_an_episode_comes_and_goes() -> None:
    body = person(2, "fever")
    fever = physiology().condition["fever"]
    days = [body._day_of("fever", fever, FIRST_DAY + day) for day in range(1000)]
    assert 0 < sum(day is not None for day in days) < 500


def test_a_trend_counts_from_the_first_day() -> None:
    body = person(4, "weight_loss")
    later = MORNING + timedelta(days=100)
    (quantity, change), *_ = physiology().condition["weight_loss"].per_day.items()
    assert body._levels_at(later)[quantity] - body.levels[quantity] == pytest.approx(100 * change)


def test_every_quantity_that_the_facts_name_exists() -> None:
    known = {quantity.name for quantity in QUANTITIES}
    facts = physiology()
    named = set(facts.decade)
    for shifts in facts.sex.values():
        named |= set(shifts)
    for condition in facts.condition.values():
        named |= set(condition.shift) | set(condition.per_day)
    for formula in (*facts.level, *facts.reading):
        named |= {formula.quantity, *formula.sum, *formula.product}
    assert named <= known


def mean_of(body: Body, sign: VitalSign, place: int) -> float:
    values = [canonical(body, sign, 0, MORNING, seed)[place] for seed in range(200)]
    return float(np.mean(values))
