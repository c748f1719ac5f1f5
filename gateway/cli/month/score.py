"""The archive held against the truth: lost, doubled, wrong residents, errors of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway import wire
from gateway.cli.month.archive import resident_of
from gateway.cli.month.world import FATE_OVERWRITTEN, World
from gateway.measurement import TimeQuality, device_id
from gateway.platform.postgres import AsyncConnection, copy_out, load_queries
from ingest.batches import RECORD_DTYPE
from ingest.quarantine import unsigned
from ingest.rows import KIND_RECORD
from ingest.verdicts import Verdict

WRONG_SHARED_MAX = 0.005
"""Of the readings of scales that tell nobody apart, filed to a wrong resident."""
ERROR_S_MAX = 60.0
"""The 99th percentile of the error of times that claim to be synchronised or mapped."""
NOBODY, UNMEASURED = -2, -3
"""Persons that are none: of a row filed to no one, and of a resident who took no reading."""
CLAIMING = (TimeQuality.SYNCHRONISED, TimeQuality.MAPPED)

_QUERIES = load_queries(Path(__file__).parent / "month.sql")
_DEVICE_MS = 1 << 42
"""More than any time of a month in milliseconds: device and time as one number."""
_HEARD_MS_MAX = 5_000
"""So long after the first hub another one hears an advertisement, at most."""
_COPY_HEAD_BYTES, _COPY_TAIL_BYTES = 19, 2
_STORED = (
    ("device", ">i4"),
    ("slot", ">i4"),
    ("identity_ms", ">i8"),
    ("measured_ms", ">i8"),
    ("quality", ">i4"),
    ("resident", ">i4"),
)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """To whom readings were filed. `unassigned`: to nobody; they wait, here or in quarantine."""

    readings: int
    right: int
    wrong: int
    unassigned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How far measured times are from the truth, in seconds; null where there are none."""

    readings: int
    p50: float | None
    p99: float | None
    max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a month came to.

    `taken`: by all devices. `received`: by a hub; of the others, `overwritten` were lost on a device
    that met no hub for too long, `unheard` were advertised while no hub listened, `on_devices` wait
    there still. `held`: received readings that wait in the quarantine, by reason.
    """

    homes: int
    days: int
    seed: int
    taken: int
    received: int
    overwritten: int
    unheard: int
    on_devices: int
    stored: int
    held: Mapping[str, int]
    lost: int
    doubled: int
    shared_scales: Attribution
    others: Attribution
    time_error_s: Errors
    """Of readings that claim to be synchronised or mapped."""
    time_error_by_quality_s: Mapping[str, Errors]
    seconds: float

    @property
    def met(self) -> bool:
        """Whether the goals are met."""
        return (
            self.lost == 0
            and self.doubled == 0
            and self.others.wrong == 0
            and self.shared_scales.wrong <= WRONG_SHARED_MAX * self.shared_scales.readings
            and (self.time_error_s.p99 or 0.0) <= ERROR_S_MAX
        )

    def as_json(self) -> dict[str, Any]:
        """Return what --json prints."""
        return asdict(self) | {"met": self.met}


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """What was simulated."""

    homes: int
    days: int
    seed: int
    shared: frozenset[int]
    """Devices, by their number in the world, that tell nobody apart although several use them."""


async def score(
    connection: AsyncConnection, world: World, month: Month, *, seconds: float
) -> Score:
    """Read the archive and hold it against the world's truth."""
    truth = world.truth
    number_of = {device_id(device.address): n for n, device in enumerate(world.devices)}
    person_of = await _persons(connection, world)
    stored = await _stored(connection, number_of)

    device = np.array(truth.device, np.int64)
    slot = np.array(truth.slot, np.int64)
    stamp_ms = np.array(truth.stamp_ms, np.int64)
    received_ms = np.array(truth.received_ms, np.int64)
    taken_ms = np.array(truth.taken_ms, np.int64)
    fate = np.array(truth.fate, np.int64)
    is_received = received_ms != wire.NO_TIME
    identity_ms = np.where(stamp_ms == wire.NO_TIME, received_ms, stamp_ms)

    timeless = is_received & (stamp_ms == wire.NO_TIME)
    stored["identity_ms"] = first_heard(
        (device[timeless], received_ms[timeless]), (stored["device"], stored["identity_ms"])
    )
    (places,) = np.nonzero(is_received)
    found = np.full(len(device), -1, np.int64)
    found[places] = matches(
        (device[places], slot[places], identity_ms[places]),
        taken_ms[places],
        (stored["device"], stored["slot"], stored["identity_ms"]),
        stored["measured_ms"],
    )
    (missing,) = np.nonzero(is_received & (found < 0))
    held = await _held(connection, number_of, device, slot, identity_ms, received_ms, missing)

    (matched,) = np.nonzero(found >= 0)
    row = stored[found[matched]]
    filed_to = person_of[row["resident"]]
    is_right = filed_to == np.array(truth.person, np.int64)[matched]
    is_filed = filed_to != NOBODY
    shared = np.isin(device, list(month.shared))
    error_s = np.abs(row["measured_ms"] - taken_ms[matched]) / 1000
    advertises = np.array([bool(each.sign.advertised) for each in world.devices])[device]
    is_overwritten = ~is_received & (fate == FATE_OVERWRITTEN)
    return Score(
        homes=month.homes,
        days=month.days,
        seed=month.seed,
        taken=len(device),
        received=int(is_received.sum()),
        overwritten=int(is_overwritten.sum()),
        unheard=int((~is_received & advertises).sum()),
        on_devices=int((~is_received & ~advertises & ~is_overwritten).sum()),
        stored=len(stored),
        held=dict(sorted(held.items())),
        lost=len(missing) - sum(held.values()),
        doubled=len(stored) - len(matched),
        shared_scales=_attribution(is_received & shared, shared[matched] & is_filed, is_right),
        others=_attribution(is_received & ~shared, ~shared[matched] & is_filed, is_right),
        time_error_s=_errors(error_s[np.isin(row["quality"], CLAIMING)]),
        time_error_by_quality_s={
            quality.name.lower(): _errors(error_s[row["quality"] == quality])
            for quality in TimeQuality
            if (row["quality"] == quality).any()
        },
        seconds=round(seconds, 1),
    )


