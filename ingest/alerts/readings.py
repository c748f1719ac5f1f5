"""Readings of many residents out of the store, as the arrays that rules walk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.guidelines.samples import Samples, samples
from gateway.platform.postgres import AsyncConnection, Int4s, load_queries, sql
from gateway.stored import FLAG_ARTEFACT, FLAG_UNUSUAL
from gateway.vital_sign import VitalSign

_QUERIES = load_queries(Path(__file__).parents[1] / "sql" / "alert_readings.sql")


async def read_samples(
    connection: AsyncConnection,
    residents: npt.NDArray[np.integer],
    sign: VitalSign,
    from_at: datetime,
) -> Samples:
    """Return the readings of a sign that residents have from a moment on."""
    names = [quantity.name for quantity in sign.quantities]
    query = _QUERIES["readings"].format(
        quantities=sql.SQL(", ").join(sql.Identifier("m", name) for name in names)
    )
    cursor = await connection.execute(
        query, {"residents": Int4s(residents), "sign": sign.code, "from_at": from_at}
    )
    return _samples(await cursor.fetchall(), names)


def _samples(rows: Sequence[tuple[object, ...]], names: Sequence[str]) -> Samples:
    table = np.array(rows, np.float64).reshape(len(rows), len(names) + 3)  # None becomes NaN
    flags = table[:, 2].astype(np.int64)
    return samples(
        table[:, 0].astype(np.int64),
        table[:, 1].astype(np.int64),
        {name: table[:, 3 + place] for place, name in enumerate(names)},
        artefact=(flags & FLAG_ARTEFACT) != 0,
        unusual=(flags & FLAG_UNUSUAL) != 0,
    )
