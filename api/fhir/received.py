"""Observations of other gateways as measurements: what `api.fhir.observations` makes, the other way.

FHIR R4 Observation, its vital signs profiles, the PHD guide ("Coincident Time Stamp", "Observation
Identifier"). Several Observations of one device and time are one reading: the panel, the pulse rate
beside it, the status field. Nothing is altered: a number keeps its digits, a unit must be one that a
device of the sign sends, and what cannot be kept as it is said is refused, with the place of it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from api.fhir.outcomes import Issue, OutcomeError
from api.fhir.parts import PARTS, Coding, Kind, Part, quantity_codings
from api.fhir.search import device_of, reference_id
from api.fhir.vocabulary import (
    ABSENT_REASONS,
    ACT_REASON,
    BITS,
    BLUETOOTH_ADDRESS,
    EUI64,
    INTERPRETATION_OF,
    MEASUREMENT_STATUS,
    PHD_IDENTIFIER,
    SNOMED,
    TIME_QUALITY,
    TRANSLATION,
    UCUM,
    USER_SLOT,
)
from gateway.errors import EncodeError
from gateway.gatt.times import DeviceTime, TimeType, ms_since_epoch
from gateway.measurement import Measurement, TimeQuality, device_id
from gateway.quantity import Absent, Value
from gateway.vital_sign import NO_USER_SLOT, MeasurementStatus, Reading, VitalSign
from gateway.vitals import BY_CODE
from gateway.wire import OFFSET_STEP_MIN, RESOLUTIONS_MS, encode_record

NUMBER_CHARS_MAX = 40
"""No device sends a number with more digits."""
IDENTIFIERS_MAX = 10
"""An Observation with more identifiers is refused."""
IDENTIFIER_CHARS_MAX = 512
"""A longer one is none by the recipe."""

Document = Mapping[str, Any]

_DATE_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(?P<fraction>\d{1,9}))?(?P<zone>Z|[+-]\d\d:\d\d)"
)
_RECIPE = (
    r"(?P<device>[0-9A-Fa-f]{{12}}|[0-9A-Fa-f]{{16}})-.+-{type}"
    r"-(?:(?P<date>\d{{14}})|(?P<seconds>\d{{1,11}}))(?:\.(?P<fraction>\d{{1,3}}))?"
    r"(?P<offset>[+-]\d{{1,2}})?(?:\.\.[\d.]+)?(?:-\d{{1,10}})*"
)
"""The PHD guide 2.0.1's identifier (PhdBaseObservation, "Conditional-create Identifier", and
"Generating the PHD Reported Timestamp"): device, patient, type, the device's own time in seconds since
2000 with its offset in quarter hours if it said one, the duration, and codes of supplemental
information. The guide's own examples, as its first edition, write the time as a date."""
_Y2K_MS = 946_684_800_000
_ANNOTATION = re.compile(r"\{[^}]*\}")
_ABSENCES = {
    "not-a-number": Absent.NOT_A_NUMBER,
    "positive-infinity": Absent.POSITIVE_INFINITY,
    "negative-infinity": Absent.NEGATIVE_INFINITY,
    "error": Absent.UNSUCCESSFUL,
    "unknown": Absent.UNKNOWN,
}
assert set(_ABSENCES) == set(ABSENT_REASONS.values())  # noqa: S101
_PLACING = {
    quality.name.lower(): TimeQuality.MAPPED if quality is TimeQuality.RETIMED else quality
    for quality in TimeQuality
}
"""By our extension on the effective time; a retimed one is one that was placed."""
_MEANINGS = {code: meaning for meaning, code in INTERPRETATION_OF.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """A business identifier; its system may be empty."""

    system: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What an Observation says if it is `part`: by the quantities' places, values and their units."""

    part: Part
    values: Mapping[int, tuple[Value, str | None]]
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Time:
    at: datetime
    utc_offset_min: int | None
    quality: TimeQuality
    period_s: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One Observation as it came. `subject`: the resident's id that it names, if it names one."""

    said: tuple[_Said, ...]
    """Several where its codes are those of several signs."""
    device: int
    user_slot: int | None
    time: _Time
    device_time: DeviceTime | None
    questionable: bool
    subject: str | None
    identifiers: tuple[Identifier, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Which of the Observations given is which part of a measurement."""

    index: int
    part: Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A measurement, and the Observations that it is made of."""

    measurement: Measurement
    members: tuple[Member, ...]


def read_json(body: bytes) -> Document:
    """Return the resource in a body, numbers as the decimals that they are written as.

    Raises:
        OutcomeError: it is no JSON object.
    """
    try:
        document = json.loads(
            body, parse_float=_number, parse_int=_number, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise OutcomeError(Issue.INVALID, "应为 JSON 资源 / a resource in JSON") from error
    if not isinstance(document, dict):
        raise OutcomeError(Issue.INVALID, "应为 JSON 资源 / a resource in JSON")
    return document


def receive(document: Document) -> Received:
    """Return what an Observation says.

    Raises:
        OutcomeError: it is no Observation, or says what cannot be kept; with the element's path.
    """
    if document.get("resourceType") != "Observation":
        _refuse("应为 Observation / an Observation", "resourceType", Issue.INVALID)
    try:
        return _receive(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise OutcomeError(
            Issue.INVALID, "元素结构有误 / an element has not the form that R4 gives it"
        ) from error


def measurements(received: Sequence[Received], received_at: datetime) -> list[Made]:
    """Return the measurements that Observations are, each of one device, sign and time.

    Raises:
        OutcomeError: two contradict each other, or their units do not go together.
    """
    groups: dict[object, list[int]] = defaultdict(list)
    for index, one in enumerate(received):
        groups[one.device, one.user_slot, one.time, one.device_time].append(index)
    made = []
    for indexes in groups.values():
        for sign_code, members in _by_sign(received, indexes).items():
            made.append(_measurement(BY_CODE[sign_code], received, members, received_at))
    return made


def is_phd(identifier: Identifier) -> bool:
    """Tell whether an identifier is one by the PHD guide's recipe."""
    return identifier.system == PHD_IDENTIFIER


def _number(text: str) -> Decimal:
    if len(text) > NUMBER_CHARS_MAX:
        raise ValueError("a number is too long")
    return Decimal(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _refuse(text: str, where: str, issue: Issue = Issue.PROCESSING) -> NoReturn:
    raise OutcomeError(issue, text, parameter=f"Observation.{where}")


def _receive(document: Document) -> Received:
    if "modifierExtension" in document:
        _refuse("无法处理修饰扩展 / a modifier is not understood", "modifierExtension")
    if document["status"] not in {"final", "preliminary"}:
        _refuse("应为 final / only what is final (or preliminary)", "status")
    codes = _codings(document["code"])
    candidates = _parts(codes)
    if not candidates:
        _refuse("未知代码 / no vital sign here has this code", "code")
    identifiers = _identifiers(document.get("identifier", []))
    address, told = _device(document.get("device"), identifiers, candidates)
    time = _time(document)
    interpretations = {
        coding.code
        for concept in document.get("interpretation", [])
        for coding in _codings(concept)
        if coding.system == MEASUREMENT_STATUS
    }
    said, fault = [], None
    for part in candidates:
        try:
            said.append(_said(part, document, interpretations))
        except OutcomeError as error:
            fault = error
    if not said:
        assert fault is not None  # noqa: S101 - there were candidates
        raise fault
    return Received(
        said=tuple(said),
        device=address,
        user_slot=_user_slot(document.get("extension", [])),
        time=time,
        device_time=told,
        questionable=INTERPRETATION_OF[MeasurementStatus.QUESTIONABLE] in interpretations,
        subject=_subject(document.get("subject")),
        identifiers=identifiers,
    )


def _codings(concept: Document) -> list[Coding]:
    return [
        Coding(system=str(coding.get("system", "")), code=str(coding["code"]))
        for coding in concept.get("coding", [])
        if "code" in coding
    ]


def _parts(codes: Sequence[Coding]) -> list[Part]:
    """Return the parts that most of the codes name: an MDC code may tell what LOINC leaves open."""
    return [PARTS[place] for place in _best(codes, [set(part.codes) for part in PARTS])]


def _best(codes: Iterable[Coding], known: Sequence[set[Coding]]) -> list[int]:
    """Return the places in `known` of those that have most of the codes, none where none has any."""
    counts = [len(one.intersection(codes)) for one in known]
    most = max(counts)
    return [place for place, count in enumerate(counts) if most and count == most]


def _identifiers(entries: Sequence[Document]) -> tuple[Identifier, ...]:
    if len(entries) > IDENTIFIERS_MAX:
        _refuse(f"最多 {IDENTIFIERS_MAX} 个 / at most {IDENTIFIERS_MAX}", "identifier")
    return tuple(
        Identifier(system=str(entry.get("system", "")), value=str(entry["value"]))
        for entry in entries
        if "value" in entry
    )


def _device(
    device: Document | None, identifiers: Sequence[Identifier], parts: Sequence[Part]
) -> tuple[int, DeviceTime | None]:
    """Return the device's address, and its own time where an identifier by the recipe tells it."""
    address = None if device is None else _device_named(device)
    for identifier in identifiers:
        if not is_phd(identifier):
            continue
        match = _by_recipe(identifier.value, {code.code for part in parts for code in part.codes})
        if match is None:
            _refuse("标识不符合 PHD 指南 / not by the PHD guide's recipe", "identifier")
        told = int(match["device"], 16)
        if address not in {None, told}:
            _refuse("标识与设备不符 / it names another device", "identifier")
        return told, _device_time(match)
    if address is None:
        _refuse("应有设备 / the device that measured, by reference or identifier", "device")
    return address, None


def _device_named(device: Document) -> int:
    if "reference" in device:
        named = device_of(reference_id(str(device["reference"]), "Device"))
        if named is None:
            _refuse("应为 Device/[地址] / Device/ and the address", "device.reference")
        return device_id(named)
    identifier = device["identifier"]
    if identifier.get("system") not in {BLUETOOTH_ADDRESS, EUI64}:
        _refuse("应为蓝牙地址或 EUI-64 / a Bluetooth address or EUI-64", "device.identifier.system")
    try:
        return device_id(str(identifier["value"]))
    except ValueError:
        _refuse("地址有误 / no such address is possible", "device.identifier.value")


def _by_recipe(value: str, types: Collection[str]) -> re.Match[str] | None:
    """Take an identifier apart: the type is known, so no other part can be taken for it."""
    if len(value) > IDENTIFIER_CHARS_MAX:
        return None
    matches = (re.fullmatch(_RECIPE.format(type=re.escape(type_)), value) for type_ in types)
    return next((match for match in matches if match), None)


def _device_time(match: re.Match[str]) -> DeviceTime:
    fraction = match["fraction"] or ""
    offset = match["offset"]
    return DeviceTime(
        type=TimeType.LOCAL if offset is None else TimeType.UTC,
        ms=_whole_seconds_ms(match) + int(fraction.ljust(3, "0")),
        resolution_ms=RESOLUTIONS_MS[len(fraction)],
        utc_offset_min=None if offset is None else int(offset) * OFFSET_STEP_MIN,
    )


def _whole_seconds_ms(match: re.Match[str]) -> int:
    if match["date"] is None:
        return _Y2K_MS + int(match["seconds"]) * 1000
    try:
        shown = datetime.strptime(match["date"], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        _refuse("标识中的时间有误 / it tells no date", "identifier")
    return ms_since_epoch(shown)


def _user_slot(extensions: Sequence[Document]) -> int | None:
    for extension in extensions:
        if extension.get("url") == USER_SLOT:
            slot = extension["valueUnsignedInt"]
            # bounded before it is made an int: 1E999999 is a short text
            if not isinstance(slot, Decimal) or not 0 <= slot < NO_USER_SLOT or slot % 1:
                _refuse("应为 0 至 254 / from 0 to 254", "extension")
            return int(slot)
    return None


def _subject(subject: Document | None) -> str | None:
    if subject is None or "reference" not in subject:
        return None
    return reference_id(str(subject["reference"]), "Patient").lower()


def _time(document: Document) -> _Time:
    period = document.get("effectivePeriod")
    if period is None:
        at, offset = _moment(document.get("effectiveDateTime"), "effectiveDateTime")
        quality = _quality(document.get("_effectiveDateTime", {}))
        return _Time(at=at, utc_offset_min=offset, quality=quality, period_s=None)
    start, offset = _moment(period.get("start"), "effectivePeriod.start")
    end, _offset = _moment(period.get("end"), "effectivePeriod.end")
    quality = _quality(period)
    at = end if quality is TimeQuality.RECEPTION else start
    seconds = (end - start) / timedelta(seconds=1)
    if seconds < 0:
        _refuse("结束早于开始 / it ends before it begins", "effectivePeriod")
    length = Decimal(f"{seconds:.3f}").normalize()
    return _Time(at=at, utc_offset_min=offset, quality=quality, period_s=length + 0)


def _moment(text: object, where: str) -> tuple[datetime, int | None]:
    match = _DATE_TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        _refuse("应有日期, 时间与时区 / a date, a time and its zone", where)
    try:
        moment = datetime.fromisoformat(match[0])
    except ValueError:
        _refuse("无此时间 / there is no such time", where)
    if moment.microsecond % 1000:
        _refuse("最多三位小数 / milliseconds at most", where)
    zone = moment.utcoffset()
    if match["zone"] == "Z" or zone is None:
        return moment, None
    minutes, rest = divmod(int(zone.total_seconds()), 60)
    if rest or minutes % OFFSET_STEP_MIN:
        _refuse("时区应为整刻钟 / a zone of whole quarter hours", where)
    return moment, minutes


def _quality(element: Document) -> TimeQuality:
    for extension in element.get("extension", []):
        if extension.get("url") == TIME_QUALITY:
            return _PLACING[str(extension["valueCode"])]
    return TimeQuality.MAPPED


def _said(part: Part, document: Document, interpretations: Iterable[str]) -> _Said:
    sign = part.sign
    status = _conditions(sign, document, interpretations)
    values: dict[int, tuple[Value, str | None]] = {}
    if part.kind is Kind.SINGLE:
        (place,) = part.places
        values[place] = _value(document, "")
        if document.get("component"):
            _refuse("此代码无分量 / this code has no components", "component")
    else:
        for index, component in enumerate(document.get("component", [])):
            where = f"component[{index}]"
            codes = set(_codings(component["code"]))
            if part.kind is Kind.STATUS:
                status |= _bit(sign, codes, component, where)
                continue
            places = _best(codes, [set(quantity_codings(q)) for q in sign.quantities])
            if len(places) != 1 or places[0] in values:
                _refuse("未知或重复的分量 / a component not known, or there twice", where)
            values[places[0]] = _value(component, f"{where}.")
        if part.kind is Kind.PANEL and not values:
            _refuse("应有分量 / its components", "component")
        known = {place: said for place, said in values.items() if said[0] is not Absent.UNKNOWN}
        values = known or values  # beside known ones, unknown is what was not sent
    return _Said(part=part, values=values, status=status)


def _bit(sign: VitalSign, codes: set[Coding], component: Document, where: str) -> int:
    """Return a bit of the device's status field; PHD guide, BITs enumeration."""
    if component.get("valueBoolean") is not True:
        return 0
    for status in sign.statuses:
        bit = status.value.bit_length() - 1
        if Coding(system=BITS, code=f"{sign.status_mdc}.{bit}") in codes:
            return status.value
    _refuse("未知的状态位 / a status bit that is not known", where)


def _conditions(sign: VitalSign, document: Document, interpretations: Iterable[str]) -> int:
    """Return the status bits that stand for what other elements say."""
    status = 0
    meanings = {_MEANINGS[code] for code in interpretations if code in _MEANINGS}
    meanings.discard(MeasurementStatus.QUESTIONABLE)  # judged with the whole reading
    if document["status"] == "preliminary":
        meanings.add(MeasurementStatus.EARLY_ESTIMATE)
    security = document.get("meta", {}).get("security", [])
    if any((tag.get("system"), tag.get("code")) == (ACT_REASON, "HTEST") for tag in security):
        meanings.add(MeasurementStatus.TEST_DATA)
    for meaning in meanings:
        status |= _standing_for(sign, meaning)
    sites = {entry.body_site: entry.value for entry in sign.statuses if entry.body_site}
    if sites and "bodySite" in document:
        told = [c.code for c in _codings(document["bodySite"]) if c.system == SNOMED]
        known = [sites[code] for code in told if code in sites]
        if not known:
            _refuse("未知部位 / a site that is not known", "bodySite")
        status |= known[0]
    return status


def _standing_for(sign: VitalSign, meaning: MeasurementStatus) -> int:
    for entry in sign.statuses:
        if entry.meaning is meaning:
            return entry.value
    _refuse(
        f"此体征无法记录 / {sign.name} cannot say {meaning.value}: it would be lost",
        "status" if meaning is MeasurementStatus.EARLY_ESTIMATE else "interpretation",
    )


def _value(element: Document, where: str) -> tuple[Value, str | None]:
    reason = element.get("dataAbsentReason")
    if reason is not None:
        absences = [_ABSENCES[c.code] for c in _codings(reason) if c.code in _ABSENCES]
        if not absences:
            _refuse("未知的缺失原因 / a reason that is not known", f"{where}dataAbsentReason")
        return absences[0], None
    quantity = element.get("valueQuantity")
    if quantity is None:
        _refuse("应有 valueQuantity / a valueQuantity", f"{where}value")
    for extension in quantity.get("extension", []):
        if extension.get("url") == TRANSLATION:  # as the device sent it
            quantity = extension["valueQuantity"]
    if "comparator" in quantity or "modifierExtension" in quantity:
        _refuse("无法处理比较符 / no comparator", f"{where}valueQuantity")
    number = quantity["value"]
    if not isinstance(number, Decimal):
        _refuse("应为数 / a number", f"{where}valueQuantity.value")
    if quantity.get("system") != UCUM:
        _refuse(f"应为 / {UCUM}", f"{where}valueQuantity.system")
    return number, str(quantity["code"])


def _by_sign(received: Sequence[Received], indexes: Sequence[int]) -> dict[int, list[Member]]:
    """Sort the Observations of one device and time by their signs."""
    sure = {
        received[index].said[0].part.sign.code
        for index in indexes
        if len(received[index].said) == 1
    }
    found: dict[int, list[Member]] = defaultdict(list)
    for index in indexes:
        part = _chosen([one.part for one in received[index].said], sure)
        found[part.sign.code].append(Member(index=index, part=part))
    return found


def _chosen(parts: Sequence[Part], sure: Collection[int]) -> Part:
    """Choose of what several signs have: what is measured along, or the sign that leads with it."""
    for choices in (
        [part for part in parts if part.sign.code in sure],
        [part for part in parts if part.places[:1] == (0,)],
    ):
        if len(choices) == 1:
            return choices[0]
    _refuse(
        "代码不足以区分体征 / its code is of several vital signs: give the MDC code too", "code"
    )


def _measurement(
    sign: VitalSign, received: Sequence[Received], members: Sequence[Member], received_at: datetime
) -> Made:
    first = received[members[0].index]
    values: dict[int, tuple[Value, str | None]] = {}
    status = 0
    for member in members:
        one = received[member.index]
        said = next(s for s in one.said if s.part == member.part)
        status |= said.status
        for place, value in said.values.items():
            if values.setdefault(place, value) != value:
                _refuse("互相矛盾 / two Observations of one time contradict each other", "value")
    if sign.period is not None and first.time.period_s is not None:
        place = sign.quantities.index(sign.period)
        values[place] = (first.time.period_s, sign.period.unit.ucum)
    elif first.time.period_s is not None:
        _refuse("此体征无时段 / this sign has no period", "effectivePeriod")
    if any(received[member.index].questionable for member in members) and not any(
        status & entry.mask == entry.value for entry in sign.artefact_statuses
    ):
        status |= _standing_for(sign, MeasurementStatus.QUESTIONABLE)
    measurement = Measurement(
        device=first.device,
        sign=sign.code,
        reading=Reading(
            values=tuple(
                values.get(place, (Absent.NOT_SENT, None))[0]
                for place in range(len(sign.quantities))
            ),
            unit_set=_unit_set(sign, values),
            device_time=first.device_time,
            user_slot=first.user_slot,
            status=status,
        ),
        measured_at=first.time.at,
        received_at=received_at,
        time_quality=first.time.quality,
        utc_offset_min=_offset(first),
    )
    try:
        encode_record(measurement, received_at)
    except EncodeError:
        _refuse("数值须改动才能保存 / a value would have to be altered to be kept", "value")
    return Made(measurement=measurement, members=tuple(members))


def _offset(one: Received) -> int | None:
    """Return the local time's distance to UTC: the device's own word comes first."""
    told = one.device_time
    if told is not None and told.utc_offset_min is not None:
        return told.utc_offset_min
    return one.time.utc_offset_min


def _unit_set(sign: VitalSign, values: Mapping[int, tuple[Value, str | None]]) -> int:
    for index, unit_set in enumerate(sign.unit_sets):
        if all(
            unit is None or _same_unit(unit, unit_set.units[place].ucum)
            for place, (_value, unit) in values.items()
        ):
            return index
    known = ", ".join(dict.fromkeys(u.ucum for units in sign.unit_sets for u in units.units))
    _refuse(f"未知单位 / units of one device of this kind, of: {known}", "valueQuantity.code")


def _same_unit(given: str, known: str) -> bool:
    """Compare two UCUM units; what stands in braces is a comment and has no meaning (UCUM, 12)."""
    return given == known or (_plain(given) == _plain(known))


def _plain(unit: str) -> str:
    return _ANNOTATION.sub("", unit) or "1"
