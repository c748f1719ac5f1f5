"""Judged measurements as rows: which to store, in which order, in which columns.

Identity is (device, slot, sign, the device's own time, measured_at). Inside a flush the same
identity twice is settled here; against the store it is settled by the unique index, and by a look-up
for those readings that an earlier one of the device may have been (`Suspects`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.stored import ABSENCES_AT, EXPONENT_BITS, FLAG_ARTEFACT
from gateway.vital_sign import QUANTITIES_MAX, VitalSign
from gateway.vitals import SIGNS
from gateway.wire import NO_OFFSET, TIME_TYPE_MASK
from ingest.copy_binary import Column, Type, timestamps
from ingest.verdicts import TIME_MS_MAX, TIME_MS_MIN, Judged, Verdict, storable

IDENTITY_WINDOW_MS = 48 * 3_600_000
"""The same device time with the same values is the same reading when the two places it was mapped
to are this close (a clock corrected by more is a clock that began anew)."""
MISDATED_MS = 2 * 86_400_000
"""A clock that is off by more has a wrong date. It may have begun at that date more than once, so that
the same device time with the same values, mapped far apart, is one reading or two: it waits apart."""
MISDATED_WINDOW_MS = 400 * 86_400_000
"""As far apart as two placements of one reading can be: no device's memory reaches back further."""
BROADCAST_MS = 5 * 60_000
"""A numbered broadcast without a time-stamp is the same one when two hubs heard it so close together:
far longer than a device repeats it, far shorter than 256 numbers take to come round."""
LATE_MS = 3_600_000
"""A home's own hub has what is measured there within this, unless it was off."""
KIND_RECORD, KIND_PAYLOAD, KIND_MESSAGE = 1, 2, 3
"""What a row of quarantine holds (its column `kind`)."""

Ints = npt.NDArray[np.int64]

