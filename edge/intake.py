"""What comes over one connection, made into items: joined, decoded, placed in time. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo

from edge.clock import Pair, TimeLine, with_live
from edge.counts import Counts
from edge.payloads import (
    Decoded,
    Item,
    Payload,
    decode_indicated,
    measured,
    undecoded,
    with_clock,
)
from gateway.errors import DecodeError, Fault
from gateway.gatt import health_observation as ghs
from gateway.gatt import record_access
from gateway.gatt.record_access import RecordAccessResponse
from gateway.measurement import Undecoded, device_address
from gateway.platform.logs import get_logger
from gateway.vital_sign import Framing
from gateway.vitals import gatt_sources

VALUES_MAX = 10_000
"""Values taken in one session. A device that sends more has lost its senses: what comes is counted
as lost, and the session ends."""

_log = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Report:
    """The stored records of one record access procedure, as far as they have come."""

    items: list[Item | Payload] = field(default_factory=list)
    last_number: int = 0
    is_whole: bool = True
    """No record's segments were lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    uuid: int
    data: bytes
    received_at: datetime


_Read = Decoded | Undecoded | Payload
"""A payload as far as it can be read now; a `Payload` while the hub does not know the time."""


class Intake:
    """The values of one connection, from their arrival until they are items.

    `lines`: the time lines of the device's clock; `pair`: what it showed in this connection. Values
    wait in here until `take`, which places them by these. While the hub does not know the time
    (`is_dated` is false) nothing can be placed: then items are payloads, to be kept as they came.
    `answers`: what the Record Access Control Point said.
    """

    def __init__(
        self,
        device: int,
        counts: Counts,
        *,
        zone: tzinfo,
        has_clock: bool,
        is_dated: bool = True,
    ) -> None:
        self._device = device
        self._counts = counts
        self._zone = zone
        self._has_clock = has_clock
        self._is_dated = is_dated
        self._values: list[_Value] = []
        self._reassemblers: dict[int, ghs.Reassembler] = {}
        self._parts: dict[int, list[_Value]] = {}
        """The segments of each characteristic's payload that is not yet whole."""
        self._report = Report()
        self.lines: tuple[TimeLine, ...] = ()
        self.pair: Pair | None = None
        self.answers: list[RecordAccessResponse] = []
        self.taken = 0
        """Payloads made into items so far."""

    @property
    def waiting(self) -> int:
        """How many values wait."""
        return len(self._values)

    @property
    def is_full(self) -> bool:
        """Whether this session has brought more than any device has to say."""
        in_parts = sum(map(len, self._parts.values()))
        return self.taken + in_parts + len(self._values) >= VALUES_MAX

    def put(self, uuid: int, data: bytes, received_at: datetime) -> None:
        """Let a value wait."""
        if self.is_full:
            self._counts.lost += 1
        else:
            self._values.append(_Value(uuid=uuid, data=data, received_at=received_at))

    def take(self) -> list[Item | Payload]:
        """Make items of what waits; stored records go into the report instead.

        Of a device that shows no clock all are looked at before the first is placed: the one that
        was measured just now, and speaks for the clock, comes last.
        """
        values, self._values = self._values, []
        taken: list[tuple[_Read, bool]] = []
        for value in values:
            if value.uuid == record_access.CHARACTERISTIC:
                self._take_answer(value)
                continue
            for read in self._assemble(value):
                self.taken += 1
                self._look_at_time(read)
                taken.append((read, is_stored(value.uuid)))
        self._report.items += [self._item(read) for read, of_memory in taken if of_memory]
        return [self._item(read) for read, of_memory in taken if not of_memory]

    def take_unfinished(self) -> list[Item | Payload]:
        """Give up the payloads that have not come whole: nothing more will come."""
        return [
            self._item(read)
            for parts in self._parts.values()
            for read in self._broken(parts, Fault.TRUNCATED)
        ]

    def end_report(self) -> Report:
        """Return the stored records that have come, and begin another report."""
        report, self._report = self._report, Report()
        return report

    def _take_answer(self, value: _Value) -> None:
        try:
            self.answers.append(record_access.decode_response(value.data))
        except DecodeError as error:
            _log.warning(
                "record_access_unreadable", device=device_address(self._device), why=str(error)
            )

    def _assemble(self, value: _Value) -> Iterator[_Read]:
        """Join a value with those before it; yield what breaks off by it, and what is whole."""
        payload = Payload(
            device=self._device,
            source=value.uuid,
            data=value.data,
            received_at=value.received_at,
        )
        framing = framing_of(value.uuid)
        if framing in (Framing.WHOLE, Framing.STORED):
            yield self._read(replace(payload, stored=is_stored(value.uuid)))
            return
        parts = self._parts.setdefault(value.uuid, [])
        if ghs.begins_payload(value.data):
            yield from self._broken(parts, Fault.TRUNCATED)
        parts.append(value)
        try:
            whole = self._reassemblers.setdefault(value.uuid, ghs.Reassembler()).feed(value.data)
        except DecodeError as error:
            yield from self._broken(parts, error.fault)
            return
        if whole is None:
            return
        parts.clear()
        payload = replace(payload, data=whole)
        if framing is Framing.STORED_SEGMENTS:
            yield self._stored(replace(payload, stored=True))
        else:
            yield self._read(payload)

    def _read(self, payload: Payload) -> _Read:
        return decode_indicated(payload) if self._is_dated else payload

    def _broken(self, parts: list[_Value], fault: Fault) -> Iterator[_Read]:
        """Give up a payload whose segments did not all come; yield what came, as it came."""
        if not parts:
            return
        self._counts.segments_lost += 1
        last, data = parts[-1], b"".join(part.data for part in parts)
        parts.clear()
        if framing_of(last.uuid) is Framing.STORED_SEGMENTS:
            self._report.is_whole = False  # the device still has the record, and sends it again
            return
        payload = Payload(
            device=self._device, source=last.uuid, data=data, received_at=last.received_at
        )
        yield undecoded(payload, fault) if self._is_dated else payload

    def _stored(self, payload: Payload) -> _Read:
        """Read a stored record; one without even a number is kept as it is."""
        try:
            number, observation = ghs.split_stored(payload.data)
        except DecodeError as error:
            return undecoded(payload, error.fault) if self._is_dated else payload
        self._report.last_number = max(self._report.last_number, number)
        return self._read(replace(payload, data=observation))

    def _look_at_time(self, read: _Read) -> None:
        """Let a time-stamp that may be of now speak for a clock that cannot be read."""
        if self._has_clock or not isinstance(read, Decoded):
            return
        time = read.reading.device_time
        if time is not None:
            self.lines = with_live(self.lines, time, read.payload.received_at, self._zone)

    def _item(self, read: _Read) -> Item | Payload:
        """Place what was read in time."""
        item = (
            measured(read, lines=self.lines, zone=self._zone) if isinstance(read, Decoded) else read
        )
        if isinstance(item, Undecoded):
            # With the clock of this connection a later decoder can still place it.
            item = with_clock(item, self.pair.ahead if self.pair else None, self._zone)
        return item


def framing_of(uuid: int) -> Framing | None:
    """Return how the values of a characteristic make payloads; None where no sign reads it."""
    return next((source.framing for _sign, source in gatt_sources(uuid)), None)


def is_stored(uuid: int) -> bool:
    """Tell whether the values of a characteristic are stored records, sent on request."""
    framing = framing_of(uuid)
    return framing is not None and framing.is_stored
