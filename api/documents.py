"""What the REST API says, as types: orjson writes them, and OpenAPI is made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar
from uuid import UUID

import orjson
from pydantic import ConfigDict, Field, GetPydanticSchema, WithJsonSchema
from pydantic_core import core_schema

from api.records import Link
from gateway.quantity import Text

_DOCUMENTED = ConfigDict(use_attribute_docstrings=True)

ExactNumber = Annotated[
    orjson.Fragment,
    GetPydanticSchema(lambda _type, _handler: core_schema.any_schema()),
    WithJsonSchema({"type": "number"}),
]
"""A JSON number whose digits are chosen by us: 36.60 is not 36.6."""
Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339 with milliseconds."""

Attribution = Literal["linked", "inferred", "confirmed"]

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[_Item]):
    """Some items and how to go on."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    items: Sequence[_Item]
    next: str | None
    """What to send as `after` for the page behind this one; null: this is the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentValue:
    """A value with exactly the digits that the device sent."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    value: ExactNumber
    unit: str
    """UCUM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedValue:
    """A value that the device sent in another unit."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    value: ExactNumber
    """In the quantity's own unit, with the decimals that the device's step has there."""
    unit: str
    """UCUM."""
    original: PresentValue
    """As the device sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsentValue:
    """A value that is not there, and why."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    absent: str
    """The reason; /signs lists them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementDocument:
    """One measurement of a resident."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    id: str
    """Opaque and stable."""
    sign: str
    """The name of the vital sign; /signs describes it."""
    device: str
    """The device's address."""
    user_slot: int | None
    """The device's user who was measured; null: it did not say."""
    measured_at: Instant
    """With the offset where it was measured; Z: the offset is not known."""
    received_at: Instant
    """When the hub received it."""
    stored_at: Instant
    """When it came into the archive, or was last changed there."""
    time_quality: str
    """How `measured_at` came about; /signs lists the ways."""
    values: dict[str, PresentValue | ConvertedValue | AbsentValue]
    """By the name of the quantity."""
    statuses: list[str]
    """What the device said of the measurement; the sign's description lists the names."""
    artefact: bool
    """A status says that the measurement was disturbed: it is left out of averages."""
    unusual: bool
    """Far from what is usual for the resident; it counts all the same."""
    attribution: Attribution
    """How the resident was found: by the link of the device's slot, by the history of a household
    that shares it, or by a person's word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestOfSign:
    """The latest measurement of a sign, by when it was measured."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    latest: MeasurementDocument
    latest_without_artefact: MeasurementDocument | None
    """The same one where it is no artefact; null: all are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentDocument:
    """A resident and who is measured by what."""

    id: UUID
    created_at: datetime
    links: Sequence[Link]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubLedger:
    """What became of what a hub published: published = stored + duplicate + quarantined."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    hub: str
    epochs: int
    """How often the hub began to count anew."""
    batches: int
    missing: int
    """Batches that are not here though a later one of their epoch is."""
    published: int
    stored: int
    duplicate: int
    quarantined: int
    balanced: bool
    """Every measurement is accounted for and no batch is missing."""
    last_committed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Which Hearth answers, over which schema."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    version: str
    schema_version: int
    """The migration that was applied last."""
    lacking_columns: Sequence[str]
    """What the schema needs before this version is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlausibleRange:
    """A closed range; what lies outside is kept apart, not altered."""

    low: float
    high: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantityDocument:
    """One number and its meaning."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    name: str
    title: Text
    unit: str
    """UCUM; every value is given in it."""
    units: Sequence[str]
    """UCUM; what devices may send it in."""
    loinc: str | None
    mdc: int | None
    plausible: PlausibleRange


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusDocument:
    """One thing that a device can say of a measurement."""

    name: str
    title: Text
    artefact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleDocument:
    """A relation that no true measurement breaks; one that does is kept apart."""

    name: str
    says: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class SignDocument:
    """One vital sign."""

    name: str
    title: Text
    loinc: str | None
    mdc: int | None
    quantities: Sequence[QuantityDocument]
    statuses: Sequence[StatusDocument]
    rules: Sequence[RuleDocument]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The words that measurements use."""

    signs: Sequence[SignDocument]
    absences: Sequence[str]
    time_qualities: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """Who asks, as the token says."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    id: UUID
    role: str
    resident: UUID | None
    """A resident's own archive."""
    scopes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One act on a resident's data: who, what, why, from where."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    id: int
    at: datetime
    action: str
    """noun.verb, such as measurement.read."""
    reason: str | None
    origin: str | None
    """The address a request came from, or the machine of a command."""
    actor: str
    """user:ID, service:ID or cli:LOGIN."""
    login: str | None
    role: str | None
    detail: dict[str, Any]
    """`by`: why it was admitted; `refused`: why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeDocument:
    """Something that a resident, or whoever reads the audit, is told."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    id: int
    kind: str
    """break_glass: somebody opened the archive in an emergency."""
    at: datetime
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """What a resident does not consent to: a sign is withheld, or an account is refused."""

    id: UUID
    sign: str | None
    account: UUID | None
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChange:
    """What a resident says: to withhold a sign or refuse an account, or to allow it again."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    sign: str | None = None
    """The name of a sign; /signs lists them."""
    account: UUID | None = None
    """A clinician's account, as the audit names it."""
    allow: bool = False
    """True: allow it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """Why access is needed in an emergency."""

    __pydantic_config__: ClassVar[ConfigDict] = _DOCUMENTED

    reason: Annotated[str, Field(min_length=5, max_length=500)]
    """The resident and whoever reads the audit are told it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenGlass:
    """Access in an emergency, and until when."""

    resident: UUID
    expires_at: datetime
