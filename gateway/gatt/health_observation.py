"""Health observations of the Generic Health Sensor service (0x1840), and the time they carry.

Bluetooth GHS 1.0 with its ACOM observations, and the Elapsed Time structure (0x2BF2). The layouts
were read from two independent public implementations that agree: Philips' BLE-GHS-Server-Simulator
271f2aa and BLE-GHS-Client-Example 4850963, and STMicroelectronics' STM32CubeWBA 92e834c; see
DECISIONS.md. Numeric (class 1) and compound (class 7) observations are read; any other class is a
located `UNSUPPORTED`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.errors import DecodeError, EncodeError, Fault
from gateway.gatt.numbers import FLOAT, read_decimal
from gateway.gatt.payload import PAYLOAD_BYTES_MAX, PayloadReader, unsigned_field
from gateway.gatt.times import DeviceTime, TimeType, ms_since_epoch
from gateway.quantity import Absent, Value

SERVICE = 0x1840
LIVE_OBSERVATIONS = 0x2B8B
STORED_OBSERVATIONS = 0x2BDD
FEATURES = 0x2BF3
CONTROL_POINT = 0x2BF4
ELAPSED_TIME_SERVICE = 0x183F
ELAPSED_TIME = 0x2BF2

CONTROL_START_LIVE = b"\x01"
"""GHS Control Point: send live observations."""

_SEGMENT_FIRST = 1 << 0
_SEGMENT_LAST = 1 << 1
_SEGMENT_COUNTER_SHIFT = 2
_SEGMENT_COUNTERS = 64

_CLASS_NUMERIC = 1
_CLASS_COMPOUND = 7
_COMPONENT_NUMERIC = 1
_COMPONENTS_MAX = 32

# Flags of an observation, in the order of its fields
_HAS_TYPE = 1 << 0
_HAS_TIME = 1 << 1
_HAS_DURATION = 1 << 2
_HAS_STATUS = 1 << 3
_HAS_ID = 1 << 4
_HAS_PERSON = 1 << 5
_HAS_SUPPLEMENT = 1 << 6
_HAS_DERIVED_FROM = 1 << 7
_HAS_MEMBERS = 1 << 8
_HAS_TLVS = 1 << 9
_FLAGS_KNOWN = (1 << 10) - 1

# Flags of an Elapsed Time
_TICKS = 1 << 0
_UTC = 1 << 1
_RESOLUTION_SHIFT = 2
_OFFSET_USED = 1 << 4
_CURRENT = 1 << 5
_RESOLUTIONS_US = (1_000_000, 100_000, 1_000, 100)
_SYNCED_SOURCES = frozenset({1, 2, 3, 5, 6})
"""NTP, GPS, radio, atomic, cellular. 0 unknown, 4 set by hand and 7 not synchronised are not."""
_NOT_SYNCHRONISED = 7
_SYNC_BY_NETWORK = 1
_OFFSET_UNSUPPORTED = -128
_ELAPSED_EPOCH_MS = ms_since_epoch(datetime(2000, 1, 1, tzinfo=UTC))
_UINT48_END = 1 << 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One number of an observation: its MDC type, its MDC unit (low 16 bits) and its value."""

    mdc: int
    unit: int
    value: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A numeric or compound health observation; a numeric one has exactly one component."""

    mdc: int | None
    components: tuple[Component, ...]
    time: DeviceTime | None = None
    duration_s: Value = Absent.NOT_SENT
    status: int = 0
    person: int | None = None


class Reassembler:
    """Joins the segments of one characteristic, in order, into whole payloads.

    The counter rolls on from one payload to the next. A lost segment or a payload that never ends
    is a located error, and the next first segment starts afresh.
    """

    __slots__ = ("_body", "_expected")

    def __init__(self) -> None:
        self._body: bytearray | None = None
        self._expected = 0

    def feed(self, segment: bytes) -> bytes | None:
        """Take the next segment; return the whole payload with its last one, None before."""
        reader = PayloadReader(segment)
        header = reader.unsigned("segment header", 1)
        part = reader.take("segment", reader.remaining)
        counter = header >> _SEGMENT_COUNTER_SHIFT
        if header & _SEGMENT_FIRST:
            self._body = bytearray()
        elif self._body is None or counter != self._expected:
            self._body = None
            detail = f"counts {counter}, expected {self._expected}: a segment is missing"
            raise DecodeError(Fault.TRUNCATED, "segment header", 0, detail)
        self._expected = (counter + 1) % _SEGMENT_COUNTERS
        self._body += part
        if len(self._body) > PAYLOAD_BYTES_MAX:
            self._body = None
            detail = f"is longer than {PAYLOAD_BYTES_MAX} bytes"
            raise DecodeError(Fault.TOO_LONG, "observation", 0, detail)
        if not header & _SEGMENT_LAST:
            return None
        body, self._body = bytes(self._body), None
        return body


def begins_payload(segment: bytes) -> bool:
    """Tell whether a segment is the first of a payload."""
    return bool(segment and segment[0] & _SEGMENT_FIRST)


def segments(body: bytes, size: int, counter: int) -> list[bytes]:
    """Cut `body` into segments of at most `size` bytes, numbered from `counter`."""
    step = size - 1
    parts = [body[i : i + step] for i in range(0, len(body), step)]
    headers = (
        (_SEGMENT_FIRST if i == 0 else 0)
        | (_SEGMENT_LAST if i == len(parts) - 1 else 0)
        | ((counter + i) % _SEGMENT_COUNTERS) << _SEGMENT_COUNTER_SHIFT
        for i in range(len(parts))
    )
    return [bytes((header,)) + part for header, part in zip(headers, parts, strict=True)]


def split_stored(payload: bytes) -> tuple[int, bytes]:
    """Return the record number and the observation of a Stored Health Observation (0x2BDD)."""
    reader = PayloadReader(payload)
    number = reader.unsigned("Record Number", 4)
    return number, reader.take("observation", reader.remaining)


def decode_observation(payload: bytes) -> Observation:
    """Return the observation in a reassembled payload; fields in the order of its flags."""
    reader = PayloadReader(payload)
    observation_class = reader.unsigned("Observation Class Type", 1)
    if observation_class not in (_CLASS_NUMERIC, _CLASS_COMPOUND):
        detail = f"is {observation_class}; read are 1 (numeric) and 7 (compound)"
        raise DecodeError(Fault.UNSUPPORTED, "Observation Class Type", 0, detail)
    length = reader.unsigned("Length", 2)
    # Of the two implementations one counts the class and length fields and one does not.
    if length not in (len(payload), len(payload) - 3):
        raise reader.invalid("Length", 2, f"is {length}, payload has {len(payload)}")
    flags = reader.unsigned("Flags", 2)
    if flags & ~_FLAGS_KNOWN:
        raise DecodeError(Fault.UNSUPPORTED, "Flags", 3, f"has unknown bits: {flags:#06x}")
    mdc = reader.unsigned("Observation Type", 4) if flags & _HAS_TYPE else None
    time = read_elapsed_time(reader) if flags & _HAS_TIME else None
    duration_s = (
        read_decimal(reader, "Measurement Duration", FLOAT)
        if flags & _HAS_DURATION
        else Absent.NOT_SENT
    )
    status = reader.unsigned("Measurement Status", 2) if flags & _HAS_STATUS else 0
    if flags & _HAS_ID:
        reader.unsigned("Observation Id", 4)
    person = reader.unsigned("Person Id", 1) if flags & _HAS_PERSON else None
    for flag, field in (
        (_HAS_SUPPLEMENT, "Supplemental Information"),
        (_HAS_DERIVED_FROM, "Derived From"),
        (_HAS_MEMBERS, "Member"),
    ):
        if flags & flag:
            reader.take(field, 4 * reader.unsigned(f"{field} count", 1))
    if flags & _HAS_TLVS:
        _skip_tlvs(reader)
    components = (
        (_read_numeric(reader, mdc or 0),)
        if observation_class == _CLASS_NUMERIC
        else _read_compound(reader)
    )
    reader.finish()
    return Observation(
        mdc=mdc,
        components=components,
        time=time,
        duration_s=duration_s,
        status=status,
        person=person,
    )


def observation_type(payload: bytes) -> int | None:
    """Return the type of the observation in a payload, without reading what follows it."""
    reader = PayloadReader(payload)
    reader.take("Observation Class Type and Length", 3)
    flags = reader.unsigned("Flags", 2)
    return reader.unsigned("Observation Type", 4) if flags & _HAS_TYPE else None


def encode_observation(observation: Observation) -> bytes:
    """Return the compound observation, not yet in segments; Length counts what follows it."""
    flags = 0
    body = b""
    if observation.mdc is not None:
        flags |= _HAS_TYPE
        body += unsigned_field("Observation Type", observation.mdc, 4)
    if observation.time is not None:
        flags |= _HAS_TIME
        body += encode_elapsed_time(observation.time)
    if observation.duration_s is not Absent.NOT_SENT:
        flags |= _HAS_DURATION
        body += FLOAT.encode(observation.duration_s)
    if observation.status:
        flags |= _HAS_STATUS
        body += unsigned_field("Measurement Status", observation.status, 2)
    if observation.person is not None:
        flags |= _HAS_PERSON
        body += unsigned_field("Person Id", observation.person, 1)
    body += unsigned_field("number of components", len(observation.components), 1)
    for component in observation.components:
        body += unsigned_field("component type", component.mdc, 4)
        body += bytes((_COMPONENT_NUMERIC,)) + unsigned_field("unit", component.unit, 2)
        body += FLOAT.encode(component.value)
    flags_field = unsigned_field("Flags", flags, 2)
    length = unsigned_field("Length", len(flags_field) + len(body), 2)
    return bytes((_CLASS_COMPOUND,)) + length + flags_field + body


def read_elapsed_time(reader: PayloadReader) -> DeviceTime:
    """Take an Elapsed Time (9 bytes): Flags, Time Value, Time Sync Source Type, TZ/DST Offset."""
    flags = reader.unsigned("Elapsed Time flags", 1)
    value = reader.unsigned("Time Value", 6)
    source = reader.unsigned("Time Sync Source Type", 1)
    offset = reader.signed("TZ/DST Offset", 1)
    resolution_us = _RESOLUTIONS_US[flags >> _RESOLUTION_SHIFT & 0b11]
    ms = value * resolution_us // 1000
    current = bool(flags & _CURRENT)
    if flags & _TICKS:
        return DeviceTime(
            type=TimeType.TICKS, ms=ms, resolution_ms=max(resolution_us // 1000, 1), current=current
        )
    with_offset = flags & _OFFSET_USED and offset != _OFFSET_UNSUPPORTED
    return DeviceTime(
        type=TimeType.UTC if flags & _UTC else TimeType.LOCAL,
        ms=ms + _ELAPSED_EPOCH_MS,
        resolution_ms=max(resolution_us // 1000, 1),
        utc_offset_min=offset * 15 if with_offset else None,
        current=current,
        synced=source in _SYNCED_SOURCES,
    )


def encode_elapsed_time(time: DeviceTime) -> bytes:
    """Return the 9 bytes of `time`; the inverse of `read_elapsed_time`, to its resolution."""
    resolutions_ms = [us // 1000 for us in _RESOLUTIONS_US[:3]]
    if time.resolution_ms not in resolutions_ms:
        raise EncodeError(f"Elapsed Time has no resolution of {time.resolution_ms} ms")
    flags = resolutions_ms.index(time.resolution_ms) << _RESOLUTION_SHIFT
    ms = time.ms
    if time.type is TimeType.TICKS:
        flags |= _TICKS
    else:
        ms -= _ELAPSED_EPOCH_MS
        flags |= _UTC if time.type is TimeType.UTC else 0
    flags |= _CURRENT if time.current else 0
    steps, rest = divmod(time.utc_offset_min or 0, 15)
    flags |= _OFFSET_USED if time.utc_offset_min is not None else 0
    value = ms // time.resolution_ms
    if (
        rest
        or not -_OFFSET_UNSUPPORTED > steps > _OFFSET_UNSUPPORTED
        or not 0 <= value < _UINT48_END
    ):
        raise EncodeError("the time lies outside what an Elapsed Time can say")
    source = _SYNC_BY_NETWORK if time.synced else _NOT_SYNCHRONISED
    return (
        bytes((flags,))
        + value.to_bytes(6, "little")
        + bytes((source,))
        + steps.to_bytes(1, "little", signed=True)
    )


def decode_current_elapsed_time(payload: bytes) -> DeviceTime:
    """Return what the device's clock shows (Elapsed Time characteristic, 11 bytes)."""
    reader = PayloadReader(payload)
    time = read_elapsed_time(reader)
    reader.unsigned("Clock Status", 1)
    reader.unsigned("Clock Capabilities", 1)
    reader.finish()
    return time


