"""A flush becomes rows: one transaction, all of it or nothing.

Order: hold the links still; look up what may have come before; the ledger; the measurements; what is
kept apart; COMMIT. Only then are receipts due. Fresh readings and batches are copied straight behind their unique indexes; a
look-up is made only for readings that may have come before (`_suspects`), or when an index has
objected. All that needs no database is done beforehand (`prepare`), while the flush before commits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway import wire
from gateway.errors import UnavailableError
from gateway.gatt.times import ms_since_epoch
from gateway.platform.changes import Changed, record_change, summarised
from gateway.platform.postgres import (
    AsyncConnection,
    DuplicateKeyError,
    connect,
    load_queries,
    translated,
)
from gateway.stored import FLAG_UNUSUAL
from ingest.baselines.memory import Memory
from ingest.baselines.rule import Ready, key_of
from ingest.batches import Batch, Flush, Rejected
from ingest.copy_binary import Column, Type, timestamps
from ingest.guard import hold_links
from ingest.registry import Ids, Registry
from ingest.rows import KIND_PAYLOAD, Rows, quarantine_columns, rows_of, settle_within
from ingest.table import Stream, encode_measurements, send, settle_stored, stream_of
from ingest.verdicts import Judged, Verdict

COMMIT_ATTEMPTS_MAX = 5
"""After so many objections of a unique index the flush is given back and tried again later."""
CONTENT_BYTES_MAX = 256 * 1024
"""Of a longer message that is no batch, quarantine keeps the first part, its length and digest."""
MESSAGE_CHARS_MAX = 500
"""A longer error text is cut."""
BLOCK_IDS = 4096
"""Batch ids are taken from the store by blocks of so many; what a worker does not use is lost."""

_QUERIES = load_queries(Path(__file__).parent / "sql" / "store.sql")
_HOME_LOCKS = 0x484D
"""The first key of the advisory locks on homes."""
_NEVER = np.iinfo(np.int64).min
_REDELIVERED = 255
"""In a verdict array: the record's batch was committed before; it counts nowhere."""

