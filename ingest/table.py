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
from gateway.stored import FLAG_ELSEWHERE
from ingest.copy_binary import Column, encode_rows
from ingest.guard import hold_devices
from ingest.registry import Ids
from ingest.rows import (
    BROADCAST_MS,
    IDENTITY_WINDOW_MS,
    LATE_MS,
    MISDATED_WINDOW_MS,
    Rows,
    Stored,
    device_keys,
    measurement_columns,
    misdated,
    numbered,
    places_by_sign,
    received_after_s,
    settle_against,
)
from ingest.verdicts import Verdict

_QUERIES = load_queries(Path(__file__).parent / "sql" / "table.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A COPY statement and all it takes."""

    statement: sql.Composed
    data: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the store had of a flush. `earlier`: places whose reception tells more than the row's did."""

    any: bool
    earlier: npt.NDArray[np.intp]


async def look_up_by_index(connection: AsyncConnection) -> None:
    """Let each look-up of this transaction be an index scan of its own."""
    await connection.execute(_QUERIES["look_up_by_index"])


async def settle_stored(
    connection: AsyncConnection,
    rows: Rows,
    verdict: npt.NDArray[np.uint8],
    places: npt.NDArray[np.intp],
) -> Found:
    """Look up the readings at `places`; those that are stored already get their verdict.

    A row that says that it was received late gets the earlier reception of a duplicate.
    """
    if not len(places):
        return Found(any=False, earlier=places)
    await look_up_by_index(connection)
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
    return Found(
        any=heard or any(each.any for each in found),
        earlier=np.concatenate([each.earlier for each in found]),
    )


async def newest_stored(
    connection: AsyncConnection, rows: Rows, places: npt.NDArray[np.intp], device_id: Ids
) -> tuple[Ids, npt.NDArray[np.int64]]:
    """Return the latest identity time of each device, (n,), of what is stored from about `places` on."""
    if not len(device_id):
        return device_id, np.empty(0, np.int64)
    measured_ms = rows.judged.measured_ms[places]
    await look_up_by_index(connection)
    found = await connection.execute(
        _QUERIES["newest_stored"],
        {
            "device_id": Int4s(device_id),
            "from_at": from_ms(int(measured_ms.min()) - IDENTITY_WINDOW_MS),
        },
    )
    device, latest_ms = np.array(await found.fetchall(), np.int64).reshape(-1, 2).T
    return device.astype(np.int32), latest_ms


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
) -> Found:
    if not len(places):
        return Found(any=False, earlier=places)
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
    key, *columns, after_s = np.array(await found.fetchall(), np.float64).reshape(-1, 5).T
    identity_ms, content_hash, stored_ms = (column.astype(np.int64) for column in columns)
    stored = Stored(
        key=keys[key.astype(np.intp) - 1],
        identity_ms=identity_ms,
        content_hash=content_hash.astype(np.int32),
        measured_ms=stored_ms,
        received_after_s=after_s.astype(np.float32),
    )
    again, match = settle_against(rows, verdict, places, stored)
    earlier, match = _earlier(rows, again, match, stored)
    if len(earlier):
        await _keep_first_reception(connection, rows, earlier, match, stored)
    return Found(any=len(key) > 0, earlier=earlier)


def _earlier(
    rows: Rows, places: npt.NDArray[np.intp], match: npt.NDArray[np.intp], stored: Stored
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return those of the pairs where the stored one was late and this one was received before it."""
    after_s = received_after_s(rows.judged.received_ms[places], stored.measured_ms[match])
    before_s = stored.received_after_s[match]
    tells = (before_s >= LATE_MS / 1000) & (after_s < before_s - 1)
    return places[tells], match[tells]


async def _keep_first_reception(
    connection: AsyncConnection,
    rows: Rows,
    places: npt.NDArray[np.intp],
    match: npt.NDArray[np.intp],
    stored: Stored,
) -> None:
    """Let stored rows have the reception of the readings at `places`, which are the same."""
    keys, measured_ms = stored.key[match], stored.measured_ms[match]
    await hold_devices(connection, late=keys >> 16)
    await connection.execute(
        _QUERIES["received_earlier"],
        {
            "identity_ms": Int8s(stored.identity_ms[match]),
            "measured_ms": Int8s(measured_ms),
            "received_ms": Int8s(rows.judged.received_ms[places]),
            "elsewhere": FLAG_ELSEWHERE,
        }
        | _asked(keys, measured_ms, 1),
    )


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