def encode_clock_setting(moment: datetime, offset: timedelta, *, utc: bool) -> bytes:
    """Return the Elapsed Time that sets a device's clock to `moment`, aware, from a network.

    A device that counts local time gets local time; either way the offset is told.
    """
    shown = moment.astimezone(UTC) if utc else moment.astimezone(UTC) + offset
    return encode_elapsed_time(
        DeviceTime(
            type=TimeType.UTC if utc else TimeType.LOCAL,
            ms=ms_since_epoch(shown),
            utc_offset_min=offset // timedelta(minutes=1),
            current=True,
            synced=True,
        )
    )


def component_value(observation: Observation, mdc: int, unit: int) -> Value:
    """Return the value of the component of this type and unit; NOT_SENT where there is none."""
    for component in observation.components:
        if (component.mdc, component.unit) == (mdc, unit):
            return component.value
    return Absent.NOT_SENT


def _read_numeric(reader: PayloadReader, mdc: int) -> Component:
    unit = reader.unsigned("Unit", 2)
    return Component(mdc=mdc, unit=unit, value=read_decimal(reader, "Value", FLOAT))


def _read_compound(reader: PayloadReader) -> tuple[Component, ...]:
    count = reader.unsigned("number of components", 1)
    if count > _COMPONENTS_MAX:
        detail = f"is {count}, at most {_COMPONENTS_MAX} are read"
        raise reader.invalid("number of components", 1, detail)
    components = []
    for _ in range(count):
        mdc = reader.unsigned("component type", 4)
        value_type = reader.unsigned("component value type", 1)
        if value_type != _COMPONENT_NUMERIC:
            detail = f"is {value_type}; read is 1 (numeric)"
            raise DecodeError(Fault.UNSUPPORTED, "component value type", reader.offset - 1, detail)
        components.append(_read_numeric(reader, mdc))
    return tuple(components)


def _skip_tlvs(reader: PayloadReader) -> None:
    for _ in range(reader.unsigned("TLV count", 1)):
        reader.take("TLV type", 4)
        length = reader.unsigned("TLV length", 2)
        reader.take("TLV format", 1)
        reader.take("TLV value", length)
