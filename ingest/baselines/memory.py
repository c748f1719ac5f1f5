"""The last readings of many residents, in arrays, so that a flush is judged without a query.

Each resident's sign has the `WINDOW` newest readings that are stored or on their way. What is
not here is loaded from the store, within a bound; when the memory is full, those that were not
used for longest make room.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
import numpy.typing as npt

from gateway.vital_sign import QUANTITIES_MAX
from ingest.baselines.rule import (
    AGE_MS_MAX,
    LEAST,
    REACH,
    WINDOW,
    Bools,
    Ints,
    Places,
    Series,
    Values,
    are_unusual,
)

PAIRS_MAX = 200_000
"""So many residents' signs are remembered: 100 MB. Then the half that was not used for longest goes."""

_NEVER = np.iinfo(np.int64).min


class Memory:
    """Thread-safe: flushes are judged in a thread, changes come from elsewhere."""

    def __init__(self, pairs_max: int = PAIRS_MAX) -> None:
        self._pairs_max = pairs_max
        self._lock = Lock()
        self._clock = 0
        self._keys = np.empty(0, np.int64)
        self._at_ms = np.empty((0, WINDOW), np.int64)
        """Ascending along each row; `_NEVER` in front where there are fewer."""
        self._values = np.empty((0, WINDOW, QUANTITIES_MAX), np.float32)
        self._steady = np.empty((0, QUANTITIES_MAX), np.float32)
        """How far the values of a row lie from its last one at most; NaN where one is absent."""
        self._count = np.empty(0, np.intp)
        """How many readings a row has."""
        self._used = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Return how many residents' signs are remembered."""
        return len(self._keys)

    def missing(self, keys: Ints) -> Ints:
        """Return those of `keys`, once each, that are not remembered."""
        keys = np.unique(keys)
        with self._lock:
            return keys[~self._find(keys)[1]]

    def add(self, keys: Ints, series: Series) -> None:
        """Remember `keys` (sorted, not remembered yet) with the newest of their readings."""
        at_ms, values = _rings(keys, series)
        with self._lock:
            new = ~self._find(keys)[1]
            at = np.searchsorted(self._keys, keys[new])
            self._clock += 1
            self._keys = np.insert(self._keys, at, keys[new])
            self._at_ms = np.insert(self._at_ms, at, at_ms[new], axis=0)
            self._values = np.insert(self._values, at, values[new], axis=0)
            steady = _steadiness(at_ms[new], values[new])
            self._steady = np.insert(self._steady, at, steady, axis=0)
            self._count = np.insert(self._count, at, (at_ms[new] != _NEVER).sum(axis=1))
            self._used = np.insert(self._used, at, self._clock)
            if len(self._keys) > self._pairs_max:
                newest = np.argsort(self._used, kind="stable")[-self._pairs_max // 2 :]
                self._keep(np.sort(newest))

    def forget(self, residents: npt.NDArray[np.integer] | None) -> None:
        """Forget what is remembered of these residents, or of all."""
        with self._lock:
            if residents is None:
                self._keep(np.empty(0, np.intp))
            elif len(residents):
                self._keep(np.flatnonzero(~np.isin(self._keys >> 8, residents)))

    def judge(self, keys: Ints, at_ms: Ints, values: Values) -> tuple[Bools, Bools]:
        """Return (n,) which new readings are unusual, and (n,) of which that cannot be said here.

        That is so of those that are not later than all that is remembered, and where nothing is. The
        others are remembered.
        """
        with self._lock:
            place, found = self._find(keys)
            newest = np.full(len(keys), _NEVER)
            newest[found] = self._at_ms[place[found], -1]
            unknown = ~found | (at_ms <= newest)
            result = np.zeros(len(keys), np.bool_)
            rows = np.flatnonzero(~unknown)
            if len(rows):
                rows = rows[np.lexsort((at_ms[rows], place[rows]))]
                result[rows] = self._judge(place[rows], keys[rows], at_ms[rows], values[rows])
            return result, unknown

    def _judge(self, place: Places, keys: Ints, at_ms: Ints, values: Values) -> Bools:
        """Judge new readings, in the order of `place` and time, and remember them."""
        new = np.append(True, place[1:] != place[:-1])
        first = np.flatnonzero(new)
        rank = np.arange(len(place)) - np.repeat(first, np.diff(np.append(first, len(place))))
        doubtful = np.flatnonzero(self._is_doubtful(place, rank, keys, at_ms, values))
        back = np.arange(1, WINDOW + 1)[:, None]
        column = WINDOW - back + rank[doubtful]  # of the ring; beyond it begins the flush
        in_flush = column >= WINDOW
        column = np.minimum(column, WINDOW - 1)
        row = np.maximum(doubtful - back, 0)
        then_ms = np.where(in_flush, at_ms[row], self._at_ms[place[doubtful], column])
        apart_ms = np.where(then_ms == _NEVER, 0, at_ms[doubtful] - np.maximum(then_ms, 0))

        def window(rows: Places, quantity: int) -> Values:
            ring = self._values[place[doubtful[rows]], column[:, rows], quantity]
            said: Values = np.where(in_flush[:, rows], values[row[:, rows], quantity], ring)
            return said

        result = np.zeros(len(place), np.bool_)
        result[doubtful] = are_unusual(keys[doubtful], values[doubtful], apart_ms, window)
        self._remember(place[first], first, at_ms, values)
        return result

    def _is_doubtful(
        self, place: Places, rank: Places, keys: Ints, at_ms: Ints, values: Values
    ) -> Bools:
        """Tell which readings need a look at their window.

        Where the ring is most of the window, all of it young enough, and all of it within reach of
        the reading, so is the window's median: not unusual, whatever the others are.
        """
        rings = np.minimum(self._count[place], WINDOW - rank)
        oldest = self._at_ms[place, np.minimum(WINDOW - self._count[place], WINDOW - 1)]
        is_most = (rings > rank) & (at_ms - np.maximum(oldest, 0) <= AGE_MS_MAX)
        away = np.abs(values - self._values[place, -1]) + self._steady[place]
        absent = np.isnan(values) | ~np.isfinite(LEAST[keys & 0xFF])
        within: Bools = ((away <= REACH[keys & 0xFF]) | absent).all(axis=1)
        return ~(is_most & within)

    def _remember(self, places: Places, first: Places, at_ms: Ints, values: Values) -> None:
        """Move the rings on by the new readings, which begin at `first` for each of `places`."""
        count = np.diff(np.append(first, len(at_ms)))
        column = np.arange(WINDOW) + count[:, None]
        is_new = column >= WINDOW
        row = np.where(is_new, first[:, None] + column - WINDOW, 0)
        column = np.minimum(column, WINDOW - 1)
        old = self._at_ms[places[:, None], column], self._values[places[:, None], column]
        self._at_ms[places] = np.where(is_new, at_ms[row], old[0])
        self._values[places] = np.where(is_new[..., None], values[row], old[1])
        self._steady[places] = _steadiness(self._at_ms[places], self._values[places])
        self._count[places] = np.minimum(self._count[places] + count, WINDOW)
        self._clock += 1
        self._used[places] = self._clock

    def _find(self, keys: Ints) -> tuple[Places, Bools]:
        if not len(self._keys):
            return np.zeros(len(keys), np.intp), np.zeros(len(keys), np.bool_)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return place, self._keys[place] == keys

    def _keep(self, places: Places) -> None:
        self._keys = self._keys[places]
        self._at_ms = self._at_ms[places]
        self._values = self._values[places]
        self._steady = self._steady[places]
        self._count = self._count[places]
        self._used = self._used[places]


def _rings(keys: Ints, series: Series) -> tuple[Ints, Values]:
    """Return (k, WINDOW) times and (k, WINDOW, 5) values: the newest readings of each key."""
    at_ms = np.full((len(keys), WINDOW), _NEVER)
    values = np.full((len(keys), WINDOW, QUANTITIES_MAX), np.nan, np.float32)
    last = np.searchsorted(series.key, keys, "right")
    of_key = np.searchsorted(keys, series.key)
    from_end = last[of_key] - 1 - np.arange(len(series.key))
    newest = np.flatnonzero(from_end < WINDOW)
    column = WINDOW - 1 - from_end[newest]
    at_ms[of_key[newest], column] = series.at_ms[newest]
    values[of_key[newest], column] = series.value[newest]
    return at_ms, values


def _steadiness(at_ms: Ints, values: Values) -> Values:
    away = np.where((at_ms == _NEVER)[..., None], 0, np.abs(values - values[:, -1:]))
    steady: Values = away.max(axis=1).astype(np.float32)
    return steady
