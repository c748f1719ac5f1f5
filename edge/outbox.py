"""The outbox: what was read and waits for ingest's receipt. Synchronous; edge.storage runs it.

An item is durable when `append` returns. `seal` makes batches of what has been appended, numbered
(hub, epoch, sequence); the bytes of a batch never change. Only a receipt removes one. Bounded: at
capacity the policy decides who loses, and every loss is counted in the file itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edge.hub_file import DamagedFileError, HubFile, blob, integer
from edge.payloads import Item
from edge.sealing import Entry, batches_of, entry_of, message_of
from gateway import wire
from gateway.errors import DecodeError
from gateway.measurement import Measurement

CAPACITY_DEFAULT = 100_000
"""Measurements kept without a receipt: at 74 readings a day of a home, three and a half years."""
CAPACITY_MIN = 10_000
"""At least 90 days of a home (6,660 readings), with room for one that re-sends its memory."""
SEAL_ENTRIES_MAX = 8192
"""Entries sealed in one transaction; the rest follows in the next."""


class Policy(StrEnum):
    """Who loses at capacity."""

    KEEP_OLDEST = "keep_oldest"
    """What comes is refused; devices are left alone, so that those with a memory keep it there."""
    DROP_OLDEST = "drop_oldest"
    """The oldest batches go without a receipt; the ledger shows the gap."""


class Tally(StrEnum):
    """What the file counts, over restarts. Measurements, unless the name says batches."""

    KEPT = "kept"
    UNDECODED = "undecoded"
    REFUSED = "refused"
    """Lost at capacity, policy KEEP_OLDEST."""
    DROPPED = "dropped"
    """Lost at capacity, policy DROP_OLDEST."""
    BATCHES_SEALED = "batches_sealed"
    BATCHES_RECEIPTED = "batches_receipted"
    STORED = "stored"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    RECEIPTS_MISCOUNTED = "receipts_miscounted"
    """Receipts whose counts do not add up to their batch: a mistake of ingest or of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the outbox holds, what happens then, and how large its batches are."""

    capacity: int = CAPACITY_DEFAULT
    policy: Policy = Policy.KEEP_OLDEST
    batch_records: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """An advertised packet that was taken; its repeats are told by the digest."""

    device: int
    source: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A sealed batch. `id` orders the batches of all epochs of this file."""

    id: int
    epoch: int
    sequence: int
    count: int
    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much waits: measurements not yet sealed, batches, measurements in batches."""

    entries: int
    batches: int
    records: int

    @property
    def held(self) -> int:
        """All measurements in the file."""
        return self.entries + self.records


class Outbox:
    """The outbox in one open file. Any method may raise what `HubFile.transaction` raises."""

    def __init__(self, file: HubFile, hub: int, limits: Limits) -> None:
        self._file = file
        self._hub = hub
        self._limits = limits
        self._epoch = file.numbering.epoch
        self._next_sequence = file.numbering.next_sequence
        self._depth = read_depth(file)

    @property
    def epoch(self) -> int:
        """The epoch of the batches sealed from now on."""
        return self._epoch

    @property
    def depth(self) -> Depth:
        """How much waits now."""
        return self._depth

    @property
    def room(self) -> int:
        """How many measurements more it takes without refusing or dropping any."""
        return max(self._free, 0)

    def append(
        self,
        items: Sequence[Item],
        packets: Sequence[Packet] = (),
        *,
        also: Callable[[], None] = lambda: None,
    ) -> int:
        """Keep `items`, durably, in one commit, and remember `packets`; return how many were kept.

        Fewer than all only at capacity, under KEEP_OLDEST. `also` is done in the same commit.
        """
        before = self._depth
        with self._file.transaction():
            also()
            dropped_batches, dropped = self._make_room(len(items))
            kept = items[: max(self._free + dropped, 0)]
            for item in kept:
                entry = entry_of(item)
                self._file.run(
                    "put_entry", kind=entry.kind, received_ms=entry.received_ms, body=entry.body
                )
            for packet in packets:
                self._file.run(
                    "put_packet",
                    device=wire.hub_name(packet.device),
                    source=packet.source,
                    digest=packet.digest,
                )
            measurements = sum(isinstance(item, Measurement) for item in kept)
            self._count(
                {
                    Tally.KEPT: measurements,
                    Tally.UNDECODED: len(kept) - measurements,
                    Tally.REFUSED: len(items) - len(kept),
                    Tally.DROPPED: dropped,
                }
            )
        self._depth = Depth(
            entries=before.entries + len(kept),
            batches=before.batches - dropped_batches,
            records=before.records - dropped,
        )
        return len(kept)

    def seal(self) -> int:
        """Make batches of all entries, a bounded number in each commit; return how many batches."""
        first = self._next_sequence
        while self._depth.entries:
            with self._file.transaction():
                batches, records = self._seal_some()
            self._next_sequence += batches
            self._depth = Depth(
                entries=self._depth.entries - records,
                batches=self._depth.batches + batches,
                records=self._depth.records + records,
            )
        return self._next_sequence - first

    def batches(self, *, after: int = 0, limit: int) -> list[Batch]:
        """Return batches without a receipt, oldest first, behind the batch with id `after`."""
        return [
            Batch(
                id=integer(id_),
                epoch=integer(epoch),
                sequence=integer(sequence),
                count=integer(count),
                message=blob(message),
            )
            for id_, epoch, sequence, count, message in self._file.rows(
                "batches", after=after, limit=limit
            )
        ]

    def receipted(self, receipts: Iterable[wire.Receipt]) -> list[wire.Receipt]:
        """Remove the batches that these receipts are for; return the receipts that had one.

        A receipt of another epoch or sequence than any batch here removes nothing. One whose counts
        do not add up is counted; it is a receipt all the same, or the batch would be sent for ever.
        """
        before = self._depth
        known = []
        records = 0
        with self._file.transaction():
            for receipt in receipts:
                key = {"epoch": receipt.epoch, "sequence": receipt.sequence}
                rows = self._file.rows("batch_count", **key)
                if not rows:
                    continue
                count = integer(rows[0][0])
                self._file.run("delete_batch", **key)
                told = receipt.stored + receipt.duplicate + receipt.quarantined
                self._count(
                    {
                        Tally.BATCHES_RECEIPTED: 1,
                        Tally.STORED: receipt.stored,
                        Tally.DUPLICATE: receipt.duplicate,
                        Tally.QUARANTINED: receipt.quarantined,
                        Tally.RECEIPTS_MISCOUNTED: int(told != count),
                    }
                )
                known.append(receipt)
                records += count
        self._depth = Depth(
            entries=before.entries,
            batches=before.batches - len(known),
            records=before.records - records,
        )
        return known

    def tallies(self) -> dict[Tally, int]:
        """Return all counts since the file was made."""
        return read_tallies(self._file)

    @property
    def _free(self) -> int:
        """The room; negative where the capacity was lowered below what is held."""
        return self._limits.capacity - self._depth.held

    def _make_room(self, wanted: int) -> tuple[int, int]:
        """Drop what the policy lets go for `wanted` more; return how many batches and records."""
        batches = records = 0
        if self._limits.policy is Policy.DROP_OLDEST:
            while self._free + records < wanted and (rows := self._file.rows("oldest_batch")):
                ((epoch, sequence, count),) = rows
                self._file.run("delete_batch", epoch=epoch, sequence=sequence)
                batches += 1
                records += integer(count)
        return batches, records

    def _seal_some(self) -> tuple[int, int]:
        """Seal a bounded number of entries; return how many batches and records they made."""
        rows = self._file.rows("entries", limit=SEAL_ENTRIES_MAX)
        entries = [
            Entry(kind=wire.Kind(integer(kind)), received_ms=integer(ms), body=blob(body))
            for _id, kind, ms, body in rows
        ]
        sequence = self._next_sequence
        for group in batches_of(entries, self._limits.batch_records):
            try:
                message = message_of(group, hub=self._hub, epoch=self._epoch, sequence=sequence)
            except DecodeError as error:
                raise DamagedFileError(
                    f"outbox: what was written reads differently: {error}"
                ) from error
            self._file.run(
                "put_batch",
                epoch=self._epoch,
                sequence=sequence,
                count=len(group),
                message=message,
            )
            sequence += 1
        self._file.run("delete_entries", last_id=rows[-1][0])
        self._file.run("put_next_sequence", next_sequence=sequence)
        sealed = sequence - self._next_sequence
        self._count({Tally.BATCHES_SEALED: sealed})
        return sealed, len(entries)

    def _count(self, counts: dict[Tally, int]) -> None:
        for name, n in counts.items():
            if n:
                self._file.run("add_tally", name=name, n=n)


def read_depth(file: HubFile) -> Depth:
    """Return how much waits in an open file."""
    ((entries, batches, records),) = file.rows("depth")
    return Depth(entries=integer(entries), batches=integer(batches), records=integer(records))


def read_tallies(file: HubFile) -> dict[Tally, int]:
    """Return the counts in an open file, 0 for what was never counted."""
    counted = Counter({str(name): integer(n) for name, n in file.rows("tallies")})
    return {tally: counted[tally] for tally in Tally}
