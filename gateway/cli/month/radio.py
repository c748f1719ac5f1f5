"""A connection between a simulated device and the hub's real session, without a radio.

It does what firmware_sim.session does over Bluetooth: records are indicated as soon as something is
subscribed, stored ones reported and deleted on request. Nothing waits: when the hub would wait for
more, the device has left.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from edge.central import LinkError
from firmware_sim.clock_service import clock_characteristic, read_clock, write_clock
from firmware_sim.device import SimulatedDevice
from firmware_sim.journal import Event
from firmware_sim.memory import Record
from gateway.cli.month.world import World
from gateway.gatt import health_observation as ghs
from gateway.gatt import record_access
from gateway.gatt.payload import unsigned_field
from gateway.vital_sign import Framing, GattSource

ATT_BYTES = 244
"""What one indication carries at the usual ATT_MTU of 247."""
REQUEST_TIME = timedelta(milliseconds=80)
"""How long a read or a write takes."""
RECORD_TIME = timedelta(milliseconds=50)
"""How long an indication takes with its confirmation."""

# Record Access Control Point (GATT Specification Supplement)
_REPORT_ALL = record_access.report_request()
_REPORT_AND_COUNT = record_access.combined_report_request()
_DELETE = 0x02
_RESPONSE, _REPORTED = 0x06, 0x08
_SUCCESS, _NO_RECORDS = 0x01, 0x06


class _News(asyncio.Event):
    """Whoever waits for news finds that the device has left."""

    def __init__(self, leave: Callable[[], None]) -> None:
        super().__init__()
        self._leave = leave

    async def wait(self) -> Literal[True]:
        self._leave()
        return True


class SimulatedLink:
    """One connection, as `edge.session.Link` wants it. `breaks`: it breaks after the first record."""

    def __init__(self, device: SimulatedDevice, world: World, *, breaks: bool) -> None:
        self._device = device
        self._world = world
        self._breaks = breaks
        self._clock = clock_characteristic(device)
        sources = device.sign.gatt
        self._sources = {source.characteristic: source for source in sources}
        self._stored = next((source for source in sources if source.framing.is_stored), None)
        self._subscribed: dict[int, Callable[[bytes], None]] = {}
        self._segments: Counter[int] = Counter()
        self.news: asyncio.Event = _News(self._leave)
        self.is_ended = False
        found = set(self._sources)
        if self._clock is not None:
            found.add(self._clock)
        if self._stored is not None:
            found.add(record_access.CHARACTERISTIC)
            if self._stored.framing is Framing.STORED_SEGMENTS:
                found.add(ghs.CONTROL_POINT)
        self.characteristics = frozenset(found)

    def can_write(self, uuid: int) -> bool:
        """Tell whether the device lets the hub write: all that it has a reason to."""
        return uuid in self.characteristics

    async def subscribe(self, uuid: int, callback: Callable[[bytes], None]) -> None:
        """Take a subscription; live records come at once."""
        self._pass_time()
        self._subscribed[uuid] = callback
        source = self._sources.get(uuid)
        # Where records are also sent on request, live ones need the hub's word to start.
        if source is not None and self._stored is None:
            self._send_live(source)

    async def read(self, uuid: int) -> bytes:
        """Read the clock."""
        self._pass_time()
        if uuid != self._clock:
            raise LinkError("not readable")
        return read_clock(self._device)

    async def write(self, uuid: int, value: bytes) -> None:
        """Write the clock or a control point."""
        self._pass_time()
        match uuid:
            case record_access.CHARACTERISTIC:
                self._answer(value)
            case ghs.CONTROL_POINT:
                self._send_all_live()
            case _:
                if not write_clock(self._device, value):
                    raise LinkError("out of range")

    async def pair(self) -> None:
        """Nothing here is encrypted."""

    def _pass_time(self) -> None:
        if self.is_ended:
            raise LinkError("the link is gone")
        self._world.pass_time(REQUEST_TIME)

    def _leave(self) -> None:
        self.is_ended = True

    def _send_all_live(self) -> None:
        for uuid, source in self._sources.items():
            if not source.framing.is_stored and uuid in self._subscribed:
                self._send_live(source)

    def _send_live(self, source: GattSource) -> None:
        for record in self._device.memory:
            self._send(source, record, self._device.payload(record, source))
            if self._breaks:
                self.is_ended = True  # before the device has the confirmation
                raise LinkError("the link broke")
            self._device.delivered(record, Event.CONFIRMED)

    def _send(self, source: GattSource, record: Record, payload: bytes) -> None:
        self._world.pass_time(RECORD_TIME)
        self._world.note_reception(self._device, record)
        callback = self._subscribed[source.characteristic]
        if source.framing in (Framing.WHOLE, Framing.STORED):
            callback(payload)
            return
        parts = ghs.segments(payload, ATT_BYTES, self._segments[source.characteristic])
        self._segments[source.characteristic] += len(parts)
        for part in parts:
            callback(part)

    def _answer(self, request: bytes) -> None:
        respond = self._subscribed[record_access.CHARACTERISTIC]
        if self._stored is None:
            return
        records = list(self._device.memory)
        if request == _REPORT_ALL:
            for record in records:
                self._send(self._stored, record, self._device.payload(record, self._stored))
            respond(bytes((_RESPONSE, 0, _REPORT_ALL[0], _SUCCESS if records else _NO_RECORDS)))
            for record in records:
                self._device.delivered(record, Event.CONFIRMED)
        elif request == _REPORT_AND_COUNT:
            for record in records:
                number = unsigned_field("Record Number", record.number, 4)
                payload = number + self._device.payload(record, self._stored)
                self._send(self._stored, record, payload)
            counted = bytes((_REPORTED, 0)) + unsigned_field("count", len(records), 4)
            none = bytes((_RESPONSE, 0, _REPORT_AND_COUNT[0], _NO_RECORDS))
            respond(counted if records else none)
        elif request[0] == _DELETE:
            last = int.from_bytes(request[3:7], "little")
            for record in records:
                if record.number <= last:
                    self._device.delivered(record, Event.DELETED)
            respond(bytes((_RESPONSE, 0, _DELETE, _SUCCESS)))
