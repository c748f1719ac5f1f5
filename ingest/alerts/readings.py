"""Readings of many residents out of the store, as the arrays that rules walk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.guidelines.samples import Samples, samples
from gateway.platform.postgres import AsyncConnection, copy_out, load_queries, sql
from gateway.stored import FLAG_ARTEFACT, FLAG_UNUSUAL
from gateway.vital_sign import VitalSign

_QUERIES = load_queries(Path(__file__).parents[1] / "sql" / "alert_readings.sql")
_HEAD_BYTES, _TAIL_BYTES = 19, 2
"""Of a binary COPY stream without OIDs or extensions: PostgreSQL 17, COPY, "Binary Format"."""
_Y2K_US = 946_684_800_000_000
"""A timestamptz counts microseconds from 2000-01-01."""


async def read_samples(
    connection: AsyncConnection,
    residents: npt.NDArray[np.integer],
    sign: VitalSign,
    from_at: datetime,
) -> Samples:
    """Return the readings of a sign that residents have from a moment on."""
    names = [quantity.name for quantity in sign.quantities]
    columns = [sql.SQL("coalesce({}, 'NaN')").format(sql.Identifier("m", name)) for name in names]
    stream = await copy_out(
        connection,
        _QUERIES["readings"].format(quantities=sql.SQL(", ").join(columns)),
        {"residents": residents.tolist(), "sign": sign.code, "from_at": from_at},
    )
    return _samples(stream, names)


def _samples(stream: bytes, names: Sequence[str]) -> Samples:
    """Take a binary COPY stream apart, (n,) rows of fixed width, without a loop."""
    row = _row(names)
    body = len(stream) - _HEAD_BYTES - _TAIL_BYTES
    table = np.frombuffer(stream, row, count=body // row.itemsize, offset=_HEAD_BYTES)
    assert body == len(table) * row.itemsize  # noqa: S101 - a column was null, or of another width
    flags = table["flags"]
    return samples(
        table["resident"],
        (table["measured_us"] + _Y2K_US) // 1000,
        {name: table[name] for name in names},
        artefact=(flags & FLAG_ARTEFACT) != 0,
        unusual=(flags & FLAG_UNUSUAL) != 0,
    )


def _row(names: Sequence[str]) -> np.dtype[np.void]:
    """Return the dtype of a row: a count of columns, then each with its length before it."""
    columns = [("resident", ">i4"), ("measured_us", ">i8"), ("flags", ">i4")]
    columns += [(name, ">f8") for name in names]
    fields = [("columns", ">i2")]
    for name, kind in columns:
        fields += [(f"{name} bytes", ">i4"), (name, kind)]
    return np.dtype(fields)