def first_heard(timeless: tuple[Ints, Ints], rows: tuple[Ints, Ints]) -> Ints:
    """Return the identity times of rows, those of readings without a time as they were first heard.

    Args:
        timeless: (n,) device and first reception of each reading without a time of its own.
        rows: (m,) device and identity time of each row: of such a reading, any hub's reception.
    """
    keys = np.sort(timeless[0] * _DEVICE_MS + timeless[1])
    wanted = rows[0] * _DEVICE_MS + rows[1]
    if not len(keys):
        return rows[1]
    first = keys[np.maximum(np.searchsorted(keys, wanted, "right") - 1, 0)]
    is_heard = (first <= wanted) & (wanted - first <= _HEARD_MS_MAX)
    return np.where(is_heard, first % _DEVICE_MS, rows[1])


def matches(
    truth: tuple[Ints, Ints, Ints], taken_ms: Ints, rows: tuple[Ints, Ints, Ints], measured_ms: Ints
) -> Ints:
    """Return for each true reading the row that is it, -1 where none is; no row is used twice.

    Args:
        truth: (n,) device, slot and identity time of each reading.
        taken_ms: (n,) when it was taken.
        rows: the same of each row.
        measured_ms: (m,) when the row says it was measured.

    A clock that began anew may have stamped two readings alike: then the nearest in time belong
    together.
    """
    count = len(taken_ms)
    both = [np.concatenate(columns) for columns in zip(truth, rows, strict=True)]
    order = np.lexsort((both[2], both[1], both[0]))
    new = np.ones(len(order), np.bool_)
    new[1:] = np.any([column[order][1:] != column[order][:-1] for column in both], axis=0)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    size = np.bincount(group, minlength=1)
    found = np.full(count, -1, np.int64)
    of_truth = np.bincount(group[:count], minlength=len(size))
    simple = (size == 2) & (of_truth == 1)  # noqa: PLR2004 - one reading, one row
    row_of_group = np.full(len(size), -1, np.int64)
    row_of_group[group[count:]] = np.arange(len(measured_ms))
    (is_simple,) = np.nonzero(simple[group[:count]])
    found[is_simple] = row_of_group[group[is_simple]]
    (hard,) = np.nonzero(~simple & (of_truth > 0) & (of_truth < size))
    if len(hard):
        _match_hard(group, count, hard, found, taken_ms, measured_ms)
    return found


