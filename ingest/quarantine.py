"""What was kept apart: look, replay, discard.

A replay judges an entry again with the registry and the decoders of now. What is stored then is
stored at its own time, in the ledger it moves from quarantined to stored (or duplicate), in one
transaction; what is not keeps waiting, with the reason of now.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gateway import wire
from gateway.errors import DecodeError, EncodeError
from gateway.gatt.times import DeviceTime, from_ms, ms_since_epoch
from gateway.measurement import Measurement, TimeQuality
from gateway.platform.audit import AuditEvent, write_audit
from gateway.platform.changes import record_change
from gateway.platform.postgres import AsyncConnection, Int8s, dict_row, load_queries, translated
from gateway.vitals import sources
from ingest.batches import RECORD_DTYPE
from ingest.elsewhere import concerned, take_back, withhold
from ingest.guard import hold_devices, hold_links
from ingest.registry import Registry
from ingest.rows import KIND_RECORD, rows_of, settle_within
from ingest.table import encode_measurements, send, settle_stored
from ingest.verdicts import Verdict, judge, tables_of
from ingest.writing import changed_by, due_baselines, due_slots

REPLAY_ENTRIES_MAX = 5_000
"""Entries replayed in one transaction; a longer replay is several."""
LIST_ENTRIES_MAX = 1_000
DISCARD_ENTRIES_MAX = 1_000
"""Entries given up in one act; the audit names each."""

_QUERIES = load_queries(Path(__file__).parent / "sql" / "quarantine.sql")
_tables = tables_of()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries; None does not filter.

    `linked`: only those whose device has a link then; `devices`: signed device ids, as the store's
    column has them; `ids`: for a replay. `since` (inclusive) and `until` (exclusive): when they
    were kept apart.
    """

    reasons: tuple[Verdict, ...] | None = None
    device: int | None = None
    hub: str | None = None
    linked: bool = False
    devices: tuple[int, ...] | None = None
    ids: tuple[int, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None

    def parameters(self) -> dict[str, object]:
        """Return the parameters of the queries."""
        return {
            "reasons": None if self.reasons is None else [int(reason) for reason in self.reasons],
            "device": None if self.device is None else signed(self.device),
            "hub": self.hub,
            "linked": self.linked,
            "devices": None if self.devices is None else list(self.devices),
            "ids": None if self.ids is None else list(self.ids),
            "since": self.since,
            "until": self.until,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ActedBy:
    """Who acts on quarantine, and why; for the audit (gateway.platform.audit)."""

    actor: str
    origin: str | None = None
    why: str | None = None

    def event(self, action: str, detail: Mapping[str, Any]) -> AuditEvent:
        """Return an act of theirs."""
        return AuditEvent(
            actor=self.actor, action=action, reason=self.why, origin=self.origin, detail=detail
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay did."""

    looked_at: int
    stored: int
    duplicate: int
    still_waiting: int


class _Entry(NamedTuple):
    quarantine_id: int
    kind: int
    device: int
    source: int | None
    clock_offset_ms: int | None
    utc_offset: int | None
    received_at: datetime
    batch_id: int
    content: bytes
    reference_at: datetime
    home_id: int
    measured_at: datetime | None
    placed_quality: int | None


async def list_entries(
    connection: AsyncConnection, which: Filter, by: ActedBy, *, state: str | None, limit: int
) -> list[dict[str, Any]]:
    """Return entries, newest first, without their bytes. The look is audited."""
    with translated():
        async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            await write_audit(connection, [by.event("quarantine.list", {})])
            await cursor.execute(
                _QUERIES["list"],
                which.parameters()
                | {"state": state, "before": None, "limit": min(limit, LIST_ENTRIES_MAX)},
            )
            return await cursor.fetchall()


async def show_entry(
    connection: AsyncConnection, quarantine_id: int, by: ActedBy
) -> dict[str, Any] | None:
    """Return one entry with its bytes. The look is audited."""
    with translated():
        async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            seen = {"entries": [quarantine_id]}
            await write_audit(connection, [by.event("quarantine.show", seen)])
            await cursor.execute(_QUERIES["show"], {"quarantine_id": quarantine_id})
            return await cursor.fetchone()


async def discard(connection: AsyncConnection, which: Filter, by: ActedBy) -> list[int]:
    """Give waiting entries up, at most `DISCARD_ENTRIES_MAX`; return which, audited as one act."""
    with translated():
        async with connection.transaction():
            rows = await connection.execute(
                _QUERIES["discard"],
                which.parameters() | {"by": by.actor, "limit": DISCARD_ENTRIES_MAX},
            )
            gone = sorted(quarantine_id for (quarantine_id,) in await rows.fetchall())
            if gone:
                await write_audit(connection, [by.event("quarantine.discard", {"entries": gone})])
            return gone


async def replay(
    connection: AsyncConnection, registry: Registry, which: Filter, by: ActedBy
) -> Replayed:
    """Judge the waiting entries again and store what can be stored now.

    Each transaction that stores anything is audited in itself.

    Raises:
        StaleRegistryError: `registry` is older than the links of these devices.
    """
    looked_at = stored = duplicate = 0
    after = 0
    while True:
        with translated():
            async with connection.transaction():
                entries = await _take(connection, which, after)
                if entries:
                    verdicts = await _replay_once(connection, registry, entries, by.actor)
                    now = verdicts.count(Verdict.STORED), verdicts.count(Verdict.DUPLICATE)
                    if any(now):
                        detail = {"stored": now[0], "duplicate": now[1], "of": len(entries)}
                        await write_audit(connection, [by.event("quarantine.replay", detail)])
                    stored += now[0]
                    duplicate += now[1]
        looked_at += len(entries)
        if len(entries) < REPLAY_ENTRIES_MAX:
            break
        after = entries[-1].quarantine_id
    return Replayed(
        looked_at=looked_at,
        stored=stored,
        duplicate=duplicate,
        still_waiting=looked_at - stored - duplicate,
    )


def signed(device: int) -> int:
    """Return a device id as the store's column has it: the same 64 bits, signed."""
    return device - (1 << 64) if device >> 63 else device


def unsigned(device: int) -> int:
    """Return the device id of the store's signed column."""
    return device % (1 << 64)


async def _take(connection: AsyncConnection, which: Filter, after: int) -> list[_Entry]:
    rows = await connection.execute(
        _QUERIES["take_waiting"],
        which.parameters() | {"after": after, "limit": REPLAY_ENTRIES_MAX},
    )
    return [_Entry(*row) for row in await rows.fetchall()]


async def _replay_once(
    connection: AsyncConnection, registry: Registry, entries: Sequence[_Entry], by: str
) -> list[int]:
    records = [_record(entry) for entry in entries]
    readable = [entry for entry, record in zip(entries, records, strict=True) if record]
    array = np.frombuffer(b"".join(filter(None, records)), RECORD_DTYPE)
    judged = judge(
        array,
        np.array([_reference_ms(entry) for entry in readable], np.int64),
        np.array([entry.home_id for entry in readable], np.int32),
        registry,
        _tables,
        time.time_ns() // 1_000_000,
    )
    await hold_links(connection, registry, judged.device_id)
    batch_ids = np.array([entry.batch_id for entry in readable], np.int64)
    rows = rows_of(array, judged, batch_ids)
    verdict = judged.verdict.copy()
    places = settle_within(rows, verdict)
    which = concerned(rows, verdict)
    await hold_devices(
        connection, late=judged.device_id[which.late], heard=judged.device_id[which.heard]
    )
    found = await settle_stored(connection, rows, verdict, places)
    rows = await withhold(connection, rows, verdict, which) or rows
    places = places[verdict[places] == Verdict.STORED]
    clock = await connection.execute(_QUERIES["now_ms"])
    ((now_ms,),) = await clock.fetchall()
    due = due_slots(rows, places) + due_baselines(rows, places)
    for stream in (*encode_measurements(rows, places, now_ms), *due):
        await send(connection, stream)
    await record_change(connection, changed_by(rows, places), now_ms)
    if len(places):
        stored = np.unique(array["device"][places]).view(np.int64)
        await connection.execute(_QUERIES["tell_workers"], {"devices": Int8s(stored)})
    await take_back(connection, rows, which, found.earlier)
    await _settle(connection, readable, [int(value) for value in verdict], by)
    return [int(value) for value in verdict]


async def _settle(
    connection: AsyncConnection, entries: Sequence[_Entry], verdicts: Sequence[int], by: str
) -> None:
    await connection.execute(
        _QUERIES["settle"],
        {
            "quarantine_id": [entry.quarantine_id for entry in entries],
            "reason": [None if verdict <= Verdict.DUPLICATE else verdict for verdict in verdicts],
            "by": by,
        },
    )
    terms: dict[int, list[int]] = {}
    for entry, verdict in zip(entries, verdicts, strict=True):
        if verdict <= Verdict.DUPLICATE:
            terms.setdefault(entry.batch_id, [0, 0])[verdict] += 1
    await connection.execute(
        _QUERIES["account"],
        {
            "batch_id": list(terms),
            "stored": [stored for stored, _duplicate in terms.values()],
            "duplicate": [duplicate for _stored, duplicate in terms.values()],
        },
    )


def _reference_ms(entry: _Entry) -> int:
    """Return the reference time of an entry's record; of a payload, its reception."""
    return ms_since_epoch(entry.reference_at if entry.kind == KIND_RECORD else entry.received_at)


def _record(entry: _Entry) -> bytes | None:
    """Return the wire record of an entry; None where no decoder reads its payload yet."""
    if entry.kind == KIND_RECORD:
        return _as_placed(entry)
    source = entry.source or 0
    for sign, way in sources(source):
        try:
            if not way.recognises(entry.content):
                continue
            reading = way.decode(entry.content)
            placed_at, quality = _place(reading.device_time, entry)
            measurement = Measurement(
                device=unsigned(entry.device),
                sign=sign.code,
                reading=reading,
                measured_at=placed_at,
                received_at=entry.received_at,
                time_quality=quality,
                utc_offset_min=None
                if entry.utc_offset is None
                else entry.utc_offset * wire.OFFSET_STEP_MIN,
            )
            return wire.encode_record(measurement, entry.received_at)
        except (DecodeError, EncodeError, OverflowError):
            continue
    return None


def _as_placed(entry: _Entry) -> bytes:
    """Return a record as it came, or where ingest.retime has placed it since."""
    if entry.placed_quality is None or entry.measured_at is None:
        return entry.content
    record = np.frombuffer(entry.content, RECORD_DTYPE).copy()
    record["measured_ms"] = ms_since_epoch(entry.measured_at)
    record["time_quality"] = entry.placed_quality
    return record.tobytes()


def _place(device_time: DeviceTime | None, entry: _Entry) -> tuple[datetime, TimeQuality]:
    """Place a reading by the coincident pair that the hub sent with its payload."""
    if device_time is None:
        return entry.received_at, TimeQuality.RECEPTION
    if entry.clock_offset_ms is None:
        return entry.received_at, TimeQuality.UNPLACED
    moved = timedelta(milliseconds=entry.clock_offset_ms)
    return from_ms(device_time.ms) + moved, TimeQuality.MAPPED
