"""What those who follow live read of the archive: whom they watch, and what changed of these.

A transaction serves many readers; the database decides and audits for each (access.begin_each).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from api.access import Needs, Principal
from api.archive import Archive
from api.clinical import AlertDocument
from api.measurement_rows import VALUES, StoredMeasurement, stored_measurement
from gateway.gatt.times import from_ms, ms_since_epoch
from gateway.platform.changes import (
    CHANGES_A_READ,
    DAYS_KEPT,
    START,
    Change,
    Changed,
    Place,
    is_whole,
)
from gateway.platform.postgres import AsyncConnection, dict_row, load_queries, translated

WATCHED_MAX = 20_000
"""One follower watches at most so many residents; the others' news does not come."""
NEWS_MAX = 50_000
"""Measurements that are read for one delivery; of a larger change the rest does not come."""
ALERT_DAYS = DAYS_KEPT - 1
"""Behind an alert so young every change is kept: these go by their flush's time, which is no later."""

_QUERIES = load_queries(Path(__file__).parent / "sql" / "live.sql")
_NEWS = _QUERIES["news"].format(values=VALUES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Something happened to an alert of a resident (the store's key)."""

    place: Place
    event_id: int
    resident_id: int


News = Change | Happened
"""What the feed holds, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """News, and who is to have what of it: `pairs` of a place in `readers` and a resident."""

    readers: Sequence[Principal]
    pairs: Sequence[tuple[int, UUID]]
    news: Sequence[tuple[int, News]]
    """With the number by which `Measured.news` and `Alerted.news` name it."""
    public: Mapping[int, UUID]
    """Those in `pairs`, by the store's keys."""

    @property
    def residents(self) -> frozenset[int]:
        """The store's keys of those in `pairs`."""
        return frozenset(self.public)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A measurement that a change brought, and of whom (the store's key)."""

    news: int
    resident_id: int
    measurement: StoredMeasurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerted:
    """What happened to an alert, when, and how the alert stands now.

    `what`: asked, raised, noted, cleared, withdrawn, acknowledged, resolved, reopened. `resident_id` is
    the store's key; `sign` None: no reading met the rule.
    """

    news: int
    resident_id: int
    sign: int | None
    what: str
    at: datetime
    alert: AlertDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What is there, and which reader may have which resident's: with the signs left out."""

    measured: Sequence[Measured]
    alerted: Sequence[Alerted]
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


async def read_feed(archive: Archive, after: Place) -> list[News]:
    """Return the news behind a place, in its order, at most `CHANGES_A_READ`.

    Raises:
        UnavailableError: the database is down.
    """
    asked = {"transaction": after.transaction, "change": after.change, "limit": CHANGES_A_READ}
    with translated():
        async with archive.pool.connection() as connection:
            rows = await connection.execute(_QUERIES["feed"], asked)
            return [_news(row) for row in await rows.fetchall()]


async def end_of_feed(archive: Archive) -> Place:
    """Return the place behind all that has settled."""
    with translated():
        async with archive.pool.connection() as connection:
            rows = await connection.execute(_QUERIES["end"])
            row = await rows.fetchone()
    return START if row is None else Place(*row)


async def is_kept(archive: Archive, after: Place) -> bool:
    """Tell whether all news behind a place is still there."""
    asked = {"transaction": after.transaction, "change": after.change, "days": ALERT_DAYS}
    with translated():
        async with archive.pool.connection() as connection:
            if await is_whole(connection, after):
                return True
            found = await connection.execute(_QUERIES["is_recent_alert"], asked)
            ((is_recent,),) = await found.fetchall()
    return bool(is_recent)


async def read_news(archive: Archive, wanted: Wanted) -> Given:
    """Decide, audit and read: measurements in one transaction, alerts in another.

    Raises:
        UnavailableError: the database is down or busy; nothing was given to anybody.
    """
    changes = [(number, news) for number, news in wanted.news if isinstance(news, Change)]
    happened = [(number, news) for number, news in wanted.news if isinstance(news, Happened)]
    admitted: dict[tuple[int, int], frozenset[int]] = {}
    measured: list[Measured] = []
    alerted: list[Alerted] = []
    with translated():
        async with archive.pool.connection() as connection:
            if changes:
                whom = _whom(wanted, (int(r) for _n, c in changes for r in c.changed.resident))
                async with connection.transaction():
                    admitted |= await _admitted(connection, "begin_each", whom)
                    measured = await _measured(connection, changes, wanted.residents)
            if happened:
                whom = _whom(wanted, (news.resident_id for _number, news in happened))
                async with connection.transaction():
                    admitted |= await _admitted(connection, "begin_each_alert", whom)
                    alerted = await _alerted(connection, happened)
    return Given(measured=measured, alerted=alerted, admitted=admitted)


def residents_of(news: News) -> set[int]:
    """Return whose news it is, by the store's keys."""
    if isinstance(news, Happened):
        return {news.resident_id}
    return set(news.changed.resident.tolist())


def _news(row: Sequence[Any]) -> News:
    transaction, change, stored_at, resident, sign, oldest, newest, event_id = row
    place = Place(transaction, change)
    if event_id is not None:
        return Happened(place=place, event_id=event_id, resident_id=resident[0])
    return Change(
        place=place,
        stored_at_ms=ms_since_epoch(stored_at),
        changed=Changed(
            resident=np.array(resident, np.int64),
            sign=np.array(sign, np.int64),
            oldest_ms=np.array(oldest, np.int64),
            newest_ms=np.array(newest, np.int64),
        ),
    )


def _whom(wanted: Wanted, residents: Iterable[int]) -> Wanted:
    """Return what is wanted of these residents alone, so that nothing else is audited."""
    named = {wanted.public[resident] for resident in residents if resident in wanted.residents}
    return replace(wanted, pairs=[pair for pair in wanted.pairs if pair[1] in named])


async def _admitted(
    connection: AsyncConnection, query: str, wanted: Wanted
) -> dict[tuple[int, int], frozenset[int]]:
    if not wanted.pairs:
        return {}
    decided = await connection.execute(_QUERIES[query], _readers(wanted))
    return {
        (reader - 1, resident): frozenset(
            pair & 0xFFFF for pair in withheld if pair >> 16 == resident
        )
        for reader, resident, withheld in await decided.fetchall()
    }


async def _measured(
    connection: AsyncConnection,
    changes: Sequence[tuple[int, Change]],
    residents: frozenset[int],
) -> list[Measured]:
    entries = [
        (number, int(resident), int(sign), int(oldest), int(newest), change.stored_at_ms)
        for number, change in changes
        for resident, sign, oldest, newest in zip(
            change.changed.resident.tolist(),
            change.changed.sign.tolist(),
            change.changed.oldest_ms.tolist(),
            change.changed.newest_ms.tolist(),
            strict=True,
        )
        if resident in residents
    ]
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
    return [
        Measured(
            news=number, resident_id=resident_id, measurement=stored_measurement(tuple(columns))
        )
        for *columns, number, resident_id in await rows.fetchall()
    ]


async def _alerted(
    connection: AsyncConnection, happened: Sequence[tuple[int, Happened]]
) -> list[Alerted]:
    number_of = {news.event_id: number for number, news in happened}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_QUERIES["alerts"], {"events": list(number_of)})
        return [
            Alerted(
                news=number_of[row.pop("event_id")],
                resident_id=row.pop("resident_id"),
                sign=row.pop("sign"),
                what=row.pop("what"),
                at=row.pop("at"),
                alert=AlertDocument(**row),
            )
            for row in await cursor.fetchall()
        ]


def _readers(wanted: Wanted) -> dict[str, object]:
    return {
        "readers": [reader.user for reader in wanted.readers],
        "sessions": [reader.session for reader in wanted.readers],
        "origins": [reader.origin for reader in wanted.readers],
        "whom": [resident for _reader, resident in wanted.pairs],
        "reader_of": [reader + 1 for reader, _resident in wanted.pairs],
    }
