"""Things to put into an outbox, and a look at what is in one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from edge.hub_file import HubFile, open_hub_file
from edge.outbox import Batch, Limits, Outbox
from edge.payloads import Item
from gateway import wire
from gateway.errors import Fault
from gateway.measurement import Measurement, TimeQuality, Undecoded
from gateway.vital_sign import Reading

_opened: list[HubFile] = []

HUB = 0x00C0FFEE00C0FFEE
NOON = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
BOOT = "this boot"


def open_outbox(folder: Path, limits: Limits | None = None, *, boot: str = BOOT) -> Outbox:
    """Open or make the outbox in a folder."""
    return Outbox(open_file(folder, boot=boot), HUB, limits or Limits())


def open_file(folder: Path, *, boot: str = BOOT, hub: int = HUB) -> HubFile:
    """Open or make its file; `close_all` closes it, if the test does not."""
    file = open_hub_file(folder / "outbox.sqlite", hub, boot=boot)
    _opened.append(file)
    return file


def close_all() -> None:
    """Close every file that was opened here: since Python 3.13 a forgotten one is an error."""
    while _opened:
        _opened.pop().abandon()


def measurement(number: int, *, received_at: datetime = NOON) -> Measurement:
    """Return a measurement that its number tells from others."""
    return Measurement(
        device=0xC026DA010203,
        sign=1,
        reading=Reading(values=(Decimal(number),)),
        measured_at=received_at - timedelta(seconds=1),
        received_at=received_at,
        time_quality=TimeQuality.MAPPED,
        utc_offset_min=480,
    )


def undecoded(number: int, *, received_at: datetime = NOON, size: int = 8) -> Undecoded:
    """Return a payload that nobody reads and that its number tells from others."""
    return Undecoded(
        device=0xC026DA010203,
        source=0x2A35,
        fault=Fault.TRAILING,
        payload=number.to_bytes(8, "little").ljust(size, b"\0"),
        received_at=received_at,
    )


def number_of(item: Item) -> int:
    """Return the number that `measurement` or `undecoded` was given."""
    if isinstance(item, Undecoded):
        return int.from_bytes(item.payload[:8], "little")
    (value, *_absent) = item.reading.values
    assert isinstance(value, Decimal)
    return int(value)


def items_of(batch: Batch) -> list[Item]:
    """Return what a batch carries, as ingest reads it."""
    header, body = wire.decode_batch(batch.message)
    assert (header.epoch, header.sequence, header.count) == (
        batch.epoch,
        batch.sequence,
        batch.count,
    )
    if header.kind is wire.Kind.UNDECODED:
        return list(wire.decode_undecoded(body, header))
    return [
        wire.decode_record(body[start : start + wire.RECORD_BYTES], header.reference_at)
        for start in range(0, len(body), wire.RECORD_BYTES)
    ]


def receipt_for(batch: Batch, *, duplicate: int = 0) -> wire.Receipt:
    """Return ingest's word on a batch."""
    return wire.Receipt(
        epoch=batch.epoch,
        sequence=batch.sequence,
        stored=batch.count - duplicate,
        duplicate=duplicate,
        quarantined=0,
    )
