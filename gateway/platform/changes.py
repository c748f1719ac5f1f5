"""The feed of changes: which residents' signs each transaction stored or re-attributed.

A change becomes readable when no earlier transaction can still add one, so whoever reads on from a
place never misses any, whatever order transactions commit in (pg_snapshot_xmin, PostgreSQL 17
documentation, "Transaction ID and Snapshot Information Functions"). Everything that writes into the
table `measurement` records a change in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.gatt.times import ms_since_epoch
from gateway.platform.postgres import (
    AsyncConnection,
    Connection,
    Int2s,
    Int4s,
    Int8s,
    load_queries,
    translated,
    tuple_row,
)
from gateway.platform.pruning import prune

DAYS_KEPT = 7
"""A reader that was away longer finds `is_whole` False and begins anew from the measurements."""
CHANGES_A_READ = 100
"""So many changes are read at once; each has at most a flush's measurements."""

_ARRAY_HEAD_BYTES = 20
"""Dimensions, flags, type, then length and first index of the one dimension (PostgreSQL 17, array_send)."""
_QUERIES = load_queries(Path(__file__).parent / "sql" / "changes.sql")

Ints = npt.NDArray[np.int64]


class Place(NamedTuple):
    """Where a reader stands: behind this change."""

    transaction: int
    change: int


START = Place(0, 0)
"""Before all changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What changed, an entry a resident's sign; (n,) int64 each.

    `oldest_ms` and `newest_ms` bound the times of measurement of the rows concerned.
    """

    resident: Ints
    sign: Ints
    oldest_ms: Ints
    newest_ms: Ints


NOTHING = Changed(
    **dict.fromkeys(("resident", "sign", "oldest_ms", "newest_ms"), np.empty(0, np.int64))
)
"""No resident's sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One transaction's change; the rows concerned have its `stored_at_ms`."""

    place: Place
    stored_at_ms: int
    changed: Changed


def summarised(
    resident: npt.NDArray[np.integer],
    sign: npt.NDArray[np.integer],
    measured_ms: Ints,
) -> Changed:
    """Return the entries of measurements given one by one, (n,) each."""
    keys = resident.astype(np.int64) << 8 | sign.astype(np.int64)
    order = np.lexsort((measured_ms, keys))
    keys, measured_ms = keys[order], measured_ms[order]
    new = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(keys))[: len(first)] - 1
    return Changed(
        resident=keys[first] >> 8,
        sign=keys[first] & 0xFF,
        oldest_ms=measured_ms[first],
        newest_ms=measured_ms[last],
    )


def merged(changes: Sequence[Changed]) -> Changed:
    """Return one entry for each resident's sign that any of the changes concerns."""
    resident = np.concatenate([changed.resident for changed in changes])
    sign = np.concatenate([changed.sign for changed in changes])
    oldest_ms = np.concatenate([changed.oldest_ms for changed in changes])
    newest_ms = np.concatenate([changed.newest_ms for changed in changes])
    order = np.lexsort((resident, sign))
    resident, sign = resident[order], sign[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (resident[1:] != resident[:-1]) | (sign[1:] != sign[:-1])
    first = np.flatnonzero(new)
    return Changed(
        resident=resident[first],
        sign=sign[first],
        oldest_ms=np.minimum.reduceat(oldest_ms[order], first) if len(first) else oldest_ms,
        newest_ms=np.maximum.reduceat(newest_ms[order], first) if len(first) else newest_ms,
    )


async def record_change(connection: AsyncConnection, changed: Changed, stored_at_ms: int) -> None:
    """Note a change in the connection's open transaction; of nothing, nothing."""
    if len(changed.resident):
        await connection.execute(_QUERIES["record"], _columns(changed, stored_at_ms))


def record_change_blocking(connection: Connection, changed: Changed, stored_at_ms: int) -> None:
    """Note a change in the connection's open transaction; of nothing, nothing."""
    if len(changed.resident):
        connection.execute(_QUERIES["record"], _columns(changed, stored_at_ms))


async def read_changes(
    connection: AsyncConnection, after: Place, limit: int = CHANGES_A_READ
) -> list[Change]:
    """Return the changes behind a place, in their order.

    Raises:
        UnavailableError: the database is down.
    """
    with translated():
        async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            await cursor.execute(
                _QUERIES["read"],
                {"transaction": after.transaction, "change": after.change, "limit": limit},
            )
            return [
                Change(
                    place=Place(transaction, change),
                    stored_at_ms=ms_since_epoch(stored_at),
                    changed=_changed(*columns),
                )
                for transaction, change, stored_at, *columns in await cursor.fetchall()
            ]


async def end_of_changes(connection: AsyncConnection) -> Place:
    """Return the place behind all that has settled."""
    with translated():
        rows = await connection.execute(_QUERIES["end"])
        row = await rows.fetchone()
    return START if row is None else Place(*row)


async def is_whole(connection: AsyncConnection, after: Place) -> bool:
    """Tell whether all changes behind a place are still kept, and can be found behind it.

    A database that was restored on another server has places of transactions that this one counts
    later or never: behind such a place nothing new would ever come.
    """
    asked = {"transaction": after.transaction, "change": after.change}
    with translated():
        rows = await connection.execute(_QUERIES["is_whole"], asked)
        ((whole,),) = await rows.fetchall()
    return bool(whole)


async def prune_changes(connection: AsyncConnection) -> int:
    """Forget what is older than DAYS_KEPT; return how many changes. The connection is in autocommit."""

    async def remove(rows: int) -> int:
        pruned = await connection.execute(_QUERIES["prune"], {"days": DAYS_KEPT, "rows": rows})
        return pruned.rowcount

    with translated():
        return await prune(remove)


def _columns(changed: Changed, stored_at_ms: int) -> dict[str, object]:
    return {
        "stored_at_ms": stored_at_ms,
        "resident": Int4s(changed.resident),
        "sign": Int2s(changed.sign),
        "oldest_ms": Int8s(changed.oldest_ms),
        "newest_ms": Int8s(changed.newest_ms),
    }


def _changed(resident: bytes, sign: bytes, oldest_ms: bytes, newest_ms: bytes) -> Changed:
    return Changed(
        resident=_array(resident, ">i4"),
        sign=_array(sign, ">i2"),
        oldest_ms=_array(oldest_ms, ">i8"),
        newest_ms=_array(newest_ms, ">i8"),
    )


def _array(data: bytes, kind: str) -> Ints:
    """Return (n,) int64 of what `array_send` makes of an array without nulls: each with its length."""
    elements = np.frombuffer(data, [("length", ">i4"), ("value", kind)], offset=_ARRAY_HEAD_BYTES)
    return elements["value"].astype(np.int64)
