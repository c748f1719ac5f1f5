"""Who stood on the scale: a posterior over a household's members, someone else among them.

Of each member the readings that are known to be theirs tell a level and a spread around any moment,
the nearer in time the more (before and after: late readings count like any others). A reading's
likelihood under a member is a Student t around that level, wider where little is known or long ago;
the prior is how often, and at what time of day, the member uses the device. Someone else is drawn
from the whole population. Below `CONFIDENCE_MIN` the answer is that it is not known.

`settle` begins with what persons said, then lets each reading tell of others as far as it is known
whose it is itself, until nothing changes (expectation-maximisation, each reading judged by the others
only). It is a function of the set of readings alone, whatever order they came in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.quantity import Quantity

CONFIDENCE_MIN = 0.97
"""A reading is a member's where the posterior is at least this; else it waits for a person."""
GUEST_SHARE = 0.02
"""Someone who is no member is expected so often."""
WAVES_MAX = 60
"""So often what is known of some readings may help to tell others."""
SETTLED_WITHIN = 1e-4
"""Nothing changes any more when no probability changes by more."""
NEAR_DAYS = 7.0
"""How far a reading tells a level: its weight falls to 1/e in so many days."""
HABIT_DAYS = 30.0
"""How far a reading tells a habit (how often, at what time of day)."""
HABIT_ODDS_MAX = 8.0
"""How often, and at what time, may each speak for a member with these odds: never alone."""
LINKED_ODDS = 20.0
"""Where the slot is one member's by a link, so much speaks for them beforehand."""
USUAL_SHARE = 0.15
"""What a member says is usual is right to within this share of the spread between people."""
DRIFT_SHARE = 0.25
"""A level moves in a day by this share of the spread within a person, as a random walk."""
SHARE_MIN = 0.1
"""A reading that is less likely a member's tells nothing of them."""
SPREAD_READINGS = 6.0
"""The population's spread within a person counts like so many readings of one's own."""
FREEDOM = 5.0
"""Degrees of freedom of the Student t: single readings far off happen."""
HOUR_WIDTH = 1.5
"""A habit's time of day is known to within so many hours."""
FLAT_READINGS = 3.0
"""That any time of day is as likely counts like so many readings."""
GUEST_WIDTH = 1.5
"""Guests are spread wider than residents, by this factor."""
DAY_HOURS = 24.0

UNKNOWN, SOMEONE_ELSE = -1, -2
"""Labels besides the members' places."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """The readings of one sign by which k members of a household are told apart; n readings.

    `day`: time, in days. `hour`: local time of day. `value`: the sign's first quantity. `said`:
    the label that holds whatever the history says: a member's place, by a person's word or by a
    device that is theirs alone; `SOMEONE_ELSE`; `UNKNOWN` where the history is to tell. `here`:
    whether it came from the shared device. `present`: (n, k) whether a member shared it then.
    `linked`: the member whose slot it is by a link, or `UNKNOWN`. `usual`: (k,) what each says is
    usual for them, NaN where nothing is said.
    """

    day: Floats
    hour: Floats
    value: Floats
    said: Ints
    here: Bools
    present: Bools
    linked: Ints
    usual: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """`label`: (n,) as `Household.said`. `probability`: (n, k + 1), someone else's last."""

    label: Ints
    probability: Floats


def settle(household: Household, quantity: Quantity) -> Settled:
    """Say whose each reading is."""
    members = household.present.shape[1]
    view = _View(household, quantity)
    open_ = household.said == UNKNOWN
    told = (household.said[:, None] == np.arange(members)).astype(np.float64)
    share = told
    for _wave in range(WAVES_MAX):
        likelihood = _likelihood(view, share)
        probability = _posterior(view, share, likelihood)
        before, share = share, np.where(open_[:, None], probability[:, :members], told)
        if np.abs(share - before).max(initial=0.0) < SETTLED_WITHIN:
            break
    probability = _with_exchanges(view, share, likelihood, probability)
    decided = _decided(probability, household.linked)
    return Settled(label=np.where(open_, decided, household.said), probability=probability)


def _decided(probability: Floats, linked: Ints) -> Ints:
    """Return the member who is sure enough; where one is linked, that one or nobody."""
    members = probability[:, :-1]
    best = probability.argmax(axis=1)
    sure = np.where(members.max(axis=1, initial=0) >= CONFIDENCE_MIN, best, UNKNOWN)
    held = np.where(best == linked, linked, UNKNOWN)
    return np.where(linked == UNKNOWN, sure, held).astype(np.int64)


class _View:
    """What all waves look at: values without the daily rhythm, and how near readings are.

    `apart`, `level`, `habit`, `same_hour`: (n, n), how much a reading (column) tells of a moment
    (row); of its own moment a reading tells nothing.
    """

    def __init__(self, household: Household, quantity: Quantity) -> None:
        self.household = household
        self.quantity = quantity
        typical = quantity.typical
        phase = 2 * np.pi * (household.hour - typical.peak_hour) / DAY_HOURS
        self.value: Floats = household.value - typical.daily * np.cos(phase)
        itself = np.eye(len(household.day), dtype=np.bool_)
        self.apart: Floats = np.abs(household.day[:, None] - household.day[None, :])
        self.level: Floats = np.where(itself, 0.0, np.exp(-self.apart / NEAR_DAYS))
        habit = np.where(itself, 0.0, np.exp(-self.apart / HABIT_DAYS)) * household.here[None, :]
        self.habit: Floats = habit
        off = np.abs(household.hour[:, None] - household.hour[None, :])
        off = np.minimum(off, DAY_HOURS - off)
        self.same_hour: Floats = habit * np.exp(-0.5 * (off / HOUR_WIDTH) ** 2)


