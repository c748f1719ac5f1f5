"""A flush becomes rows: one transaction, all of it or nothing.

Order: hold the links still; look up what may have come before; the ledger; the measurements; what is
kept apart; COMMIT. Only then are receipts due. Fresh readings and batches are copied straight behind
their unique indexes; a look-up is made only for readings that may have come before (`_suspects`), or
when an index has objected. All that needs no database is done beforehand (`prepare`).

Two flushes may be in their transactions at once. One with readings that may be in the other waits
for it to end before it begins, since it must see what the other stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway import wire
from gateway.errors import UnavailableError
from gateway.platform.changes import record_change
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
from ingest.batches import Batch, Flush, Rejected, differing
from ingest.elsewhere import concerned, take_back, withhold
from ingest.guard import hold_devices, hold_links
from ingest.newest import Newest
from ingest.registry import Ids, Registry
from ingest.rows import KIND_PAYLOAD, Rows, rows_of, settle_within
from ingest.table import newest_stored, send, settle_stored
from ingest.verdicts import Judged, Verdict
from ingest.writing import (
    REDELIVERED,
    Before,
    Content,
    Key,
    Outcome,
    Places,
    Verdicts,
    Writing,
    key_of_batch,
)

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

Wait = Callable[[], Awaitable[object]]


async def _no_wait() -> None:
    """Nothing else is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A flush ready to be committed.

    `verdict` (n,) with repeats inside the flush settled; `places` those to store, in the index's
    order; `fresh` what is written if nothing of it came before.
    """

    registry: Registry
    content: Content
    verdict: Verdicts
    places: Places
    fresh: Writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a transaction did: an outcome for each batch, and the final verdict of each record.

    `rejected`: the messages that were set apart, with those that are other batches than came before
    under their numbers.
    """

    outcomes: tuple[Outcome, ...]
    verdict: Verdicts
    rejected: tuple[Rejected, ...]
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
    content = Content(
        flush=flush, rows=rows, batch_ids=batch_ids, unjudged=unjudged, stored_at_ms=stored_at_ms
    )
    return Prepared(
        registry=registry,
        content=content,
        verdict=verdict,
        places=places,
        fresh=content.written(verdict, places),
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
    """Commits flushes over one connection, one after the other.

    Stores of one worker share what it knows of its devices; one that has it for itself needs none.
    """

    def __init__(self, connection: AsyncConnection, newest: Newest | None = None) -> None:
        self.connection = connection
        self._newest = Newest() if newest is None else newest
        self._expects_repeats = False
        """The last flush had what the store had; the next is looked up at once, not on objection."""

    async def close(self) -> None:
        """Close the connection."""
        await self.connection.close()

    async def commit(self, prepared: Prepared, earlier: Wait = _no_wait) -> Committed:
        """Store a flush and return what became of it.

        `earlier` waits for the end of the flushes that began before this one and are still open. It
        is asked only where they may have what this one has; never inside a transaction, whose locks
        they may be waiting for.

        Raises:
            UnavailableError: the database is down or full; nothing of the flush was stored.
            StaleRegistryError: links changed since it was judged; nothing of it was stored.
        """
        suspects = prepared.places[self._suspects(prepared)]
        forgotten = self._newest.forgotten
        unknown = self._newest.unknown(prepared.content.rows.judged.device_id[prepared.places])
        self._note(prepared)  # from now on whoever comes behind looks, and waits
        careful = self._expects_repeats
        for _attempt in range(COMMIT_ATTEMPTS_MAX):
            if careful or len(suspects):
                await earlier()
            try:
                with translated():
                    async with self.connection.transaction():
                        committed = await self._commit_once(prepared, None if careful else suspects)
                        latest = await self._newest_stored(prepared, unknown)
            except DuplicateKeyError:
                careful = True  # another worker was faster, or something came again: look first
                continue
            self._newest.learn(*latest, forgotten)
            self._expects_repeats = careful and _has_repeats(committed)
            return committed
        raise UnavailableError("database: the same readings are being stored by another worker")

    async def _commit_once(self, prepared: Prepared, asked: Places | None) -> Committed:
        """Commit; readings at the places `asked` are looked up first; None: they and all batches."""
        content, verdict, places = prepared.content, prepared.verdict.copy(), prepared.places
        await hold_links(self.connection, prepared.registry, content.rows.judged.device_id)
        before = await self._committed_before(content.flush.batches) if asked is None else {}
        if before:
            verdict, places = _without(prepared, before)
        await self._lock_homes(prepared)
        rows = content.rows
        which = concerned(rows, verdict)
        devices = rows.judged.device_id
        await hold_devices(self.connection, late=devices[which.late], heard=devices[which.heard])
        asked = places if asked is None else asked
        found = await settle_stored(self.connection, rows, verdict, asked)
        withheld = await withhold(self.connection, rows, verdict, which)
        writing = prepared.fresh
        if before or found.any or withheld:
            places = places[verdict[places] == Verdict.STORED]
            writing = replace(content, rows=withheld or rows).written(verdict, places, before)
        for stream in writing.streams:
            await send(self.connection, stream)
        await record_change(self.connection, writing.changed, content.stored_at_ms)
        rejected = (*content.flush.rejected, *_differing(content.flush.batches, before))
        await self._keep_undecoded(content, writing.outcomes, rejected)
        await take_back(self.connection, rows, which, found.earlier)
        return Committed(
            outcomes=writing.outcomes, verdict=verdict, rejected=rejected, looked_up=len(asked)
        )

    async def _newest_stored(
        self, prepared: Prepared, unknown: Ids
    ) -> tuple[Ids, npt.NDArray[np.int64]]:
        rows, places = prepared.content.rows, prepared.places
        places = places[np.isin(rows.judged.device_id[places], unknown)]
        return await newest_stored(self.connection, rows, places, unknown)

    async def _committed_before(self, batches: Sequence[Batch]) -> dict[Key, Before]:
        rows = await self.connection.execute(
            _QUERIES["committed_batches"],
            {
                "hub_id": [batch.hub_id for batch in batches],
                "epoch": [batch.header.epoch for batch in batches],
                "sequence": [batch.header.sequence for batch in batches],
            },
        )
        return {
            (hub_id, epoch, sequence): Before(terms=(*terms,), checksum=checksum)
            async for hub_id, epoch, sequence, *terms, checksum in rows
        }

    async def _lock_homes(self, prepared: Prepared) -> None:
        """In a home with two hubs no index objects to one reading mapped in two ways."""
        homes = np.intersect1d(
            [batch.home_id for batch in prepared.content.flush.batches],
            prepared.registry.shared_homes,
        )
        if len(homes):
            await self.connection.execute(
                _QUERIES["lock_homes"], {"space": _HOME_LOCKS, "home_id": homes.tolist()}
            )

    def _suspects(self, prepared: Prepared) -> npt.NDArray[np.bool_]:
        """Tell which of the readings to store may have come before.

        A reading later than all that is known of its device is new, unless another hub of the home
        may have brought it.
        """
        flush, judged, places = (
            prepared.content.flush,
            prepared.content.rows.judged,
            prepared.places,
        )
        homes = np.array([batch.home_id for batch in flush.batches], np.int32)
        shared = np.isin(homes, prepared.registry.shared_homes)[flush.batch_of[places]]
        seen = self._newest.may_have(judged.device_id[places], judged.identity_ms[places])
        suspects: npt.NDArray[np.bool_] = seen | shared
        return suspects

    def _note(self, prepared: Prepared) -> None:
        judged = prepared.content.rows.judged
        places = np.flatnonzero(prepared.verdict <= Verdict.DUPLICATE)
        self._newest.note(judged.device_id[places], judged.identity_ms[places])

    async def _keep_undecoded(
        self, content: Content, outcomes: Sequence[Outcome], rejected: Sequence[Rejected]
    ) -> None:
        payloads = [
            row
            for outcome, batch_id in zip(outcomes, content.batch_ids.tolist(), strict=True)
            if outcome.batch.undecoded and not outcome.again
            for row in _payload_rows(outcome.batch, batch_id)
        ]
        messages = [_message_row(one) for one in rejected]
        messages.sort(key=itemgetter("digest"))  # two workers lock rows in one order
        async with self.connection.cursor() as cursor:
            if payloads:
                await cursor.executemany(_QUERIES["keep_payload"], payloads)
            if messages:
                await cursor.executemany(_QUERIES["keep_message"], messages)


def _has_repeats(committed: Committed) -> bool:
    again = any(outcome.again for outcome in committed.outcomes)
    return again or bool((committed.verdict == Verdict.DUPLICATE).any())


def _differing(batches: Sequence[Batch], before: Mapping[Key, Before]) -> list[Rejected]:
    """Return the batches that came under a number of another; their receipt is that one's."""
    found = []
    for batch in batches if before else ():
        former = before.get(key_of_batch(batch))
        if former is not None and former.differs_from(batch):
            found.append(differing(batch))
    return found


def _without(prepared: Prepared, before: Mapping[Key, Before]) -> tuple[Verdicts, Places]:
    """Leave out the batches that were committed before, and settle the others anew."""
    flush, rows = prepared.content.flush, prepared.content.rows
    again = np.array([key_of_batch(batch) in before for batch in flush.batches], np.bool_)
    verdict = rows.judged.verdict.copy()
    verdict[again[flush.batch_of]] = REDELIVERED
    return verdict, settle_within(rows, verdict)


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
