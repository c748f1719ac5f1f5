"""From a payload to what travels: decoded by the registry's sources, placed in time.

A payload that nobody recognises, that does not decode, or that cannot travel unaltered becomes an
`Undecoded`: kept whole, sent, quarantined. Pure; no sign is known here by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

from edge.clock import TimeLine, place
from gateway import wire
from gateway.errors import DecodeError, EncodeError, Fault
from gateway.measurement import Measurement, TimeQuality, Undecoded
from gateway.vital_sign import AdvertisedSource, GattSource, Reading, VitalSign
from gateway.vitals import advertised_sources, gatt_sources

Item = Measurement | Undecoded
"""What the outbox keeps."""
Sources = Sequence[tuple[VitalSign, GattSource]] | Sequence[tuple[VitalSign, AdvertisedSource]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """Bytes of one device and where they came from; `source` is a 16-bit UUID.

    `stored`: the device kept it in its memory and was asked for it.
    """

    device: int
    source: int
    data: bytes
    received_at: datetime
    stored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A payload that a sign's source has read; not yet placed in time."""

    payload: Payload
    sign: VitalSign
    reading: Reading


def decode_indicated(payload: Payload) -> Decoded | Undecoded:
    """Read a whole payload of a subscribed characteristic."""
    return _decode(payload, gatt_sources(payload.source)) or undecoded(payload, Fault.UNSUPPORTED)


def decode_advertised(payload: Payload) -> Decoded | Undecoded | None:
    """Read service data of an advertisement; None where it is no vital sign's."""
    return _decode(payload, advertised_sources(payload.source))


def measured(decoded: Decoded, *, lines: Sequence[TimeLine], zone: tzinfo) -> Item:
    """Place a reading in time by its device's time lines and make it ready to travel."""
    payload, reading = decoded.payload, decoded.reading
    placed = place(reading.device_time, received_at=payload.received_at, lines=lines, zone=zone)
    own = reading.device_time
    if own is None and payload.stored:
        # It may be months old, and comes again in the next session: its reception says nothing.
        placed = replace(placed, quality=TimeQuality.UNPLACED)
    if own and own.utc_offset_min is not None and own.utc_offset_min != placed.utc_offset_min:
        # A record on the wire has room for one offset: the one that `measured_at` goes with.
        reading = replace(reading, device_time=replace(own, utc_offset_min=None))
    measurement = Measurement(
        device=payload.device,
        sign=decoded.sign.code,
        reading=reading,
        measured_at=placed.measured_at,
        received_at=payload.received_at,
        time_quality=placed.quality,
        utc_offset_min=placed.utc_offset_min,
        stored_record=payload.stored,
    )
    try:
        wire.encode_record(measurement, payload.received_at)
    except EncodeError:
        return undecoded(payload, Fault.INEXACT)
    return measurement


def undecoded(payload: Payload, fault: Fault) -> Undecoded:
    """Return `payload` as one to be kept whole, with what is wrong with it."""
    return Undecoded(
        device=payload.device,
        source=payload.source,
        fault=fault,
        payload=payload.data,
        received_at=payload.received_at,
    )


def with_clock(item: Undecoded, ahead: timedelta | None, zone: tzinfo) -> Undecoded:
    """Return what could not be read with what a later decoder needs to place it.

    `ahead`: how far UTC lay ahead of the device's clock in its connection; None: it showed none.
    """
    here = place(None, received_at=item.received_at, lines=(), zone=zone)
    ahead_ms = None if ahead is None else ahead // timedelta(milliseconds=1)
    return replace(item, clock_offset_ms=ahead_ms, utc_offset_min=here.utc_offset_min)


def _decode(payload: Payload, sources: Sources) -> Decoded | Undecoded | None:
    """Try the sources that recognise the payload; the first that reads it has it."""
    fault: Fault | None = None
    for sign, source in sources:
        if not source.recognises(payload.data):
            continue
        try:
            return Decoded(payload=payload, sign=sign, reading=source.decode(payload.data))
        except DecodeError as error:
            fault = fault or error.fault
    return undecoded(payload, fault) if fault else None
