"""Pages of measurements as bytes, straight from the database's rows.

The same bytes as orjson makes of `api.json_rows.measurement_document`, which stays the definition (a
test holds them together): what readings of a kind have in common, names, units, absences, is a template,
made once from the definition's own words; a row fills in its device, times and numbers, the times of a page
made by NumPy at once. What a template cannot say (a value converted from another unit, or counted in tens)
is left to the definition.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from operator import itemgetter

import numpy as np
import numpy.typing as npt
import orjson

from api.cursor import TOKEN_CHARS, encode_place
from api.documents import AbsentValue, ConvertedValue, PresentValue
from api.json_rows import measurement_document
from api.measurement_rows import DEVICE_AT, VALUES_AT, read_measurement
from gateway.platform.postgres import POSTGRES_EPOCH_US, TupleRow
from gateway.stored import EXPONENT_BITS, FLAG_ARTEFACT
from gateway.vitals import BY_CODE
from gateway.wire import OFFSET_STEP_MIN

TEMPLATES_MAX = 4096
"""Templates that are kept: a kind each. There are some hundreds, however many the devices are."""

_TEXT, _TEXT_JSON = "\x01", rb"\u0001"
_WORD, _WORD_JSON = "\x03", rb'"\u0003"'
_NUMBER = rb"\u0002"
_NUMBER_PLACE = re.compile(rb'"\\u0002(\d+)"')
"""Control characters, which no name, unit or address has, hold the places."""
_PLACE = np.dtype(
    [("us", ">i8"), ("device", ">i4"), ("slot", "u1"), ("sign", "u1"), ("id_us", ">i8")]
)
"""As `api.cursor` packs it."""
(_MEASURED_US, _DEVICE_ID, _USER_SLOT, _SIGN, _IDENTITY_US, _STORED_US, _RECEIVED_AFTER_S,
 _UTC_OFFSET, _TIME_QUALITY, _UNIT_SET, _DIGITS, _STATUS, _FLAGS) = range(VALUES_AT)  # fmt: skip
"""Columns of a row of `api.measurement_rows`; its times are microseconds since 2000."""
_OFFSET_STEP_US = OFFSET_STEP_MIN * 60 * 1_000_000

_kind = itemgetter(_USER_SLOT, _SIGN, _UTC_OFFSET, _TIME_QUALITY, _UNIT_SET, _DIGITS, _STATUS,
                   _FLAGS)  # fmt: skip
"""What readings that share a template have in common, but for which of their values are absent."""
_UNKNOWN = b""
_templates: dict[object, bytes | None] = {}

_BLANK = b"0000-00-00T00:00:00.000"
"""RFC 3339 as far as the offset of the zone, which is of a template's words."""
_INSTANT = np.dtype(
    {
        "names": ["century", "year", "month", "day", "hour", "minute", "second", "hundredth", "ms"],
        "formats": ["u2"] * 8 + ["u1"],
        "offsets": [0, 2, 5, 8, 11, 14, 17, 20, 22],
        "itemsize": len(_BLANK),
    }
)
"""Where its digits stand, two at a time but for the last."""
_TWO_DIGITS = np.frombuffer(b"".join(b"%02d" % n for n in range(100)), "u2")
_ONE_DIGIT = np.frombuffer(b"0123456789", "u1")

Instants = npt.NDArray[np.int64]


def page_json(rows: Sequence[TupleRow], limit: int) -> bytes:
    """Return a page of the first `limit` rows, as `Page` says it; `next` where there are more."""
    shown = rows[:limit]
    following = b"null"
    if len(rows) > limit:
        following = b'"%b"' % encode_place(read_measurement(shown[-1]).place).encode()
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
    """Return each measurement of rows as `api.measurement_rows` has them."""
    if not rows:
        return []
    columns = tuple(zip(*rows, strict=True))
    measured_us, stored_us = (
        np.array(columns[column], np.int64) + POSTGRES_EPOCH_US
        for column in (_MEASURED_US, _STORED_US)
    )
    received_us = measured_us + _microseconds(np.array(columns[_RECEIVED_AFTER_S], np.float64))
    devices = {device: orjson.dumps(device) for device in set(columns[DEVICE_AT])}
    local = [offset or 0 for offset in columns[_UTC_OFFSET]]
    local_us = measured_us + np.array(local, np.int64) * _OFFSET_STEP_US
    return list(
        map(
            _measurement,
            rows,
            map(_kind, rows),
            _ids(columns, measured_us),
            map(devices.__getitem__, columns[DEVICE_AT]),
            *_instants(np.stack((local_us, received_us, stored_us))),
        )
    )


