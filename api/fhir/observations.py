"""Stored measurements as FHIR Observations, in bulk: text templates, made once, filled row by row.

No resource is ever a tree of objects: a template is the resource with its constant text, and numbers
go into it as the device's own digits (36.60 stays 36.60). What the columns mean is the wire format's
(gateway.wire) and the schema's comments; what the elements mean, FHIR R4 and the PHD guide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from api.cursor import Place, encode_place
from api.fhir.parts import PARTS_OF, Coding, Kind, Part, quantity_codings
from api.fhir.vocabulary import (
    ABSENT,
    ABSENT_REASONS,
    ACT_REASON,
    BITS,
    GATEWAY_DEVICE,
    INTERPRETATION_OF,
    MEASUREMENT_STATUS,
    NOTED,
    OBSERVATION_VALUE,
    PHD_IDENTIFIER,
    PROFILE,
    REASON_OF,
    SNOMED,
    STATUS_OF,
    TIME_QUALITY,
    TRANSLATION,
    UCUM,
)
from api.json_numbers import converted_number, original_value
from gateway.gatt.times import TimeType
from gateway.measurement import TimeQuality
from gateway.quantity import Absent, Quantity, Text, Unit
from gateway.stored import ABSENCE_BITS, ABSENCES_AT, EXPONENT_BITS, FLAG_ARTEFACT
from gateway.vital_sign import MeasurementStatus, Status, VitalSign
from gateway.vitals import BY_CODE, QUANTITIES
from gateway.wire import (
    OFFSET_OF_DEVICE,
    OFFSET_STEP_MIN,
    OFFSET_STEPS_MAX,
    RESOLUTION_SHIFT,
    RESOLUTIONS_MS,
    TIME_TYPE_MASK,
)

ELEMENTS = (
    "meta", "extension", "identifier", "status", "category", "code", "subject", "effective",
    "issued", "value", "dataAbsentReason", "interpretation", "note", "bodySite", "device",
    "derivedFrom", "component",
)  # fmt: skip
"""What `_elements` can name beside the id; value and effective stand for their choices."""
MANDATORY = frozenset({"meta", "status", "code"})
"""A subset always has these (FHIR R4, search, 3.1.1.5.9)."""
SUMMARY = MANDATORY | {
    "identifier", "subject", "effective", "issued", "value", "derivedFrom", "component",
}  # fmt: skip
"""The elements that R4 marks as summary."""

FIXED_COLUMNS = 17
"""Columns of a row before those of the quantities: `Observed`'s fields but `values`."""
Row = Sequence[Any]
"""One row of api/sql/fhir.sql: the fixed columns, then the quantities' of the whole registry."""

_VALUES: Final = {
    sign.code: slice(
        FIXED_COLUMNS + QUANTITIES.index(sign.quantities[0]),
        FIXED_COLUMNS + QUANTITIES.index(sign.quantities[0]) + len(sign.quantities),
    )
    for sign in BY_CODE.values()
}
_HUB: Final = (
    f',"extension":[{{"url":"{GATEWAY_DEVICE}","valueReference":{{"reference":"Device/hub-%b"}}}}]'
).encode()
_SLOT: Final = re.compile(r"%\((\w+)\)s")
_Y2K_S: Final = 946_684_800
_STATUSES_CACHED_MAX = 4096
_TEMPLATES_CACHED_MAX = 1024


