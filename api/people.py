"""Residents as people: found by number or name, described, given limits of their own.

A search goes by keyed hash and comes in a body, so that no number reaches an address or a log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import ClassVar
from uuid import UUID

from pydantic import ConfigDict

from api.access import ForbiddenError, Needs, Principal, Role
from api.archive import Archive, UnknownResidentError
from api.moments import Day
from api.profile import ProfileError, Target, checked_target, targets_json
from api.vault import Identity, IdentityVault, Sealed
from gateway.errors import DataError
from gateway.identity_number import NumberError, Sex, read_card_number, read_identity_number
from gateway.platform.postgres import Jsonb, TupleRow, load_queries

FOUND_MAX = 50
"""A search that finds more shows the first; a name and a date of birth may be many people's."""
TARGETS_MAX = 100
"""More limits than there are quantities are refused."""

QUERIES = load_queries(Path(__file__).parent / "sql" / "people.sql")
_DOCUMENTED = ConfigDict(use_attribute_docstrings=True)


class ChangedMeanwhileError(DataError):
    """What a conditional write was to replace is not there any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentSearch:
    """Who is looked for: by one of the numbers, or by name and date of birth together."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        use_attribute_docstrings=True, extra="forbid"
    )

    national_id: str | None = None
    """The resident identity number (GB 11643)."""
    health_card: str | None = None
    """The health card's number."""
    name: str | None = None
    birth_date: Day | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundResident:
    """Someone whom a search found."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    id: UUID
    visible: bool
    """Whether you may see this resident; if not, nothing more is told."""
    name: str | None
    birth_date: date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundResidents:
    """What a search found."""

    items: Sequence[FoundResident]


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonDocument:
    """What the archive knows of a resident beside the measurements."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    id: UUID
    name: str | None
    national_id: str | None
    health_card: str | None
    birth_date: date | None
    birth_year: int | None
    sex: str
    """unknown, male, female or unspecified (GB/T 2261.1)."""
    height_cm: float | None
    clinic: str | None
    """The clinic's code."""
    targets: dict[str, Target]
    """Limits of the resident's own, by quantity; they override those of a rule set."""
    merged_into: UUID | None
    """This is a double entry: everything is at the other one."""
    erased: bool
    """The identity was erased at the resident's wish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """A resident's own limits, by quantity."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        use_attribute_docstrings=True, extra="forbid"
    )

    targets: dict[str, Target] = field(default_factory=dict)
    """In the quantity's own unit (/signs); what is left out has no limit of its own."""


async def search(
    archive: Archive,
    vault: IdentityVault,
    principal: Principal,
    wanted: ResidentSearch,
    today: date,
) -> FoundResidents:
    """Find residents; whom the principal may not see is told by the opaque id only.

    Raises:
        ProfileError: what is looked for cannot be anybody's, or too little was given.
        ForbiddenError: a resident searches.
    """
    if principal.role is Role.RESIDENT:
        raise ForbiddenError("role")
    marks = vault.marks(_wanted(wanted, today))
    parameters = {
        "national_id": marks.national_id,
        "health_card": marks.health_card,
        "name": marks.name,
        "limit": FOUND_MAX,
    }
    async with archive.reading(
        principal, action="resident.search", needs=Needs.RECORD
    ) as connection:
        cursor = await connection.execute(QUERIES["find"], parameters)
        rows = await cursor.fetchall()
        await archive.tell(
            connection,
            principal,
            action="resident.search",
            needs=Needs.RECORD,
            residents=[resident for resident, is_visible, *_sealed in rows if is_visible],
        )
    return FoundResidents(items=[_found(vault, *row) for row in rows])


async def person(
    archive: Archive, vault: IdentityVault, principal: Principal, resident: UUID
) -> PersonDocument:
    """Return what is known of one resident; `Archive.reading` names the errors."""
    async with archive.reading(
        principal, action="profile.read", needs=Needs.RECORD, resident=resident
    ) as connection:
        cursor = await connection.execute(QUERIES["profile"], {"resident": resident})
        row = await cursor.fetchone()
    if row is None:
        raise UnknownResidentError
    return person_document(vault, resident, row)


