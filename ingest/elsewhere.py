"""Readings that another home's hub had long before the own one: a device that was lent.

What a hub of another home hears waits in quarantine (`DEVICE_ELSEWHERE`). When the device is back and
sends its memory at home, the same records come by its own hub, and would be filed to whoever the device
is linked to, who did not measure. So a record that its own home has only long after it was measured is
held against what other homes had: where one had it long before, it is stored as nobody's, marked
`FLAG_ELSEWHERE`, and waits on the worklist. A neighbour's hub that hears through the wall changes
nothing, unless the own hub was off meanwhile.

Which of the two comes first to ingest does not matter: `withhold` looks at what other homes had before
a flush is written, `take_back` at what is stored of the records that other homes bring, and at rows
whose reception turned out to be earlier. The two exclude each other a bucket of devices at a time
(`guard.hold_devices`), so that of two flushes at once the later sees the earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway import wire
from gateway.gatt.times import from_ms, ms_since_epoch
from gateway.platform.audit import AuditEvent, write_audit
from gateway.platform.changes import record_change, summarised
from gateway.platform.corrections import FORGET_POSTERIORS, MAKE_DUE, due
from gateway.platform.postgres import AsyncConnection, Int2s, Int4s, Int8s, load_queries
from gateway.stored import FLAG_CLAIMED, FLAG_ELSEWHERE, FLAG_INFERRED, FLAG_UNUSUAL
from ingest.batches import RECORD_DTYPE
from ingest.rows import (
    KIND_RECORD,
    LATE_MS,
    MISDATED_WINDOW_MS,
    Rows,
    content_hashes,
    received_after_s,
)
from ingest.table import look_up_by_index
from ingest.verdicts import Verdict

HEARD_MAX = 100_000
"""Records of other homes that are looked at for a flush, the newest first."""
ACTOR = "service:ingest"
REASON = "another home's hub had them long before"

_QUERIES = load_queries(Path(__file__).parent / "sql" / "elsewhere.sql")
_KEY = np.dtype(
    [("device", "u8"), ("sign", "u1"), ("slot", "u1"), ("time_ms", "i8"), ("content", "i4")]
)
_STORED = np.dtype(
    [
        ("device_id", "i8"),
        ("user_slot", "i8"),
        ("sign", "i8"),
        ("identity_us", "i8"),
        ("measured_ms", "i8"),
        ("received_after_s", "f4"),
        ("heard_ms", "i8"),
    ]
)
"""A reading that is stored, and when another home's hub first had it."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Concerned:
    """Which records of a flush are looked at: own ones that came late, and other homes'."""

    late: Places
    heard: Places


def concerned(rows: Rows, verdict: npt.NDArray[np.uint8]) -> Concerned:
    """Tell which records are looked at; no record without a time of its own is."""
    judged, records = rows.judged, rows.records
    late = verdict == Verdict.STORED
    late &= judged.received_ms - judged.measured_ms >= LATE_MS
    heard = verdict == Verdict.DEVICE_ELSEWHERE
    has_time = records["time_flags"] & wire.TIME_TYPE_MASK != 0
    has_time &= records["device_time_ms"] != wire.NO_TIME
    return Concerned(late=np.flatnonzero(late & has_time), heard=np.flatnonzero(heard & has_time))


async def withhold(
    connection: AsyncConnection, rows: Rows, verdict: npt.NDArray[np.uint8], which: Concerned
) -> Rows | None:
    """Return the rows with those of the late ones nobody's that were measured in another home.

    None: there are none.
    """
    places = which.late[verdict[which.late] == Verdict.STORED]
    if not len(places):
        return None
    judged = rows.judged
    waiting, waiting_ms = await _waiting(connection, rows.records["device"][places])
    first_ms = _first_heard(
        np.concatenate((_keys(waiting), _keys(rows.records[which.heard]))),
        np.concatenate((waiting_ms, judged.received_ms[which.heard])),
        _keys(rows.records[places]),
    )
    measured_ms = judged.measured_ms[places]
    after_s = received_after_s(judged.received_ms[places], measured_ms)
    places = places[_is_elsewhere(measured_ms, after_s, first_ms)]
    if not len(places):
        return None
    owners = np.unique(judged.resident_id[places])
    await connection.execute(_QUERIES["forget"], {"residents": Int4s(owners[owners != 0])})
    resident_id, marks = judged.resident_id.copy(), judged.marks.copy()
    resident_id[places] = 0
    marks[places] = marks[places] & ~FLAG_UNUSUAL | FLAG_ELSEWHERE
    return replace(rows, judged=replace(judged, resident_id=resident_id, marks=marks))


