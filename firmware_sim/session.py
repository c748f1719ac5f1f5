"""What a device does while it is connected: send what it holds, then hang up.

Simple profiles indicate their records, oldest first, each kept until it is confirmed. Health
observations that are stored are sent on request (Record Access Control Point) and kept until the
hub has them deleted.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable

from bumble.device import Connection, Device
from bumble.gatt import Characteristic

from firmware_sim.device import SimulatedDevice
from firmware_sim.journal import Event
from firmware_sim.lost_link import while_connected
from firmware_sim.memory import Record
from firmware_sim.services import Database, Sending
from gateway.gatt import health_observation as ghs
from gateway.gatt import record_access
from gateway.gatt.payload import unsigned_field
from gateway.vital_sign import Framing

ATT_HEADER_BYTES = 3
"""Op code and handle before an indicated value."""
REQUESTS_MAX = 4
"""Requests for records that wait; a hub that asks faster has its oldest forgotten."""
CONFIRMATION_S_MAX = 30.0
"""A hub that does not confirm is hung up on (Core 5.4, Vol 3 Part F, 3.3.3)."""

# Record Access Control Point (GATT Specification Supplement)
_REPORT_ALL = record_access.report_request()
_REPORT_AND_COUNT = record_access.combined_report_request()
_DELETE, _UP_TO, _BY_NUMBER = 0x02, 0x02, 0x01
_RESPONSE, _REPORTED = 0x06, 0x08
_SUCCESS, _UNSUPPORTED, _NO_RECORDS = 0x01, 0x02, 0x06


class HungUpError(Exception):
    """The connection has ended."""


class Session:
    """One connection of a device."""

    def __init__(
        self, radio: Device, connection: Connection, device: SimulatedDevice, database: Database
    ) -> None:
        self._radio = radio
        self._connection = connection
        self._device = device
        self._database = database
        self._changed = asyncio.Event()
        self._requests: deque[bytes] = deque(maxlen=REQUESTS_MAX)
        self._live_started = False
        self._segments: Counter[int] = Counter()
        """How many segments each characteristic has sent, by its handle."""

    def change(self) -> None:
        """Look again at what there is to do: a reading, a subscription."""
        self._changed.set()

    def request_records(self, request: bytes) -> None:
        """Take a write to the Record Access Control Point."""
        self._requests.append(request)
        self.change()

    def control(self, command: bytes) -> None:
        """Take a write to the control point of health observations."""
        self._live_started = command == ghs.CONTROL_START_LIVE
        self.change()

    async def run(self) -> None:
        """Serve the hub until it or the device hangs up."""
        try:
            while await self._step():
                pass
            await self._while_connected(self._connection.disconnect())
        except HungUpError:
            pass

    async def _step(self) -> bool:
        """Do the next thing; False when nothing is left to do and nothing came."""
        if self._requests:
            await self._answer(self._requests.popleft())
            return True
        sending = self._live()
        record = self._device.memory.oldest()
        if sending is not None and record is not None:
            await self._send(sending, record)
            self._device.delivered(record, Event.CONFIRMED)
            return True
        patience_s = self._device.model.idle_s if self._served() else self._device.model.patience_s
        self._changed.clear()
        try:
            async with asyncio.timeout(patience_s):
                await self._while_connected(self._changed.wait())
        except TimeoutError:
            return False
        return True

    def _served(self) -> bool:
        """Tell whether the hub has subscribed to anything yet."""
        sendings = (*self._database.live, *filter(None, (self._database.stored,)))
        return any(self._is_subscribed(sending.characteristic) for sending in sendings)

    def _live(self) -> Sending | None:
        # Where records are also sent on request, live ones need the hub's word to start.
        if self._database.stored is not None and not self._live_started:
            return None
        return next((s for s in self._database.live if self._is_subscribed(s.characteristic)), None)

    def _is_subscribed(self, characteristic: Characteristic[bytes]) -> bool:
        subscribed = self._radio.gatt_server.subscribers.get(self._connection, {})
        return any(subscribed.get(characteristic.handle, b""))

    async def _send(self, sending: Sending, record: Record) -> None:
        payload = self._device.payload(record, sending.source)
        match sending.source.framing:
            case Framing.WHOLE | Framing.STORED:
                parts = [payload]
            case Framing.SEGMENTS:
                parts = self._segmented(sending, payload)
            case Framing.STORED_SEGMENTS:
                number = unsigned_field("Record Number", record.number, 4)
                parts = self._segmented(sending, number + payload)
        for part in parts:
            await self._transmit(sending.characteristic, part)

    def _segmented(self, sending: Sending, body: bytes) -> list[bytes]:
        size = self._connection.att_mtu - ATT_HEADER_BYTES
        handle = sending.characteristic.handle
        parts = ghs.segments(body, size, self._segments[handle])
        self._segments[handle] += len(parts)
        return parts

    async def _transmit(self, characteristic: Characteristic[bytes], value: bytes) -> None:
        server = self._radio.gatt_server
        if characteristic.properties & Characteristic.Properties.INDICATE:
            sent = server.indicate_subscriber(self._connection, characteristic, value)
        else:
            sent = server.notify_subscriber(self._connection, characteristic, value)
        try:
            async with asyncio.timeout(CONFIRMATION_S_MAX):
                await self._while_connected(sent)
        except TimeoutError:
            raise HungUpError from None

    async def _answer(self, request: bytes) -> None:
        stored = self._database.stored
        if stored is None:
            return
        if request == _REPORT_AND_COUNT:
            await self._report_and_count(stored)
        elif request == _REPORT_ALL and stored.source.framing is Framing.STORED:
            await self._report_all(stored)
        elif request[:3] == bytes((_DELETE, _UP_TO, _BY_NUMBER)):
            await self._delete_up_to(int.from_bytes(request[3:7], "little"))
        else:
            await self._respond(bytes((_RESPONSE, 0, request[0], _UNSUPPORTED)))

    async def _report_all(self, stored: Sending) -> None:
        records = list(self._device.memory)
        for record in records:
            await self._send(stored, record)
        code = _SUCCESS if records else _NO_RECORDS
        await self._respond(bytes((_RESPONSE, 0, _REPORT_ALL[0], code)))
        for record in records:  # they stay on the device, and are nothing new any more
            self._device.delivered(record, Event.CONFIRMED)

    async def _report_and_count(self, stored: Sending) -> None:
        count = 0
        for record in self._device.memory:
            await self._send(stored, record)
            count += 1
        if count:
            await self._respond(bytes((_REPORTED, 0)) + unsigned_field("count", count, 4))
        else:
            await self._respond(bytes((_RESPONSE, 0, _REPORT_AND_COUNT[0], _NO_RECORDS)))

    async def _delete_up_to(self, number: int) -> None:
        records = [record for record in self._device.memory if record.number <= number]
        for record in records:
            self._device.delivered(record, Event.DELETED)
        code = _SUCCESS if records else _NO_RECORDS
        await self._respond(bytes((_RESPONSE, 0, _DELETE, code)))

    async def _respond(self, value: bytes) -> None:
        if self._database.record_access is not None:
            await self._transmit(self._database.record_access, value)

    async def _while_connected(self, work: Awaitable[object]) -> None:
        await while_connected(self._connection, work, HungUpError())
