"""How items become the bytes of batches. Pure; the bytes are docs/wire.md's.

Until it is sealed an item is encoded with its own reception as the reference; a batch's reference
is the newest reception in it, so each is encoded once more when its batch is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge.payloads import Item
from gateway import wire
from gateway.gatt.times import from_ms, ms_since_epoch
from gateway.measurement import Measurement

BATCH_BYTES_MAX = 64 << 10
"""What one batch may carry; more goes into the next. Records fill it exactly at 1,024."""
RECEIVED_BEFORE_MS_MAX = (1 << 32) - 1
"""A record counts back from its batch's reference in 32 bits of milliseconds: 49 days. What was
received longer before the newest goes into a batch of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What an item is on the disk until it is sealed."""

    kind: wire.Kind
    received_ms: int
    body: bytes


def entry_of(item: Item) -> Entry:
    """Encode an item by itself.

    Raises:
        EncodeError: a measurement would have to be altered (edge.payloads never makes one).
    """
    received_ms = ms_since_epoch(item.received_at)
    if isinstance(item, Measurement):
        body = wire.encode_record(item, item.received_at)
        return Entry(kind=wire.Kind.MEASUREMENTS, received_ms=received_ms, body=body)
    body = wire.encode_undecoded(item, item.received_at)
    return Entry(kind=wire.Kind.UNDECODED, received_ms=received_ms, body=body)


def batches_of(entries: Sequence[Entry], records_max: int) -> Iterator[list[Entry]]:
    """Group entries, kind by kind and in order, so that every group fits one batch."""
    for kind in wire.Kind:
        group: list[Entry] = []
        size = oldest_ms = newest_ms = 0
        for entry in entries:
            if entry.kind is not kind:
                continue
            size += len(entry.body)
            oldest_ms = min(oldest_ms, entry.received_ms)
            newest_ms = max(newest_ms, entry.received_ms)
            if group and (
                len(group) >= min(records_max, wire.BATCH_RECORDS_MAX)
                or size > BATCH_BYTES_MAX
                or newest_ms - oldest_ms > RECEIVED_BEFORE_MS_MAX
            ):
                yield group
                group = []
            if not group:
                size = len(entry.body)
                oldest_ms = newest_ms = entry.received_ms
            group.append(entry)
        if group:
            yield group


def message_of(group: Sequence[Entry], *, hub: int, epoch: int, sequence: int) -> bytes:
    """Return the batch that a group of `batches_of` makes."""
    header = wire.Header(
        hub=hub,
        epoch=epoch,
        sequence=sequence,
        kind=group[0].kind,
        count=len(group),
        reference_at=from_ms(max(entry.received_ms for entry in group)),
    )
    return wire.encode_batch(header, b"".join(_body(entry, header) for entry in group))


def _body(entry: Entry, batch: wire.Header) -> bytes:
    """Return an entry's bytes as they stand in a batch: counted back from its reference."""
    own_reference = from_ms(entry.received_ms)
    if entry.kind is wire.Kind.MEASUREMENTS:
        return wire.encode_record(wire.decode_record(entry.body, own_reference), batch.reference_at)
    alone = wire.Header(
        hub=batch.hub,
        epoch=batch.epoch,
        sequence=batch.sequence,
        kind=entry.kind,
        count=1,
        reference_at=own_reference,
    )
    (payload,) = wire.decode_undecoded(entry.body, alone)
    return wire.encode_undecoded(payload, batch.reference_at)
