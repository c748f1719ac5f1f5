"""When a reading is unusual for its resident: far from the last ones that were measured before it.

Of a resident's sign the `WINDOW` readings before a reading (by time of measurement, not older than
`AGE_MS_MAX`, no artefacts) tell what is usual: their median, and how far they lie from it. A reading
is unusual where a quantity lies farther from the median than `WIDTHS` times the width: the robust
spread, at least that of the population within a person, more after a pause.
A function of the stored readings alone: late ones change what was unusual behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.quantity import Quantity
from gateway.vital_sign import QUANTITIES_MAX, VitalSign
from gateway.vitals import SIGNS

WINDOW = 16
"""So many readings tell what is usual."""
READINGS_MIN = 6
"""Of a quantity with fewer values in the window nothing is unusual yet."""
AGE_MS_MAX = 90 * 86_400_000
"""What lies longer ago tells nothing."""
WIDTHS = 6.0
"""Farther from the median than so many widths is unusual."""
DRIFT_SHARE = 0.25
"""A level moves in a day by this share of the spread within a person, as a random walk."""

_MAD_TO_DEVIATION = 1.4826
"""The median absolute deviation of a normal distribution times this is its standard deviation."""
_DAY_MS = 86_400_000

Ints = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Readings without artefacts, in the order of `key` (resident and sign), then of `at_ms`.

    `value`: (n, 5) float32, canonical, NaN where absent. `asked`: which are to be judged.
    """

    key: Ints
    at_ms: Ints
    value: Values
    asked: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Readings of a flush that have a resident and are no artefacts, (m,) each.

    `place`: theirs in the flush.
    """

    place: npt.NDArray[np.intp]
    key: Ints
    at_ms: Ints
    value: Values


def key_of(resident: npt.NDArray[np.integer], sign: npt.NDArray[np.integer]) -> Ints:
    """Return resident and sign as one number."""
    keys: Ints = resident.astype(np.int64) << 8 | sign.astype(np.int64)
    return keys


def least_widths(signs: Sequence[VitalSign] = SIGNS) -> npt.NDArray[np.float64]:
    """Return (256, 5): the population's spread within a person; infinite where it is not known."""
    widths = np.full((256, QUANTITIES_MAX), np.inf)
    for sign in signs:
        for place, quantity in enumerate(sign.quantities):
            widths[sign.code, place] = _least_width(quantity)
    return widths


def _least_width(quantity: Quantity) -> float:
    typical = quantity.typical
    width = float(np.hypot(typical.within, typical.daily / np.sqrt(2)))
    return width or np.inf


LEAST = least_widths()
REACH = (WIDTHS * LEAST).astype(np.float32)
"""(256, 5): within so much of its median no value is unusual."""


def unusual(series: Series) -> Bools:
    """Return (n,) which of the readings that are asked for are unusual."""
    result = np.zeros(len(series.key), np.bool_)
    asked = np.flatnonzero(series.asked)
    if len(asked):
        window = asked - np.arange(1, WINDOW + 1)[:, None]
        there = window >= 0
        window = np.maximum(window, 0)
        there &= series.key[window] == series.key[asked]
        apart_ms = np.where(there, series.at_ms[asked] - series.at_ms[window], 0)
        result[asked] = are_unusual(
            series.key[asked],
            series.value[asked],
            apart_ms,
            lambda rows, quantity: series.value[window[:, rows], quantity],
        )
    return result


def are_unusual(
    key: Ints, value: Values, apart_ms: Ints, window: Callable[[Places, int], Values]
) -> Bools:
    """Return (m,) which readings are unusual.

    `apart_ms`: (WINDOW, m) how long before each reading those of its window were measured, 0 where
    there is none or one of the same moment. `window(rows, quantity)`: (WINDOW, len(rows)), their
    values.
    """
    there = (apart_ms > 0) & (apart_ms <= AGE_MS_MAX)
    least = LEAST[key & 0xFF]
    result = np.zeros(len(key), np.bool_)
    for quantity in range(QUANTITIES_MAX):
        rows = np.flatnonzero(np.isfinite(least[:, quantity]) & ~np.isnan(value[:, quantity]))
        if not len(rows):
            continue
        levels = np.where(there[:, rows], window(rows, quantity), np.float32(np.nan))
        said, width = value[rows, quantity], least[rows, quantity]
        count = (~np.isnan(levels)).sum(axis=0)
        # Where most of the window is within reach, so is its median: the rest is looked at closely.
        near = (np.abs(levels - said) <= REACH[key[rows] & 0xFF, quantity]).sum(axis=0)
        doubtful = np.flatnonzero((count >= READINGS_MIN) & (2 * near <= count))
        if len(doubtful):
            of = rows[doubtful]
            gap_ms = np.where(there[:, of], apart_ms[:, of], AGE_MS_MAX).min(axis=0)
            far = _far(said[doubtful], levels[:, doubtful], width[doubtful], gap_ms)
            result[of[far]] = True
    return result


def _far(value: Values, levels: Values, least: npt.NDArray[np.float64], gap_ms: Ints) -> Bools:
    levels = levels.astype(np.float64)
    middle = np.nanmedian(levels, axis=0)
    spread = np.nanmedian(np.abs(levels - middle), axis=0) * _MAD_TO_DEVIATION
    drift = DRIFT_SHARE * least * np.sqrt(gap_ms / _DAY_MS)
    width = np.hypot(np.maximum(spread, least), drift)
    far: Bools = np.abs(value - middle) > WIDTHS * width
    return far
