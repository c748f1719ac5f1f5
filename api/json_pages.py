"""Pages of measurements as bytes, straight from the database's rows.

The same bytes as orjson makes of `api.json_rows.measurement_document`, which stays the definition (a
test holds them together): what does not change from one reading of a device to the next, names, units,
absences, is a template, made once from the definition's own words; a row fills in times and numbers. What a template cannot say (a
value converted from another unit, or counted in tens) is left to the definition.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import NamedTuple

import orjson

from api.documents import AbsentValue, ConvertedValue, MeasurementDocument, PresentValue
from api.json_rows import measurement_document
from api.measurement_rows import COLUMN_OF, stored_measurement
from gateway.platform.postgres import TupleRow
from gateway.stored import EXPONENT_BITS
from gateway.vitals import BY_CODE
from gateway.wire import OFFSET_STEP_MIN

TEMPLATES_MAX = 4096
"""Templates that are kept: one a device and what its readings have in common."""

_TEXT = "\x01"
_NUMBER = rb"\u0002"
_NUMBER_PLACE = re.compile(rb'"\\u0002(\d+)"')
"""Control characters, which no name, unit or address has, hold the places."""
_PLACE = struct.Struct(">qiBBq")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Kind(NamedTuple):
    """What readings that share a template have in common."""

    device: str
    user_slot: int
    sign: int
    time_quality: int
    unit_set: int
    digits: int
    status: int
    flags: int
    absent: tuple[bool, ...]


_UNKNOWN = b""
_templates: dict[_Kind, bytes | None] = {}


def page_json(rows: Sequence[TupleRow], limit: int) -> bytes:
    """Return a page of the first `limit` rows, as `Page` says it; `next` where there are more."""
    items = [measurement_json(row) for row in rows[:limit]]
    following = b"null"
    if len(rows) > limit:
        following = b'"%b"' % _id(rows[limit - 1])
    return b'{"items":[%b],"next":%b}' % (b",".join(items), following)


def measurement_json(row: TupleRow) -> bytes:
    """Return one measurement; the columns are those of `api.archive`."""
    (measured_at, _device_id, user_slot, sign, _identity_us, stored_at, received_after_s,
     utc_offset, time_quality, unit_set, digits, status, flags) = row[:13]  # fmt: skip
    absent = tuple(row[column] is None for column in _columns(sign))
    kind = _Kind(row[-1], user_slot, sign, time_quality, unit_set, digits, status, flags, absent)
    template = _templates.get(kind, _UNKNOWN)
    if template is _UNKNOWN:
        if len(_templates) >= TEMPLATES_MAX:
            _templates.clear()
        template = _templates[kind] = _template(
            measurement_document(stored_measurement(row)), digits
        )
    if template is None:
        return orjson.dumps(measurement_document(stored_measurement(row)))
    received_at = measured_at + timedelta(seconds=received_after_s)
    return template % (
        _id(row),
        measured_at.astimezone(_zone(utc_offset)).isoformat(timespec="milliseconds").encode()
        if utc_offset is not None
        else _utc(measured_at),
        _utc(received_at),
        _utc(stored_at),
        *(value for column in _columns(sign) if (value := row[column]) is not None),
    )


def _id(row: TupleRow) -> bytes:
    measured_us = (row[0] - _EPOCH) // _MICROSECOND
    return _PLACE.pack(measured_us, row[1], row[2], row[3], row[4]).hex().encode()


def _utc(moment: datetime) -> bytes:
    # The session's time zone is UTC (api.archive), so the offset is always +00:00.
    return b"%bZ" % moment.isoformat(timespec="milliseconds")[:-6].encode()


@lru_cache(maxsize=128)
def _zone(utc_offset: int) -> timezone:
    return timezone(timedelta(minutes=OFFSET_STEP_MIN * utc_offset))


@lru_cache(maxsize=256)
def _columns(sign: int) -> tuple[int, ...]:
    return tuple(COLUMN_OF[quantity.name] for quantity in BY_CODE[sign].quantities)


def _template(document: MeasurementDocument, digits: int) -> bytes | None:
    """Return the definition's own words for a kind, with places for what a row fills in."""
    values: dict[str, PresentValue | ConvertedValue | AbsentValue] = {}
    for index, (name, value) in enumerate(document.values.items()):
        exponent = digits >> (EXPONENT_BITS * index) & 0xFF
        decimals = -(exponent - 0x100 if exponent & 0x80 else exponent)
        if isinstance(value, ConvertedValue) or (isinstance(value, PresentValue) and decimals < 0):
            return None
        values[name] = value
        if isinstance(value, PresentValue):
            place = orjson.Fragment(b'"%b%d"' % (_NUMBER, decimals))
            values[name] = replace(value, value=place)
    with_places = replace(
        document, id=_TEXT, measured_at=_TEXT, received_at=_TEXT, stored_at=_TEXT, values=values
    )
    words = orjson.dumps(with_places).replace(b"%", b"%%").replace(orjson.dumps(_TEXT), b'"%b"')
    return _NUMBER_PLACE.sub(rb"%.\1f", words)
