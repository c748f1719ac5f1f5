"""Pages of measurements as bytes, straight from the database's rows.

The same bytes as orjson makes of `api.json_rows.measurement_document`, which stays the definition (a
test holds them together): what does not change from one reading of a device to the next, names, units,
absences, is a template made once; a row fills in its times and numbers. What a template cannot say (a
value converted from another unit, or counted in tens) is left to the definition.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import NamedTuple

import orjson

from api.archive import COLUMN_OF, stored_measurement
from api.json_rows import attribution_of, measurement_document
from gateway.measurement import TimeQuality
from gateway.platform.postgres import TupleRow
from gateway.quantity import Absent
from gateway.stored import ABSENCE_BITS, ABSENCES_AT, EXPONENT_BITS, FLAG_ARTEFACT, FLAG_UNUSUAL
from gateway.vital_sign import NO_USER_SLOT
from gateway.vitals import BY_CODE
from gateway.wire import OFFSET_STEP_MIN

TEMPLATES_MAX = 4096
"""Templates that are kept: one a device and what its readings have in common."""

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
    template = _template(
        _Kind(row[-1], user_slot, sign, time_quality, unit_set, digits, status, flags, absent)
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


@lru_cache(maxsize=TEMPLATES_MAX)
def _template(kind: _Kind) -> bytes | None:
    device, user_slot, code, time_quality, unit_set, digits, status, flags, absent = kind
    sign = BY_CODE[code]
    values = []
    for index, quantity in enumerate(sign.quantities):
        exponent = digits >> (EXPONENT_BITS * index) & 0xFF
        exponent -= 0x100 if exponent & 0x80 else 0
        if absent[index]:
            reason = Absent(digits >> (ABSENCES_AT + ABSENCE_BITS * index) & 0xF).name.lower()
            values.append(b'"%b":{"absent":"%b"}' % (quantity.name.encode(), reason.encode()))
        elif exponent > 0 or sign.unit_sets[unit_set].units[index] != quantity.unit:
            return None
        else:
            name, unit = quantity.name.encode(), orjson.dumps(quantity.unit.ucum)
            values.append(b'"%b":{"value":%%.%df,"unit":%b}' % (name, -exponent, _escaped(unit)))
    statuses = [entry.name for entry in sign.statuses if status & entry.mask == entry.value]
    return (
        b'{"id":"%%b","sign":"%b","device":%b,"user_slot":%b,"measured_at":"%%b",'
        b'"received_at":"%%b","stored_at":"%%b","time_quality":"%b","values":{%b},'
        b'"statuses":%b,"artefact":%b,"unusual":%b,"attribution":"%b"}'
    ) % (
        sign.name.encode(),
        _escaped(orjson.dumps(device)),
        b"null" if user_slot == NO_USER_SLOT else b"%d" % user_slot,
        TimeQuality(time_quality).name.lower().encode(),
        b",".join(values),
        _escaped(orjson.dumps(statuses)),
        b"true" if flags & FLAG_ARTEFACT else b"false",
        b"true" if flags & FLAG_UNUSUAL else b"false",
        attribution_of(flags).encode(),
    )


def _escaped(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")
