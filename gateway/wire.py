"""Wire format v1: batches of fixed-size records up, receipts down. Specified in docs/wire.md.

A batch is a 48-byte header and `count` records of 64 bytes, so that ingest reads the records of
many messages with one `numpy.frombuffer`; the field tables below are the single source for both
`struct` (here, on the hub) and the NumPy dtype (ingest). Values travel as decimals, mantissa and
exponent as the device sent them, so nothing is rounded on the way.

A batch of kind UNDECODED carries payloads that no decoder could read instead of records.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from gateway.errors import DecodeError, EncodeError, Fault
from gateway.gatt.numbers import decimal_from, mantissa_and_exponent
from gateway.gatt.payload import PAYLOAD_BYTES_MAX
from gateway.gatt.times import DeviceTime, TimeType, from_ms, ms_since_epoch
from gateway.measurement import Measurement, TimeQuality, Undecoded
from gateway.quantity import Absent, Value
from gateway.vital_sign import NO_USER_SLOT, QUANTITIES_MAX, Reading

VERSION = 1
TOPIC_ROOT = f"hearth/v{VERSION}"
LANES = 64
"""A topic's lane is a hash of its hub over this number; part of the format, never changed."""

DECODER_VERSION = 1
"""Counts the changes to any decoder; quarantine keeps it, so that a replay knows what is new."""

BATCH_MAGIC = b"HRTB"
RECEIPT_MAGIC = b"HRTR"
BATCH_RECORDS_MAX = 1024
"""A batch that claims more is refused whole: 64 kB bounds what one message makes ingest hold."""
RECEIPTS_MAX = 1024
"""Ingest sends further receipts in a further message."""

COUNTER_END = 1 << 63
"""Epochs and sequences lie below this and above 0, so that SQLite and PostgreSQL can hold them."""

REFERENCE_MS_END = 1 << 47
"""Reference times lie below this (about 6400 AD) and not before 1970, so that there are dates for all that is reckoned from
them."""

NO_TIME = -(1 << 63)
NO_OFFSET = -128
OFFSET_STEPS_MAX = 95
"""Within a day, so that RFC 3339 can write it."""
OFFSET_STEP_MIN = 15
"""Offsets to UTC count quarter hours; every zone in use is a multiple."""

STATUS_MAX = 0xFFFF
"""A record has 16 bits for the device's status; a reading that says more waits in quarantine."""

TIME_TYPE_MASK = 0b11
"""time_flags, bits 0-1: the device's `TimeType`, 0 where it sent no time."""
RESOLUTION_SHIFT = 2
RESOLUTIONS_MS = (1000, 100, 10, 1)
"""time_flags, bits 2-3: the resolution of the device's time, as an index into this."""
STORED_RECORD = 1 << 4
OFFSET_OF_DEVICE = 1 << 5
"""The device itself said its offset to UTC."""
TIME_FLAGS_KNOWN = 0x3F

HEADER_FIELDS = (
    ("magic", "s", 4),
    ("version", "B", 1),
    ("kind", "B", 1),
    ("count", "H", 1),
    ("crc32", "I", 1),
    ("decoder", "H", 1),
    ("reserved", "H", 1),
    ("hub", "Q", 1),
    ("epoch", "Q", 1),
    ("sequence", "Q", 1),
    ("reference_ms", "q", 1),
)
RECORD_FIELDS = (
    ("device", "Q", 1),
    ("device_time_ms", "q", 1),
    ("measured_ms", "q", 1),
    ("received_before_ms", "I", 1),
    ("sign", "B", 1),
    ("user_slot", "B", 1),
    ("time_quality", "B", 1),
    ("utc_offset", "b", 1),
    ("status", "H", 1),
    ("unit_set", "B", 1),
    ("time_flags", "B", 1),
    ("mantissa", "i", QUANTITIES_MAX),
    ("exponent", "b", QUANTITIES_MAX),
    ("absent", "s", 3),
)


