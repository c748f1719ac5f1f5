"""The measurement table: what it has already, and COPY into it. Used inside a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.gatt.times import from_ms
from gateway.platform.postgres import (
    AsyncConnection,
    Int2s,
    Int4s,
    Int8s,
    copy_in,
    load_queries,
    sql,
)
from ingest.copy_binary import Column, encode_rows
from ingest.rows import (
    IDENTITY_WINDOW_MS,
    Rows,
    Stored,
    device_keys,
    measurement_columns,
    places_by_sign,
    settle_against,
)

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
    keys, place = np.unique(device_keys(rows, places), return_inverse=True)
    identity_ms, measured_ms = rows.judged.identity_ms[places], rows.judged.measured_ms[places]
    await connection.execute(_QUERIES["look_up_by_index"])
    found = await connection.execute(
        _QUERIES["already_stored"],
        {
            "place": Int4s(place + 1),
            "identity_ms": Int8s(identity_ms),
            "device_id": Int4s(keys >> 16),
            "user_slot": Int2s(keys >> 8 & 0xFF),
            "sign": Int2s(keys & 0xFF),
            "from_at": from_ms(int(measured_ms.min()) - IDENTITY_WINDOW_MS),
            "to_at": from_ms(int(measured_ms.max()) + IDENTITY_WINDOW_MS),
        },
    )
    stored = np.array(await found.fetchall(), np.int64).reshape(-1, 4)
    settle_against(
        rows,
        verdict,
        places,
        Stored(
            key=keys[stored[:, 0] - 1],
            identity_ms=stored[:, 1],
            content_hash=stored[:, 2].astype(np.int32),
            measured_ms=stored[:, 3],
        ),
    )


async def copy_measurements(
    connection: AsyncConnection, rows: Rows, places: npt.NDArray[np.intp], stored_at_ms: int
) -> None:
    """Store the measurements at `places`, in that order, sign by sign.

    The signs are encoded in threads, so that the server works on one while the next is made.
    """
    loop = asyncio.get_running_loop()
    streams = [
        loop.run_in_executor(None, _encode, measurement_columns(rows, of_sign, sign, stored_at_ms))
        for sign, of_sign in places_by_sign(rows, places)
    ]
    for stream in streams:
        statement, data = await stream
        await copy_in(connection, statement, data)


def _encode(columns: Sequence[Column]) -> tuple[sql.Composed, memoryview]:
    return copy_statement("measurement", columns), encode_rows(columns)


async def copy_columns(connection: AsyncConnection, table: str, columns: Sequence[Column]) -> None:
    """COPY the rows that `columns` make into a table."""
    await copy_in(connection, copy_statement(table, columns), encode_rows(columns))


def copy_statement(table: str, columns: Sequence[Column]) -> sql.Composed:
    """Return the COPY statement that takes `encode_rows(columns)`."""
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table),
        sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
    )
