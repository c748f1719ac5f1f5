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
    WINDOW,
    Bools,
    Ints,
    Series,
    Values,
    are_unusual,
    can_be_unusual,
)

PAIRS_MAX = 200_000
"""So many residents' signs are remembered: 94 MB. Then the half that was not used for longest goes."""

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

    def _judge(self, place: npt.NDArray[np.intp], keys: Ints, at_ms: Ints, values: Values) -> Bools:
        """Judge new readings, in the order of `place` and time, and remember them."""
        new = np.append(True, place[1:] != place[:-1])
        first = np.flatnonzero(new)
        rank = np.arange(len(place)) - np.repeat(first, np.diff(np.append(first, len(place))))
        last = np.where(
            new[:, None], self._values[place, -1], values[np.maximum(np.arange(len(place)) - 1, 0)]
        )
        maybe = np.flatnonzero(can_be_unusual(keys, values, last))
        result = np.zeros(len(place), np.bool_)
        if len(maybe):
            back = np.arange(1, WINDOW + 1)[:, None]
            column = WINDOW - back + rank[maybe]  # of the ring, where the flush does not reach
            in_flush = column >= WINDOW
            column = np.minimum(column, WINDOW - 1)
            row = np.maximum(maybe - back, 0)
            then_ms = np.where(in_flush, at_ms[row], self._at_ms[place[maybe], column])
            window = np.where(in_flush[..., None], values[row], self._values[place[maybe], column])
            apart_ms = np.where(then_ms == _NEVER, 0, at_ms[maybe] - np.maximum(then_ms, 0))
            result[maybe] = are_unusual(keys[maybe], values[maybe], window, apart_ms)
        self._remember(place[first], first, at_ms, values)
        return result

    def _remember(
        self, places: npt.NDArray[np.intp], first: npt.NDArray[np.intp], at_ms: Ints, values: Values
    ) -> None:
        """Move the rings on by the new readings, which begin at `first` for each of `places`."""
        count = np.diff(np.append(first, len(at_ms)))
        column = np.arange(WINDOW) + count[:, None]
        is_new = column >= WINDOW
        row = np.where(is_new, first[:, None] + column - WINDOW, 0)
        column = np.minimum(column, WINDOW - 1)
        old = self._at_ms[places[:, None], column], self._values[places[:, None], column]
        self._at_ms[places] = np.where(is_new, at_ms[row], old[0])
        self._values[places] = np.where(is_new[..., None], values[row], old[1])
        self._clock += 1
        self._used[places] = self._clock

    def _find(self, keys: Ints) -> tuple[npt.NDArray[np.intp], Bools]:
        if not len(self._keys):
            return np.zeros(len(keys), np.intp), np.zeros(len(keys), np.bool_)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return place, self._keys[place] == keys

    def _keep(self, places: npt.NDArray[np.intp]) -> None:
        self._keys = self._keys[places]
        self._at_ms = self._at_ms[places]
        self._values = self._values[places]
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