def _measurement(
    row: TupleRow,
    kind: tuple[object, ...],
    id_: bytes,
    device: bytes,
    measured_at: bytes,
    received_at: bytes,
    stored_at: bytes,
) -> bytes:
    """Return one measurement; the device is JSON, the times are without their offset."""
    values = row[VALUES_AT : _values_end(row[_SIGN])]
    if None in values:
        kind += tuple([value is None for value in values])
        values = tuple([value for value in values if value is not None])
    template = _templates.get(kind, _UNKNOWN)
    if template is _UNKNOWN:
        if len(_templates) >= TEMPLATES_MAX:
            _templates.clear()
        template = _templates[kind] = _template(row)
    if template is None:
        return orjson.dumps(measurement_document(read_measurement(row)))
    return template % (id_, device, measured_at, received_at, stored_at, *values)


def _place(row: TupleRow) -> tuple[object, ...]:
    """Return the unique key of a row, in the order of the pages."""
    return tuple(row[: _IDENTITY_US + 1])


def _ids(columns: Sequence[Sequence[int]], measured_us: Instants) -> list[bytes]:
    places = np.empty(len(measured_us), _PLACE)
    places["us"] = measured_us
    for name, column in (("device", _DEVICE_ID), ("slot", _USER_SLOT), ("sign", _SIGN)):
        places[name] = columns[column]
    places["id_us"] = np.array(columns[_IDENTITY_US], np.int64) + POSTGRES_EPOCH_US
    digits = places.tobytes().hex().encode()
    ids: list[bytes] = np.frombuffer(digits, f"S{TOKEN_CHARS}").tolist()
    return ids


def _microseconds(seconds: npt.NDArray[np.float64]) -> Instants:
    """Return the nearest microseconds, as timedelta does: of the part behind the point by itself."""
    part, whole = np.modf(seconds)
    us: Instants = whole.astype(np.int64) * 1_000_000 + np.rint(part * 1_000_000).astype(np.int64)
    return us


def _instants(us: Instants) -> list[list[bytes]]:
    """Return (k, n) microseconds since 1970 as RFC 3339 without the offset, by the millisecond."""
    days, ms = np.divmod(us.ravel() // 1_000, 86_400_000)
    date = days.view("M8[D]")
    month = date.astype("M8[M]")
    months = month.astype(np.int64)
    year = months // 12 + 1970
    said = np.full(len(days), _BLANK).view(_INSTANT)
    for name, number in (
        ("century", year // 100),
        ("year", year % 100),
        ("month", months % 12 + 1),
        ("day", (date - month.astype("M8[D]")).astype(np.int64) + 1),
        ("hour", ms // 3_600_000),
        ("minute", ms // 60_000 % 60),
        ("second", ms // 1_000 % 60),
        ("hundredth", ms // 10 % 100),
    ):
        said[name] = _TWO_DIGITS.take(number)
    said["ms"] = _ONE_DIGIT.take(ms % 10)
    instants: list[list[bytes]] = said.view(f"S{len(_BLANK)}").reshape(us.shape).tolist()
    return instants


@cache
def _values_end(sign: int) -> int:
    return VALUES_AT + len(BY_CODE[sign].quantities)


def _template(row: TupleRow) -> bytes | None:
    """Return the definition's own words for a row's kind, with places for what a row fills in.

    None where there can be none: of a converted value, or one counted in tens.
    """
    document = measurement_document(read_measurement(row))
    values: dict[str, PresentValue | ConvertedValue | AbsentValue] = {}
    for index, (name, value) in enumerate(document.values.items()):
        exponent = row[_DIGITS] >> (EXPONENT_BITS * index) & 0xFF
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
        device=_WORD,
        measured_at=_TEXT + document.measured_at[len(_BLANK) :],
        received_at=_TEXT + document.received_at[len(_BLANK) :],
        stored_at=_TEXT + document.stored_at[len(_BLANK) :],
        values=values,
    )
    words = orjson.dumps(with_places).replace(b"%", b"%%")
    words = words.replace(_WORD_JSON, b"%b").replace(_TEXT_JSON, b"%b")
    return _NUMBER_PLACE.sub(rb"%.\1f", words)
