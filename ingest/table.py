"""The measurement table: what it has already, and COPY into it. Used inside a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    BROADCAST_MS,
    IDENTITY_WINDOW_MS,
    MISDATED_WINDOW_MS,
    Rows,
    Stored,
    device_keys,
    measurement_columns,
    misdated,
    numbered,
    places_by_sign,
    settle_against,
)
from ingest.verdicts import Verdict

_QUERIES = load_queries(Path(__file__).parent / "sql" / "table.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A COPY statement and all it takes."""

    statement: sql.Composed
    data: memoryview


async def settle_stored(
    connection: AsyncConnection,
    rows: Rows,
    verdict: npt.NDArray[np.uint8],
    places: npt.NDArray[np.intp],
) -> bool:
    """Look up the readings at `places`; those that are stored already get their verdict.

    Returns whether there were any.
    """
    if not len(places):
        return False
    await connection.execute(_QUERIES["look_up_by_index"])
    heard = await _settle_heard(connection, rows, verdict, numbered(rows, places))
    places = places[verdict[places] == Verdict.STORED]
    wrong = misdated(rows, places)
    found = [
        await _settle_identities(connection, rows, verdict, some, window_ms)
        for some, window_ms in (
            (places[~wrong], IDENTITY_WINDOW_MS),
            (places[wrong], MISDATED_WINDOW_MS),
        )
    ]
    return heard or any(found)


async def _settle_heard(
    connection: AsyncConnection,
    rows: Rows,
    verdict: npt.NDArray[np.uint8],
    places: npt.NDArray[np.intp],
) -> bool:
    """Settle numbered broadcasts: another hub's time of the same one is another."""
    if not len(places):
        return False
    keys, heard_ms = device_keys(rows, places), rows.judged.identity_ms[places]
    measured_ms = rows.judged.measured_ms[places]
    found = await connection.execute(
        _QUERIES["already_heard"],
        {
            "place": Int8s(places),
            "identity_ms": Int8s(heard_ms),
            "content_hash": Int4s(rows.content_hash[places]),
            "window_ms": BROADCAST_MS,
        }
        | _asked(keys, measured_ms, IDENTITY_WINDOW_MS),
    )
    heard = [place for (place,) in await found.fetchall()]
    verdict[heard] = Verdict.DUPLICATE
    return len(heard) > 0


async def _settle_identities(
    connection: AsyncConnection,
    rows: Rows,
    verdict: npt.NDArray[np.uint8],
    places: npt.NDArray[np.intp],
    window_ms: int,
) -> bool:
    if not len(places):
        return False
    keys, place = np.unique(device_keys(rows, places), return_inverse=True)
    identity_ms, measured_ms = rows.judged.identity_ms[places], rows.judged.measured_ms[places]
    found = await connection.execute(
        _QUERIES["already_stored"],
        {
            "place": Int4s(place + 1),
            "identity_ms": Int8s(identity_ms),
        }
        | _asked(keys, measured_ms, window_ms),
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
    return len(stored) > 0


def _asked(
    keys: npt.NDArray[np.int64], measured_ms: npt.NDArray[np.int64], window_ms: int
) -> dict[str, object]:
    """Return the parameters that say of which devices, and about when, readings are looked for."""
    return {
        "device_id": Int4s(keys >> 16),
        "user_slot": Int2s(keys >> 8 & 0xFF),
        "sign": Int2s(keys & 0xFF),
        "from_at": from_ms(int(measured_ms.min()) - window_ms),
        "to_at": from_ms(int(measured_ms.max()) + window_ms),
    }


def encode_measurements(
    rows: Rows, places: npt.NDArray[np.intp], stored_at_ms: int
) -> list[Stream]:
    """Return the COPY streams of the measurements at `places`, one a sign, in that order."""
    return [
        stream_of("measurement", measurement_columns(rows, of_sign, sign, stored_at_ms))
        for sign, of_sign in places_by_sign(rows, places)
    ]


def stream_of(table: str, columns: Sequence[Column]) -> Stream:
    """Return the COPY stream of the rows that `columns` make."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table),
        sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
    )
    return Stream(statement=statement, data=encode_rows(columns))


async def send(connection: AsyncConnection, stream: Stream) -> None:
    """Run the COPY."""
    await copy_in(connection, stream.statement, stream.data)
