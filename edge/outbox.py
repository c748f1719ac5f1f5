"""The outbox: what was read and waits for ingest's receipt. Synchronous; edge.storage runs it.

An item is durable when `append` returns. `seal` makes batches of what has been appended, numbered
(hub, epoch, sequence); the bytes of a batch never change. Only a receipt removes one. Bounded: at
capacity the policy decides who loses, and every loss is counted in the file itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edge.hub_file import DamagedFileError, HubFile, blob, integer
from edge.payloads import Item
from edge.sealing import Entry, batches_of, entry_of, message_of
from gateway import wire
from gateway.errors import DecodeError
from gateway.gatt.times import ms_since_epoch
from gateway.measurement import Measurement
from gateway.resend import ResendRequest

CAPACITY_DEFAULT = 100_000
"""Measurements kept without a receipt: at 74 readings a day of a home, three and a half years."""
CAPACITY_MIN = 10_000
"""At least 90 days of a home (6,660 readings), with room for one that re-sends its memory."""
KEPT_DAYS_DEFAULT = 14
"""Batches that have their receipt stay so long, should the store be restored to an older state."""
KEPT_RECORDS_MAX = 50_000
"""Measurements in them; beyond it the oldest go. At 74 a day, far more than a year."""
SEAL_ENTRIES_MAX = 8192
"""Entries sealed in one transaction; the rest follows in the next."""


RESEND_MARGIN_MS = 3_600_000
"""Batches are sent again from this much earlier than asked: the hub's clock is not the store's."""
DAY_MS = 86_400_000
NEVER_MS = 1 << 62
"""Stands for the time of a receipt that came while the hub did not know the time."""


class Policy(StrEnum):
    """Who loses at capacity."""

    KEEP_OLDEST = "keep_oldest"
    """What comes is refused; devices are left alone, so that those with a memory keep it there."""
    DROP_OLDEST = "drop_oldest"
    """The oldest batches go without a receipt; the ledger shows the gap."""


class Order(StrEnum):
    """Which batches go first when there is a backlog."""

    OLDEST = "oldest"
    """In the order of reading: the archive grows without gaps."""
    NEWEST = "newest"
    """What was read last is seen first; the backlog follows behind it."""


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
    BATCHES_RESENT = "batches_resent"
    """Sent again, after their receipt, because somebody asked; counted in no other tally again."""
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
    first: Order = Order.OLDEST
    kept_days: int = KEPT_DAYS_DEFAULT


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
        self._resent = _read_resent(file)
        """Measurements that wait although they had their receipt."""

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
        return self._batches("batches", after=after, limit=limit)

    def next_batches(self, *, after: int, in_flight: Collection[int], limit: int) -> list[Batch]:
        """Return the batches to send next: behind the id `after`, or the newest not in flight."""
        if self._limits.first is Order.OLDEST:
            return self.batches(after=after, limit=limit)
        newest = self._batches("newest_batches", limit=limit + len(in_flight))
        return [batch for batch in newest if batch.id not in in_flight][:limit]

    def receipted(self, receipts: Iterable[wire.Receipt], now_ms: int | None) -> list[wire.Receipt]:
        """Take the batches that these receipts are for out of the queue; return those that had one.

        They are kept aside, to be sent again if somebody asks (`resend`), for the limits' days by
        the hub's clock. A receipt of another epoch or sequence than any batch here removes nothing. One whose counts
        do not add up is counted; it is a receipt all the same, or the batch would be sent for ever.
        """
        before = self._depth
        known = []
        records = resent = 0
        with self._file.transaction():
            for receipt in receipts:
                key = {"epoch": receipt.epoch, "sequence": receipt.sequence}
                rows = self._file.rows("batch_count", **key)
                if not rows:
                    continue
                count, times_receipted = integer(rows[0][0]), integer(rows[0][1])
                at_ms = NEVER_MS if now_ms is None else now_ms
                self._file.run("keep_receipted", **key, now_ms=at_ms)
                self._file.run("delete_batch", **key)
                told = receipt.stored + receipt.duplicate + receipt.quarantined
                known.append(receipt)
                records += count
                if times_receipted:
                    resent += count
                    continue
                self._count(
                    {
                        Tally.BATCHES_RECEIPTED: 1,
                        Tally.STORED: receipt.stored,
                        Tally.DUPLICATE: receipt.duplicate,
                        Tally.QUARANTINED: receipt.quarantined,
                        Tally.RECEIPTS_MISCOUNTED: int(told != count),
                    }
                )
            if now_ms is not None:
                self._file.run("date_receipted", never_ms=NEVER_MS, now_ms=now_ms)
                self._file.run(
                    "forget_receipted", before_ms=now_ms - self._limits.kept_days * DAY_MS
                )
            self._trim_receipted()
        self._depth = Depth(
            entries=before.entries,
            batches=before.batches - len(known),
            records=before.records - records,
        )
        self._resent -= resent
        return known

    def resend(self, request: ResendRequest) -> int | None:
        """Put the batches receipted since a time back into the queue; return how many.

        None: this request was met before. The bytes are the same, so ingest takes what it still has
        for a redelivery. They take no room from what never had a receipt: `KEPT_RECORDS_MAX` bounds
        them.
        """
        before = self._depth
        with self._file.transaction():
            if self._file.rows("request", id=str(request.id)):
                return None
            since_ms = ms_since_epoch(request.since) - RESEND_MARGIN_MS
            ((batches, records),) = self._file.rows("receipted_since", since_ms=since_ms)
            self._file.run("queue_receipted", since_ms=since_ms)
            self._file.run("delete_receipted", since_ms=since_ms)
            self._file.run("put_request", id=str(request.id))
            self._count({Tally.BATCHES_RESENT: integer(batches)})
        self._depth = Depth(
            entries=before.entries,
            batches=before.batches + integer(batches),
            records=before.records + integer(records),
        )
        self._resent += integer(records)
        return integer(batches)

    def tallies(self) -> dict[Tally, int]:
        """Return all counts since the file was made."""
        return read_tallies(self._file)

    @property
    def _free(self) -> int:
        """The room; negative where the capacity was lowered below what is held."""
        return self._limits.capacity - (self._depth.held - self._resent)

    def _batches(self, query: str, **values: int) -> list[Batch]:
        return [
            Batch(
                id=integer(id_),
                epoch=integer(epoch),
                sequence=integer(sequence),
                count=integer(count),
                message=blob(message),
            )
            for id_, epoch, sequence, count, message in self._file.rows(query, **values)
        ]

    def _trim_receipted(self) -> None:
        """Let the oldest beyond the bound go."""
        ((_batches, records),) = self._file.rows("receipted_since", since_ms=-NEVER_MS)
        surplus = integer(records) - KEPT_RECORDS_MAX
        if surplus > 0:
            self._file.run("trim_receipted", surplus=surplus)

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


def _read_resent(file: HubFile) -> int:
    ((records,),) = file.rows("resent")
    return integer(records)


def read_tallies(file: HubFile) -> dict[Tally, int]:
    """Return the counts in an open file, 0 for what was never counted."""
    counted = Counter({str(name): integer(n) for name, n in file.rows("tallies")})
    return {tally: counted[tally] for tally in Tally}
