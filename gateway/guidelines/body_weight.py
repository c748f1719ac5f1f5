"""Change of weight over days: the gain that warns of fluid in heart failure.

2021 ESC guidelines for heart failure, self-care advice: a sudden gain of more than 2 kg in 3 days.
Hearth warns from 2 kg on, for residents who are marked for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.guidelines.samples import DAY_MS, Bools, Floats, Ints, Samples, starts
from gateway.vitals.body_weight import WEIGHT

SOURCE, VERSION = "ESC heart failure guidelines, self-care advice", "2021"
GAIN_KG, GAIN_DAYS = 2.0, 3
LONGER_DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightChange:
    """For each usable weight: how it changed; (m,) each, in the order of `Samples`.

    `gain_3d_kg`, `gain_7d_kg`: this weight less the least of the 3 (7) times 24 hours before, NaN
    where there was none. `change_*`: less the oldest of that time.
    """

    resident: Ints
    measured_ms: Ints
    weight_kg: Floats
    gain_3d_kg: Floats
    gain_7d_kg: Floats
    change_3d_kg: Floats
    change_7d_kg: Floats


def weight_changes(samples: Samples) -> WeightChange:
    """Return the changes of every weight that is no artefact and not unusual."""
    kept = samples.where(samples.usable & ~np.isnan(samples.values[WEIGHT.name]))
    weight = kept.values[WEIGHT.name]
    least_3d, oldest_3d = _before(kept, weight, GAIN_DAYS)
    least_7d, oldest_7d = _before(kept, weight, LONGER_DAYS)
    return WeightChange(
        resident=kept.resident,
        measured_ms=kept.measured_ms,
        weight_kg=weight,
        gain_3d_kg=_tidy(weight - least_3d),
        gain_7d_kg=_tidy(weight - least_7d),
        change_3d_kg=_tidy(weight - oldest_3d),
        change_7d_kg=_tidy(weight - oldest_7d),
    )


def has_gained(changes: WeightChange, gain_kg: float = GAIN_KG) -> Bools:
    """Return (m,) which weights are `gain_kg` or more above the least of the last 3 days."""
    gained: Bools = changes.gain_3d_kg >= gain_kg
    return gained


def _before(samples: Samples, weight: Floats, days: int) -> tuple[Floats, Floats]:
    """Return the least and the oldest weight of the days before each, NaN where there is none."""
    count = len(samples)
    begins = np.zeros(count, np.intp)
    own = starts(samples.resident)
    begins[own] = own
    np.maximum.accumulate(begins, out=begins)
    # Times of one resident after another on one line, so that one search finds all windows.
    span = np.int64(1) << 45
    line = np.cumsum(np.isin(np.arange(count), own)) * span + samples.measured_ms
    first = np.maximum(np.searchsorted(line, line - days * DAY_MS, side="left"), begins)
    place = np.arange(count)
    has = first < place
    oldest = np.where(has, weight[np.minimum(first, place)], np.nan)
    return _range_minimum(weight, first, place), oldest


def _range_minimum(values: Floats, first: np.ndarray, end: np.ndarray) -> Floats:
    """Return the least of values[first:end] for each pair; NaN where it is empty. A sparse table."""
    length = end - first
    least = np.full(len(values), np.nan)
    level, step = values, 1
    while len(level) and (length >= step).any():
        here = (length >= step) & (length < 2 * step)
        least[here] = np.minimum(level[first[here]], level[end[here] - step])
        level = np.minimum(level[:-step], level[step:]) if len(level) > step else level[:0]
        step *= 2
    return least


def _tidy(difference: Floats) -> Floats:
    """Remove what binary floats add to a difference of decimals: scales show no micrograms."""
    tidy: Floats = np.round(difference, 6)
    return tidy
