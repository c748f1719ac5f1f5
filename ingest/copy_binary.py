"""Rows as PostgreSQL's binary COPY format, built from columns without a loop over rows.

PostgreSQL 17 documentation, COPY, "Binary Format": an 11-byte signature, flags and an extension
length; each row a 16-bit field count, then a 32-bit length (-1 for null) and the data of each
field, all big-endian; a field count of -1 ends the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_LENGTH_BYTES = 4
_NULL = -1

_POSTGRES_EPOCH_MS = 946_684_800_000


class Type(Enum):
    """A fixed-size PostgreSQL type and the big-endian form of its data."""

    INT2 = ">i2"
    INT4 = ">i4"
    INT8 = ">i8"
    FLOAT4 = ">f4"
    FLOAT8 = ">f8"
    BYTES = "V"
    """bytea whose values are all as long: a (n, length) uint8 array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the rows: (n,) values and, where some are null, (n,) bool `present`."""

    name: str
    type: Type
    values: npt.NDArray[Any]
    present: npt.NDArray[np.bool_] | None = None


def encode_rows(columns: Sequence[Column]) -> memoryview:
    """Return the COPY stream of the rows that `columns` make; all have the same length."""
    count = len(columns[0].values)
    layout = _layout(columns)
    stream = np.empty(len(_SIGNATURE) + count * layout.itemsize + len(_END), np.uint8)
    body = stream[len(_SIGNATURE) : len(stream) - len(_END)]
    rows = body.view(layout)
    rows[:] = _template(columns, layout)
    for index, column in enumerate(columns):
        rows[f"v{index}"] = _stored(column)
    nullable = [
        (index, column.present)
        for index, column in enumerate(columns)
        if column.present is not None and not column.present.all()
    ]
    if nullable:
        body = _without_nulls(rows, layout, nullable)
        stream = np.empty(len(_SIGNATURE) + len(body) + len(_END), np.uint8)
        stream[len(_SIGNATURE) : len(stream) - len(_END)] = body
    stream[: len(_SIGNATURE)] = np.frombuffer(_SIGNATURE, np.uint8)
    stream[len(stream) - len(_END) :] = np.frombuffer(_END, np.uint8)
    return stream.data


def timestamps(ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return milliseconds since 1970 as PostgreSQL has timestamps: microseconds since 2000."""
    return (ms - _POSTGRES_EPOCH_MS) * 1000


def _layout(columns: Sequence[Column]) -> np.dtype[np.void]:
    fields: list[tuple[str, str]] = [("count", ">i2")]
    for index, column in enumerate(columns):
        fields += [(f"l{index}", ">i4"), (f"v{index}", _form(column))]
    return np.dtype(fields)


def _form(column: Column) -> str:
    return f"V{column.values.shape[1]}" if column.type is Type.BYTES else column.type.value


def _template(columns: Sequence[Column], layout: np.dtype[np.void]) -> npt.NDArray[np.void]:
    row = np.zeros((), layout)
    row["count"] = len(columns)
    for index in range(len(columns)):
        row[f"l{index}"] = layout[f"v{index}"].itemsize
    return row


def _stored(column: Column) -> npt.NDArray[Any]:
    if column.type is Type.BYTES:
        content = np.ascontiguousarray(column.values)
        return content.view(f"V{content.shape[1]}")[:, 0]
    return column.values


def _without_nulls(
    rows: npt.NDArray[np.void],
    layout: np.dtype[np.void],
    nullable: Sequence[tuple[int, npt.NDArray[np.bool_]]],
) -> npt.NDArray[np.uint8]:
    """Mark the nulls by their length and cut their data out of the rows."""
    keep = np.ones((len(rows), layout.itemsize), np.bool_)
    for index, present in nullable:
        rows[f"l{index}"][~present] = _NULL
        start = layout.fields[f"v{index}"][1] if layout.fields else 0
        keep[~present, start : start + layout[f"v{index}"].itemsize] = False
    return rows.view(np.uint8).reshape(len(rows), layout.itemsize)[keep]
