"""When a reading is unusual for its resident: far from the last ones that were measured before it.

Of a resident's sign the `WINDOW` readings before a reading (by time of measurement, not older than
`AGE_MS_MAX`, no artefacts) tell what is usual: their median, and how far they lie from it. A reading
is unusual where a quantity lies outside all of them, and farther from the median than `WIDTHS` times
the width: the robust spread, at least that of the population within a person, more after a pause.
A function of the stored readings alone: late ones change what was unusual behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
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


_LEAST = least_widths()


def unusual(series: Series) -> Bools:
    """Return (n,) which of the readings that are asked for are unusual."""
    asked = np.flatnonzero(series.asked)
    before = np.maximum(asked - 1, 0)
    same = (series.key[before] == series.key[asked]) & (asked > 0)
    last = np.where(same[:, None], series.value[before], np.nan)
    maybe = asked[can_be_unusual(series.key[asked], series.value[asked], last)]
    result = np.zeros(len(series.key), np.bool_)
    if len(maybe):
        window = maybe - np.arange(1, WINDOW + 1)[:, None]
        there = window >= 0
        window = np.maximum(window, 0)
        there &= series.key[window] == series.key[maybe]
        apart_ms = np.where(there, series.at_ms[maybe] - series.at_ms[window], 0)
        result[maybe] = are_unusual(
            series.key[maybe], series.value[maybe], series.value[window], apart_ms
        )
    return result


def can_be_unusual(key: Ints, value: Values, last: Values) -> Bools:
    """Return (m,) which readings need a look at their window.

    One that lies within the least width of the reading before it (`last`, NaN where there is none)
    does not lie outside the window that begins with that one.
    """
    least = _LEAST[key & 0xFF]
    near = np.abs(value - last) <= least
    can: Bools = (np.isfinite(least) & ~np.isnan(value) & ~near).any(axis=1)
    return can


def are_unusual(key: Ints, value: Values, window: Values, apart_ms: Ints) -> Bools:
    """Return (m,) which readings are unusual.

    `window`: (WINDOW, m, 5), the readings before each; `apart_ms`: (WINDOW, m) how long before, 0
    where there is none or one of the same moment.
    """
    there = (apart_ms > 0) & (apart_ms <= AGE_MS_MAX)
    least = _LEAST[key & 0xFF]
    result = np.zeros(len(key), np.bool_)
    for place in range(QUANTITIES_MAX):
        judged = np.flatnonzero(np.isfinite(least[:, place]) & ~np.isnan(value[:, place]))
        if not len(judged):
            continue
        said, width = value[judged, place], least[judged, place]
        levels = np.where(there[:, judged], window[:, judged, place], np.float32(np.nan))
        enough = (~np.isnan(levels)).sum(axis=0) >= READINGS_MIN
        low, high = np.fmin.reduce(levels, axis=0), np.fmax.reduce(levels, axis=0)
        rows = np.flatnonzero(enough & ((said < low - width) | (said > high + width)))
        if len(rows):
            gap_ms = np.where(there, apart_ms, AGE_MS_MAX)[:, judged[rows]].min(axis=0)
            far = _far(said[rows], levels[:, rows], width[rows], gap_ms)
            result[judged[rows[far]]] = True
    return result


def _far(value: Values, levels: Values, least: npt.NDArray[np.float64], gap_ms: Ints) -> Bools:
    levels = levels.astype(np.float64)
    middle = np.nanmedian(levels, axis=0)
    spread = np.nanmedian(np.abs(levels - middle), axis=0) * _MAD_TO_DEVIATION
    drift = DRIFT_SHARE * least * np.sqrt(gap_ms / _DAY_MS)
    width = np.hypot(np.maximum(spread, least), drift)
    far: Bools = np.abs(value - middle) > WIDTHS * width
    return far
