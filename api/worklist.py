"""Readings that wait for a person to say whose they are, and a person's word about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar
from uuid import UUID

from pydantic import ConfigDict

from api.access import Needs, Principal
from api.archive import Archive
from api.corrections import keys_of
from api.cursor import Place, encode_place
from api.people import QUERIES
from gateway.vitals import BY_CODE

NOWHERE = dict.fromkeys(("measured_us", "device_id", "user_slot", "sign", "identity_us"))
"""No place: the list begins with its first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReading:
    """A reading that nobody is known to be the owner of. No value: it may be another's."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    id: str
    measured_at: datetime
    device: str
    user_slot: int
    """255: it names no slot."""
    sign: str
    probability: float | None
    """How likely it is the resident's by the household's history; null: the history was not asked."""


async def list_waiting(
    archive: Archive, principal: Principal, resident: UUID, after: str | None, limit: int
) -> list[WaitingReading]:
    """Return readings that may be a resident's, the newest first, from behind the id `after`.

    Raises:
        UsageError: `after` is no id of a reading.
    """
    place = NOWHERE if after is None else _place(after)
    async with archive.reading(
        principal, action="worklist.read", needs=Needs.CLAIMS, resident=resident
    ) as connection:
        cursor = await connection.execute(
            QUERIES["unassigned"], {**place, "resident": resident, "limit": limit}
        )
        rows = await cursor.fetchall()
    return [_waiting(*row) for row in rows]


async def claim(
    archive: Archive,
    principal: Principal,
    resident: UUID,
    readings: Sequence[str],
    reason: str | None,
) -> bool:
    """Say that readings (their ids) are a resident's; False where one is not there to be claimed.

    Raises:
        UsageError: an id is none of a reading.
        ForbiddenError: one has, or may have, an owner whom the principal may not name.
    """
    return await archive.writing(
        principal,
        Needs.CLAIMS,
        QUERIES["claim"],
        resident=resident,
        reason=reason,
        **keys_of(readings),
    )


def _place(reading: str) -> dict[str, int]:
    keys = keys_of([reading])
    names = {"devices": "device_id", "user_slots": "user_slot", "signs": "sign"}
    return {names.get(name, name): values[0] for name, values in keys.items()}


def _waiting(
    measured_at: datetime,
    device_id: int,
    user_slot: int,
    sign: int,
    identity_us: int,
    device: str,
    probability: float | None,
) -> WaitingReading:
    place = Place(
        measured_at=measured_at,
        device_id=device_id,
        user_slot=user_slot,
        sign=sign,
        identity_us=identity_us,
    )
    return WaitingReading(
        id=encode_place(place),
        measured_at=measured_at.astimezone(UTC),
        device=device,
        user_slot=user_slot,
        sign=BY_CODE[sign].name,
        probability=None if probability is None else round(probability, 3),
    )
