"""Lists for whoever keeps the service running: links, what was kept apart, who was last measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import ClassVar
from uuid import UUID

from pydantic import ConfigDict

from api.access import Needs, Principal
from api.archive import Archive
from api.people import QUERIES
from api.records import Link
from api.registry import canonical_address
from gateway.measurement import device_address
from gateway.platform.postgres import TupleRow, dict_row
from gateway.stored import QUARANTINE_KINDS, QUARANTINE_REASONS
from gateway.vitals import BY_CODE

_DOCUMENTED = ConfigDict(use_attribute_docstrings=True)
REASON_OF = {name: number for number, name in QUARANTINE_REASONS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEntry:
    """A link in force."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    id: int
    device: str
    user_slot: int
    """255: readings that name no slot."""
    resident: UUID
    starts_at: datetime | None
    """null: from ever."""
    ends_at: datetime | None
    """null: for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineEntry:
    """Something that was kept apart, without its content."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    id: int
    kind: str
    """measurement, payload or message."""
    reason: str
    state: str
    """waiting, replayed or discarded."""
    sign: str | None
    hub: str | None
    device: str | None
    received_at: datetime
    measured_at: datetime | None
    quarantined_at: datetime
    resolved_at: datetime | None
    seen: int
    """How often the same message came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastMeasured:
    """When a resident was last measured; no values."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    resident: UUID
    last_measured_at: datetime | None
    """The latest of all signs; null: never."""
    signs: dict[str, datetime]
    """The latest of each sign, by when it was measured."""


async def list_links(
    archive: Archive,
    principal: Principal,
    *,
    device: str | None,
    resident: UUID | None,
    after: int | None,
    page: int,
) -> list[LinkEntry]:
    """Return links in force of whom the principal may see: a page, and one more where there is one."""
    async with archive.reading(
        principal, action="link.list", needs=Needs.RECORD, resident=resident
    ) as connection:
        cursor = await connection.execute(
            QUERIES["list_links"],
            {"device": device, "resident": resident, "after": after, "limit": page + 1},
        )
        rows = await cursor.fetchall()
        if resident is None:
            shown = {row[3] for row in rows[:page]}
            await archive.tell(
                connection,
                principal,
                action="link.list",
                needs=Needs.RECORD,
                residents=sorted(shown),
            )
    return [
        LinkEntry(
            id=id_,
            device=address,
            user_slot=user_slot,
            resident=whose,
            starts_at=starts_at,
            ends_at=ends_at,
        )
        for id_, address, user_slot, whose, starts_at, ends_at in rows
    ]


async def add_link(archive: Archive, principal: Principal, link: Link) -> bool:
    """Link a slot to a resident; False where the device is not entered.

    Raises:
        DataError: the slot is somebody else's at that time.
    """
    return await archive.writing(
        principal,
        Needs.LINKS,
        QUERIES["add_link"],
        resident=link.resident,
        device=canonical_address(link.device),
        user_slot=link.user_slot,
        starts_at=link.starts_at,
        ends_at=link.ends_at,
    )


async def end_link(
    archive: Archive,
    principal: Principal,
    *,
    device: str,
    user_slot: int,
    resident: UUID,
    at: datetime,
) -> bool:
    """End a link at a moment; False where there was none."""
    return await archive.writing(
        principal,
        Needs.LINKS,
        QUERIES["end_link"],
        resident=resident,
        device=canonical_address(device),
        user_slot=user_slot,
        at=at,
    )


async def list_quarantine(
    archive: Archive,
    principal: Principal,
    *,
    state: str | None,
    reason: str | None,
    after: int | None,
    limit: int,
) -> list[QuarantineEntry]:
    """Return what was kept apart, the newest first."""
    async with (
        archive.reading(principal, action="quarantine.list", needs=Needs.EQUIPMENT) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        await cursor.execute(
            QUERIES["list_quarantine"],
            {
                "state": state,
                "reason": None if reason is None else REASON_OF[reason],
                "after": after,
                "limit": limit,
            },
        )
        rows = await cursor.fetchall()
    return [
        QuarantineEntry(
            **{
                **row,
                "kind": QUARANTINE_KINDS[row["kind"]],
                "reason": QUARANTINE_REASONS.get(row["reason"], str(row["reason"])),
                "sign": BY_CODE[row["sign"]].name if row["sign"] in BY_CODE else None,
                "device": None if row["device"] is None else device_address(row["device"] % 2**64),
            }
        )
        for row in rows
    ]


async def last_measured(
    archive: Archive, principal: Principal, after: UUID | None, page: int
) -> list[LastMeasured]:
    """Return when each resident whom the principal may list was last measured.

    A page of residents, and one more where there is one.
    """
    async with archive.reading(
        principal, action="worklist.read", needs=Needs.WORKLIST
    ) as connection:
        cursor = await connection.execute(
            QUERIES["last_measured"],
            {"signs": list(BY_CODE), "after": after, "limit": page + 1},
            prepare=True,
        )
        rows = await cursor.fetchall()
        whom = list(dict.fromkeys(map(_resident_of, rows)))
        await archive.tell(
            connection,
            principal,
            action="worklist.read",
            needs=Needs.WORKLIST,
            residents=whom[:page],
        )
    return [_last_measured(whose, list(of_one)) for whose, of_one in groupby(rows, _resident_of)]


def _resident_of(row: TupleRow) -> UUID:
    resident: UUID = row[0]
    return resident


def _last_measured(resident: UUID, rows: Sequence[TupleRow]) -> LastMeasured:
    signs = {BY_CODE[code].name: at for _resident, code, at in rows if at is not None}
    return LastMeasured(
        resident=resident, last_measured_at=max(signs.values(), default=None), signs=signs
    )