def struct_of(fields: Sequence[tuple[str, str, int]]) -> struct.Struct:
    """Return the little-endian, unpadded layout of a field table."""
    return struct.Struct(
        "<" + "".join(f"{count}{code}" if count > 1 else code for _name, code, count in fields)
    )


HEADER = struct_of(HEADER_FIELDS)
RECORD = struct_of(RECORD_FIELDS)
USER_SLOT_AT = struct_of(
    RECORD_FIELDS[: [name for name, *_ in RECORD_FIELDS].index("user_slot")]
).size
"""At which byte of a record its user slot stands."""
UNDECODED_ENTRY = struct.Struct("<QqIHHBb")
"""device, clock_offset_ms, received_before_ms, source, payload's length, fault, utc_offset; then
the payload."""
RECEIPT_HEADER = struct.Struct("<4sBBHQ")
"""magic, version, reserved, count, epoch."""
RECEIPT_ENTRY = struct.Struct("<QHHHH")
"""sequence, stored, duplicate, quarantined, reserved."""
HEADER_BYTES, RECORD_BYTES = 48, 64
assert (HEADER.size, RECORD.size) == (HEADER_BYTES, RECORD_BYTES)  # noqa: S101

_HUB_NAME = re.compile(r"[0-9a-f]{16}")
_TOPIC = re.compile(rf"{TOPIC_ROOT}/(?P<lane>[0-9]{{2}})/(?P<hub>[0-9a-f]{{16}})/[a-z]+")
_UINT32_MAX = (1 << 32) - 1
_INT32_MAX = (1 << 31) - 1
_INT8_MAX = (1 << 7) - 1


class Kind(IntEnum):
    """What a batch carries."""

    MEASUREMENTS = 1
    UNDECODED = 2


class Channel(IntEnum):
    """The last level of a topic, its name in lower case."""

    BATCH = 1
    RECEIPT = 2
    STATE = 3
    CONFIG = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a batch says of itself. `reference_at`: the newest reception in it."""

    hub: int
    epoch: int
    sequence: int
    kind: Kind
    count: int
    reference_at: datetime
    decoder: int = DECODER_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Ingest's word that a batch is committed, and what became of its measurements."""

    epoch: int
    sequence: int
    stored: int
    duplicate: int
    quarantined: int


def hub_name(hub: int) -> str:
    """Return a hub's id as topics and people write it: 16 hexadecimal digits."""
    return f"{hub:016x}"


def hub_id(name: str) -> int:
    """Return the id that `hub_name` writes as `name`.

    Raises:
        ValueError: `name` is not 16 lower-case hexadecimal digits.
    """
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no hub id: 16 lower-case hexadecimal digits")
    return int(name, 16)


def lane_of(hub: int) -> int:
    """Return the lane that carries `hub`: CRC-32 of its name, over `LANES`."""
    return zlib.crc32(hub_name(hub).encode()) % LANES


def topic(hub: int, channel: Channel) -> str:
    """Return the topic of one channel of a hub: hearth/v1/07/00c0ffee00c0ffee/batch."""
    return f"{TOPIC_ROOT}/{lane_of(hub):02d}/{hub_name(hub)}/{channel.name.lower()}"


def lane_filter(lane: int, channel: Channel) -> str:
    """Return the filter for one channel of every hub of a lane."""
    return f"{TOPIC_ROOT}/{lane:02d}/+/{channel.name.lower()}"


def hub_of_topic(name: str) -> int | None:
    """Return the hub whose own topic `name` is, on its right lane; None for any other topic."""
    match = _TOPIC.fullmatch(name)
    if match is None:
        return None
    hub = hub_id(match["hub"])
    return hub if lane_of(hub) == int(match["lane"]) else None


