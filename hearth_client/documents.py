"""What the API says, as types. Made by `hearth client`; a test keeps it up to date."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class AbsentValue(TypedDict):
    """A value that is not there, and why."""

    absent: str


class AlertDocument(TypedDict):
    """One alert: a rule that a stretch of a resident's readings meets."""

    id: str
    resident: str
    rule: str
    title: dict[str, str]
    source: str
    version: str
    stage: int
    state: str
    is_note: bool
    started_at: str
    last_at: str
    cleared_at: str | None
    alarm_at: str | None
    raised_at: str
    changed_at: str
    readings: int


class AlertEvent(TypedDict):
    """What happened to an alert, or what somebody said of it."""

    at: str
    actor: str
    what: str
    note: str | None


class AlertHistory(TypedDict):
    """An alert and all that happened to it."""

    alert: AlertDocument
    events: list[AlertEvent]


AlertState = Literal["open", "acknowledged", "resolved", "withdrawn"]


class AuditEntry(TypedDict):
    """One act on a resident's data: who, what, why, from where."""

    id: int
    at: str
    action: str
    reason: str | None
    origin: str | None
    actor: str
    login: str | None
    role: str | None
    detail: dict[str, Any]


class BreakGlass(TypedDict):
    """Why access is needed in an emergency."""

    reason: str


class BrokenGlass(TypedDict):
    """Access in an emergency, and until when."""

    resident: str
    expires_at: str


class ConsentChange(TypedDict):
    """What a resident says: to withhold a sign or refuse an account, or to allow it again."""

    sign: NotRequired[str | None]
    account: NotRequired[str | None]
    allow: NotRequired[bool]


class ConvertedValue(TypedDict):
    """A value that the device sent in another unit."""

    value: float
    unit: str
    original: PresentValue


class DayTotal(TypedDict):
    """The sum of a local day."""

    day: str
    total: float
    readings: int


class Device(TypedDict):
    """A registered device."""

    address: str
    home: str
    model: str | None
    created_at: str


class Done(TypedDict):
    """A write is done, now or before."""

    done: NotRequired[bool]


class ExcludedReadings(TypedDict):
    """How many readings of the window were left out, and why."""

    artefact: int
    unusual: int
    absent: int
    other_hours: int
    surplus: int


class FoundResident(TypedDict):
    """Someone whom a search found."""

    id: str
    visible: bool
    name: str | None
    birth_date: str | None


class FoundResidents(TypedDict):
    """What a search found."""

    items: list[FoundResident]


class Health(TypedDict):
    """Which Hearth answers, over which schema."""

    version: str
    schema_version: int
    lacking_columns: list[str]


class Home(TypedDict):
    """A home, with how many hubs and devices it has."""

    id: str
    created_at: str
    hubs: int
    devices: int


class HomePressure(TypedDict):
    """Home blood pressure by one rule set, over its days up to the day asked for."""

    rule_set: str
    source: str
    version: str
    days: int
    mean: PressurePair
    morning: PressurePair
    evening: PressurePair
    deviation: PressurePair
    sessions: int
    readings: int
    full_days: int
    adequate: bool
    elevated: bool | None
    excluded: ExcludedReadings


class Hub(TypedDict):
    """An enrolled hub."""

    name: str
    home: str
    enrolled_at: str
    revoked_at: str | None


class HubLedger(TypedDict):
    """What became of what a hub published: published = stored + duplicate + quarantined."""

    hub: str
    epochs: int
    batches: int
    missing: int
    published: int
    stored: int
    duplicate: int
    quarantined: int
    balanced: bool
    last_committed_at: str | None


class LastMeasured(TypedDict):
    """When a resident was last measured; no values."""

    resident: str
    last_measured_at: str | None
    signs: dict[str, str]


class LatestOfSign(TypedDict):
    """The latest measurement of a sign, by when it was measured."""

    latest: MeasurementDocument
    latest_without_artefact: MeasurementDocument | None


class Link(TypedDict):
    """Who is measured by a user slot of a device, from `starts_at` up to before `ends_at`."""

    device: str
    user_slot: int
    resident: str
    starts_at: str | None
    ends_at: NotRequired[str | None]


class LinkEnd(TypedDict):
    """Which link is to end."""

    device: str
    user_slot: NotRequired[int]
    resident: str
    at: NotRequired[str | None]