async def targets_of(archive: Archive, principal: Principal, resident: UUID) -> Targets:
    """Return a resident's own limits."""
    async with archive.reading(
        principal, action="targets.read", needs=Needs.RECORD, resident=resident
    ) as connection:
        cursor = await connection.execute(QUERIES["profile"], {"resident": resident})
        row = await cursor.fetchone()
    if row is None:
        raise UnknownResidentError
    return Targets(targets=_targets(row[4]))


async def set_targets(
    archive: Archive,
    principal: Principal,
    resident: UUID,
    targets: Targets,
    before: Targets | None,
) -> Targets:
    """Set a resident's own limits; with `before`, only if these are there still.

    Raises:
        ProfileError: a limit cannot be.
        ChangedMeanwhileError: other limits are there than `before`.
    """
    if len(targets.targets) > TARGETS_MAX:
        raise ProfileError("targets", "too_many")
    checked = {name: checked_target(name, target) for name, target in targets.targets.items()}
    done = await archive.writing(
        principal,
        Needs.TARGETS,
        QUERIES["set_targets"],
        resident=resident,
        targets=Jsonb(targets_json(checked)),
        before=None if before is None else Jsonb(targets_json(before.targets)),
    )
    if not done:
        raise ChangedMeanwhileError
    return Targets(targets=checked)


def person_document(vault: IdentityVault, resident: UUID, row: TupleRow) -> PersonDocument:
    """Return what the API says of a row of the query `profile`."""
    (birth_year, sex, height_cm, clinic, targets, sealed, key_id, wrapped, erased_at, kept) = row
    identity = _identity(vault, resident, sealed, key_id, wrapped)
    return PersonDocument(
        id=resident,
        name=identity.name,
        national_id=identity.national_id,
        health_card=identity.health_card,
        birth_date=identity.birth_date,
        birth_year=birth_year,
        sex=Sex(sex or 0).name.lower(),
        height_cm=height_cm,
        clinic=clinic,
        targets=_targets(targets),
        merged_into=kept,
        erased=erased_at is not None,
    )


def _wanted(wanted: ResidentSearch, today: date) -> Identity:
    try:
        number = (
            None
            if wanted.national_id is None
            else read_identity_number(wanted.national_id, today).text
        )
    except NumberError as error:
        raise ProfileError("national_id", error.fault.value) from error
    try:
        card = None if wanted.health_card is None else read_card_number(wanted.health_card)
    except NumberError as error:
        raise ProfileError("health_card", error.fault.value) from error
    if number is None and card is None and (wanted.name is None or wanted.birth_date is None):
        raise ProfileError("national_id", "needs_a_number_or_name_and_birth_date")
    return Identity(
        name=wanted.name, national_id=number, health_card=card, birth_date=wanted.birth_date
    )


def _found(
    vault: IdentityVault,
    resident: UUID,
    visible: bool,  # noqa: FBT001 - a column
    sealed: bytes | None,
    key_id: int | None,
    wrapped: bytes | None,
) -> FoundResident:
    identity = _identity(vault, resident, sealed, key_id, wrapped) if visible else Identity()
    return FoundResident(
        id=resident, visible=visible, name=identity.name, birth_date=identity.birth_date
    )


def _identity(
    vault: IdentityVault,
    resident: UUID,
    sealed: bytes | None,
    key_id: int | None,
    wrapped: bytes | None,
) -> Identity:
    if sealed is None or key_id is None or wrapped is None:
        return Identity()
    return vault.unseal(resident, Sealed(key_id=key_id, wrapped=wrapped, content=sealed))


def _targets(stored: Mapping[str, Mapping[str, float]] | None) -> dict[str, Target]:
    return {
        quantity: Target(low=sides.get("low"), high=sides.get("high"))
        for quantity, sides in (stored or {}).items()
    }
