"""SenML packs of other hubs as batches. RFC 8428 in JSON; names and units as docs/wire.md has them.

A pack becomes the header and the records of a batch of version 1, so that all behind it (verdicts,
links, ledger, quarantine, receipt) is the same. Numbers are read as decimals, every digit as it was
sent. A pack is taken whole or not at all: what is wrong is told with its byte. This is the one place
of ingest that loops over measurements: JSON has no arrays of records. No I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_FLOOR, Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Any

from gateway import wire
from gateway.errors import DecodeError, EncodeError, Fault
from gateway.gatt.times import DeviceTime, TimeType, from_ms
from gateway.measurement import Measurement, TimeQuality
from gateway.quantity import Absent
from gateway.vital_sign import QUANTITIES_MAX, Reading, VitalSign
from gateway.vitals import BY_CODE, SIGNS

PACK_BYTES_MAX = 512 * 1024
"""A longer pack is refused: more than a full batch needs, with long names."""
RECORDS_MAX = wire.BATCH_RECORDS_MAX * QUANTITIES_MAX + 2
"""SenML records of a pack: a full batch, its epoch and its sequence."""
NUMBER_CHARS_MAX = 40
"""A longer number is no measurement's, and arithmetic on it costs too much."""
VERSION_MAX = 10
"""RFC 8428, 4.4: what says a higher version must not be read by the rules of this one."""