class LinkEntry(TypedDict):
    """A link in force."""

    id: int
    device: str
    user_slot: int
    resident: str
    starts_at: str | None
    ends_at: str | None


class Me(TypedDict):
    """Who asks, as the token says."""

    id: str
    role: str
    resident: str | None
    scopes: list[str]


class MeasurementDocument(TypedDict):
    """One measurement of a resident."""

    id: str
    sign: str
    device: str
    user_slot: int | None
    measured_at: str
    received_at: str
    stored_at: str
    time_quality: str
    values: dict[str, PresentValue | ConvertedValue | AbsentValue]
    statuses: list[str]
    artefact: bool
    unusual: bool
    attribution: Literal["linked", "inferred", "confirmed"]


class NewClaim(TypedDict):
    """Readings that somebody knows the owner of."""

    readings: list[str]
    reason: NotRequired[str | None]


class NewLink(TypedDict):
    """Who is to be measured by a slot of a device."""

    device: str
    user_slot: NotRequired[int]
    resident: str
    starts_at: NotRequired[str | None]
    ends_at: NotRequired[str | None]


class NoticeDocument(TypedDict):
    """Something that a resident, or whoever reads the audit, is told."""

    id: int
    kind: str
    at: str
    detail: dict[str, Any]


class Objection(TypedDict):
    """What a resident does not consent to: a sign is withheld, or an account is refused."""

    id: str
    sign: str | None
    account: str | None
    recorded_at: str


Order = Literal["desc", "asc"]


class PageAlertDocument(TypedDict):
    """Some items and how to go on."""

    items: list[AlertDocument]
    next: str | None


class PageAuditEntry(TypedDict):
    """Some items and how to go on."""

    items: list[AuditEntry]
    next: str | None


class PageDevice(TypedDict):
    """Some items and how to go on."""

    items: list[Device]
    next: str | None


class PageHome(TypedDict):
    """Some items and how to go on."""

    items: list[Home]
    next: str | None


class PageHubLedger(TypedDict):
    """Some items and how to go on."""

    items: list[HubLedger]
    next: str | None


class PageHub(TypedDict):
    """Some items and how to go on."""

    items: list[Hub]
    next: str | None


class PageLastMeasured(TypedDict):
    """Some items and how to go on."""

    items: list[LastMeasured]
    next: str | None


class PageLinkEntry(TypedDict):
    """Some items and how to go on."""

    items: list[LinkEntry]
    next: str | None


class PageMeasurementDocument(TypedDict):
    """Some items and how to go on."""

    items: list[MeasurementDocument]
    next: str | None


class PageNoticeDocument(TypedDict):
    """Some items and how to go on."""

    items: list[NoticeDocument]
    next: str | None


class PageQuarantineEntry(TypedDict):
    """Some items and how to go on."""

    items: list[QuarantineEntry]
    next: str | None


class PageResident(TypedDict):
    """Some items and how to go on."""

    items: list[Resident]
    next: str | None


class PageWaitingReading(TypedDict):
    """Some items and how to go on."""

    items: list[WaitingReading]
    next: str | None


class PartialNews2(TypedDict):
    """NEWS2 in part: a home has no respiration rate, consciousness or oxygen supply."""

    label: str
    score: int
    present: list[str]
    of_parameters: int
    single_three: bool
    source: str
    version: str


class PersonDocument(TypedDict):
    """What the archive knows of a resident beside the measurements."""

    id: str
    name: str | None
    national_id: str | None
    health_card: str | None
    birth_date: str | None
    birth_year: int | None
    sex: str
    height_cm: float | None
    clinic: str | None
    targets: dict[str, TargetOutput]
    merged_into: str | None
    erased: bool


class PlausibleRange(TypedDict):
    """A closed range; what lies outside is kept apart, not altered."""

    low: float
    high: float
    source: str


class PresentValue(TypedDict):
    """A value with exactly the digits that the device sent."""

    value: float
    unit: str


class PressurePair(TypedDict):
    """A mean, null where nothing was measured."""

    systolic_mmhg: float | None
    diastolic_mmhg: float | None


class QuantityDocument(TypedDict):
    """One number and its meaning."""

    name: str
    title: Text
    unit: str
    units: list[str]
    loinc: str | None
    mdc: int | None
    plausible: PlausibleRange


