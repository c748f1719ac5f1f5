"""Readings of many residents out of the store, as the arrays that rules walk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.guidelines.samples import Samples, samples
from gateway.platform.postgres import AsyncConnection, load_queries, sql
from gateway.stored import FLAG_ARTEFACT, FLAG_UNUSUAL
from gateway.vital_sign import VitalSign

_QUERIES = load_queries(Path(__file__).parents[1] / "sql" / "alert_readings.sql")
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
    columns = [
        sql.SQL("float8send(coalesce({}, 'NaN'))").format(sql.Identifier("m", name))
        for name in names
    ]
    statement = _QUERIES["readings"].format(quantities=sql.SQL(" || ").join(columns))
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(
            statement, {"residents": residents.tolist(), "sign": sign.code, "from_at": from_at}
        )
        ((data,),) = await cursor.fetchall()
    return _samples(data or b"", names)


def _samples(data: bytes, names: Sequence[str]) -> Samples:
    """Take rows of fixed width, (n,), apart without a loop."""
    table = np.frombuffer(data, _row(names))
    flags = table["flags"]
    return samples(
        table["resident"],
        (table["measured_us"] + _Y2K_US) // 1000,
        {name: table[name] for name in names},
        artefact=(flags & FLAG_ARTEFACT) != 0,
        unusual=(flags & FLAG_UNUSUAL) != 0,
    )


def _row(names: Sequence[str]) -> np.dtype[np.void]:
    """Return the dtype of a row, big-endian as PostgreSQL sends it."""
    columns = [("resident", ">i4"), ("measured_us", ">i8"), ("flags", ">i4")]
    return np.dtype(columns + [(name, ">f8") for name in names])
