"""What is usual, from the store: what the memory lacks, and what late readings have changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from gateway.gatt.times import from_ms, ms_since_epoch
from gateway.platform.changes import record_change, summarised
from gateway.platform.postgres import (
    AsyncConnection,
    Int2s,
    Int4s,
    Int8s,
    connect,
    load_queries,
    sql,
    translated,
)
from gateway.stored import FLAG_ARTEFACT, FLAG_UNUSUAL
from gateway.vital_sign import QUANTITIES_MAX, VitalSign
from gateway.vitals import BY_CODE
from ingest.baselines.memory import Memory
from ingest.baselines.rule import AGE_MS_MAX, WINDOW, Ints, Ready, Series, Values, key_of, unusual
from ingest.guard import hold

LOADED_MAX = 2_000
"""So many residents' signs are loaded for a flush; readings of the others are looked at afterwards."""
DUE_MAX = 500
"""So many notes of what is due are taken up in one go."""
READINGS_MAX = 5_000
"""Between the two times of a note so many readings are looked at; the others are noted anew."""

_QUERIES = load_queries(Path(__file__).parent.parent / "sql" / "baselines.sql")


class Baselines:
    """The memory, and a connection of its own to load what it lacks."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: AsyncConnection | None = None
        self.memory = Memory()

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    async def load(self, rows: Ready) -> None:
        """Let the memory have what it lacks of these readings' residents, within `LOADED_MAX`.

        Raises:
            UnavailableError: the database is down.
        """
        lacking = self.memory.missing(rows.key)[:LOADED_MAX]
        if not len(lacking):
            return
        if self._connection is None or self._connection.closed:
            self._connection = await connect(
                self._dsn, application="hearth-ingest-baselines", autocommit=True
            )
        from_ms_ = int(rows.at_ms.min()) - AGE_MS_MAX
        for code in np.unique(lacking & 0xFF).tolist():
            of_sign = lacking[(lacking & 0xFF) == code]
            with translated():
                series = await _newest(self._connection, BY_CODE[code], of_sign, from_ms_)
            self.memory.add(of_sign, series)


async def _newest(
    connection: AsyncConnection, sign: VitalSign, keys: Ints, from_ms_: int
) -> Series:
    rows = await connection.execute(
        _of(sign, "newest"),
        {
            "residents": Int4s(keys >> 8),
            "sign": sign.code,
            "artefact": FLAG_ARTEFACT,
            "window": WINDOW,
            "from_at": from_ms(from_ms_),
        },
    )
    found = await rows.fetchall()
    resident, at_ms = _integers(found, 2)
    order = np.lexsort((at_ms, resident))
    key = key_of(resident, np.full(len(resident), sign.code))
    return Series(
        key=key[order],
        at_ms=at_ms[order],
        value=_values(found, 2)[order],
        asked=np.zeros(len(found), np.bool_),
    )


async def evaluate_due(connection: AsyncConnection) -> tuple[int, int]:
    """Look at what is due; return how many notes were taken and how many marks changed.

    Raises:
        UnavailableError: the database is down.
    """
    with translated():
        async with connection.transaction():
            await hold(connection)
            rows = await connection.execute(_QUERIES["take_due"], {"limit": DUE_MAX})
            due = await rows.fetchall()
            changed = 0
            for code, of_sign in groupby(due, key=itemgetter(0)):
                changed += await _evaluate(connection, BY_CODE[code], list(of_sign))
    return len(due), changed


async def evaluate_all(connection: AsyncConnection) -> int:
    """Look at everything that is stored; return how many marks changed."""
    with translated():
        await connection.execute(_QUERIES["all_due"])
    changed = 0
    while True:
        taken, marked = await evaluate_due(connection)
        changed += marked
        if not taken:
            return changed


async def _evaluate(
    connection: AsyncConnection, sign: VitalSign, due: Sequence[tuple[Any, ...]]
) -> int:
    found = await connection.execute(
        _of(sign, "around"),
        {
            "residents": [resident for _sign, resident, _from, _to in due],
            "from_at": [from_at for _sign, _resident, from_at, _to in due],
            "to_at": [to_at for _sign, _resident, _from, to_at in due],
            "sign": sign.code,
            "artefact": FLAG_ARTEFACT,
            "window": WINDOW,
            "limit": READINGS_MAX,
        },
    )
    rows = await found.fetchall()
    columns = _integers(rows, 7)
    order = np.lexsort((columns[4], columns[3], columns[2], columns[1], columns[0]))
    resident, at_ms, identity_ms, device_id, user_slot, flags, asked = columns[:, order]
    series = Series(
        key=key_of(resident, np.full(len(resident), sign.code)),
        at_ms=at_ms,
        value=_values(rows, 7)[order],
        asked=asked != 0,
    )
    await _note_rest(connection, sign, series, due)
    marked = np.where(unusual(series), flags | FLAG_UNUSUAL, flags & ~FLAG_UNUSUAL)
    differs = series.asked & (marked != flags)
    if differs.any():
        await connection.execute(
            _QUERIES["mark"],
            {
                "residents": Int4s(resident[differs]),
                "measured_ms": Int8s(at_ms[differs]),
                "identity_ms": Int8s(identity_ms[differs]),
                "devices": Int4s(device_id[differs]),
                "user_slots": Int2s(user_slot[differs]),
                "flags": Int2s(marked[differs]),
                "sign": sign.code,
                "times": [from_ms(ms) for ms in at_ms[differs].tolist()],
            },
        )
        clock = await connection.execute(_QUERIES["now_ms"])
        ((now_ms,),) = await clock.fetchall()
        changed = summarised(resident[differs], np.full(differs.sum(), sign.code), at_ms[differs])
        await record_change(connection, changed, now_ms)
    return int(differs.sum())


async def _note_rest(
    connection: AsyncConnection, sign: VitalSign, series: Series, due: Sequence[tuple[Any, ...]]
) -> None:
    """Note what is due anew from the last reading on, where there may be more than were read."""
    rest = []
    for _sign, resident, from_at, to_at in due:
        key = resident << 8 | sign.code
        first, end = np.searchsorted(series.key, key), np.searchsorted(series.key, key, "right")
        within = series.at_ms[first:end][series.asked[first:end]]
        within = within[within <= ms_since_epoch(to_at)]
        if len(within) >= READINGS_MAX and within[-1] > ms_since_epoch(from_at):
            rest.append((resident, from_ms(int(within[-1])), to_at))
    if rest:
        await connection.execute(
            _QUERIES["note_rest"],
            {
                "sign": sign.code,
                "residents": [resident for resident, _from_at, _to_at in rest],
                "from_at": [from_at for _resident, from_at, _to_at in rest],
                "to_at": [to_at for _resident, _from_at, to_at in rest],
            },
        )


def _integers(rows: Sequence[tuple[Any, ...]], width: int) -> Ints:
    return np.array([row[:width] for row in rows], np.int64).reshape(-1, width).T


def _values(rows: Sequence[tuple[Any, ...]], first: int) -> Values:
    values = np.full((len(rows), QUANTITIES_MAX), np.nan, np.float32)
    if rows:
        given = np.array([row[first:] for row in rows], np.float64)
        values[:, : given.shape[1]] = given
    return values


def _of(sign: VitalSign, query: str) -> sql.Composed:
    quantities = sql.SQL(", ").join(sql.Identifier(quantity.name) for quantity in sign.quantities)
    return _QUERIES[query].format(quantities=quantities)