@dataclass(frozen=True, slots=True)
class Made:
    """One Observation: where it stands, its id and text, and the row that it is made of."""

    place: Place
    part: Part
    id: str
    json: bytes
    row: Row

    @property
    def hub(self) -> str | None:
        """The hub's name; None: the store does not know it."""
        name: str | None = self.row[14]
        return name

    @property
    def device(self) -> str | None:
        """The device's address; None: the store does not know it."""
        address: str | None = self.row[15]
        return address

    @property
    def resident(self) -> str:
        """The resident's public id."""
        return str(self.row[16])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which Observations to make of rows, and with which elements.

    `parts` by the sign's code; `elements` None: all.
    """

    parts: Mapping[int, Sequence[Part]]
    elements: frozenset[str] | None = None


EVERYTHING = Wanted(parts=PARTS_OF)


def place_of(row: Row) -> Place:
    """Return where a row stands in the order of the pages."""
    return Place(
        measured_at=row[0],
        device_id=row[1],
        user_slot=row[2],
        sign=row[3],
        identity_us=row[4],
    )


def covered(row: Row) -> tuple[datetime, datetime]:
    """Return when what a row tells of began and ended; a point where it has no period."""
    sign = BY_CODE[row[3]]
    length = timedelta(seconds=_period(sign, row[_VALUES[sign.code]]) or 0)
    starts: datetime = row[0] - length if row[8] == TimeQuality.RECEPTION else row[0]
    return starts, starts + length


def observations(row: Row, wanted: Wanted = EVERYTHING) -> Iterator[Made]:
    """Yield the Observations of one row, in the order of its sign's parts.

    `row`: measured_at (UTC), device_id, user_slot, sign, identity_us, stored_at (UTC),
    received_after_s, utc_offset, time_quality, unit_set, digits, status, flags, time_flags, the
    hub's name, the device's address, the resident's public id, then all quantities' columns.
    """
    (measured_at, _device_id, _slot, sign_code, identity_us, stored_at, _received_after_s,
     utc_offset, time_quality, unit_set, digits, status, flags, time_flags,
     hub, address, resident) = row[:FIXED_COLUMNS]  # fmt: skip
    parts = wanted.parts.get(sign_code)
    if not parts:
        return
    sign = BY_CODE[sign_code]
    values = row[_VALUES[sign_code]]
    place = place_of(row)
    token = encode_place(place)
    said = _said(sign_code, status, bool(flags & FLAG_ARTEFACT))
    absences = digits >> ABSENCES_AT
    period_s = _period(sign, values)
    device = "" if address is None else address.replace(":", "")
    device_time = _device_time(identity_us, utc_offset, time_flags, period_s)
    fields = said.fields | {
        "issued": _local(stored_at, None).encode(),
        "resident": resident.encode(),
        "device": f',"device":{{"reference":"Device/{device}"}}'.encode() if device else b"",
        "hub": b"" if hub is None else _HUB % hub.encode(),
        "effective": _effective(measured_at, utc_offset, time_quality, period_s).encode(),
        "panel": f"{token}-p".encode(),
    }
    for part in parts:
        if absences & part.sent_mask == part.not_sent and not status & part.status_bits:
            continue
        template = _template(sign_code, part.suffix, unit_set, wanted.elements)
        made_id = f"{token}-{part.suffix}"
        fields["id"] = made_id.encode()
        fields["identifier"] = (
            f',"identifier":[{{"system":"{PHD_IDENTIFIER}","value":'
            f'"{device}-{resident}-{template.type}-{device_time}"}}]'.encode()
            if device_time and device
            else b""
        )
        for key, place_in_sign, choices in template.values:
            fields[key] = _value(
                values[place_in_sign],
                digits >> (EXPONENT_BITS * place_in_sign) & 0xFF,
                absences >> (ABSENCE_BITS * place_in_sign) & 0xF,
                choices,
                said.reason,
            )
        pieces = template.pieces.copy()
        for index, name in template.slots:
            pieces[index] = fields[name]
        yield Made(place, part, made_id, b"".join(pieces), row)


@dataclass(frozen=True, slots=True)
class _Choices:
    """How a quantity of a unit set is written: its unit, and the one that the device used."""

    quantity: Quantity
    unit: Unit
    head: str
    tail: str


@dataclass(frozen=True, slots=True)
class _Template:
    """A resource's constant text, with places (by index) that a row's fields (by name) fill."""

    pieces: list[bytes]
    slots: tuple[tuple[int, str], ...]
    type: str
    values: tuple[tuple[str, int, _Choices], ...]


@lru_cache(maxsize=_TEMPLATES_CACHED_MAX)
def _template(
    sign_code: int, suffix: str, unit_set: int, elements: frozenset[str] | None
) -> _Template:
    part = next(part for part in PARTS_OF[sign_code] if part.suffix == suffix)
    sign = part.sign
    wanted = frozenset(ELEMENTS) if elements is None else elements | MANDATORY
    if "dataAbsentReason" in wanted:  # it stands in the value's place
        wanted |= {"value"}
    texts = _element_texts(part, subset=elements is not None)
    body = "".join(texts[name] for name in ELEMENTS if name in wanted)
    units = sign.unit_sets[unit_set].units
    pieces = _SLOT.split(f'{{"resourceType":"Observation","id":"%(id)s"{body}}}')
    return _Template(
        pieces=[piece.encode() for piece in pieces],
        slots=tuple((index, pieces[index]) for index in range(1, len(pieces), 2)),
        type=part.codes[-1].code if part.codes else suffix,  # MDC, where there is one
        values=tuple(
            (f"v{place}", place, _choices(sign.quantities[place], units[place]))
            for place in part.places
            if ("component" if part.kind is Kind.PANEL else "value") in wanted
        ),
    )


def _element_texts(part: Part, *, subset: bool) -> dict[str, str]:
    """Return each element's text with what leads to it (a comma and its name)."""
    profile = f',"profile":["{PROFILE}/{part.profile}"]' if part.profile else ""
    subsetted = Coding(system=OBSERVATION_VALUE, code="SUBSETTED")
    tag = f',"tag":[{_dump(_coding(subsetted))}]' if subset else ""
    single = part.kind is Kind.SINGLE
    return {
        "meta": f',"meta":{{"lastUpdated":"%(issued)s"{profile}%(security)s{tag}}}',
        "extension": "%(hub)s",
        "identifier": "%(identifier)s",
        "status": ',"status":"%(status)s"',
        "category": f',"category":{_dump([_concept(c) for c in part.categories])}',
        "code": f',"code":{_dump(_concept(*part.codes, title=part.title))}',
        "subject": ',"subject":{"reference":"Patient/%(resident)s"}',
        "effective": "%(effective)s",
        "issued": ',"issued":"%(issued)s"',
        "value": f"%(v{part.places[0]})s" if single else "",
        "dataAbsentReason": "",
        "interpretation": "%(interpretation)s",
        "note": "%(note)s",
        "bodySite": "%(bodySite)s",
        "device": "%(device)s",
        "derivedFrom": ',"derivedFrom":[{"reference":"Observation/%(panel)s"}]'
        if part.kind is Kind.STATUS and part.sign.panel
        else "",
        "component": _components(part),
    }