class QuantitySeries(TypedDict):
    """One quantity, a number a bucket of the axis; null: no undisturbed value in it."""

    unit: str
    mean: list[float | None]
    min: list[float | None]
    max: list[float | None]


class QuarantineEntry(TypedDict):
    """Something that was kept apart, without its content."""

    id: int
    kind: str
    reason: str
    state: str
    sign: str | None
    hub: str | None
    device: str | None
    received_at: str
    measured_at: str | None
    quarantined_at: str
    resolved_at: str | None
    seen: int


Reason = Literal[
    "record_invalid",
    "sign_unknown",
    "device_unknown",
    "device_elsewhere",
    "hub_clock",
    "time_unplaced",
    "time_future",
    "time_too_old",
    "hub_time_unknown",
    "implausible",
    "cross_field",
    "unlinked",
    "conflict",
    "undecoded",
    "no_batch",
    "hub_unknown",
    "hub_foreign",
    "hub_revoked",
    "batch_differs",
]


class Remark(TypedDict):
    """What somebody says when settling an alert."""

    note: NotRequired[str | None]


class Resident(TypedDict):
    """A resident, known by an opaque id only."""

    id: str
    created_at: str


class ResidentDocument(TypedDict):
    """A resident and who is measured by what."""

    id: str
    created_at: str
    links: list[Link]


class ResidentSearch(TypedDict):
    """Who is looked for: by one of the numbers, or by name and date of birth together."""

    national_id: NotRequired[str | None]
    health_card: NotRequired[str | None]
    name: NotRequired[str | None]
    birth_date: NotRequired[str | None]


class RuleDocument(TypedDict):
    """A relation that no true measurement breaks; one that does is kept apart."""

    name: str
    says: Text


RuleSet = Literal["china-2024", "aha-acc-2025"]


class SeriesDocument(TypedDict):
    """Buckets on one axis."""

    zone: str
    width: str
    begins: list[str]
    signs: dict[str, SignSeries]


class SignDocument(TypedDict):
    """One vital sign."""

    name: str
    title: Text
    loinc: str | None
    mdc: int | None
    quantities: list[QuantityDocument]
    statuses: list[StatusDocument]
    rules: list[RuleDocument]


class SignSeries(TypedDict):
    """One sign, an entry a bucket of the axis."""

    count: list[int]
    artefacts: list[int]
    quantities: dict[str, QuantitySeries]


State = Literal["waiting", "replayed", "discarded"]


class Statistics(TypedDict):
    """Statistics by published guidelines, by the time of measurement; local days are Shanghai's."""

    notice: str
    day: str
    home_pressure: HomePressure
    weight: WeightTrend
    temperature: list[TemperaturePeak]
    water_ml: list[DayTotal]
    steps: list[DayTotal]
    news2: PartialNews2


class StatusDocument(TypedDict):
    """One thing that a device can say of a measurement."""

    name: str
    title: Text
    artefact: bool


class TargetInput(TypedDict):
    """A resident's own limits of a quantity, in its canonical unit."""

    low: NotRequired[float | None]
    high: NotRequired[float | None]


class TargetOutput(TypedDict):
    """A resident's own limits of a quantity, in its canonical unit."""

    low: NotRequired[float | None]
    high: NotRequired[float | None]


class TargetsInput(TypedDict):
    """A resident's own limits, by quantity."""

    targets: NotRequired[dict[str, TargetInput]]


class TargetsOutput(TypedDict):
    """A resident's own limits, by quantity."""

    targets: NotRequired[dict[str, TargetOutput]]


class TemperaturePeak(TypedDict):
    """The highest temperature of a local day."""

    day: str
    peak_celsius: float
    peak_at: str
    readings: int


class Text(TypedDict):
    """What a person reads: Simplified Chinese first, English second."""

    zh: str
    en: str


class Vocabulary(TypedDict):
    """The words that measurements use."""

    signs: list[SignDocument]
    absences: list[str]
    time_qualities: list[str]


class WaitingReading(TypedDict):
    """A reading that nobody is known to be the owner of. No value: it may be another's."""

    id: str
    measured_at: str
    device: str
    user_slot: int
    sign: str
    probability: float | None


class WeightTrend(TypedDict):
    """How the latest weight changed; null where nothing was measured before."""

    change_3d_kg: float | None
    change_7d_kg: float | None
    gain_3d_kg: float | None
    source: str
    version: str


Width = Literal["hour", "day", "week", "month"]
