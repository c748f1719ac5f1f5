"""What those who follow live read of the archive: whom they watch, and what changed of these.

One transaction serves many readers; the database decides and audits for each (access.begin_each).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from api.access import Needs, Principal
from api.archive import Archive
from api.measurement_rows import VALUES, StoredMeasurement, stored_measurement
from gateway.gatt.times import from_ms
from gateway.platform.changes import Change
from gateway.platform.postgres import load_queries, translated

WATCHED_MAX = 20_000
"""One follower watches at most so many residents; the others' news does not come."""
NEWS_MAX = 50_000
"""Measurements that are read for one delivery; of a larger change the rest does not come."""

_QUERIES = load_queries(Path(__file__).parent / "sql" / "live.sql")
_NEWS = _QUERIES["news"].format(values=VALUES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Changes, and who is to have what of them: `pairs` of a place in `readers` and a resident."""

    readers: Sequence[Principal]
    pairs: Sequence[tuple[int, UUID]]
    changes: Sequence[tuple[int, Change]]
    """With the number by which `Measured.change` names it."""
    residents: frozenset[int]
    """The store's keys of those in `pairs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A measurement that a change brought, and of whom (the store's key)."""

    change: int
    resident_id: int
    measurement: StoredMeasurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What is there, and which reader may have which resident's: with the signs left out."""

    measured: Sequence[Measured]
    admitted: Mapping[tuple[int, int], frozenset[int]]
    """(Place in the readers, resident) -> codes of the signs that are withheld."""


async def watched(
    archive: Archive, principal: Principal, residents: Sequence[UUID] | None
) -> dict[int, UUID]:
    """Return whom a principal may see, by the store's key; of `residents` where they are given.

    Raises:
        ForbiddenError: the principal may see no one's values, or not those of one of `residents`.
        SignedOutError: the account is disabled or the session revoked.
    """
    # Values of those who are named; else whose they would be, without a row of audit for each.
    needs = Needs.RECORD if residents is None else Needs.VALUES
    async with archive.reading(
        principal, action="live.follow", needs=needs, residents=residents or ()
    ) as connection:
        cursor = await connection.execute(
            _QUERIES["watched"],
            {"residents": None if residents is None else list(residents), "limit": WATCHED_MAX},
        )
        return dict(await cursor.fetchall())


async def read_news(archive: Archive, wanted: Wanted) -> Given:
    """Decide, audit and read in one transaction.

    Raises:
        UnavailableError: the database is down or busy; nothing was given to anybody.
    """
    entries = [
        (number, int(resident), int(sign), int(oldest), int(newest), change.stored_at_ms)
        for number, change in wanted.changes
        for resident, sign, oldest, newest in zip(
            change.changed.resident.tolist(),
            change.changed.sign.tolist(),
            change.changed.oldest_ms.tolist(),
            change.changed.newest_ms.tolist(),
            strict=True,
        )
        if resident in wanted.residents
    ]
    with translated():
        async with archive.pool.connection() as connection, connection.transaction():
            decided = await connection.execute(_QUERIES["begin_each"], _readers(wanted))
            admitted = {
                (reader - 1, resident): frozenset(
                    pair & 0xFFFF for pair in withheld if pair >> 16 == resident
                )
                for reader, resident, withheld in await decided.fetchall()
            }
            rows = await connection.execute(
                _NEWS,
                {
                    "number": [entry[0] for entry in entries],
                    "resident": [entry[1] for entry in entries],
                    "sign": [entry[2] for entry in entries],
                    "oldest_at": [from_ms(entry[3]) for entry in entries],
                    "newest_at": [from_ms(entry[4]) for entry in entries],
                    "stored_at": [from_ms(entry[5]) for entry in entries],
                    "limit": NEWS_MAX,
                },
                prepare=True,
            )
            measured = [
                Measured(
                    change=number,
                    resident_id=resident_id,
                    measurement=stored_measurement(tuple(columns)),
                )
                for *columns, number, resident_id in await rows.fetchall()
            ]
    return Given(measured=measured, admitted=admitted)


def _readers(wanted: Wanted) -> dict[str, object]:
    return {
        "readers": [reader.user for reader in wanted.readers],
        "sessions": [reader.session for reader in wanted.readers],
        "origins": [reader.origin for reader in wanted.readers],
        "whom": [resident for _reader, resident in wanted.pairs],
        "reader_of": [reader + 1 for reader, _resident in wanted.pairs],
    }