def encode_record(measurement: Measurement, reference_at: datetime) -> bytes:
    """Return the 64 bytes of one measurement, received at or before `reference_at`.

    Raises:
        EncodeError: a value would have to be altered to fit.
    """
    reading = measurement.reading
    mantissas = [0] * QUANTITIES_MAX
    exponents = [0] * QUANTITIES_MAX
    absent = 0
    for index in range(QUANTITIES_MAX):
        value = reading.values[index] if index < len(reading.values) else Absent.NOT_SENT
        if isinstance(value, Absent):
            absent |= value.value << (4 * index)
        else:
            mantissas[index], exponents[index] = _mantissa_and_exponent(value)
    device_time = reading.device_time
    return RECORD.pack(
        measurement.device,
        NO_TIME if device_time is None else device_time.ms,
        ms_since_epoch(measurement.measured_at),
        _received_before_ms(measurement.received_at, reference_at),
        measurement.sign,
        NO_USER_SLOT if reading.user_slot is None else reading.user_slot,
        measurement.time_quality,
        _offset_steps(measurement.utc_offset_min),
        _status(reading.status),
        reading.unit_set,
        _time_flags(measurement),
        *mantissas,
        *exponents,
        absent.to_bytes(3, "little"),
    )


def decode_record(record: bytes, reference_at: datetime) -> Measurement:
    """Return the measurement in 64 bytes; values after the sign's last are NOT_SENT.

    Raises:
        DecodeError: a field holds what no encoder writes.
    """
    (device, device_ms, measured_ms, before_ms, sign, slot, quality, offset, status, unit_set,
     time_flags, *numbers, absent) = RECORD.unpack(record)  # fmt: skip
    mantissas, exponents = numbers[:QUANTITIES_MAX], numbers[QUANTITIES_MAX:]
    nibbles = int.from_bytes(absent, "little")
    try:
        return Measurement(
            device=device,
            sign=sign,
            reading=Reading(
                values=tuple(
                    _value(mantissas[i], exponents[i], nibbles >> (4 * i) & 0xF)
                    for i in range(QUANTITIES_MAX)
                ),
                unit_set=unit_set,
                device_time=_device_time(device_ms, time_flags, offset),
                user_slot=None if slot == NO_USER_SLOT else slot,
                status=status,
            ),
            measured_at=from_ms(measured_ms),
            received_at=from_ms(ms_since_epoch(reference_at) - before_ms),
            time_quality=TimeQuality(quality),
            utc_offset_min=None if offset == NO_OFFSET else offset * OFFSET_STEP_MIN,
            stored_record=bool(time_flags & STORED_RECORD),
        )
    except (ValueError, OverflowError) as error:
        raise DecodeError(Fault.INVALID, "record", 0, str(error)) from error


def encode_undecoded(payload: Undecoded, reference_at: datetime) -> bytes:
    """Return one entry of an UNDECODED batch, longest payloads cut to what an attribute holds."""
    kept = payload.payload[:PAYLOAD_BYTES_MAX]
    entry = UNDECODED_ENTRY.pack(
        payload.device,
        NO_TIME if payload.clock_offset_ms is None else payload.clock_offset_ms,
        _received_before_ms(payload.received_at, reference_at),
        payload.source,
        len(kept),
        payload.fault.value,
        _offset_steps(payload.utc_offset_min),
    )
    return entry + kept


def decode_undecoded(body: bytes, header: Header) -> list[Undecoded]:
    """Return the payloads in the body of an UNDECODED batch.

    Raises:
        DecodeError: the body does not hold exactly `header.count` entries.
    """
    entries: list[Undecoded] = []
    offset = 0
    for _ in range(header.count):
        start = offset + UNDECODED_ENTRY.size
        if start > len(body):
            raise DecodeError(Fault.TRUNCATED, "entry", offset, f"body has {len(body)}")
        device, clock_ms, before_ms, source, size, fault, utc_offset = UNDECODED_ENTRY.unpack_from(
            body, offset
        )
        offset = start + size
        if offset > len(body):
            raise DecodeError(Fault.TRUNCATED, "payload", start, f"body has {len(body)}")
        try:
            entry = Undecoded(
                device=device,
                source=source,
                fault=Fault(fault),
                payload=body[start:offset],
                received_at=from_ms(ms_since_epoch(header.reference_at) - before_ms),
                clock_offset_ms=None if clock_ms == NO_TIME else clock_ms,
                utc_offset_min=None if utc_offset == NO_OFFSET else utc_offset * OFFSET_STEP_MIN,
            )
        except (ValueError, OverflowError) as error:
            raise DecodeError(Fault.INVALID, "entry", start, str(error)) from error
        entries.append(entry)
    if offset != len(body):
        raise DecodeError(Fault.TRAILING, "entry", offset, f"body has {len(body)}")
    return entries


