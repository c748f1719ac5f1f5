"""A flush becomes rows: one transaction, all of it or nothing.

Order: which batches were committed before; which readings the store has already; the ledger; COPY of
the measurements; quarantine. Only after COMMIT are receipts due. A reading that is fresh is copied
straight into the hypertable, guarded by its unique index; a look-up is made only for readings that
may have come before (`_suspects`), or when the index has objected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway import wire
from gateway.errors import UnavailableError
from gateway.gatt.times import ms_since_epoch
from gateway.platform.postgres import (
    AsyncConnection,
    DuplicateKeyError,
    load_queries,
    translated,
)
from ingest.batches import Batch, Flush, Rejected
from ingest.registry import Ids, Registry
from ingest.rows import (
    KIND_PAYLOAD,
    Rows,
    content_hashes,
    quarantine_columns,
    settle_within,
)
from ingest.table import copy_columns, copy_measurements, settle_stored
from ingest.verdicts import Judged, Verdict

COMMIT_ATTEMPTS_MAX = 5
"""After so many objections of a unique index the flush is given back and tried again later."""
CONTENT_BYTES_MAX = 256 * 1024
"""Of a longer message that is no batch, quarantine keeps the first part, its length and digest."""
MESSAGE_CHARS_MAX = 500
"""A longer error text is cut."""

_QUERIES = load_queries(Path(__file__).parent / "sql" / "store.sql")
_HOME_LOCKS = 0x484D
"""The first key of the advisory locks on homes."""
_NEVER = np.iinfo(np.int64).min

Key = tuple[int, int, int]
"""(hub key, epoch, sequence) of a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A flush with its verdicts, ready to be committed."""

    flush: Flush
    judged: Judged
    content_hash: npt.NDArray[np.int32]
    registry: Registry


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
    verdict: npt.NDArray[np.uint8]
    looked_up: int


def prepare(flush: Flush, judged: Judged, registry: Registry) -> Prepared:
    """Do what needs no database."""
    return Prepared(
        flush=flush,
        judged=judged,
        content_hash=content_hashes(flush.records),
        registry=registry,
    )


class Store:
    """Commits flushes over one connection, one after the other."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._latest_ms = np.full(1, _NEVER, np.int64)
        """Per device, the latest identity time that this worker has committed."""

    def forget_devices(self, device_ids: Ids | None = None) -> None:
        """Take these devices, or all, as unknown: another worker may have stored readings."""
        if device_ids is None:
            self._latest_ms = np.full(1, _NEVER, np.int64)
        else:
            self._latest_ms[device_ids[device_ids < len(self._latest_ms)]] = _NEVER

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def commit(self, prepared: Prepared) -> Committed:
        """Store a flush and return what became of it.

        Raises:
            UnavailableError: the database is down or full; nothing of the flush was stored.
        """
        for attempt in range(COMMIT_ATTEMPTS_MAX):
            try:
                with translated():
                    async with self._connection.transaction():
                        committed = await self._commit_once(prepared, look_up_all=attempt > 0)
            except DuplicateKeyError:
                continue  # another worker was faster, or a reading came again: look first
            self._remember(prepared.judged, committed.verdict)
            return committed
        raise UnavailableError("database: the same readings are being stored by another worker")

    async def _commit_once(self, prepared: Prepared, *, look_up_all: bool) -> Committed:
        flush = prepared.flush
        before = await self._committed_before(flush.batches)
        again = np.array([_key(batch) in before for batch in flush.batches], np.bool_)
        verdict = prepared.judged.verdict.copy()
        live = ~again[flush.batch_of]
        rows = Rows(
            records=flush.records,
            judged=prepared.judged,
            batch_id=np.zeros(len(flush.records), np.int64),
            content_hash=prepared.content_hash,
        )
        verdict[~live] = _REDELIVERED
        await self._lock_homes(prepared.registry, flush.batches)
        looked_up = await self._settle(rows, verdict, prepared, look_up_all=look_up_all)
        places = settle_within(rows, verdict)
        outcomes = _outcomes(flush, verdict, before)
        batch_ids, entered_ms = await self._enter(outcomes)
        rows.batch_id[:] = batch_ids[flush.batch_of]
        await copy_measurements(self._connection, rows, places, entered_ms)
        await self._keep_apart(rows, verdict, flush, batch_ids)
        return Committed(outcomes=outcomes, verdict=verdict, looked_up=looked_up)

    async def _committed_before(self, batches: Sequence[Batch]) -> dict[Key, tuple[int, int, int]]:
        if not batches:
            return {}
        rows = await self._connection.execute(
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

    async def _lock_homes(self, registry: Registry, batches: Sequence[Batch]) -> None:
        homes = np.intersect1d([batch.home_id for batch in batches], registry.shared_homes)
        if len(homes):
            await self._connection.execute(
                _QUERIES["lock_homes"], {"space": _HOME_LOCKS, "home_id": homes.tolist()}
            )

    async def _settle(
        self,
        rows: Rows,
        verdict: npt.NDArray[np.uint8],
        prepared: Prepared,
        *,
        look_up_all: bool,
    ) -> int:
        """Look up the readings that the store may have already; return how many."""
        places = np.flatnonzero(verdict == Verdict.STORED)
        if not look_up_all:
            places = places[self._suspects(rows, places, prepared)]
        await settle_stored(self._connection, rows, verdict, places)
        return len(places)

    def _suspects(
        self, rows: Rows, places: npt.NDArray[np.intp], prepared: Prepared
    ) -> npt.NDArray[np.bool_]:
        """Tell which readings may have come before.

        A reading later than all that this worker has stored of its device is new, unless another
        hub of the home may have brought it.
        """
        registry, device_id = prepared.registry, rows.judged.device_id[places]
        self._make_room(int(device_id.max(initial=0)))
        latest = self._latest_ms[device_id]
        homes = np.array([batch.home_id for batch in prepared.flush.batches], np.int32)
        shared = np.isin(homes, registry.shared_homes)[prepared.flush.batch_of[places]]
        suspects: npt.NDArray[np.bool_] = (
            (rows.judged.identity_ms[places] <= latest) | (latest == _NEVER) | shared
        )
        return suspects

    def _remember(self, judged: Judged, verdict: npt.NDArray[np.uint8]) -> None:
        stored = verdict <= Verdict.DUPLICATE
        device_id = judged.device_id[stored]
        self._make_room(int(device_id.max(initial=0)))
        np.maximum.at(self._latest_ms, device_id, judged.identity_ms[stored])

    def _make_room(self, device_id: int) -> None:
        if device_id >= len(self._latest_ms):
            grown = np.full(max(device_id + 1, 2 * len(self._latest_ms)), _NEVER, np.int64)
            grown[: len(self._latest_ms)] = self._latest_ms
            self._latest_ms = grown

    async def _enter(self, outcomes: Sequence[Outcome]) -> tuple[npt.NDArray[np.int64], int]:
        """Enter the new batches into the ledger.

        Returns (batches,) keys, 0 for old ones, and the store's clock in milliseconds.
        """
        new = [outcome for outcome in outcomes if not outcome.again]
        batch_ids = np.zeros(len(outcomes), np.int64)
        if not new:
            return batch_ids, 0
        headers = [outcome.batch.header for outcome in new]
        entered = await self._connection.execute(
            _QUERIES["enter_batches"],
            {
                "hub_id": [outcome.batch.hub_id for outcome in new],
                "epoch": [header.epoch for header in headers],
                "sequence": [header.sequence for header in headers],
                "kind": [int(header.kind) for header in headers],
                "decoder": [header.decoder for header in headers],
                "reference_ms": [ms_since_epoch(header.reference_at) for header in headers],
                "stored": [outcome.stored for outcome in new],
                "duplicate": [outcome.duplicate for outcome in new],
                "quarantined": [outcome.quarantined for outcome in new],
            },
        )
        keys = {}
        entered_ms = 0
        async for batch_id, hub_id, epoch, sequence, clock_ms in entered:
            keys[hub_id, epoch, sequence] = batch_id
            entered_ms = clock_ms
        for index, outcome in enumerate(outcomes):
            batch_ids[index] = keys.get(_key(outcome.batch), 0)
        return batch_ids, entered_ms

    async def _keep_apart(
        self,
        rows: Rows,
        verdict: npt.NDArray[np.uint8],
        flush: Flush,
        batch_ids: npt.NDArray[np.int64],
    ) -> None:
        places = np.flatnonzero((verdict > Verdict.DUPLICATE) & (verdict != _REDELIVERED))
        if len(places):
            hub_ids = np.array([batch.hub_id for batch in flush.batches], np.int32)
            decoders = np.array([batch.header.decoder for batch in flush.batches], np.int32)
            batch_of = flush.batch_of[places]
            columns = quarantine_columns(
                rows, verdict, places, hub_ids[batch_of], decoders[batch_of]
            )
            await copy_columns(self._connection, "quarantine", columns)
        payloads = [
            _payload_row(batch, int(batch_id))
            for batch, batch_id in zip(flush.batches, batch_ids, strict=True)
            if batch_id
        ]
        async with self._connection.cursor() as cursor:
            flat = [row for batch in payloads for row in batch]
            if flat:
                await cursor.executemany(_QUERIES["keep_payload"], flat)
            if flush.rejected:
                messages = [_message_row(rejected) for rejected in flush.rejected]
                messages.sort(key=itemgetter("digest"))  # two workers lock rows in one order
                await cursor.executemany(_QUERIES["keep_message"], messages)


_REDELIVERED = 255
"""In a verdict array: the record's batch was committed before; it counts nowhere."""


def _key(batch: Batch) -> Key:
    return (batch.hub_id, batch.header.epoch, batch.header.sequence)


def _outcomes(
    flush: Flush,
    verdict: npt.NDArray[np.uint8],
    before: dict[Key, tuple[int, int, int]],
) -> tuple[Outcome, ...]:
    count = len(flush.batches)
    stored = np.bincount(flush.batch_of[verdict == Verdict.STORED], minlength=count)
    duplicate = np.bincount(flush.batch_of[verdict == Verdict.DUPLICATE], minlength=count)
    outcomes = []
    for index, batch in enumerate(flush.batches):
        receipt = before.get(_key(batch))
        fresh = (
            int(stored[index]),
            int(duplicate[index]),
            batch.header.count - int(stored[index]) - int(duplicate[index]),
        )
        terms = fresh if receipt is None else receipt
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


def _payload_row(batch: Batch, batch_id: int) -> list[dict[str, object]]:
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
