"""What a flush writes: its entries in the ledger, its measurements, what is kept apart, what is due.

Pure array work, done before the flush's transaction begins as if nothing of it came before, and once
more inside it where something did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.gatt.times import ms_since_epoch
from gateway.platform.changes import Changed, summarised
from ingest.batches import Batch, Flush
from ingest.copy_binary import Column, Type, timestamps
from ingest.rows import LATE_MS, Rows, quarantine_columns
from ingest.table import Stream, encode_measurements, stream_of
from ingest.verdicts import Verdict

REDELIVERED = 255
"""In a verdict array: the record's batch was committed before; it counts nowhere."""

Key = tuple[int, int, int]
"""(hub key, epoch, sequence) of a batch."""
Terms = tuple[int, int, int]
"""Stored, duplicate, quarantined."""
Verdicts = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """A batch as it was committed; `checksum` None: before there were any."""

    terms: Terms
    checksum: int | None

    def differs_from(self, batch: Batch) -> bool:
        """Tell whether another batch came under its number."""
        return self.checksum is not None and self.checksum % (1 << 32) != batch.checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a batch: the content of its receipt. `again`: it was committed before."""

    batch: Batch
    stored: int
    duplicate: int
    quarantined: int
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """What a transaction writes, and what it makes of each batch.

    `streams` in the order in which they are sent: the ledger first, so that a batch that came before
    is refused before its measurements are sent.
    """

    outcomes: tuple[Outcome, ...]
    streams: Sequence[Stream]
    changed: Changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a flush has, judged: what a `Writing` is made from.

    `batch_ids` (batches,) int64; `unjudged` (n,): of which it is not known here whether they are
    unusual.
    """

    flush: Flush
    rows: Rows
    batch_ids: npt.NDArray[np.int64]
    unjudged: npt.NDArray[np.bool_]
    stored_at_ms: int

    def written(
        self, verdict: Verdicts, places: Places, before: Mapping[Key, Before] | None = None
    ) -> Writing:
        """Return what is written under these verdicts; `places` are stored, in the index's order.

        Of the batches in `before` nothing is written, and their outcome is what they had.
        """
        outcomes = _outcomes(self.flush, verdict, before or {})
        rows = self.rows
        return Writing(
            outcomes=outcomes,
            streams=[
                *self._ledger(outcomes),
                *encode_measurements(rows, places, self.stored_at_ms),
                *self._kept_apart(verdict),
                *due_slots(rows, places),
                *due_baselines(rows, places[self.unjudged[places]]),
            ],
            changed=changed_by(rows, places),
        )

    def _ledger(self, outcomes: Sequence[Outcome]) -> list[Stream]:
        """Return the entries of the new batches in the ledger."""
        new = [(i, outcome) for i, outcome in enumerate(outcomes) if not outcome.again]
        if not new:
            return []
        headers = [outcome.batch.header for _i, outcome in new]
        reference_ms = np.array(
            [ms_since_epoch(header.reference_at) for header in headers], np.int64
        )
        committed_ms = np.full(len(new), self.stored_at_ms, np.int64)
        columns: list[tuple[str, Type, npt.ArrayLike]] = [
            ("batch_id", Type.INT8, self.batch_ids[[i for i, _outcome in new]]),
            ("epoch", Type.INT8, [header.epoch for header in headers]),
            ("sequence", Type.INT8, [header.sequence for header in headers]),
            ("reference_at", Type.INT8, timestamps(reference_ms)),
            ("committed_at", Type.INT8, timestamps(committed_ms)),
            (
                "checksum",
                Type.INT4,
                np.array([o.batch.checksum for _i, o in new], np.uint32).view(np.int32),
            ),
            ("hub_id", Type.INT4, [outcome.batch.hub_id for _i, outcome in new]),
            ("published", Type.INT4, [header.count for header in headers]),
            ("stored", Type.INT4, [outcome.stored for _i, outcome in new]),
            ("duplicate", Type.INT4, [outcome.duplicate for _i, outcome in new]),
            ("quarantined", Type.INT4, [outcome.quarantined for _i, outcome in new]),
            ("decoder", Type.INT4, [header.decoder for header in headers]),
            ("kind", Type.INT2, [header.kind for header in headers]),
        ]
        arrays = [
            Column(name=name, type=type_, values=np.asarray(values))
            for name, type_, values in columns
        ]
        return [stream_of("batch", arrays)]

    def _kept_apart(self, verdict: Verdicts) -> list[Stream]:
        """Return the records that go to quarantine."""
        places = np.flatnonzero((verdict > Verdict.DUPLICATE) & (verdict != REDELIVERED))
        if not len(places):
            return []
        batches, batch_of = self.flush.batches, self.flush.batch_of[places]
        hub_ids = np.array([batch.hub_id for batch in batches], np.int32)
        decoders = np.array([batch.header.decoder for batch in batches], np.int32)
        columns = quarantine_columns(
            self.rows, verdict, places, hub_ids[batch_of], decoders[batch_of]
        )
        return [stream_of("quarantine", columns)]


def key_of_batch(batch: Batch) -> Key:
    """Return what a batch is known by."""
    return (batch.hub_id, batch.header.epoch, batch.header.sequence)


def _outcomes(flush: Flush, verdict: Verdicts, before: Mapping[Key, Before]) -> tuple[Outcome, ...]:
    count = len(flush.batches)
    stored = np.bincount(flush.batch_of[verdict == Verdict.STORED], minlength=count).tolist()
    duplicate = np.bincount(flush.batch_of[verdict == Verdict.DUPLICATE], minlength=count).tolist()
    outcomes = []
    for batch, new, repeated in zip(flush.batches, stored, duplicate, strict=True):
        former = before.get(key_of_batch(batch)) if before else None
        terms = former.terms if former else (new, repeated, batch.header.count - new - repeated)
        outcomes.append(
            Outcome(
                batch=batch,
                stored=terms[0],
                duplicate=terms[1],
                quarantined=terms[2],
                again=former is not None,
            )
        )
    return tuple(outcomes)


def changed_by(rows: Rows, places: Places) -> Changed:
    """Return whose signs the readings at `places` change; those of nobody are on the worklist."""
    judged = rows.judged
    places = places[judged.resident_id[places] != 0]
    return summarised(
        judged.resident_id[places], rows.records["sign"][places], judged.measured_ms[places]
    )


def due_slots(rows: Rows, places: Places) -> list[Stream]:
    """Return the note that slots among the readings at `places` are to be settled.

    Those that are shared, and those of late readings, whose device may have been away.
    """
    judged = rows.judged
    late = judged.received_ms[places] - judged.measured_ms[places] >= LATE_MS
    due = np.union1d(np.intersect1d(judged.candidates.place, places), places[late])
    if not len(due):
        return []
    slots = np.unique(np.stack((judged.device_id[due], rows.records["user_slot"][due])), axis=1)
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
