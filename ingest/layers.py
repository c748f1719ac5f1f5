"""Millions of rows sorted by a key, with a thin layer of what changed since on top.

The base is never altered. A change replaces all rows of an owner (a key without its lowest bits: a
device, whose links are many rows) in the layer above; when that layer has grown, both are merged
into a new base, column after column, so that memory peaks at one column more than the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

NEWER_ROWS_MAX = 50_000
"""A layer of more rows, or of more replaced owners, is merged into the base."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """Rows in the order of `keys` (n,) int64, which may repeat; `columns` have n entries each."""

    keys: Keys
    columns: tuple[npt.NDArray[Any], ...]

    def find(self, keys: Keys) -> tuple[Places, Bools]:
        """Return for each key the place of its first row, and whether there is one."""
        if not len(self.keys):
            return np.zeros(len(keys), np.intp), np.zeros(len(keys), np.bool_)
        place = np.searchsorted(self.keys, keys)
        place[place == len(self.keys)] = 0
        return place, self.keys[place] == keys

    def rows_of(self, keys: Keys) -> tuple[Places, Places]:
        """Return every pair (place in `keys`, place of a row with that key)."""
        first = np.searchsorted(self.keys, keys, "left")
        count = np.searchsorted(self.keys, keys, "right") - first
        place = np.repeat(np.arange(len(keys)), count)
        within = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
        return place, np.repeat(first, count) + within


def sorted_rows(
    keys: Keys, columns: Sequence[npt.NDArray[Any]], minor: Keys | None = None
) -> Sorted:
    """Return rows in the order of `keys`, those of one key in the order of `minor`."""
    if _ascends(keys, minor):
        return Sorted(keys, tuple(columns))
    order = np.lexsort((keys,) if minor is None else (minor, keys))
    return Sorted(keys[order], tuple(column[order] for column in columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layered:
    """A base and what replaces parts of it: the rows of the owners in `replaced` (sorted).

    The owner of a key is `key >> owner_bits`.
    """

    base: Sorted
    newer: Sorted
    replaced: Keys
    owner_bits: int = 0

    def __len__(self) -> int:
        """Return an upper bound of the number of rows."""
        return len(self.base.keys) + len(self.newer.keys)

    @property
    def bytes(self) -> int:
        """Return the memory that the arrays take."""
        arrays = (self.base.keys, *self.base.columns, self.newer.keys, *self.newer.columns)
        return sum(array.nbytes for array in arrays) + self.replaced.nbytes

    def parts(self, keys: Keys) -> list[tuple[Places, Sorted]]:
        """Return which of `keys` are to be looked for in which rows."""
        if not len(self.replaced):
            return [(np.arange(len(keys)), self.base)]
        owner = keys >> self.owner_bits
        place = np.minimum(np.searchsorted(self.replaced, owner), len(self.replaced) - 1)
        is_newer = self.replaced[place] == owner
        if not is_newer.any():
            return [(np.arange(len(keys)), self.base)]
        return [
            (np.flatnonzero(~is_newer), self.base),
            (np.flatnonzero(is_newer), self.newer),
        ]

    def with_changes(self, owners: Keys, rows: Sorted) -> Layered:
        """Return a state in which these owners have these rows, and no others."""
        owners = np.union1d(owners, np.unique(rows.keys >> self.owner_bits))
        stays = ~np.isin(self.newer.keys >> self.owner_bits, owners)
        keys = np.concatenate((self.newer.keys[stays], rows.keys))
        columns = [
            np.concatenate((old[stays], new))
            for old, new in zip(self.newer.columns, rows.columns, strict=True)
        ]
        order = np.argsort(keys, kind="stable")  # rows of a key stay in the order they came in
        changed = Layered(
            base=self.base,
            newer=Sorted(keys[order], tuple(column[order] for column in columns)),
            replaced=np.union1d(self.replaced, owners),
            owner_bits=self.owner_bits,
        )
        if max(len(keys), len(changed.replaced)) > NEWER_ROWS_MAX:
            return layered(changed._merged(), owner_bits=self.owner_bits)
        return changed

    def _merged(self) -> Sorted:
        first_key = self.replaced << self.owner_bits
        low = np.searchsorted(self.base.keys, first_key, "left")
        high = np.searchsorted(self.base.keys, first_key | (1 << self.owner_bits) - 1, "right")
        steps = np.zeros(len(self.base.keys) + 1, np.int8)
        steps[low[low < high]] += 1  # owners' ranges do not overlap: +1 and -1 at most once each
        steps[high[low < high]] -= 1
        keep = np.cumsum(steps[:-1], dtype=np.int8) == 0
        kept = self.base.keys[keep]
        at = np.searchsorted(kept, self.newer.keys, "left")
        keys = np.insert(kept, at, self.newer.keys)
        columns = tuple(
            np.insert(old[keep], at, new)
            for old, new in zip(self.base.columns, self.newer.columns, strict=True)
        )
        return Sorted(keys, columns)


def layered(base: Sorted, owner_bits: int = 0) -> Layered:
    """Return a base with nothing changed since."""
    nothing = Sorted(base.keys[:0].copy(), tuple(column[:0].copy() for column in base.columns))
    return Layered(base=base, newer=nothing, replaced=np.empty(0, np.int64), owner_bits=owner_bits)


def _ascends(keys: Keys, minor: Keys | None = None) -> bool:
    rises = keys[1:] > keys[:-1]
    stays = keys[1:] == keys[:-1]
    if minor is not None:
        stays &= minor[1:] >= minor[:-1]
    return bool((rises | stays).all())
