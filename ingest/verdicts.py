"""What becomes of each measurement of a flush, decided on whole arrays.

Every rule is derived from the registry of signs or named here with its limit. The first rule that
a measurement breaks is its verdict; nothing is altered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from gateway import wire
from gateway.measurement import TimeQuality
from gateway.quantity import Absent, Text
from gateway.vital_sign import QUANTITIES_MAX, VitalSign
from gateway.vitals import SIGNS
from ingest.registry import Candidates, Registry

FUTURE_MS_MAX = 5 * 60_000
"""A measurement may lie this far behind its reception (clocks jitter); later: TIME_FUTURE."""
HUB_AHEAD_MS_MAX = 10 * 60_000
"""A hub's reception may lie this far ahead of ingest's clock; further: HUB_CLOCK."""
OLDEST_MS = 946_684_800_000
"""2000-01-01T00:00Z. No health device is older; an earlier time is a clock that was never set."""
TIME_MS_MIN, TIME_MS_MAX = -62_104_060_800_000, 1 << 47
"""Keeps every time within what the store's timestamps and Python's dates can hold: from the year 2, since
there are none before the year 1, in any zone, to about 6400."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Verdict(IntEnum):
    """What became of a measurement; all but the first two are reasons of quarantine."""

    STORED = 0
    DUPLICATE = 1
    RECORD_INVALID = 10
    SIGN_UNKNOWN = 11
    DEVICE_UNKNOWN = 12
    DEVICE_ELSEWHERE = 13
    HUB_CLOCK = 20
    TIME_UNPLACED = 21
    TIME_FUTURE = 22
    TIME_TOO_OLD = 23
    HUB_TIME_UNKNOWN = 24
    IMPLAUSIBLE = 30
    CROSS_FIELD = 31
    UNLINKED = 40
    CONFLICT = 50
    UNDECODED = 60
    NO_BATCH = 70
    HUB_UNKNOWN = 71
    HUB_FOREIGN = 72
    HUB_REVOKED = 73
    BATCH_DIFFERS = 74


REASONS: dict[Verdict, Text] = {
    Verdict.RECORD_INVALID: Text(zh="记录格式错误", en="the record holds what no hub writes"),
    Verdict.SIGN_UNKNOWN: Text(zh="未知体征", en="the sign is not in the registry"),
    Verdict.DEVICE_UNKNOWN: Text(zh="设备未登记", en="the device is not registered"),
    Verdict.DEVICE_ELSEWHERE: Text(zh="设备属于其他家庭", en="the device is another home's"),
    Verdict.HUB_CLOCK: Text(zh="网关时钟超前", en="the hub's clock is ahead"),
    Verdict.TIME_UNPLACED: Text(zh="时间无法确定", en="its time cannot be placed"),
    Verdict.TIME_FUTURE: Text(zh="测量时间晚于接收时间", en="measured after its reception"),
    Verdict.TIME_TOO_OLD: Text(zh="测量时间早于2000年", en="measured before the year 2000"),
    Verdict.HUB_TIME_UNKNOWN: Text(
        zh="接收时网关不知道时间", en="the hub did not know the time when it came"
    ),
    Verdict.IMPLAUSIBLE: Text(zh="数值超出合理范围", en="a value is outside its plausible range"),
    Verdict.CROSS_FIELD: Text(zh="数值互相矛盾", en="its values contradict each other"),
    Verdict.UNLINKED: Text(zh="设备未关联居民", en="no resident is linked to the device then"),
    Verdict.CONFLICT: Text(
        zh="同一时间已有不同数值", en="another reading has the same identity and other values"
    ),
    Verdict.UNDECODED: Text(zh="无法解码", en="no decoder reads the payload"),
    Verdict.NO_BATCH: Text(zh="不是有效批次", en="the message is no batch"),
    Verdict.HUB_UNKNOWN: Text(zh="网关未登记", en="the hub is not enrolled"),
    Verdict.HUB_FOREIGN: Text(zh="主题与批次的网关不符", en="the batch names another hub"),
    Verdict.HUB_REVOKED: Text(zh="网关已吊销", en="the hub was revoked"),
    Verdict.BATCH_DIFFERS: Text(
        zh="批次编号重复而内容不同", en="another batch came before under its number"
    ),
}


@dataclass(frozen=True, slots=True)
class Tables:
    """What the registry of signs says, as arrays that a record's small fields index.

    `scale`, `offset`: float64 (256, unit sets, 5), to the canonical unit. `low`, `high`: float64
    (256, 5), NaN where there is no quantity. `known`: bool (256, unit sets). `width`: int64 (256,).
    """

    signs: Sequence[VitalSign]
    scale: Floats
    offset: Floats
    low: Floats
    high: Floats
    known: Bools
    width: Ints