def _components(part: Part) -> str:
    match part.kind:
        case Kind.SINGLE:
            return ""
        case Kind.STATUS:
            return ',"component":[%(bits)s]'
        case Kind.PANEL:
            members = (part.sign.quantities[place] for place in part.places)
            components = (
                f'{{"code":{_dump(_concept(*quantity_codings(q), title=q.title))}%(v{place})s}}'
                for place, q in zip(part.places, members, strict=True)
            )
            return f',"component":[{",".join(components)}]'


def _choices(quantity: Quantity, unit: Unit) -> _Choices:
    closing = f',"unit":"{quantity.unit.ucum}","system":"{UCUM}","code":"{quantity.unit.ucum}"}}'
    if unit == quantity.unit:
        head = ',"valueQuantity":{"value":'
    else:
        sent = f',"unit":"{unit.ucum}","system":"{UCUM}","code":"{unit.ucum}"}}}}],"value":'
        head = (
            f',"valueQuantity":{{"extension":[{{"url":"{TRANSLATION}","valueQuantity":{{"value":'
            f"{{}}{sent}"
        )
    return _Choices(quantity, unit, head, closing)


def _value(
    value: float | None, exponent_byte: int, absence: int, choices: _Choices, reason: str | None
) -> bytes:
    if reason is not None:
        return _REASONS[reason]
    if value is None:
        return _REASONS[ABSENT_REASONS[_ABSENCES[absence]]]
    exponent = exponent_byte - 0x100 if exponent_byte & 0x80 else exponent_byte
    if choices.unit == choices.quantity.unit:
        return f"{choices.head}{_decimal(value, exponent)}{choices.tail}".encode()
    sent = _decimal(original_value(value, choices.unit), exponent)
    number = converted_number(value, choices.unit, exponent).decode("ascii")
    return f"{choices.head.replace('{}', sent)}{number}{choices.tail}".encode()


def _decimal(value: float, exponent: int) -> str:
    """Return the decimal that counts in ten to the exponent; PHD guide, "FLOAT Encoding"."""
    return f"{value:.{max(-exponent, 0)}f}"


def _period(sign: VitalSign, values: Sequence[float | None]) -> float | None:
    return None if sign.period is None else values[sign.quantities.index(sign.period)]


def _effective(
    measured_at: datetime, utc_offset: int | None, time_quality: int, period_s: float | None
) -> str:
    """Return the effective time with its zone; Z where the local offset is not known.

    A period begins at the device's time-stamp, and ends at the reception where there is none.
    """
    quality = _QUALITIES[time_quality]
    if period_s is None:
        moment = _local(measured_at, utc_offset)
        return f',"effectiveDateTime":"{moment}","_effectiveDateTime":{{{quality}}}'
    length = timedelta(seconds=period_s)
    start = measured_at - length if time_quality == TimeQuality.RECEPTION else measured_at
    return (
        f',"effectivePeriod":{{{quality},"start":"{_local(start, utc_offset)}",'
        f'"end":"{_local(start + length, utc_offset)}"}}'
    )


def _local(moment: datetime, utc_offset: int | None) -> str:
    if utc_offset is None:
        return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    delta, zone = _ZONES[utc_offset]
    return f"{(moment.replace(tzinfo=None) + delta).isoformat(timespec='milliseconds')}{zone}"


