"""Homes, hubs, devices, residents and links, as they are entered and as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A home, with how many hubs and devices it has."""

    id: UUID
    created_at: datetime
    hubs: int
    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A resident, known by an opaque id only."""

    id: UUID
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """An enrolled hub."""

    name: str
    home: UUID
    enrolled_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A registered device."""

    address: str
    home: UUID
    model: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHub:
    """A hub to enter; `name` is 16 hexadecimal digits."""

    name: str
    home: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDevice:
    """A device to enter; a `model` that is given replaces what was noted."""

    address: str
    home: UUID
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Who is measured by a user slot of a device, from `starts_at` up to before `ends_at`.

    None: from ever, for ever. Slot 255: readings that name no slot.
    """

    device: str
    user_slot: int
    resident: UUID
    starts_at: datetime | None
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLink:
    """One of those who use a slot that several use, from `starts_at` up to before `ends_at`.

    `usual` is what the resident says is usual for them, of the first quantity of the device's
    sign: where attribution starts before it has a history.
    """

    device: str
    user_slot: int
    resident: UUID
    starts_at: datetime | None
    ends_at: datetime | None = None
    usual: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What is entered in one transaction; parts may refer to each other and to what is there."""

    homes: Sequence[UUID] = ()
    residents: Sequence[UUID] = ()
    hubs: Sequence[NewHub] = ()
    devices: Sequence[NewDevice] = ()
    links: Sequence[Link] = ()
    shared_links: Sequence[SharedLink] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What was put right about whose readings are.

    `resident`: the new owner, None where nobody or not one and the same. `readings`: how many
    readings it moved.
    """

    correction_id: int
    made_at: datetime
    kind: str
    actor: str
    reason: str | None
    device: str | None
    user_slot: int | None
    from_at: datetime | None
    until_at: datetime | None
    resident: UUID | None
    readings: int
    undone_by: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """Whose a reading was thought to be, from `believed_from` until `believed_until` (None: now).

    `reading` is its id in the API; `corrected_by` the correction that ended the belief.
    """

    reading: str
    measured_at: datetime
    device: str
    user_slot: int
    sign: str
    resident: UUID | None
    believed_from: datetime
    believed_until: datetime | None
    corrected_by: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """How likely a reading is a resident's; None: someone else's."""

    resident: str | None
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unassigned:
    """A stored reading that nobody is known to be the owner of; `reading` is its id.

    `candidates`: the most likely first; empty where the household's history was not asked.
    """

    reading: str
    measured_at: datetime
    device: str
    user_slot: int
    sign: str
    values: dict[str, float]
    candidates: list[Candidate]