def _match_hard(
    group: Ints, count: int, hard: Ints, found: Ints, taken_ms: Ints, measured_ms: Ints
) -> None:
    """Pair the readings and rows of each of these groups, the nearest first. Changes `found`."""
    by_group = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[by_group], hard, "left")
    ends = np.searchsorted(group[by_group], hard, "right")
    for start, end in zip(starts, ends, strict=True):
        members = by_group[start:end]
        readings, rows = members[members < count], members[members >= count] - count
        pairs = sorted(
            (abs(int(taken_ms[reading]) - int(measured_ms[row])), int(reading), int(row))
            for reading in readings
            for row in rows
        )
        used: set[int] = set()
        for _apart_ms, reading, row in pairs:
            if found[reading] < 0 and row not in used:
                found[reading] = row
                used.add(row)


async def _stored(
    connection: AsyncConnection, number_of: Mapping[int, int]
) -> npt.NDArray[np.void]:
    """Return the rows of the archive; devices by their number in the world."""
    layout = [("fields", ">i2")]
    for name, form in _STORED:
        layout += [(f"{name}_bytes", ">i4"), (name, form)]
    data = await copy_out(connection, _QUERIES["stored"])
    rows = np.frombuffer(data[_COPY_HEAD_BYTES:-_COPY_TAIL_BYTES], np.dtype(layout))
    keys = await (await connection.execute(_QUERIES["devices"])).fetchall()
    numbers = np.full(max((key for key, _address in keys), default=0) + 1, -1, np.int64)
    for key, address in keys:
        numbers[key] = number_of.get(device_id(address), -1)
    stored = np.empty(len(rows), [(name, "i8") for name, _form in _STORED])
    for name, _form in _STORED:
        stored[name] = rows[name]
    stored["device"] = numbers[stored["device"]]
    return stored


async def _persons(connection: AsyncConnection, world: World) -> Ints:
    """Return the person of each resident key; the key 0 is nobody's."""
    rows = await (await connection.execute(_QUERIES["residents"])).fetchall()
    person_of_id = {resident_of(person): person for person in set(world.truth.person)}
    persons = np.full(max((key for key, _id in rows), default=0) + 1, NOBODY, np.int64)
    for key, public_id in rows:
        persons[key] = person_of_id.get(public_id, UNMEASURED)
    return persons


async def _held(
    connection: AsyncConnection,
    number_of: Mapping[int, int],
    device: Ints,
    slot: Ints,
    identity_ms: Ints,
    received_ms: Ints,
    missing: Ints,
) -> Counter[str]:
    """Return how many of the missing readings wait in the quarantine, by reason."""
    records: dict[tuple[int, int, int], int] = {}
    payloads: dict[tuple[int, int], int] = {}
    for address, kind, reason, at_ms, content in await (
        await connection.execute(_QUERIES["kept_apart"])
    ).fetchall():
        number = number_of.get(unsigned(address), -1)
        if kind != KIND_RECORD:
            payloads[number, at_ms] = reason
            continue
        (record,) = np.frombuffer(content, RECORD_DTYPE)
        has_time = record["time_flags"] & wire.TIME_TYPE_MASK
        own_ms = int(record["device_time_ms"]) if has_time else at_ms
        records[number, int(record["user_slot"]), own_ms] = reason
    held: Counter[str] = Counter()
    for place in missing.tolist():
        number = int(device[place])
        reason = records.get((number, int(slot[place]), int(identity_ms[place])))
        if reason is None:
            reason = payloads.get((number, int(received_ms[place])))
        if reason is not None:
            held[Verdict(reason).name.lower()] += 1
    return held


def _attribution(received: Bools, stored: Bools, is_right: Bools) -> Attribution:
    right, filed = int((stored & is_right).sum()), int(stored.sum())
    return Attribution(
        readings=int(received.sum()),
        right=right,
        wrong=filed - right,
        unassigned=int(received.sum()) - filed,
    )


def _errors(error_s: npt.NDArray[np.float64]) -> Errors:
    if not len(error_s):
        return Errors(readings=0, p50=None, p99=None, max=None)
    p50, p99 = np.percentile(error_s, [50, 99])
    return Errors(
        readings=len(error_s),
        p50=round(float(p50), 3),
        p99=round(float(p99), 3),
        max=round(float(error_s.max()), 3),
    )
