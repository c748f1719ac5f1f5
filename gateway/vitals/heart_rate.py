"""Heart rate. Heart Rate Service 1.0, Heart Rate Measurement (0x2A37).

Codes: LOINC 8867-4, FHIR R4 vital signs profile "heartrate"; MDC_ECG_HEART_RATE 147842, IEEE
11073-10406, as the HL7 PHD guide has it for this characteristic. For energy that counts on from a
reset neither has a term.

RR-intervals are decoded, and not stored: a row has five values, a payload up to nine intervals, and
a part of them would tell nobody anything. The hub counts them (`Reading.beyond`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from gateway.errors import EncodeError
from gateway.gatt.numbers import read_scaled, scaled_steps
from gateway.gatt.payload import PayloadReader, unsigned_field
from gateway.quantity import Absent, Plausible, Quantity, Text, Typical, Value
from gateway.vital_sign import GattSource, Reading, Status, VitalSign, unit_set
from gateway.vitals.units import KJ, PER_MIN

# Flags, Heart Rate Service 1.0, 3.1.1.1
_SIXTEEN_BITS = 1 << 0
_CONTACT_SHIFT = 1
_ENERGY = 1 << 3
_RR_INTERVAL = 1 << 4

_CONTACT = 0b11
"""Sensor Contact Status: bit 1 of it that the feature is supported, bit 0 that there is contact."""
_NO_CONTACT, _HAS_CONTACT = 0b10, 0b11
_BYTE_END = 1 << 8
_ONE = Decimal(1)

_CLIF = "CLIF 2.1, outlier_config.yaml of clifpy 149ea93 (vitals)"

HEART_RATE = Quantity(
    name="heart_rate_per_min",
    title=Text(zh="心率", en="Heart rate"),
    unit=PER_MIN,
    loinc="8867-4",
    mdc=147842,
    plausible=Plausible(
        low=20,
        high=300,
        source=f"{_CLIF}: heart_rate to 300; low end: Hearth's own, a strap that lies still counts 0",
    ),
    typical=Typical(mean=72, between=9, within=6, daily=6, peak_hour=15),
)
ENERGY_EXPENDED = Quantity(
    name="energy_expended_kj",
    title=Text(zh="累计消耗能量", en="Energy expended since its reset"),
    unit=KJ,
    loinc=None,
    mdc=None,
    plausible=Plausible(
        low=0, high=65_535, source="Heart Rate Service 1.0, 3.1.1.3: two bytes, where it stops"
    ),
    typical=Typical(mean=400, between=80, within=150),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartRateMeasurement:
    """All that a Heart Rate Measurement says; `rr` in 1/1024 s, oldest first."""

    bpm: Decimal
    contact: int
    energy: Value
    rr: tuple[int, ...]


def read(payload: bytes) -> HeartRateMeasurement:
    """Return the fields of a payload in the order of its table 3.1; a `DecodeError` says where."""
    reader = PayloadReader(payload)
    flags = reader.unsigned("Flags", 1)
    bpm = read_scaled(reader, "Heart Rate", 2 if flags & _SIXTEEN_BITS else 1, 0)
    energy: Value = Absent.NOT_SENT
    if flags & _ENERGY:
        energy = read_scaled(reader, "Energy Expended", 2, 0)
    rr: list[int] = []
    if flags & _RR_INTERVAL:
        rr.append(reader.unsigned("RR-Interval", 2))
        while reader.remaining:
            rr.append(reader.unsigned("RR-Interval", 2))
    reader.finish()
    return HeartRateMeasurement(
        bpm=bpm, contact=flags >> _CONTACT_SHIFT & _CONTACT, energy=energy, rr=tuple(rr)
    )


def decode(payload: bytes) -> Reading:
    """Return the reading in a Heart Rate Measurement; its intervals are counted, not kept."""
    measured = read(payload)
    return Reading(
        values=(measured.bpm, measured.energy), status=measured.contact, beyond=len(measured.rr)
    )


def encode(reading: Reading) -> bytes:
    """Return the Heart Rate Measurement that says `reading`; the format has no time-stamp."""
    heart_rate, energy = reading.values
    if isinstance(heart_rate, Absent):
        raise EncodeError("the heart rate is always sent and has no special value")
    if reading.device_time is not None:
        raise EncodeError("a Heart Rate Measurement has no time-stamp")
    if reading.status > _CONTACT:
        raise EncodeError(f"status {reading.status:#x} is no sensor contact")
    flags = reading.status << _CONTACT_SHIFT
    beats = scaled_steps("Heart Rate", heart_rate, _ONE)
    if beats >= _BYTE_END:
        flags |= _SIXTEEN_BITS
    body = unsigned_field("Heart Rate", beats, 2 if flags & _SIXTEEN_BITS else 1)
    if isinstance(energy, Decimal):
        flags |= _ENERGY
        body += unsigned_field("Energy Expended", scaled_steps("Energy", energy, _ONE), 2)
    elif energy is not Absent.NOT_SENT:
        raise EncodeError(f"the energy cannot say {energy.name}")
    return bytes((flags,)) + body


SIGN = VitalSign(
    code=7,
    name="heart_rate",
    title=Text(zh="心率", en="Heart rate"),
    quantities=(HEART_RATE, ENERGY_EXPENDED),
    unit_sets=(unit_set((PER_MIN, "1"), (KJ, "1")),),
    gatt=(
        GattSource(
            title="Heart Rate Service 1.0",
            service=0x180D,
            characteristic=0x2A37,
            decode=decode,
            encode=encode,
            tells_time=False,
        ),
    ),
    # Sensor Contact Status bits, Heart Rate Service 1.0, 3.1.1.1.2
    statuses=(
        Status(
            mask=_CONTACT,
            value=_NO_CONTACT,
            name="no_contact",
            title=Text(zh="未贴合皮肤", en="No or poor contact with the skin"),
            artefact=True,
        ),
        Status(
            mask=_CONTACT,
            value=_HAS_CONTACT,
            name="contact",
            title=Text(zh="已贴合皮肤", en="Contact with the skin"),
        ),
    ),
)