def encode_batch(header: Header, body: bytes) -> bytes:
    """Return the message of a batch: header and body."""
    return (
        HEADER.pack(
            BATCH_MAGIC,
            VERSION,
            header.kind,
            header.count,
            zlib.crc32(body),
            header.decoder,
            0,
            header.hub,
            header.epoch,
            header.sequence,
            ms_since_epoch(header.reference_at),
        )
        + body
    )


def decode_batch(message: bytes) -> tuple[Header, bytes]:
    """Return a batch's header and its body, whose checksum and length agree with the header.

    Raises:
        DecodeError: it is no batch of this version, or its bytes were changed on the way.
    """
    if len(message) < HEADER.size:
        detail = f"needs {HEADER.size}, message has {len(message)}"
        raise DecodeError(Fault.TRUNCATED, "header", 0, detail)
    (magic, version, kind, count, crc32, decoder, _reserved, hub, epoch, sequence,
     reference_ms) = HEADER.unpack_from(message)  # fmt: skip
    if magic != BATCH_MAGIC:
        raise DecodeError(Fault.INVALID, "magic", 0, f"is {magic!r}, not {BATCH_MAGIC!r}")
    if version != VERSION:
        raise DecodeError(Fault.UNSUPPORTED, "version", 4, f"is {version}, known: {VERSION}")
    if count > BATCH_RECORDS_MAX:
        detail = f"is {count}, at most {BATCH_RECORDS_MAX} are allowed"
        raise DecodeError(Fault.TOO_LONG, "count", 6, detail)
    _check_counter("epoch", epoch, 24)
    _check_counter("sequence", sequence, 32)
    if not 0 <= reference_ms < REFERENCE_MS_END:
        detail = f"is {reference_ms}, outside 0..{REFERENCE_MS_END - 1}"
        raise DecodeError(Fault.INVALID, "reference_ms", 40, detail)
    body = message[HEADER.size :]
    try:
        header = Header(
            hub=hub,
            epoch=epoch,
            sequence=sequence,
            kind=Kind(kind),
            count=count,
            reference_at=from_ms(reference_ms),
            decoder=decoder,
        )
    except ValueError as error:
        raise DecodeError(Fault.INVALID, "header", 0, str(error)) from error
    if header.kind is Kind.MEASUREMENTS and len(body) != count * RECORD.size:
        detail = f"holds {len(body)} bytes, {count} records need {count * RECORD.size}"
        raise DecodeError(Fault.CORRUPT, "body", HEADER.size, detail)
    if zlib.crc32(body) != crc32:
        raise DecodeError(Fault.CORRUPT, "crc32", 8, "disagrees with the body")
    return header, body


def encode_receipts(epoch: int, receipts: Sequence[Receipt]) -> bytes:
    """Return the message that carries at most RECEIPTS_MAX receipts of one epoch."""
    head = RECEIPT_HEADER.pack(RECEIPT_MAGIC, VERSION, 0, len(receipts), epoch)
    return head + b"".join(
        RECEIPT_ENTRY.pack(r.sequence, r.stored, r.duplicate, r.quarantined, 0) for r in receipts
    )


