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
class Registration:
    """What is entered in one transaction; parts may refer to each other and to what is there."""

    homes: Sequence[UUID] = ()
    residents: Sequence[UUID] = ()
    hubs: Sequence[NewHub] = ()
    devices: Sequence[NewDevice] = ()
    links: Sequence[Link] = ()