def tables_of(signs: Sequence[VitalSign] = SIGNS) -> Tables:
    """Build the tables of a registry."""
    sets = max(len(sign.unit_sets) for sign in signs)
    tables = Tables(
        signs=signs,
        scale=np.ones((256, sets, QUANTITIES_MAX)),
        offset=np.zeros((256, sets, QUANTITIES_MAX)),
        low=np.full((256, QUANTITIES_MAX), np.nan),
        high=np.full((256, QUANTITIES_MAX), np.nan),
        known=np.zeros((256, sets), np.bool_),
        width=np.zeros(256, np.int64),
    )
    for sign in signs:
        width = len(sign.quantities)
        tables.width[sign.code] = width
        tables.low[sign.code, :width] = [q.plausible.low for q in sign.quantities]
        tables.high[sign.code, :width] = [q.plausible.high for q in sign.quantities]
        for index, unit_set in enumerate(sign.unit_sets):
            tables.known[sign.code, index] = True
            tables.scale[sign.code, index, :width] = [unit.scale for unit in unit_set.units]
            tables.offset[sign.code, index, :width] = [unit.offset for unit in unit_set.units]
    return tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A flush's measurements with their verdicts; every array has one entry a record.

    `values`: float64 (n, 5), canonical, NaN where absent. `detail`: the place of the quantity or of
    the rule that gave the reason, -1 where the reason has none. `device_id`, `resident_id`: the
    store's keys, 0 where not found. `measured_ms`, `received_ms`, `identity_ms`: int64,
    milliseconds. `candidates`: who shares the slot of those readings whose slot is shared.
    `marks`: int16, the flags of gateway.stored besides the artefact's.
    """

    verdict: npt.NDArray[np.uint8]
    detail: npt.NDArray[np.int16]
    values: Floats
    artefact: Bools
    device_id: npt.NDArray[np.int32]
    resident_id: npt.NDArray[np.int32]
    measured_ms: Ints
    received_ms: Ints
    identity_ms: Ints
    candidates: Candidates
    marks: npt.NDArray[np.int16]


def judge(
    records: npt.NDArray[np.void],
    reference_ms: Ints,
    hub_home: npt.NDArray[np.int32],
    registry: Registry,
    tables: Tables,
    now_ms: int,
) -> Judged:
    """Give each record its verdict.

    Args:
        records: (n,) of `RECORD_DTYPE`.
        reference_ms: (n,) the reference time of each record's batch.
        hub_home: (n,) the home of the hub that sent it.
        registry: the devices and links as they are now.
        tables: the signs' facts.
        now_ms: ingest's clock.
    """
    count = len(records)
    verdict = np.zeros(count, np.uint8)
    detail = np.full(count, -1, np.int16)

    def rule(reason: Verdict, broken: Bools, place: npt.NDArray[np.int16] | None = None) -> None:
        hit = broken & (verdict == Verdict.STORED)
        verdict[hit] = reason
        if place is not None:
            detail[hit] = place[hit]

    sign = records["sign"]
    absent = _absent_nibbles(records)
    unit_set = np.minimum(records["unit_set"], tables.known.shape[1] - 1)
    measured_ms = records["measured_ms"].astype(np.int64)
    received_ms = reference_ms - records["received_before_ms"]
    identity_ms, identity_fits = _identity(records, measured_ms)
    device_id, device_home = registry.find_devices(records["device"])
    values = _values(records, absent, unit_set, tables)
    utc_offset = records["utc_offset"].astype(np.int16)

    rule(Verdict.SIGN_UNKNOWN, tables.width[sign] == 0)
    rule(
        Verdict.RECORD_INVALID,
        (records["unit_set"] != unit_set)
        | ~tables.known[sign, unit_set]
        | ~identity_fits
        | (records["time_quality"] < TimeQuality.SYNCHRONISED)
        | (records["time_quality"] > TimeQuality.RETIMED)
        | ((records["time_flags"] & ~np.uint8(wire.TIME_FLAGS_KNOWN)) != 0)
        | ((np.abs(utc_offset) > wire.OFFSET_STEPS_MAX) & (utc_offset != wire.NO_OFFSET))
        | (absent > max(reason.value for reason in Absent)).any(axis=1)
        | _values_beyond_the_sign(absent, tables.width[sign]),
    )
    rule(Verdict.DEVICE_UNKNOWN, device_id == 0)
    rule(Verdict.DEVICE_ELSEWHERE, device_home != hub_home)
    rule(Verdict.HUB_CLOCK, received_ms > now_ms + HUB_AHEAD_MS_MAX)
    rule(Verdict.TIME_UNPLACED, records["time_quality"] == TimeQuality.UNPLACED)
    rule(Verdict.HUB_TIME_UNKNOWN, records["time_quality"] == TimeQuality.HUB_UNSYNCHRONISED)
    rule(Verdict.TIME_TOO_OLD, measured_ms < OLDEST_MS)
    rule(Verdict.TIME_FUTURE, measured_ms > received_ms + FUTURE_MS_MAX)
    implausible = (values < tables.low[sign]) | (values > tables.high[sign])
    rule(
        Verdict.IMPLAUSIBLE,
        implausible.any(axis=1),
        implausible.argmax(axis=1).astype(np.int16),
    )
    broken, place = _cross_field(sign, values, tables.signs)
    rule(Verdict.CROSS_FIELD, broken, place)
    resident_id = registry.find_residents(device_id, records["user_slot"], measured_ms)
    candidates = registry.find_candidates(device_id, records["user_slot"], measured_ms)
    shared = np.zeros(count, np.bool_)
    shared[candidates.place] = True
    rule(Verdict.UNLINKED, (resident_id == 0) & ~shared)
    resident_id[shared] = 0  # nobody's until the household's history has been asked
    return Judged(
        verdict=verdict,
        detail=detail,
        values=values,
        artefact=_artefacts(sign, records["status"], tables.signs),
        device_id=device_id,
        resident_id=resident_id,
        measured_ms=measured_ms,
        received_ms=received_ms,
        identity_ms=identity_ms,
        candidates=candidates,
        marks=np.zeros(count, np.int16),
    )


def _absent_nibbles(records: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    """Return (n, 5) uint8: each value's absence, 0 where it is present."""
    packed = records["absent"]
    nibbles = np.stack((packed & 0xF, packed >> 4), axis=-1).reshape(
        len(records), 2 * packed.shape[1]
    )
    return nibbles[:, :QUANTITIES_MAX]


