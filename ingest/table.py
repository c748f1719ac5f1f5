"""The measurement table: what it has already, and COPY into it. Used inside a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.platform.postgres import AsyncConnection, copy_in, load_queries, sql
from ingest.copy_binary import Column, encode_rows
from ingest.rows import IDENTITY_WINDOW_MS, Rows, columns_by_sign, settle_against

_QUERIES = load_queries(Path(__file__).parent / "sql" / "table.sql")


async def settle_stored(
    connection: AsyncConnection,
    rows: Rows,
    verdict: npt.NDArray[np.uint8],
    places: npt.NDArray[np.intp],
) -> None:
    """Look up the readings at `places`; those that are stored already get their verdict."""
    if not len(places):
        return
    found = await connection.execute(
        _QUERIES["already_stored"],
        {
            "device_id": rows.judged.device_id[places].tolist(),
            "user_slot": rows.records["user_slot"][places].tolist(),
            "sign": rows.records["sign"][places].tolist(),
            "identity_ms": rows.judged.identity_ms[places].tolist(),
            "measured_ms": rows.judged.measured_ms[places].tolist(),
            "window_ms": IDENTITY_WINDOW_MS,
        },
    )
    settle_against(rows, verdict, places, await found.fetchall())


async def copy_measurements(
    connection: AsyncConnection, rows: Rows, places: npt.NDArray[np.intp], stored_at_ms: int
) -> None:
    """Store the measurements at `places`, in that order, sign by sign."""
    for _sign, columns in columns_by_sign(rows, places, stored_at_ms):
        await copy_columns(connection, "measurement", columns)


async def copy_columns(connection: AsyncConnection, table: str, columns: Sequence[Column]) -> None:
    """COPY the rows that `columns` make into a table."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table),
        sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
    )
    await copy_in(connection, statement, encode_rows(columns))
