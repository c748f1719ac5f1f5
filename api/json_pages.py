"""Pages of measurements as bytes, straight from the database's rows.

The same bytes as orjson makes of `api.json_rows.measurement_document`, which stays the definition (a
test holds them together): what does not change from one reading of a device to the next, names, units,
absences, is a template, made once from the definition's own words; a row fills in times and numbers, the times of a page made
by NumPy at once. What a template cannot say (a value converted from another unit, or counted in tens) is left to the definition.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
import orjson

from api.cursor import TOKEN_CHARS
from api.documents import AbsentValue, ConvertedValue, MeasurementDocument, PresentValue
from api.json_rows import measurement_document
from api.measurement_rows import VALUES_AT, stored_measurement
from gateway.platform.postgres import TupleRow
from gateway.stored import EXPONENT_BITS, FLAG_ARTEFACT
from gateway.vitals import BY_CODE
from gateway.wire import OFFSET_STEP_MIN

TEMPLATES_MAX = 4096
"""Templates that are kept: one a device and what its readings have in common."""

_TEXT, _TEXT_JSON = "\x01", rb"\u0001"
_NUMBER = rb"\u0002"
_NUMBER_PLACE = re.compile(rb'"\\u0002(\d+)"')
"""Control characters, which no name, unit or address has, hold the places."""
_PLACE = np.dtype(
    [("us", ">i8"), ("device", ">i4"), ("slot", "u1"), ("sign", "u1"), ("id_us", ">i8")]
)
"""As `api.cursor` packs it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MILLISECOND_US, _SECOND_US = 1_000, 1_000_000


Instants = npt.NDArray[np.int64]
_Kind = tuple[str, int, int, int, int, int, int, int, tuple[bool, ...]]
"""What readings that share a template have in common: device, slot, sign, time quality, unit set,
digits, status, flags, which values are absent."""
(_MEASURED_AT, _DEVICE_ID, _USER_SLOT, _SIGN, _IDENTITY_US, _STORED_AT, _RECEIVED_AFTER_S,
 _UTC_OFFSET) = range(8)  # fmt: skip
_FLAGS = 12
"""Columns of a row."""
_OFFSET_STEP_US = OFFSET_STEP_MIN * 60 * _SECOND_US

_UNKNOWN = b""
_templates: dict[_Kind, bytes | None] = {}


def page_json(rows: Sequence[TupleRow], limit: int) -> bytes:
    """Return a page of the first `limit` rows, as `Page` says it; `next` where there are more."""
    shown = rows[:limit]
    following = b"null"
    if len(rows) > limit:
        following = b'"%b"' % _ids(shown[-1:], _microseconds(shown[-1:], _MEASURED_AT))[0]
    return b'{"items":[%b],"next":%b}' % (b",".join(measurements_json(shown)), following)


def latest_json(rows: Sequence[TupleRow]) -> bytes:
    """Return the latest of each sign by its name, from the rows that `Archive.latest` returns."""
    said = dict(zip(map(_place, rows), measurements_json(rows), strict=True))
    parts = []
    for sign in BY_CODE.values():
        of_sign = [row for row in rows if row[_SIGN] == sign.code]
        if of_sign:
            clean = next((row for row in of_sign if not row[_FLAGS] & FLAG_ARTEFACT), None)
            parts.append(
                b'"%b":{"latest":%b,"latest_without_artefact":%b}'
                % (
                    sign.name.encode(),
                    said[max(map(_place, of_sign))],
                    b"null" if clean is None else said[_place(clean)],
                )
            )
    return b"{%b}" % b",".join(parts)