Key = tuple[int, int, int]
"""(hub key, epoch, sequence) of a batch."""
Terms = tuple[int, int, int]
"""Stored, duplicate, quarantined."""
Verdicts = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A flush ready to be committed, as it is if nothing of it came before.

    `batch_ids` (batches,) int64; `verdict` (n,) with repeats inside the flush settled; `places` those
    to store, in the index's order, `streams` their encoding and `changed` whose they are. `unjudged`
    (n,): of which it is not known here whether they are unusual.
    """

    flush: Flush
    registry: Registry
    rows: Rows
    batch_ids: npt.NDArray[np.int64]
    verdict: Verdicts
    places: Places
    streams: Sequence[Stream]
    changed: Changed
    unjudged: npt.NDArray[np.bool_]
    stored_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a batch: the content of its receipt. `again`: it was committed before."""

    batch: Batch
    stored: int
    duplicate: int
    quarantined: int
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a transaction did: an outcome for each batch, and the final verdict of each record."""

    outcomes: tuple[Outcome, ...]
    verdict: Verdicts
    looked_up: int


def prepare(
    flush: Flush,
    judged: Judged,
    registry: Registry,
    batch_ids: npt.NDArray[np.int64],
    stored_at_ms: int,
    memory: Memory | None = None,
) -> Prepared:
    """Do what needs no database; without `memory` of residents, what is unusual is left for later."""
    rows = rows_of(flush.records, judged, batch_ids[flush.batch_of])
    verdict = judged.verdict.copy()
    places = settle_within(rows, verdict)
    unjudged = _mark_unusual(rows, places, memory)
    return Prepared(
        flush=flush,
        registry=registry,
        rows=rows,
        batch_ids=batch_ids,
        verdict=verdict,
        places=places,
        streams=encode_measurements(rows, places, stored_at_ms),
        changed=changed_by(rows, places),
        unjudged=unjudged,
        stored_at_ms=stored_at_ms,
    )


def ready(records: npt.NDArray[np.void], judged: Judged, places: Places) -> Ready:
    """Return those of the readings at `places` that can be usual or unusual for a resident."""
    places = places[(judged.resident_id[places] != 0) & ~judged.artefact[places]]
    return Ready(
        place=places,
        key=key_of(judged.resident_id[places], records["sign"][places]),
        at_ms=judged.measured_ms[places],
        value=judged.values[places].astype(np.float32),
    )


def _mark_unusual(rows: Rows, places: Places, memory: Memory | None) -> npt.NDArray[np.bool_]:
    """Mark the unusual ones and return (n,) of which it is not known. Changes `judged.marks`."""
    unjudged = np.zeros(len(rows.records), np.bool_)
    candidates = ready(rows.records, rows.judged, places)
    if memory is None:
        unjudged[candidates.place] = True
        return unjudged
    unusual, unknown = memory.judge(candidates.key, candidates.at_ms, candidates.value)
    rows.judged.marks[candidates.place[unusual]] |= np.int16(FLAG_UNUSUAL)
    unjudged[candidates.place[unknown]] = True
    return unjudged


def changed_by(rows: Rows, places: Places) -> Changed:
    """Return whose signs the readings at `places` change; those of nobody are on the worklist."""
    judged = rows.judged
    places = places[judged.resident_id[places] != 0]
    return summarised(
        judged.resident_id[places], rows.records["sign"][places], judged.measured_ms[places]
    )


def due_slots(rows: Rows, places: Places) -> list[Stream]:
    """Return the note that shared slots among the readings at `places` are to be settled."""
    judged = rows.judged
    shared = np.intersect1d(judged.candidates.place, places)
    if not len(shared):
        return []
    slots = np.unique(
        np.stack((judged.device_id[shared], rows.records["user_slot"][shared])), axis=1
    )
    columns = [
        Column(name="device_id", type=Type.INT4, values=slots[0]),
        Column(name="user_slot", type=Type.INT2, values=slots[1]),
    ]
    return [stream_of("attribution_due", columns)]


def due_baselines(rows: Rows, places: Places) -> list[Stream]:
    """Return the note that what is usual is to be looked at around the readings at `places`."""
    changed = changed_by(rows, places)
    if not len(changed.resident):
        return []
    columns = [
        Column(name="resident_id", type=Type.INT4, values=changed.resident),
        Column(name="sign", type=Type.INT2, values=changed.sign),
        Column(name="from_at", type=Type.INT8, values=timestamps(changed.oldest_ms)),
        Column(name="to_at", type=Type.INT8, values=timestamps(changed.newest_ms)),
    ]
    return [stream_of("baseline_due", columns)]


class BatchIds:
    """Hands out batch ids from blocks that no other worker has, over a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: AsyncConnection | None = None
        self._ids = np.empty(0, np.int64)

    async def take(self, count: int) -> npt.NDArray[np.int64]:
        """Return ids that were not handed out before.

        Raises:
            UnavailableError: the database is down and the block is used up.
        """
        if len(self._ids) < count:
            await self._refill(count - len(self._ids))
        taken, self._ids = self._ids[:count], self._ids[count:]
        return taken

    async def close(self) -> None:
        """Close the connection; what is left of the block is lost."""
        if self._connection is not None:
            await self._connection.close()

    async def _refill(self, count: int) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = await connect(
                self._dsn, application="hearth-ingest-ids", autocommit=True
            )
        with translated():
            taken = await self._connection.execute(
                _QUERIES["take_blocks"], {"blocks": -(-count // BLOCK_IDS)}
            )
            starts = np.array([number for (number,) in await taken.fetchall()], np.int64)
        new = (starts[:, None] * BLOCK_IDS + np.arange(BLOCK_IDS)).ravel()
        self._ids = np.concatenate((self._ids, new))


class Store:
    """Commits flushes over one connection, one after the other."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._latest_ms = np.full(1, _NEVER, np.int64)
        """Per device, the latest identity time that this worker has committed."""
        self._expects_repeats = False
        """The last flush had what the store had; the next is looked up at once, not on objection."""

    def forget_devices(self, device_ids: Ids | None = None) -> None:
        """Take these devices, or all, as unknown: another worker may have stored readings."""
        if device_ids is None:
            self._latest_ms = np.full(1, _NEVER, np.int64)
        else:
            self._latest_ms[device_ids[device_ids < len(self._latest_ms)]] = _NEVER

    async def close(self) -> None:
        """Close the connection."""
        await self.connection.close()

    async def commit(self, prepared: Prepared) -> Committed:
        """Store a flush and return what became of it.

        Raises:
            UnavailableError: the database is down or full; nothing of the flush was stored.
            StaleRegistryError: links changed since it was judged; nothing of it was stored.
        """
        careful = self._expects_repeats
        for _attempt in range(COMMIT_ATTEMPTS_MAX):
            try:
                with translated():
                    async with self.connection.transaction():
                        committed = await self._commit_once(prepared, careful=careful)
            except DuplicateKeyError:
                careful = True  # another worker was faster, or something came again: look first
                continue
            self._expects_repeats = careful and _has_repeats(committed)
            self._remember(prepared.rows.judged, committed.verdict)
            return committed
        raise UnavailableError("database: the same readings are being stored by another worker")

    async def _commit_once(self, prepared: Prepared, *, careful: bool) -> Committed:
        """Commit; `careful` looks up every batch and every reading first."""
        flush, rows = prepared.flush, prepared.rows
        await hold_links(self.connection, prepared.registry, rows.judged.device_id)
        verdict, places, streams = prepared.verdict.copy(), prepared.places, prepared.streams
        changed = prepared.changed
        before = await self._committed_before(flush.batches) if careful else {}
        if before:
            verdict, places = _without(prepared, before)
        await self._lock_homes(prepared)
        asked = places if careful else places[self._suspects(prepared, places)]
        found = await settle_stored(self.connection, rows, verdict, asked)
        if before or found:
            places = places[verdict[places] == Verdict.STORED]
            streams = encode_measurements(rows, places, prepared.stored_at_ms)
            changed = changed_by(rows, places)
        outcomes = _outcomes(flush, verdict, before)
        kept_apart = _kept_apart(prepared, verdict)
        due = due_slots(rows, places) + due_baselines(rows, places[prepared.unjudged[places]])
        for stream in (*_ledger(prepared, outcomes), *streams, *kept_apart, *due):
            await send(self.connection, stream)
        await record_change(self.connection, changed, prepared.stored_at_ms)
        await self._keep_undecoded(prepared, outcomes)
        return Committed(outcomes=outcomes, verdict=verdict, looked_up=len(asked))

    async def _committed_before(self, batches: Sequence[Batch]) -> dict[Key, Terms]:
        rows = await self.connection.execute(
            _QUERIES["committed_batches"],
            {
                "hub_id": [batch.hub_id for batch in batches],
                "epoch": [batch.header.epoch for batch in batches],
                "sequence": [batch.header.sequence for batch in batches],
            },
        )
        return {
            (hub_id, epoch, sequence): (stored, duplicate, quarantined)
            async for hub_id, epoch, sequence, stored, duplicate, quarantined in rows
        }

    async def _lock_homes(self, prepared: Prepared) -> None:
        """In a home with two hubs no index objects to one reading mapped in two ways."""
        homes = np.intersect1d(
            [batch.home_id for batch in prepared.flush.batches], prepared.registry.shared_homes
        )
        if len(homes):
            await self.connection.execute(
                _QUERIES["lock_homes"], {"space": _HOME_LOCKS, "home_id": homes.tolist()}
            )

    def _suspects(self, prepared: Prepared, places: Places) -> npt.NDArray[np.bool_]:
        """Tell which readings may have come before.

        A reading later than all that this worker has stored of its device is new, unless another
        hub of the home may have brought it.
        """
        judged, flush = prepared.rows.judged, prepared.flush
        device_id = judged.device_id[places]
        self._make_room(int(device_id.max(initial=0)))
        latest = self._latest_ms[device_id]
        homes = np.array([batch.home_id for batch in flush.batches], np.int32)
        shared = np.isin(homes, prepared.registry.shared_homes)[flush.batch_of[places]]
        suspects: npt.NDArray[np.bool_] = (
            (judged.identity_ms[places] <= latest) | (latest == _NEVER) | shared
        )
        return suspects

    def _remember(self, judged: Judged, verdict: Verdicts) -> None:
        stored = verdict <= Verdict.DUPLICATE
        device_id = judged.device_id[stored]
        self._make_room(int(device_id.max(initial=0)))
        np.maximum.at(self._latest_ms, device_id, judged.identity_ms[stored])

    def _make_room(self, device_id: int) -> None:
        if device_id >= len(self._latest_ms):
            grown = np.full(max(device_id + 1, 2 * len(self._latest_ms)), _NEVER, np.int64)
            grown[: len(self._latest_ms)] = self._latest_ms
            self._latest_ms = grown

    async def _keep_undecoded(self, prepared: Prepared, outcomes: Sequence[Outcome]) -> None:
        payloads = [
            row
            for outcome, batch_id in zip(outcomes, prepared.batch_ids.tolist(), strict=True)
            if outcome.batch.undecoded and not outcome.again
            for row in _payload_rows(outcome.batch, batch_id)
        ]
        messages = [_message_row(rejected) for rejected in prepared.flush.rejected]
        messages.sort(key=itemgetter("digest"))  # two workers lock rows in one order
        async with self.connection.cursor() as cursor:
            if payloads:
                await cursor.executemany(_QUERIES["keep_payload"], payloads)
            if messages:
                await cursor.executemany(_QUERIES["keep_message"], messages)


def _key(batch: Batch) -> Key:
    return (batch.hub_id, batch.header.epoch, batch.header.sequence)


def _has_repeats(committed: Committed) -> bool:
    again = any(outcome.again for outcome in committed.outcomes)
    return again or bool((committed.verdict == Verdict.DUPLICATE).any())


def _without(prepared: Prepared, before: Mapping[Key, Terms]) -> tuple[Verdicts, Places]:
    """Leave out the batches that were committed before, and settle the others anew."""
    flush = prepared.flush
    again = np.array([_key(batch) in before for batch in flush.batches], np.bool_)
    verdict = prepared.rows.judged.verdict.copy()
    verdict[again[flush.batch_of]] = _REDELIVERED
    return verdict, settle_within(prepared.rows, verdict)


def _outcomes(flush: Flush, verdict: Verdicts, before: Mapping[Key, Terms]) -> tuple[Outcome, ...]:
    count = len(flush.batches)
    stored = np.bincount(flush.batch_of[verdict == Verdict.STORED], minlength=count).tolist()
    duplicate = np.bincount(flush.batch_of[verdict == Verdict.DUPLICATE], minlength=count).tolist()
    outcomes = []
    for batch, new, repeated in zip(flush.batches, stored, duplicate, strict=True):
        receipt = before.get(_key(batch)) if before else None
        terms = receipt or (new, repeated, batch.header.count - new - repeated)
        outcomes.append(
            Outcome(
                batch=batch,
                stored=terms[0],
                duplicate=terms[1],
                quarantined=terms[2],
                again=receipt is not None,
            )
        )
    return tuple(outcomes)


def _ledger(prepared: Prepared, outcomes: Sequence[Outcome]) -> list[Stream]:
    """Return the entries of the new batches in the ledger."""
    new = [(i, outcome) for i, outcome in enumerate(outcomes) if not outcome.again]
    if not new:
        return []
    headers = [outcome.batch.header for _i, outcome in new]
    reference_ms = np.array([ms_since_epoch(header.reference_at) for header in headers], np.int64)
    committed_ms = np.full(len(new), prepared.stored_at_ms, np.int64)
    columns: list[tuple[str, Type, npt.ArrayLike]] = [
        ("batch_id", Type.INT8, prepared.batch_ids[[i for i, _outcome in new]]),
        ("epoch", Type.INT8, [header.epoch for header in headers]),
        ("sequence", Type.INT8, [header.sequence for header in headers]),
        ("reference_at", Type.INT8, timestamps(reference_ms)),
        ("committed_at", Type.INT8, timestamps(committed_ms)),
        ("hub_id", Type.INT4, [outcome.batch.hub_id for _i, outcome in new]),
        ("published", Type.INT4, [header.count for header in headers]),
        ("stored", Type.INT4, [outcome.stored for _i, outcome in new]),
        ("duplicate", Type.INT4, [outcome.duplicate for _i, outcome in new]),
        ("quarantined", Type.INT4, [outcome.quarantined for _i, outcome in new]),
        ("decoder", Type.INT4, [header.decoder for header in headers]),
        ("kind", Type.INT2, [header.kind for header in headers]),
    ]
    arrays = [
        Column(name=name, type=type_, values=np.asarray(values)) for name, type_, values in columns
    ]
    return [stream_of("batch", arrays)]


def _kept_apart(prepared: Prepared, verdict: Verdicts) -> list[Stream]:
    """Return the records that go to quarantine."""
    places = np.flatnonzero((verdict > Verdict.DUPLICATE) & (verdict != _REDELIVERED))
    if not len(places):
        return []
    flush = prepared.flush
    hub_ids = np.array([batch.hub_id for batch in flush.batches], np.int32)
    decoders = np.array([batch.header.decoder for batch in flush.batches], np.int32)
    batch_of = flush.batch_of[places]
    columns = quarantine_columns(
        prepared.rows, verdict, places, hub_ids[batch_of], decoders[batch_of]
    )
    return [stream_of("quarantine", columns)]


def _payload_rows(batch: Batch, batch_id: int) -> list[dict[str, object]]:
    return [
        {
            "batch_id": batch_id,
            "hub_id": batch.hub_id,
            "device": int(np.uint64(payload.device).astype(np.int64)),
            "source": payload.source,
            "kind": KIND_PAYLOAD,
            "reason": int(Verdict.UNDECODED),
            "decoder": batch.header.decoder,
            "received_at": payload.received_at,
            "clock_offset_ms": payload.clock_offset_ms,
            "utc_offset": None
            if payload.utc_offset_min is None
            else payload.utc_offset_min // wire.OFFSET_STEP_MIN,
            "content_bytes": len(payload.payload),
            "content": payload.payload,
            "message": payload.fault.name.lower(),
        }
        for payload in batch.undecoded
    ]


def _message_row(rejected: Rejected) -> dict[str, Any]:
    message = rejected.message
    return {
        "hub": None if message.hub is None else wire.hub_name(message.hub),
        "reason": int(rejected.reason),
        "received_at": message.received_at,
        "content_bytes": len(message.payload),
        "content": message.payload[:CONTENT_BYTES_MAX],
        "digest": hashlib.sha256(message.payload).digest(),
        "message": rejected.detail[:MESSAGE_CHARS_MAX],
    }