_CONTENT_START, _CONTENT_END, _TIME_FLAGS = 32, 64, 35
_NUMBER_BIT = np.zeros(256, np.uint16)
"""Of each sign, the status bit that says that a broadcast is numbered."""
_NUMBER_BIT[[sign.code for sign in SIGNS]] = [sign.broadcast_number for sign in SIGNS]
_HASH_FACTORS = np.array(
    # Odd 64-bit constants (the golden ratio's multiples): a multilinear hash over 32-bit words.
    [(0x9E3779B97F4A7C15 * (2 * i + 1)) & (1 << 64) - 1 for i in range(8)],
    np.uint64,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The measurements of a flush as the store sees them; every array has one entry a record.

    `records` and `judged` belong together; `batch_id` (n,) int64 is the ledger's key.
    """

    records: npt.NDArray[np.void]
    judged: Judged
    batch_id: Ints
    content_hash: npt.NDArray[np.int32]


def rows_of(records: npt.NDArray[np.void], judged: Judged, batch_id: Ints) -> Rows:
    """Put the rows of a flush together."""
    return Rows(
        records=records,
        judged=judged,
        batch_id=batch_id,
        content_hash=content_hashes(records),
    )


def as_bytes(records: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    """Return (n, 64) uint8, the records as they were on the wire."""
    return np.frombuffer(records.tobytes(), np.uint8).reshape(len(records), records.itemsize)


def content_hashes(records: npt.NDArray[np.void]) -> npt.NDArray[np.int32]:
    """Return (n,) int32, a hash of what the device said: values, units, status."""
    content = as_bytes(records)[:, _CONTENT_START:_CONTENT_END].copy()
    content[:, _TIME_FLAGS - _CONTENT_START] = 0
    words = content.view("<u4").astype(np.uint64)
    mixed = (words * _HASH_FACTORS).sum(axis=1, dtype=np.uint64)
    hashes: npt.NDArray[np.int32] = (mixed >> np.uint64(32)).astype(np.uint32).view(np.int32)
    return hashes


def received_after_s(received_ms: Ints, measured_ms: Ints) -> npt.NDArray[np.float32]:
    """Return (n,) how long after its measurement each was received, as the store has it."""
    return ((received_ms - measured_ms) / 1000).astype(np.float32)


def settle_within(rows: Rows, verdict: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Settle repeats inside the flush and return the places to store, in the index's order.

    The same reading again is a DUPLICATE, other values with the same identity are a CONFLICT.
    Changes `verdict`.
    """
    places = np.flatnonzero(verdict == Verdict.STORED)
    verdict[_heard_again(rows, numbered(rows, places))] = Verdict.DUPLICATE
    places = places[verdict[places] == Verdict.STORED]
    device = device_keys(rows, places)
    identity, measured = rows.judged.identity_ms[places], rows.judged.measured_ms[places]
    order = np.lexsort((measured, identity, device))
    if not _repeats(device[order], identity[order]).any():
        fresh: npt.NDArray[np.intp] = places[order]
        return fresh

    content = rows.content_hash[places]
    order = np.lexsort((measured, content, identity, device))
    close = np.append(False, np.diff(measured[order]) <= IDENTITY_WINDOW_MS)
    same = _repeats(device[order], identity[order], content[order])
    repeat = same & close
    verdict[places[order[repeat]]] = Verdict.DUPLICATE
    _keep_first_reception(rows, places[order], repeat)
    doubtful = same & ~close & misdated(rows, places[order])
    verdict[places[order[doubtful]]] = Verdict.CONFLICT

    # In the order of arrival: of a conflict, the first is kept.
    kept = np.sort(order[~repeat & ~doubtful])
    kept = kept[np.lexsort((measured[kept], identity[kept], device[kept]))]
    conflict = _repeats(device[kept], identity[kept], measured[kept])
    verdict[places[kept[conflict]]] = Verdict.CONFLICT
    stored: npt.NDArray[np.intp] = places[kept[~conflict]]
    return stored


def _keep_first_reception(
    rows: Rows, places: npt.NDArray[np.intp], repeat: npt.NDArray[np.bool_]
) -> None:
    """Let each reading among sorted places have the first reception of it and its repeats."""
    first = np.flatnonzero(~repeat)
    received_ms = rows.judged.received_ms
    received_ms[places[first]] = np.minimum.reduceat(received_ms[places], first)


def misdated(rows: Rows, places: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Tell which of the readings at `places` are by a clock of a wrong date."""
    off_ms = rows.judged.measured_ms[places] - rows.judged.identity_ms[places]
    wrong: npt.NDArray[np.bool_] = np.abs(off_ms) >= MISDATED_MS
    return wrong


def numbered(rows: Rows, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return those of `places` that are known by the number of their broadcast, not by a time."""
    records = rows.records
    timeless = records["time_flags"][places] & TIME_TYPE_MASK == 0
    of_number = records["status"][places] & _NUMBER_BIT[records["sign"][places]] != 0
    found: npt.NDArray[np.intp] = places[timeless & of_number]
    return found


def _heard_again(rows: Rows, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return those of numbered broadcasts that are one before them, heard by another hub."""
    device, content = device_keys(rows, places), rows.content_hash[places]
    heard_ms = rows.judged.identity_ms[places]
    order = np.lexsort((heard_ms, content, device))
    close = np.append(False, np.diff(heard_ms[order]) <= BROADCAST_MS)[: len(order)]
    again: npt.NDArray[np.intp] = places[order[_repeats(device[order], content[order]) & close]]
    return again


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Readings that the store holds, (m,) each; `key` as of `device_keys`."""

    key: Ints
    identity_ms: Ints
    content_hash: npt.NDArray[np.int32]
    measured_ms: Ints
    received_after_s: npt.NDArray[np.float32]


def settle_against(
    rows: Rows, verdict: npt.NDArray[np.uint8], places: npt.NDArray[np.intp], stored: Stored
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Settle the readings at `places` against those that the store holds. Changes `verdict`.

    Returns the places of those that the store has, each with its place in `stored`.
    """
    place, match = _pairs(
        (device_keys(rows, places), rows.judged.identity_ms[places]),
        (stored.key, stored.identity_ms),
    )
    places = places[place]
    apart_ms = np.abs(stored.measured_ms[match] - rows.judged.measured_ms[places])
    alike = stored.content_hash[match] == rows.content_hash[places]
    same = alike & (apart_ms <= IDENTITY_WINDOW_MS)
    doubtful = alike & ~same & misdated(rows, places)
    # A conflict first: where the same reading is stored too, the duplicate prevails.
    verdict[places[doubtful | ~same & (apart_ms == 0)]] = Verdict.CONFLICT
    verdict[places[same]] = Verdict.DUPLICATE
    return places[same], match[same]


def _pairs(
    left: tuple[Ints, Ints], right: tuple[Ints, Ints]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Join two lists of (key, time) on equality; return the matching places of each."""
    both = [np.concatenate(columns) for columns in zip(left, right, strict=True)]
    order = np.lexsort((both[1], both[0]))
    groups = np.empty(len(order), np.intp)
    groups[order] = np.cumsum(~_repeats(both[0][order], both[1][order]))
    of_left, of_right = groups[: len(left[0])], groups[len(left[0]) :]
    by_group = np.argsort(of_right, kind="stable")
    start = np.searchsorted(of_right[by_group], of_left, "left")
    count = np.searchsorted(of_right[by_group], of_left, "right") - start
    left_place = np.repeat(np.arange(len(of_left)), count)
    within = np.arange(len(left_place)) - np.repeat(np.cumsum(count) - count, count)
    return left_place, by_group[np.repeat(start, count) + within]


def device_keys(rows: Rows, places: npt.NDArray[np.intp]) -> Ints:
    """Return device, slot and sign as one number, in the index's order."""
    device = rows.judged.device_id[places].astype(np.int64)
    slot = rows.records["user_slot"][places].astype(np.int64)
    keys: Ints = device << 16 | slot << 8 | rows.records["sign"][places].astype(np.int64)
    return keys


def _repeats(*keys: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Tell which entries of sorted key arrays are the same as the one before."""
    same = np.ones(max(len(keys[0]) - 1, 0), np.bool_)
    for key in keys:
        same &= key[1:] == key[:-1]
    repeats: npt.NDArray[np.bool_] = np.append(False, same)[: len(keys[0])]
    return repeats


def places_by_sign(
    rows: Rows, places: npt.NDArray[np.intp]
) -> list[tuple[VitalSign, npt.NDArray[np.intp]]]:
    """Return the signs among `places` with theirs, in the order of `places`."""
    codes = rows.records["sign"][places]
    return [(sign, places[codes == sign.code]) for sign in SIGNS if (codes == sign.code).any()]


def quarantine_columns(
    rows: Rows,
    verdict: npt.NDArray[np.uint8],
    places: npt.NDArray[np.intp],
    hub_id: npt.NDArray[np.int32],
    decoder: npt.NDArray[np.int32],
) -> list[Column]:
    """Return the columns of the records kept apart; `hub_id` and `decoder` have one entry each."""
    records, judged = rows.records[places], rows.judged
    detail = judged.detail[places]
    measured_ms = judged.measured_ms[places]
    content = as_bytes(records)
    one = np.ones(len(places), np.int16)
    return [
        Column(name="batch_id", type=Type.INT8, values=rows.batch_id[places]),
        Column(name="device", type=Type.INT8, values=records["device"].view(np.int64)),
        Column(name="received_at", type=Type.INT8, values=timestamps(judged.received_ms[places])),
        Column(
            name="measured_at",
            type=Type.INT8,
            values=timestamps(np.clip(measured_ms, TIME_MS_MIN, TIME_MS_MAX)),
            present=storable(measured_ms),
        ),
        Column(name="hub_id", type=Type.INT4, values=hub_id),
        Column(name="content_bytes", type=Type.INT4, values=one * np.int32(content.shape[1])),
        Column(name="decoder", type=Type.INT4, values=decoder),
        Column(name="kind", type=Type.INT2, values=one * np.int16(KIND_RECORD)),
        Column(name="reason", type=Type.INT2, values=verdict[places]),
        Column(name="sign", type=Type.INT2, values=records["sign"]),
        Column(name="detail", type=Type.INT2, values=detail, present=detail >= 0),
        Column(name="content", type=Type.BYTES, values=content),
    ]


def measurement_columns(
    rows: Rows, places: npt.NDArray[np.intp], sign: VitalSign, stored_at_ms: int
) -> list[Column]:
    """Return the columns of the measurements at `places`, all of one sign."""
    records, judged = rows.records[places], rows.judged
    measured_ms = judged.measured_ms[places]
    values = judged.values[places]
    offset = records["utc_offset"]
    stored_at = timestamps(np.array([stored_at_ms], np.int64))
    fixed: list[tuple[str, Type, npt.NDArray[np.generic]]] = [
        ("measured_at", Type.INT8, timestamps(measured_ms)),
        ("identity_time", Type.INT8, timestamps(judged.identity_ms[places])),
        ("stored_at", Type.INT8, np.broadcast_to(stored_at, len(places))),
        ("batch_id", Type.INT8, rows.batch_id[places]),
        ("digits", Type.INT8, _digits(records)),
        ("device_id", Type.INT4, judged.device_id[places]),
        ("resident_id", Type.INT4, judged.resident_id[places]),
        ("status", Type.INT4, records["status"]),
        ("content_hash", Type.INT4, rows.content_hash[places]),
        (
            "received_after_s",
            Type.FLOAT4,
            received_after_s(judged.received_ms[places], measured_ms),
        ),
        ("sign", Type.INT2, records["sign"]),
        ("user_slot", Type.INT2, records["user_slot"]),
        ("time_quality", Type.INT2, records["time_quality"]),
        ("unit_set", Type.INT2, records["unit_set"]),
        ("time_flags", Type.INT2, records["time_flags"]),
        (
            "flags",
            Type.INT2,
            judged.artefact[places] * np.int16(FLAG_ARTEFACT) | judged.marks[places],
        ),
    ]
    columns = [Column(name=name, type=type_, values=array) for name, type_, array in fixed]
    columns.append(
        Column(name="utc_offset", type=Type.INT2, values=offset, present=offset != NO_OFFSET)
    )
    columns += [
        Column(
            name=quantity.name,
            type=Type.FLOAT8,
            values=values[:, index],
            present=~np.isnan(values[:, index]),
        )
        for index, quantity in enumerate(sign.quantities)
    ]
    return columns


_BYTE_BITS = 8


def _digits(records: npt.NDArray[np.void]) -> Ints:
    """Pack exponents and absences as gateway.stored has them; the wire's nibbles stand likewise."""
    exponents = records["exponent"].view(np.uint8).astype(np.int64)
    absent = records["absent"].astype(np.int64)
    digits = np.zeros(len(records), np.int64)
    for index in range(QUANTITIES_MAX):
        digits |= exponents[:, index] << (EXPONENT_BITS * index)
    for index in range(absent.shape[1]):
        digits |= absent[:, index] << (ABSENCES_AT + _BYTE_BITS * index)  # two nibbles a byte
    return digits