def measurements_json(rows: Sequence[TupleRow]) -> list[bytes]:
    """Return each measurement; the columns are those of `api.archive`."""
    if not rows:
        return []
    measured_us = _microseconds(rows, _MEASURED_AT)
    whole, part = np.modf(np.array([row[_RECEIVED_AFTER_S] for row in rows], np.float64))[::-1]
    received_us = measured_us + (whole.astype(np.int64) * _SECOND_US)
    received_us += np.rint(part * _SECOND_US).astype(np.int64)
    local_us = np.array([row[_UTC_OFFSET] or 0 for row in rows], np.int64) * _OFFSET_STEP_US
    return [
        _measurement(row, *times)
        for row, *times in zip(
            rows,
            _ids(rows, measured_us),
            _instants(measured_us + local_us),
            _instants(received_us),
            _instants(_microseconds(rows, _STORED_AT)),
            strict=True,
        )
    ]


def _measurement(
    row: TupleRow, id_: bytes, measured_at: bytes, received_at: bytes, stored_at: bytes
) -> bytes:
    """Return one measurement; the times are without their offset."""
    (_measured_at, _device_id, user_slot, sign, _identity_us, _stored_at, _received_after_s,
     utc_offset, time_quality, unit_set, digits, status, flags) = row[:13]  # fmt: skip
    values = row[VALUES_AT : _values_end(sign)]
    absent = tuple([value is None for value in values])
    kind = (row[-1], user_slot, sign, time_quality, unit_set, digits, status, flags, absent)
    template = _templates.get(kind, _UNKNOWN)
    if template is _UNKNOWN:
        if len(_templates) >= TEMPLATES_MAX:
            _templates.clear()
        template = _templates[kind] = _template(
            measurement_document(stored_measurement(row)), digits
        )
    if template is None:
        return orjson.dumps(measurement_document(stored_measurement(row)))
    if True in absent:
        values = tuple([value for value in values if value is not None])
    return template % (id_, measured_at + _suffix(utc_offset), received_at, stored_at, *values)


def _place(row: TupleRow) -> tuple[object, ...]:
    """Return the unique key of a row, in the order of the pages."""
    return tuple(row[: _IDENTITY_US + 1])


def _ids(rows: Sequence[TupleRow], measured_us: Instants) -> list[bytes]:
    places = np.empty(len(rows), _PLACE)
    places["us"] = measured_us
    for name, column in (("device", _DEVICE_ID), ("slot", _USER_SLOT), ("sign", _SIGN),
                         ("id_us", _IDENTITY_US)):  # fmt: skip
        places[name] = [row[column] for row in rows]
    digits = places.tobytes().hex().encode()
    return [digits[at : at + TOKEN_CHARS] for at in range(0, len(digits), TOKEN_CHARS)]


def _microseconds(rows: Sequence[TupleRow], column: int) -> Instants:
    return np.array([(row[column] - _EPOCH) // _MICROSECOND for row in rows], np.int64)


def _instants(us: Instants) -> list[bytes]:
    """Return (n,) microseconds since 1970 as RFC 3339 without the offset, by the millisecond."""
    text = np.datetime_as_string((us // _MILLISECOND_US).view("M8[ms]"), unit="ms")
    said: list[bytes] = text.astype("S").tolist()
    return said


@lru_cache(maxsize=256)
def _suffix(utc_offset: int | None) -> bytes:
    """Return the offset of a local time; Z where it is not known (RFC 9557, 2)."""
    if utc_offset is None:
        return b"Z"
    zone = timezone(timedelta(minutes=OFFSET_STEP_MIN * utc_offset))
    return _EPOCH.astimezone(zone).isoformat()[-6:].encode()


@cache
def _values_end(sign: int) -> int:
    return VALUES_AT + len(BY_CODE[sign].quantities)


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
        document,
        id=_TEXT,
        measured_at=_TEXT,
        received_at=f"{_TEXT}Z",
        stored_at=f"{_TEXT}Z",
        values=values,
    )
    words = orjson.dumps(with_places).replace(b"%", b"%%").replace(_TEXT_JSON, b"%b")
    return _NUMBER_PLACE.sub(rb"%.\1f", words)