_BELL_HOURS = HOUR_WIDTH * np.sqrt(2 * np.pi)
_TINY = 1e-300


def _likelihood(view: _View, share: Floats) -> Floats:
    """Return (n, k + 1) the density of each value under each member, and under someone else."""
    members = share.shape[1]
    usual = view.household.usual
    likelihood = np.empty((len(view.value), members + 1))
    for member in range(members):
        likelihood[:, member] = _predicted(view, share[:, member], float(usual[member]))
    likelihood[:, members] = _of_anyone(view.value, view.quantity)
    return likelihood


def _posterior(view: _View, share: Floats, likelihood: Floats) -> Floats:
    """Return (n, k + 1) how likely each member, and someone else, was measured.

    `share`: (n, k) how far each reading is known to be each member's.
    """
    household = view.household
    members = share.shape[1]
    count = view.habit @ share
    then = FLAT_READINGS / DAY_HOURS + view.same_hour @ share / _BELL_HOURS
    prior = _bounded(count + 1) * _bounded(then / (FLAT_READINGS + count))
    prior *= np.where(np.arange(members) == household.linked[:, None], LINKED_ODDS, 1.0)
    prior *= household.present
    total = prior.sum(axis=1, keepdims=True)
    prior = np.divide(prior, total, out=np.zeros_like(prior), where=total > 0)
    guests = np.full(len(prior), GUEST_SHARE)
    weight = np.column_stack((prior * (1 - GUEST_SHARE), guests)) * likelihood
    posterior: Floats = weight / weight.sum(axis=1, keepdims=True)
    return posterior


def _predicted(view: _View, share: Floats, usual: float) -> Floats:
    """Return (n,) the density of each value under a member whose readings are told by `share`."""
    typical, value = view.quantity.typical, view.value
    weight = view.level * np.where(share > SHARE_MIN, share**2, 0.0)
    total = weight.sum(axis=1)
    known = total > _TINY
    level, trimmed = value.mean(), weight
    for _again in range(3):  # readings far off the level count less
        level = (trimmed @ value) / np.maximum(trimmed.sum(axis=1), _TINY)
        off = np.abs(value[None, :] - level[:, None]) / (3 * typical.within)
        trimmed = weight / np.maximum(off, 1.0)
    squares = (trimmed * (value[None, :] - level[:, None]) ** 2).sum(axis=1)
    spread2 = (SPREAD_READINGS * typical.within**2 + squares) / (SPREAD_READINGS + total)
    # As many readings as tell it, however far away they are; how far, the drift tells.
    count = total**2 / np.maximum((weight**2).sum(axis=1), _TINY)
    gap = -NEAR_DAYS * np.log(np.maximum(weight.max(axis=1, initial=0.0), _TINY))
    drift2 = (DRIFT_SHARE * typical.within) ** 2 * gap
    error2 = np.where(known, spread2 / np.maximum(count, 1.0) + drift2, np.inf)
    # What is said, or else the population, is one more estimate of the level.
    stated = not np.isnan(usual)
    start = usual if stated else typical.mean
    start_error2 = (typical.between * (USUAL_SHARE if stated else 1.0)) ** 2
    precision = 1 / error2 + 1 / start_error2
    level = (np.where(known, level, 0.0) / error2 + start / start_error2) / precision
    width = np.sqrt(spread2 + 1 / precision)
    off = (value - level) / width
    density: Floats = _STUDENT * (1 + off**2 / FREEDOM) ** (-(FREEDOM + 1) / 2) / width
    return density


def _with_exchanges(view: _View, share: Floats, likelihood: Floats, probability: Floats) -> Floats:
    """Return the posterior with the chance that two members were taken for each other throughout.

    The readings alone do not tell who is who; what was said does: how much, is compared with the
    two exchanged. Where nothing was said, nothing is known.
    """
    household = view.household
    members = share.shape[1]
    weight = share.sum(axis=0)
    level = (share * view.value[:, None]).sum(axis=0) / np.maximum(weight, _TINY)
    usual2 = (USUAL_SHARE * view.quantity.typical.between) ** 2
    result = probability.copy()
    for one in range(members):
        for other in range(one + 1, members):
            density = np.log(likelihood[:, [one, other]] + _TINY)
            by_one, by_other = household.said == one, household.said == other
            evidence = (density[by_one, 0] - density[by_one, 1]).sum()
            evidence += (density[by_other, 1] - density[by_other, 0]).sum()
            stated = (level[one] - level[other]) * (household.usual[one] - household.usual[other])
            evidence += 0.0 if np.isnan(stated) else stated / usual2
            chance = 1 / (1 + np.exp(np.clip(evidence, -50.0, 50.0)))
            moved = chance * (result[:, one] - result[:, other])
            result[:, one] -= moved
            result[:, other] += moved
    return result


_STUDENT = 0.3796066898
"""The Student t density's constant for `FREEDOM` 5: 8 / (3 pi sqrt(5))."""


def _of_anyone(value: Floats, quantity: Quantity) -> Floats:
    """Return (n,) the density of each value under someone who is no member."""
    width = GUEST_WIDTH * quantity.typical.between
    off = (value - quantity.typical.mean) / width
    bell = np.exp(-0.5 * off**2) / (width * np.sqrt(2 * np.pi))
    flat = 1 / (quantity.plausible.high - quantity.plausible.low)
    density: Floats = 0.8 * bell + 0.2 * flat
    return density


def _bounded(share: Floats) -> Floats:
    """Return shares whose odds among the members are at most `HABIT_ODDS_MAX`."""
    bounded: Floats = np.maximum(share, share.max(axis=1, keepdims=True) / HABIT_ODDS_MAX)
    return bounded
