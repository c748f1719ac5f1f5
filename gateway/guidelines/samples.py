"""Readings of one sign, of many residents, in the order in which statistics walk them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHANGHAI_OFFSET_MS = 8 * 3_600_000
"""Asia/Shanghai keeps UTC+8 all year since 1991-09-15 (IANA tz database, asia)."""
DAY_MS = 86_400_000
HOUR_MS = 3_600_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_DAYS_MAX = 1 << 20
"""Days since 1970 fit in so many bits until the year 4840; a resident's key stands above them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Readings sorted by resident, then time of measurement; every array has one entry a reading.

    `resident` (n,) int64; `measured_ms` (n,) int64 after 1970-01-01T00:00Z; `values` by the
    quantity's name, (n,) float64 each, canonical unit, NaN where absent. `artefact` and `unusual`
    are kept out of averages and counted.
    """

    resident: Ints
    measured_ms: Ints
    values: Mapping[str, Floats]
    artefact: Bools
    unusual: Bools

    def __len__(self) -> int:
        return len(self.resident)

    def where(self, kept: Bools) -> Samples:
        """Return the readings that a mask keeps, in the same order."""
        return Samples(
            resident=self.resident[kept],
            measured_ms=self.measured_ms[kept],
            values={name: array[kept] for name, array in self.values.items()},
            artefact=self.artefact[kept],
            unusual=self.unusual[kept],
        )

    @property
    def usable(self) -> Bools:
        """Those that count in averages."""
        usable: Bools = ~(self.artefact | self.unusual)
        return usable


def samples(
    resident: npt.ArrayLike,
    measured_ms: npt.ArrayLike,
    values: Mapping[str, npt.ArrayLike],
    *,
    artefact: npt.ArrayLike = False,
    unusual: npt.ArrayLike = False,
) -> Samples:
    """Put readings that stand in any order into the order of `Samples`.

    Readings of one resident at the same millisecond are ordered by their values, so that the result
    does not depend on the order they were given in.
    """
    who, when = np.asarray(resident, np.int64), np.asarray(measured_ms, np.int64)
    columns = {name: np.asarray(array, np.float64) for name, array in values.items()}
    order = np.lexsort((*columns.values(), when, who))
    return Samples(
        resident=who[order],
        measured_ms=when[order],
        values={name: array[order] for name, array in columns.items()},
        artefact=np.broadcast_to(np.asarray(artefact, np.bool_), who.shape)[order],
        unusual=np.broadcast_to(np.asarray(unusual, np.bool_), who.shape)[order],
    )


def local_days(measured_ms: Ints, offset_ms: int = SHANGHAI_OFFSET_MS) -> Ints:
    """Return (n,) the local day of each moment, as days since 1970-01-01."""
    days: Ints = (measured_ms + offset_ms) // DAY_MS
    return days


def local_hours(measured_ms: Ints, offset_ms: int = SHANGHAI_OFFSET_MS) -> Ints:
    """Return (n,) the local hour of the day, 0 to 23."""
    hours: Ints = (measured_ms + offset_ms) % DAY_MS // HOUR_MS
    return hours


def day_keys(resident: Ints, day: Ints) -> Ints:
    """Return one number for a resident's day; the days of a resident are consecutive numbers."""
    keys: Ints = resident * _DAYS_MAX + day
    return keys


def starts(*keys: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """Return where a new group begins in sorted key arrays: what `numpy.add.reduceat` takes."""
    if not len(keys[0]):
        return np.empty(0, np.intp)
    new = np.zeros(len(keys[0]), np.bool_)
    new[0] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(new)


def window_sums(position: Ints, values: npt.NDArray[np.generic], width: int) -> Floats:
    """Return (n,) the sum of `values` over each window (position - width, position].

    `position` (n,) is sorted and keeps groups further apart than `width`. Values are finite.
    """
    total = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
    first = np.searchsorted(position, position - width, side="right")
    last = np.searchsorted(position, position, side="right")
    sums: Floats = total[last] - total[first]
    return sums