_SPACES = b" \t\r\n"
_RELATIVE_END_S = 1 << 28
"""RFC 8428, 4.5.3: smaller times count from now, and "now" is another one when it comes again."""
_TIME_END_S = 253_402_300_800
"""The year 10000."""
_ALIASES = {"beat/min": "/min", "l": "L", "count": "{steps}"}
"""Units of IANA's SenML registry -> the UCUM codes that mean the same."""
_NOT_TAKEN = {"s": "a sum", "bs": "a sum", "vs": "a text", "vb": "a boolean", "vd": "bytes"}
_COUNTED = re.compile(r"hearth:(?P<hub>[0-9a-f]{16}):(?P<what>epoch|sequence)")
_MEASURED = re.compile(
    r"urn:dev:mac:(?P<mac>[0-9a-f]{16}):(?:(?P<slot>[0-9]{1,3})/)?(?P<quantity>[a-z0-9_]+)"
)
_EXPANDED = re.compile(r"([0-9a-f]{6})fffe([0-9a-f]{6})")
"""An EUI-48 as the EUI-64 that RFC 9039, 4.1, makes of it."""
_EXACT = Context(prec=2 * NUMBER_CHARS_MAX, traps=[Inexact, InvalidOperation, Overflow])
_SLOT_MAX = 254
_PLACES: dict[str, tuple[VitalSign, int]] = {
    quantity.name: (sign, place) for sign in SIGNS for place, quantity in enumerate(sign.quantities)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resolved:
    """A record with its base fields put in (RFC 8428, 4.6); `offset`: its first byte."""

    offset: int
    name: str
    unit: str
    value: Decimal
    time_s: Decimal


@dataclass(frozen=True, slots=True)
class _Key:
    """What records of one reading have in common."""

    device: int
    slot: int | None
    sign: int
    at_ms: int


@dataclass(slots=True)
class _Pack:
    """What has been read of a pack; `values`: each quantity's record, by its place in the sign."""

    counters: dict[str, int] = field(default_factory=dict)
    readings: dict[_Key, dict[int, _Resolved]] = field(default_factory=dict)


def is_pack(payload: bytes) -> bool:
    """Tell whether a message wants to be a SenML pack: it begins with a JSON array."""
    return payload[: len(_SPACES)].lstrip(_SPACES)[:1] == b"["


def decode_pack(payload: bytes, received_at: datetime) -> tuple[wire.Header, bytes]:
    """Return a pack as the header and the body of a batch that was received at `received_at`.

    Raises:
        DecodeError: it is no pack as docs/wire.md describes it; nothing of it is taken.
    """
    pack = _Pack()
    for record in _records(payload):
        _sort(record, pack)
    for name in ("hub", "epoch", "sequence"):
        if name not in pack.counters:
            what = "epoch" if name == "hub" else name
            raise DecodeError(Fault.INVALID, "pack", 0, f"has no record hearth:HUB:{what}")
    if len(pack.readings) > wire.BATCH_RECORDS_MAX:
        detail = f"has {len(pack.readings)} readings, at most {wire.BATCH_RECORDS_MAX} are allowed"
        raise DecodeError(Fault.TOO_LONG, "pack", 0, detail)
    header = wire.Header(
        hub=pack.counters["hub"],
        epoch=pack.counters["epoch"],
        sequence=pack.counters["sequence"],
        kind=wire.Kind.MEASUREMENTS,
        count=len(pack.readings),
        reference_at=received_at,
    )
    records = (_wire_record(key, values, received_at) for key, values in pack.readings.items())
    return header, b"".join(records)


def _records(payload: bytes) -> Iterator[_Resolved]:
    """Yield the records that have a value, resolved."""
    base_name, base_unit = "", ""
    base_time, base_value = Decimal(0), Decimal(0)
    for offset, fields in _objects(payload):
        _check_labels(fields, offset)
        base_name = _text(fields, "bn", base_name, offset)
        base_unit = _text(fields, "bu", base_unit, offset)
        base_time = _number(fields, "bt", base_time, offset)
        base_value = _number(fields, "bv", base_value, offset)
        if "v" not in fields and "n" not in fields:
            continue  # it only sets bases
        if "v" not in fields:
            raise _wrong(offset, "has no v")
        try:
            value = _number(fields, "v", Decimal(0), offset)
            value = _EXACT.add(base_value, value) if base_value else value
            time_s = _EXACT.add(base_time, _number(fields, "t", Decimal(0), offset))
        except (Inexact, InvalidOperation, Overflow) as error:
            detail = "its base and its own number do not add up exactly"
            raise DecodeError(Fault.INEXACT, "record", offset, detail) from error
        yield _Resolved(
            offset=offset,
            name=base_name + _text(fields, "n", "", offset),
            unit=_text(fields, "u", base_unit, offset),
            value=value,
            time_s=time_s,
        )


def _sort(record: _Resolved, pack: _Pack) -> None:
    """Put a record where it belongs: a counter of the pack, or a value of a reading."""
    if match := _COUNTED.fullmatch(record.name):
        _count(record, pack, wire.hub_id(match["hub"]), match["what"])
        return
    match = _MEASURED.fullmatch(record.name)
    if match is None or match["quantity"] not in _PLACES:
        raise _wrong(record.offset, "names no device and quantity that is known")
    sign, place = _PLACES[match["quantity"]]
    slot = None if match["slot"] is None else int(match["slot"])
    if slot is not None and (slot > _SLOT_MAX or not sign.user_slots):
        raise _wrong(record.offset, f"{sign.name} has no user slot {slot}")
    if not _RELATIVE_END_S <= record.time_s < _TIME_END_S:
        raise _wrong(record.offset, "its time is not absolute (RFC 8428, 4.5.3)")
    at_ms = int((record.time_s * 1000).to_integral_value(ROUND_FLOOR))
    key = _Key(_device(match["mac"]), slot, sign.code, at_ms)
    values = pack.readings.setdefault(key, {})
    if place in values:
        raise _wrong(record.offset, f"{match['quantity']} came before, at the same time")
    values[place] = record


def _count(record: _Resolved, pack: _Pack, hub: int, what: str) -> None:
    number = record.value
    if not 0 < number < wire.COUNTER_END or number != number.to_integral_value():
        raise _wrong(record.offset, f"the {what} is no whole number of 1..2**63-1")
    if what in pack.counters or pack.counters.setdefault("hub", hub) != hub:
        raise _wrong(record.offset, f"another {what}")
    pack.counters[what] = int(number)


def _wire_record(key: _Key, values: Mapping[int, _Resolved], received_at: datetime) -> bytes:
    sign = BY_CODE[key.sign]
    offset = next(iter(values.values())).offset
    measured_at = from_ms(key.at_ms)
    measurement = Measurement(
        device=key.device,
        sign=key.sign,
        reading=Reading(
            values=tuple(
                values[place].value if place in values else Absent.NOT_SENT
                for place in range(len(sign.quantities))
            ),
            unit_set=_unit_set(sign, values),
            device_time=DeviceTime(type=TimeType.UTC, ms=key.at_ms, resolution_ms=1),
            user_slot=key.slot,
        ),
        measured_at=measured_at,
        received_at=received_at,
        time_quality=TimeQuality.SYNCHRONISED,
        utc_offset_min=None,
    )
    try:
        return wire.encode_record(measurement, received_at)
    except EncodeError as error:
        detail = "begins a reading with a value that would have to be altered"
        raise DecodeError(Fault.INEXACT, "record", offset, detail) from error


def _unit_set(sign: VitalSign, values: Mapping[int, _Resolved]) -> int:
    """Return the unit set that has the units of all records of a reading."""
    sent = {place: _ALIASES.get(record.unit, record.unit) for place, record in values.items()}
    for number, unit_set in enumerate(sign.unit_sets):
        if all(unit_set.units[place].ucum == unit for place, unit in sent.items()):
            return number
    first = next(iter(values.values()))
    raise _wrong(first.offset, f"the units are none of {sign.name}'s unit sets")


def _device(mac: str) -> int:
    """Return the device of an EUI-64; one that was made of an EUI-48 is that EUI-48."""
    match = _EXPANDED.fullmatch(mac)
    return int(match[1] + match[2], 16) if match else int(mac, 16)


def _check_labels(fields: Mapping[str, Any], offset: int) -> None:
    for label in fields:
        if label in _NOT_TAKEN:
            raise _wrong(offset, f"{label}: {_NOT_TAKEN[label]} is no measurement")
        if label.endswith("_"):
            detail = "has a label that must be understood (RFC 8428, 4.4) and is not known"
            raise DecodeError(Fault.UNSUPPORTED, "record", offset, detail)
    if _number(fields, "bver", Decimal(VERSION_MAX), offset) > VERSION_MAX:
        detail = f"is of a version above {VERSION_MAX}"
        raise DecodeError(Fault.UNSUPPORTED, "bver", offset, detail)


def _text(fields: Mapping[str, Any], label: str, default: str, offset: int) -> str:
    value = fields.get(label, default)
    if not isinstance(value, str):
        raise _wrong(offset, f"{label} is no text")
    return value


def _number(fields: Mapping[str, Any], label: str, default: Decimal, offset: int) -> Decimal:
    value = fields.get(label, default)
    if not isinstance(value, Decimal):
        raise _wrong(offset, f"{label} is no number")
    return value


def _wrong(offset: int, detail: str) -> DecodeError:
    return DecodeError(Fault.INVALID, "record", offset, detail)


# JSON


def _objects(payload: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSON array, each with the place of its first byte."""
    if len(payload) > PACK_BYTES_MAX:
        detail = f"has {len(payload)} bytes, at most {PACK_BYTES_MAX} are read"
        raise DecodeError(Fault.TOO_LONG, "pack", PACK_BYTES_MAX, detail)
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(Fault.INVALID, "pack", error.start, "is no UTF-8") from error
    place = _skip(text, 0) + 1  # "[", as `is_pack` has seen
    offset = place
    for number in range(RECORDS_MAX + 1):
        place, before = _skip(text, place), place
        offset += place - before
        if number == 0 and text[place : place + 1] == "]":
            place += 1
            break
        if number == RECORDS_MAX:
            detail = f"is record {number + 1}, at most {RECORDS_MAX} are read"
            raise DecodeError(Fault.TOO_LONG, "record", offset, detail)
        before = place
        fields, place = _object(text, place, offset)
        yield offset, fields
        place = _skip(text, place)
        if text[place : place + 1] not in {",", "]"}:
            raise _wrong(offset, "is followed by neither another nor the end")
        place += 1
        offset += len(text[before:place].encode())
        if text[place - 1] == "]":
            break
    if _skip(text, place) != len(text):
        raise DecodeError(Fault.TRAILING, "pack", offset, "has ended, and goes on")


def _object(text: str, place: int, offset: int) -> tuple[dict[str, Any], int]:
    try:
        value, end = _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError) as error:
        raise _wrong(offset, "is no JSON object as SenML has them") from error
    if not isinstance(value, dict):
        raise _wrong(offset, "is no JSON object")
    return value, end


def _skip(text: str, place: int) -> int:
    while text[place : place + 1] in {" ", "\t", "\r", "\n"}:
        place += 1
    return place


def _decimal(text: str) -> Decimal:
    if len(text) > NUMBER_CHARS_MAX:
        raise ValueError("a number too long")
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError("a number too large") from error


def _no_constant(name: str) -> Decimal:
    raise ValueError(f"{name} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a label that is there twice")
    return fields


_DECODER = json.JSONDecoder(
    parse_float=_decimal, parse_int=_decimal, parse_constant=_no_constant, object_pairs_hook=_once
)