def _values_beyond_the_sign(absent: npt.NDArray[np.uint8], width: Ints) -> Bools:
    """Tell which records have a value where their sign has none: the hub knows another sign."""
    places = np.arange(QUANTITIES_MAX)
    broken: Bools = ((absent != Absent.NOT_SENT.value) & (places >= width[:, None])).any(axis=1)
    return broken


_POWERS = 10.0 ** np.arange(129)
"""Up to 10**22 float64 holds them exactly: m / 10**k is then the float nearest to the decimal."""


def _values(
    records: npt.NDArray[np.void],
    absent: npt.NDArray[np.uint8],
    unit_set: npt.NDArray[np.uint8],
    tables: Tables,
) -> Floats:
    """Return (n, 5) float64, canonical units, NaN where absent."""
    mantissa = records["mantissa"].astype(np.float64)
    exponent = records["exponent"].astype(np.intp)
    power = _POWERS[np.abs(exponent)]
    values: Floats = np.where(exponent < 0, mantissa / power, mantissa * power)
    sign = records["sign"]
    scale, offset = tables.scale[sign, unit_set], tables.offset[sign, unit_set]
    # 36.6 * 1.0 + 0.0 is 36.6: canonical values keep every digit
    values = values * scale + offset
    values[absent != 0] = np.nan
    return values


def _identity(records: npt.NDArray[np.void], measured_ms: Ints) -> tuple[Ints, Bools]:
    """Return the time by which each reading is known again, and whether the store can hold it."""
    device_ms = records["device_time_ms"]
    has_time = (records["time_flags"] & wire.TIME_TYPE_MASK != 0) & (device_ms != wire.NO_TIME)
    identity_ms = np.where(has_time, device_ms, measured_ms)
    return identity_ms, storable(identity_ms) & storable(measured_ms)


def storable(ms: Ints) -> Bools:
    """Tell which times the store can hold."""
    fits: Bools = (ms >= TIME_MS_MIN) & (ms < TIME_MS_MAX)
    return fits


def _cross_field(
    sign: npt.NDArray[np.uint8], values: Floats, signs: Sequence[VitalSign]
) -> tuple[Bools, npt.NDArray[np.int16]]:
    """Return which records break a rule of their sign, and the first rule's place."""
    broken = np.zeros(len(sign), np.bool_)
    place = np.full(len(sign), -1, np.int16)
    for vital_sign in signs:
        if not vital_sign.rules:
            continue
        rows = np.flatnonzero(sign == vital_sign.code)
        columns = {q.name: values[rows, i] for i, q in enumerate(vital_sign.quantities)}
        for index, cross_field in reversed(list(enumerate(vital_sign.rules))):
            hit = rows[cross_field.broken(columns)]
            broken[hit] = True
            place[hit] = index
    return broken, place


def _artefacts(
    sign: npt.NDArray[np.uint8], status: npt.NDArray[np.uint16], signs: Sequence[VitalSign]
) -> Bools:
    """Return which records have a status that keeps them out of averages."""
    artefact = np.zeros(len(sign), np.bool_)
    for vital_sign in signs:
        for entry in vital_sign.artefact_statuses:
            artefact |= (sign == vital_sign.code) & (status & entry.mask == entry.value)
    return artefact