def _device_time(
    identity_us: int, utc_offset: int | None, time_flags: int, period_s: float | None
) -> str:
    """Return the time-stamp of the PHD guide's identifier; empty where the device showed no time."""
    time_type = time_flags & TIME_TYPE_MASK
    if not time_type:
        return ""
    decimals = _DECIMALS[time_flags >> RESOLUTION_SHIFT & 0b11]
    seconds = identity_us // 1000 - (0 if time_type == TimeType.TICKS else _Y2K_S * 1000)
    text = f"{seconds / 1000:.{decimals}f}"
    if time_flags & OFFSET_OF_DEVICE and utc_offset is not None:
        text += f"{utc_offset:+d}"
    return text if period_s is None else f"{text}..{period_s:.{decimals}f}"


@dataclass(frozen=True, slots=True)
class _Said:
    """What the device's status field makes of an Observation's elements."""

    fields: dict[str, bytes]
    reason: str | None


@lru_cache(maxsize=_STATUSES_CACHED_MAX)
def _said(sign_code: int, status: int, artefact: bool) -> _Said:  # noqa: FBT001 - a bit of the row
    sign = BY_CODE[sign_code]
    matching = [entry for entry in sign.statuses if status & entry.mask == entry.value]
    meanings = [entry.meaning for entry in matching if entry.meaning is not None]
    interpretations = [INTERPRETATION_OF[m] for m in meanings if m in INTERPRETATION_OF]
    if artefact and not meanings:
        interpretations.append(INTERPRETATION_OF[MeasurementStatus.QUESTIONABLE])
    notes = [_said_of(entry.title) for entry in matching if _is_noted(sign, entry)]
    htest = Coding(system=ACT_REASON, code="HTEST")
    texts = {
        "status": next((STATUS_OF[m] for m in meanings if m in STATUS_OF), "final"),
        "security": f',"security":[{_dump(_coding(htest))}]'
        if MeasurementStatus.TEST_DATA in meanings
        else "",
        "interpretation": _listed(
            "interpretation",
            [_concept(Coding(system=MEASUREMENT_STATUS, code=code)) for code in interpretations],
        ),
        "note": _listed("note", [{"text": text} for text in notes]),
        "bodySite": next((_body_site(entry) for entry in matching if entry.body_site), ""),
        "bits": ",".join(_bit(sign, entry) for entry in matching),
    }
    return _Said(
        fields={name: text.encode() for name, text in texts.items()},
        reason=next((REASON_OF[m] for m in meanings if m in REASON_OF), None),
    )


def _is_noted(sign: VitalSign, status: Status) -> bool:
    """Tell whether a status has no element or Observation of its own."""
    if status.meaning is not None:
        return status.meaning in NOTED
    return status.body_site is None and sign.status_mdc is None


def _body_site(status: Status) -> str:
    site = _concept(Coding(system=SNOMED, code=status.body_site or ""), title=status.title)
    return f',"bodySite":{_dump(site)}'


def _bit(sign: VitalSign, status: Status) -> str:
    bit = status.value.bit_length() - 1
    code = Coding(system=BITS, code=f"{sign.status_mdc}.{bit}")
    return _dump({"code": _concept(code, title=status.title), "valueBoolean": True})


def _listed(name: str, items: Sequence[object]) -> str:
    return f',"{name}":{_dump(items)}' if items else ""


def _coding(coding: Coding) -> dict[str, str]:
    return {"system": coding.system, "code": coding.code}


def _concept(*codes: Coding, title: Text | None = None) -> dict[str, object]:
    concept: dict[str, object] = {}
    if codes:
        concept["coding"] = [_coding(code) for code in codes]
    if title is not None:
        concept["text"] = _said_of(title)
    return concept


def _said_of(title: Text) -> str:
    return f"{title.zh} {title.en}"


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _zone(offset: int) -> tuple[timedelta, str]:
    minutes = OFFSET_STEP_MIN * offset
    sign = "-" if minutes < 0 else "+"
    return timedelta(minutes=minutes), f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


_ABSENCES: Final = {absent.value: absent for absent in Absent}
_REASONS: Final = {
    reason: f',"dataAbsentReason":{_dump(_concept(Coding(system=ABSENT, code=reason)))}'.encode()
    for reason in {*ABSENT_REASONS.values(), *REASON_OF.values()}
}
_QUALITIES: Final = {
    int(quality): f'"extension":[{{"url":"{TIME_QUALITY}","valueCode":"{quality.name.lower()}"}}]'
    for quality in TimeQuality
}
_ZONES: Final = {offset: _zone(offset) for offset in range(-OFFSET_STEPS_MAX, OFFSET_STEPS_MAX + 1)}
_DECIMALS: Final = tuple(len(str(1000 // resolution)) - 1 for resolution in RESOLUTIONS_MS)