def decode_receipts(message: bytes) -> list[Receipt]:
    """Return the receipts in a message.

    Raises:
        DecodeError: it is no receipt message of this version.
    """
    if len(message) < RECEIPT_HEADER.size:
        detail = f"needs {RECEIPT_HEADER.size}, message has {len(message)}"
        raise DecodeError(Fault.TRUNCATED, "receipt header", 0, detail)
    magic, version, _reserved, count, epoch = RECEIPT_HEADER.unpack_from(message)
    if magic != RECEIPT_MAGIC:
        raise DecodeError(Fault.INVALID, "magic", 0, f"is {magic!r}, not {RECEIPT_MAGIC!r}")
    if version != VERSION:
        raise DecodeError(Fault.UNSUPPORTED, "version", 4, f"is {version}, known: {VERSION}")
    if len(message) != RECEIPT_HEADER.size + count * RECEIPT_ENTRY.size:
        raise DecodeError(Fault.CORRUPT, "count", 6, f"is {count}, message has {len(message)}")
    _check_counter("epoch", epoch, 8)
    receipts: list[Receipt] = []
    for index in range(count):
        offset = RECEIPT_HEADER.size + index * RECEIPT_ENTRY.size
        sequence, stored, duplicate, quarantined, _ = RECEIPT_ENTRY.unpack_from(message, offset)
        _check_counter("sequence", sequence, offset)
        receipts.append(
            Receipt(
                epoch=epoch,
                sequence=sequence,
                stored=stored,
                duplicate=duplicate,
                quarantined=quarantined,
            )
        )
    return receipts


def _check_counter(field: str, value: int, offset: int) -> None:
    if not 0 < value < COUNTER_END:
        raise DecodeError(Fault.INVALID, field, offset, f"is {value}, outside 1..2**63-1")


def _mantissa_and_exponent(value: Value) -> tuple[int, int]:
    if isinstance(value, Absent):
        return 0, 0
    mantissa, exponent = mantissa_and_exponent(value)
    while abs(mantissa) > _INT32_MAX and mantissa % 10 == 0:
        mantissa //= 10
        exponent += 1
    if abs(mantissa) > _INT32_MAX or abs(exponent) > _INT8_MAX:
        raise EncodeError(f"{value} needs more than a 32-bit mantissa and an 8-bit exponent")
    return mantissa, exponent


def _value(mantissa: int, exponent: int, absent: int) -> Value:
    return Absent(absent) if absent else decimal_from(mantissa, exponent)


def _received_before_ms(received_at: datetime, reference_at: datetime) -> int:
    before_ms = ms_since_epoch(reference_at) - ms_since_epoch(received_at)
    return min(max(before_ms, 0), _UINT32_MAX)


def _offset_steps(offset_min: int | None) -> int:
    if offset_min is None:
        return NO_OFFSET
    steps, rest = divmod(offset_min, OFFSET_STEP_MIN)
    if rest or abs(steps) > OFFSET_STEPS_MAX:
        raise EncodeError(f"offset to UTC of {offset_min} min: quarter hours within a day")
    return steps


def _status(status: int) -> int:
    if status > STATUS_MAX:
        raise EncodeError(f"status {status:#x} needs more than 16 bits")
    return status


def _time_flags(measurement: Measurement) -> int:
    device_time = measurement.reading.device_time
    flags = STORED_RECORD if measurement.stored_record else 0
    if device_time is not None:
        if device_time.resolution_ms not in RESOLUTIONS_MS:
            raise EncodeError(
                f"device time's resolution {device_time.resolution_ms} ms is not on the wire"
            )
        flags |= device_time.type
        flags |= RESOLUTIONS_MS.index(device_time.resolution_ms) << RESOLUTION_SHIFT
        if device_time.utc_offset_min is not None:
            flags |= OFFSET_OF_DEVICE
    return flags


def _device_time(device_ms: int, time_flags: int, offset: int) -> DeviceTime | None:
    time_type = time_flags & TIME_TYPE_MASK
    if device_ms == NO_TIME or not time_type:
        return None
    of_device = time_flags & OFFSET_OF_DEVICE and offset != NO_OFFSET
    return DeviceTime(
        type=TimeType(time_type),
        ms=device_ms,
        resolution_ms=RESOLUTIONS_MS[time_flags >> RESOLUTION_SHIFT & 0b11],
        utc_offset_min=offset * OFFSET_STEP_MIN if of_device else None,
    )
