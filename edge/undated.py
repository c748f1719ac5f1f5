"""What was read while the hub did not know the time: kept as it came, placed once it does.

Payloads and what devices' clocks showed are kept as bytes, with the time since the machine's start.
Once the start is known they go the usual way: decoded, placed, into the outbox. What an earlier boot
left, which was switched off before it knew the time, can still be placed by the device's own clock
where that was known before; what cannot is HUB_UNSYNCHRONISED and ends in quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo

from edge import memory
from edge.clock import TimeLine, pair_of, with_live, with_pair
from edge.device_clock import clock_of
from edge.hub_file import HubFile, blob, integer
from edge.outbox import Outbox
from edge.payloads import (
    Decoded,
    Item,
    Payload,
    decode_advertised,
    decode_indicated,
    measured,
    with_clock,
)
from gateway.errors import DecodeError
from gateway.gatt.times import from_ms, ms_since_epoch
from gateway.measurement import Measurement, TimeQuality
from gateway.vitals import gatt_sources
from gateway.wire import hub_name as device_name

UNDATED_MAX = 10_000
"""Payloads kept while the time is not known: four months of a home (74 readings a day). At the bound
no device is talked to until it is known; those with a memory keep what they have, and what is
advertised is counted as lost."""
AT_ONCE = 1_000
"""Payloads placed in one transaction; the rest follows in the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A payload as it was kept; its reception counts from the start of `boot`."""

    id: int
    boot: str
    payload: Payload


def put(file: HubFile, boot: str, payloads: Sequence[Payload]) -> None:
    """Keep payloads, received in a time counted from the start of `boot`.

    In the transaction that is open.
    """
    for payload in payloads:
        file.run(
            "put_undated",
            boot=boot,
            device=device_name(payload.device),
            counted_ms=ms_since_epoch(payload.received_at),
            source=payload.source,
            stored=int(payload.stored),
            body=payload.data,
        )


def count(file: HubFile) -> int:
    """Return how many payloads are kept."""
    ((number,),) = file.rows("undated_count")
    return integer(number)


def started_at(file: HubFile, boot: str) -> datetime | None:
    """Return when `boot` began, if an earlier process of it has found that out."""
    rows = file.rows("boot")
    return from_ms(integer(rows[0][1])) if rows and rows[0][0] == boot else None


def remember_start(file: HubFile, boot: str, at: datetime) -> None:
    """Remember when `boot` began."""
    with file.transaction():
        file.run("put_boot", name=boot, started_ms=ms_since_epoch(at))


def place_some(
    file: HubFile, outbox: Outbox, *, boot: str, started: datetime, now: datetime, zone: tzinfo
) -> Sequence[Item]:
    """Place the oldest payloads and move them to the outbox, in one commit; return the items.

    `started`: when `boot`, the machine's current one, began.
    """
    rows = file.rows("undated", limit=min(AT_ONCE, outbox.room))
    if not rows:
        return ()
    kept = [_kept(row) for row in rows]
    lines = {device: memory.read_lines(file, device) for device in {k.payload.device for k in kept}}
    placing = _Placing(lines=lines, boot=boot, started=started, now=now, zone=zone)
    items = [item for entry in kept if (item := placing.item(entry)) is not None]

    def also() -> None:
        file.run("delete_undated", last_id=kept[-1].id)
        for device, now_known in placing.lines.items():
            memory.put_lines(file, device, now_known)

    outbox.append(items, also=also)
    return items


@dataclass(slots=True, kw_only=True)
class _Placing:
    """The placing of one lot, oldest first; `lines` grow with what the devices' clocks showed."""

    lines: dict[int, tuple[TimeLine, ...]]
    boot: str
    started: datetime
    now: datetime
    zone: tzinfo
    clocked: set[int] = field(default_factory=set)
    """Devices whose clocks were read, so that no time-stamp has to speak for them."""

    def item(self, kept: Kept) -> Item | None:
        """Return what a payload becomes; None of what a device's clock showed."""
        is_datable = kept.boot == self.boot
        since_start = kept.payload.received_at - from_ms(0)
        received_at = self.started + since_start if is_datable else self.now
        payload = replace(kept.payload, received_at=received_at)
        device = payload.device
        clock = clock_of(frozenset({payload.source}))
        if clock is not None:
            self.clocked.add(device)
            if is_datable:
                try:
                    pair = pair_of(clock.decode(payload.data), received_at)
                except DecodeError:
                    pair = None
                if pair is not None:
                    self.lines[device] = with_pair(self.lines[device], pair)
            return None
        decode = decode_indicated if gatt_sources(payload.source) else decode_advertised
        read = decode(payload)
        if read is None:
            return None
        if not isinstance(read, Decoded):
            return with_clock(read, None, self.zone)
        time = read.reading.device_time
        if time is not None and is_datable and device not in self.clocked:
            self.lines[device] = with_live(self.lines[device], time, received_at, self.zone)
        item = measured(read, lines=self.lines[device], zone=self.zone)
        if isinstance(item, Measurement) and not is_datable:
            return _if_by_own_clock(item)
        return item


def _if_by_own_clock(item: Measurement) -> Measurement:
    """Believe a place only that the device's own clock gave: the reception is not known."""
    if item.time_quality in {TimeQuality.UNPLACED, TimeQuality.RECEPTION}:
        return replace(item, time_quality=TimeQuality.HUB_UNSYNCHRONISED)
    return item


def _kept(row: tuple[object, ...]) -> Kept:
    id_, boot, device, counted_ms, source, stored, body = row
    return Kept(
        id=integer(id_),
        boot=str(boot),
        payload=Payload(
            device=int(str(device), 16),
            source=integer(source),
            data=blob(body),
            received_at=from_ms(0) + timedelta(milliseconds=integer(counted_ms)),
            stored=bool(stored),
        ),
    )
