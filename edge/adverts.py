"""Readings that devices advertise: recognised, told from their repeats, and kept.

Such a reading is heard for some seconds, many times over. Its digest is kept with it in one commit,
so that its repeats are told from it after a restart too.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta, tzinfo
from typing import Protocol

from edge.clock import TimeLine, with_live
from edge.counts import Counts
from edge.heard import Heard, Packets, packet_of
from edge.hub_clock import HubClock
from edge.outbox import Packet
from edge.payloads import Decoded, Item, Payload, decode_advertised, measured
from gateway.errors import UnavailableError
from gateway.measurement import Undecoded
from gateway.vitals import advertised_sources

WAITING_MAX = 256
"""Advertised readings that wait to be kept. At the bound the newest is counted and left to its
repeats."""
UNREADABLE_MAX = 16
"""Unreadable packets kept of one device in `UNREADABLE_S`; more are counted and dropped. Otherwise
a neighbour's encrypted thermometer could fill the outbox."""
UNREADABLE_S = 3600.0
"""The time over which they are counted."""
UNREADABLE_DEVICES_MAX = 512
"""Devices for which that is counted; at the bound the one counted longest ago starts anew."""
REMEMBER_AFTER = timedelta(days=1)
"""How often it is written down that an advertising device's clock still runs on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    read: Decoded | Undecoded | Payload
    """A payload while the hub does not know the time."""
    packet: Packet


class Keeper(Protocol):
    """Where readings are kept, as `edge.storage.Storage` is one."""

    async def append(self, items: Sequence[Item | Payload], packets: Sequence[Packet] = ()) -> int:
        """Keep items durably, and remember packets; return how many were kept."""

    async def packets(self) -> list[Packet]:
        """Return the packets that were taken last."""

    async def lines(self, device: int) -> tuple[TimeLine, ...]:
        """Return what is remembered of a device's clock."""

    async def remember_lines(self, device: int, lines: Sequence[TimeLine]) -> None:
        """Remember it."""


class Adverts:
    """The advertised readings of one hub. `run` must be running for `hear` to have an effect."""

    def __init__(self, storage: Keeper, counts: Counts, zone: tzinfo, hub_clock: HubClock) -> None:
        self._storage = storage
        self._counts = counts
        self._zone = zone
        self._hub_clock = hub_clock
        self._packets: Packets | None = None
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(WAITING_MAX)
        self._unreadable = _Rate()

    def hear(self, device: int, heard: Heard) -> None:
        """Take what a device advertises, if a sign reads it and it was not taken before."""
        if self._packets is None:
            return  # the file is not read yet; it will be heard again
        for source, data in heard.service_data.items():
            if not advertised_sources(source):
                continue
            payload = Payload(device=device, source=source, data=data, received_at=heard.heard_at)
            packet = packet_of(payload)
            if self._packets.is_repeat(packet):
                self._counts.repeats += 1
            elif (read := decode_advertised(payload)) is not None:
                counted = replace(payload, received_at=self._hub_clock.counted())
                kept = read if self._hub_clock.is_known else counted
                waiting = _Waiting(read=kept, packet=packet)
                self._queue_up(self._packets, waiting, is_readable=isinstance(read, Decoded))

    async def run(self) -> None:
        """Keep what was heard, until cancelled."""
        await self.recall()
        while True:
            await self.keep_next()

    async def recall(self) -> None:
        """Learn which packets were taken before; until then nothing is heard."""
        remembered: Sequence[Packet] = ()
        with suppress(UnavailableError):  # then a repeat or two is taken, which ingest stores once
            remembered = await self._storage.packets()
        self._packets = Packets(remembered)

    async def keep_next(self) -> None:
        """Keep the next that was heard, once there is one."""
        await self._keep(await self._queue.get())

    def _queue_up(self, packets: Packets, waiting: _Waiting, *, is_readable: bool) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._queue.full():
            self._counts.adverts_ignored += 1
            return
        packets.remember(waiting.packet)
        if not is_readable and not self._unreadable.allows(waiting.packet.device, now_s):
            self._counts.adverts_ignored += 1
            return
        self._queue.put_nowait(waiting)

    async def _keep(self, waiting: _Waiting) -> None:
        """Place one reading in time and keep it; return once it is durable."""
        read = waiting.read
        if not isinstance(read, Decoded):
            await self._storage.append([read], [waiting.packet])
            return
        device = read.payload.device
        known: tuple[TimeLine, ...] = ()
        with suppress(UnavailableError):  # then only a time-stamp of now can be placed
            known = await self._storage.lines(device)
        lines = self._lines_with(known, read)
        item = measured(read, lines=lines, zone=self._zone)
        await self._storage.append([item], [waiting.packet])
        if _is_worth_remembering(known, lines):
            with suppress(UnavailableError):  # the next reading writes it
                await self._storage.remember_lines(device, lines)

    def _lines_with(self, known: tuple[TimeLine, ...], read: Decoded) -> tuple[TimeLine, ...]:
        """Return the device's time lines, seen on by a time-stamp of now if this is one."""
        time = read.reading.device_time
        if time is None:
            return known
        return with_live(known, time, read.payload.received_at, self._zone)


class _Rate:
    """How often each device was unreadable of late."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, tuple[float, int]] = OrderedDict()

    def allows(self, device: int, now_s: float) -> bool:
        """Count one more and tell whether it is within the bound."""
        began_s, count = self._seen.get(device, (now_s, 0))
        if now_s - began_s > UNREADABLE_S:
            began_s, count = now_s, 0
        self._seen[device] = (began_s, count + 1)
        if len(self._seen) > UNREADABLE_DEVICES_MAX:
            self._seen.popitem(last=False)
        return count < UNREADABLE_MAX


def _is_worth_remembering(before: Sequence[TimeLine], after: Sequence[TimeLine]) -> bool:
    if not after or len(before) != len(after):
        return bool(after)
    return after[-1].last_at - before[-1].last_at > REMEMBER_AFTER