async def take_back(
    connection: AsyncConnection, rows: Rows, which: Concerned, earlier: Places
) -> None:
    """Make stored readings nobody's that other homes' records show to be measured there.

    The records that this flush has of them, and all that wait of the devices at the places `earlier`,
    whose readings were received earlier than was thought. For the end of a transaction.
    """
    records, heard_ms = rows.records[which.heard], rows.judged.received_ms[which.heard]
    if len(earlier):
        waiting, waiting_ms = await _waiting(connection, rows.records["device"][earlier])
        records = np.concatenate((records, waiting))
        heard_ms = np.concatenate((heard_ms, waiting_ms))
    if not len(records):
        return
    known = np.concatenate((which.heard, earlier))
    devices, first = np.unique(rows.records["device"][known], return_index=True)
    device_id = rows.judged.device_id[known[first]][np.searchsorted(devices, records["device"])]
    await look_up_by_index(connection)
    found = await connection.execute(
        _QUERIES["stored_at_home"],
        {
            "device_id": Int4s(device_id),
            "user_slot": Int2s(records["user_slot"]),
            "sign": Int2s(records["sign"]),
            "identity_ms": Int8s(records["device_time_ms"]),
            "content_hash": Int4s(content_hashes(records)),
            "heard_ms": Int8s(heard_ms),
            "from_at": from_ms(int(heard_ms.min()) - MISDATED_WINDOW_MS),
            "to_at": from_ms(int(heard_ms.max()) + MISDATED_WINDOW_MS),
            "decided": FLAG_CLAIMED | FLAG_ELSEWHERE,
        },
    )
    stored = np.array(await found.fetchall(), _STORED)
    elsewhere = _is_elsewhere(stored["measured_ms"], stored["received_after_s"], stored["heard_ms"])
    stored = stored[elsewhere]
    for slot in np.unique(stored[["device_id", "user_slot"]]):
        await _make_nobodys(connection, stored[stored[["device_id", "user_slot"]] == slot])


async def _make_nobodys(connection: AsyncConnection, stored: npt.NDArray[np.void]) -> None:
    """Make readings of one slot nobody's, keep whose they were thought to be, and tell."""
    place = {"device_id": int(stored["device_id"][0]), "user_slot": int(stored["user_slot"][0])}
    await connection.execute(_QUERIES["hold_slot"], place)
    added = await connection.execute(
        _QUERIES["add_correction"],
        {**place, "actor": ACTOR, "reason": REASON, "readings": len(stored)},
    )
    ((correction_id, now_ms),) = await added.fetchall()
    given = {
        **place,
        "correction_id": correction_id,
        "sign": Int2s(stored["sign"]),
        "identity_us": Int8s(stored["identity_us"]),
        "measured_ms": Int8s(stored["measured_ms"]),
        "from_at": from_ms(int(stored["measured_ms"].min())),
        "to_at": from_ms(int(stored["measured_ms"].max())),
        "elsewhere": FLAG_ELSEWHERE,
        "kept_flags": ~(FLAG_INFERRED | FLAG_UNUSUAL),
    }
    rows = await connection.execute(_QUERIES["remember"], given)
    owner, sign, measured_ms = np.array(await rows.fetchall(), np.int64).reshape(-1, 3).T
    await connection.execute(_QUERIES["nobodys"], given)
    await connection.execute(FORGET_POSTERIORS, given)
    owned = owner != 0
    changed = summarised(owner[owned], sign[owned], measured_ms[owned])
    await record_change(connection, changed, now_ms)
    await connection.execute(MAKE_DUE, due(changed, **place))
    lost = zip(*np.unique(owner[owned], return_counts=True), strict=True)
    await write_audit(
        connection,
        [
            AuditEvent(
                actor=ACTOR,
                action="attribution.elsewhere",
                resident_id=int(resident),
                detail={"correction": correction_id, "lost": int(count), "gained": 0},
            )
            for resident, count in lost
        ],
    )


async def _waiting(
    connection: AsyncConnection, devices: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.void], Ints]:
    """Return what waits of other homes' records of these devices, and when each was received."""
    found = await connection.execute(
        _QUERIES["waiting"],
        {
            "devices": Int8s(np.unique(devices).view(np.int64)),
            "kind": KIND_RECORD,
            "reason": int(Verdict.DEVICE_ELSEWHERE),
            "limit": HEARD_MAX,
        },
    )
    entries = await found.fetchall()
    records = np.frombuffer(b"".join([content for content, _at in entries]), RECORD_DTYPE)
    return records, np.array([ms_since_epoch(at) for _content, at in entries], np.int64)


def _first_heard(heard: npt.NDArray[np.void], heard_ms: Ints, wanted: npt.NDArray[np.void]) -> Ints:
    """Return (n,) when each of `wanted` was first heard, far in the future where it was not."""
    groups = np.unique(np.concatenate((heard, wanted)), return_inverse=True)[1]
    first_ms = np.full(len(groups), np.iinfo(np.int64).max)
    np.minimum.at(first_ms, groups[: len(heard)], heard_ms)
    wanted_ms: Ints = first_ms[groups[len(heard) :]]
    return wanted_ms


def _is_elsewhere(measured_ms: Ints, after_s: npt.NDArray[np.float32], heard_ms: Ints) -> Bools:
    """Tell which readings, received at home so long after, were measured where they were heard."""
    received_ms = measured_ms + after_s.astype(np.float64) * 1000
    elsewhere: Bools = (after_s >= LATE_MS / 1000) & (heard_ms <= received_ms - LATE_MS)
    return elsewhere


def _keys(records: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return (n,) what a record is known by, whichever hub brought it."""
    keys = np.empty(len(records), _KEY)
    keys["device"], keys["sign"] = records["device"], records["sign"]
    keys["slot"], keys["time_ms"] = records["user_slot"], records["device_time_ms"]
    keys["content"] = content_hashes(records)
    return keys
