"""Pulse oximetry. Pulse Oximeter Service 1.0.1: PLX Spot-Check (0x2A5E) and Continuous (0x2A5F).

Codes: LOINC 2708-6, FHIR R4 vital signs profile "oxygensat" (59408-5 says the same of the method);
8867-4 heart rate; MDC_PULS_OXIM_SAT_O2 150456 and MDC_PULS_OXIM_PULS_RATE 149530, IEEE 11073-10404.

The Continuous Measurement has no time-stamp: its readings are of when they came. What it says of the
last seconds in faster and in slower averages is decoded and not stored: the same two numbers again.
The hub counts them (`Reading.beyond`).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import EncodeError
from gateway.gatt.numbers import SFLOAT, read_decimal
from gateway.gatt.payload import PayloadReader, unsigned_field
from gateway.gatt.times import DeviceTime, read_date_time, write_date_time
from gateway.quantity import Absent, Plausible, Quantity, Text, Typical, Value
from gateway.vital_sign import GattSource, Reading, Status, VitalSign, unit_set
from gateway.vitals.units import PER_MIN, PERCENT

# Flags, Pulse Oximeter Service 1.0.1, 3.1.1.1
_TIME_STAMP = 1 << 0
_MEASUREMENT_STATUS = 1 << 1
_SENSOR_STATUS = 1 << 2
_AMPLITUDE_INDEX = 1 << 3
_CLOCK_NOT_SET = 1 << 4
# Flags of the Continuous Measurement, 3.2.1.1
_FAST = 1 << 0
_SLOW = 1 << 1
_CONTINUOUS_STATUS = 1 << 2
_CONTINUOUS_SENSOR_STATUS = 1 << 3
_CONTINUOUS_AMPLITUDE_INDEX = 1 << 4
_NOTHING: tuple[Value, Value] = (Absent.NOT_SENT, Absent.NOT_SENT)

_SENSOR_STATUS_AT = 16
"""The Device and Sensor Status stands above the 16 bits of the Measurement Status. A reading that
has any of it does not fit a wire record of version 1, and waits in quarantine, whole."""
_STATUS_BITS = (1 << _SENSOR_STATUS_AT) - 1

_CLIF = "CLIF 2.1, outlier_config.yaml of clifpy 149ea93 (vitals)"
_OWN = "low end: Hearth's own; an oximeter that shows less has lost the finger"

OXYGEN_SATURATION = Quantity(
    name="oxygen_saturation_percent",
    title=Text(zh="血氧饱和度", en="Oxygen saturation"),
    unit=PERCENT,
    loinc="2708-6",
    mdc=150456,
    plausible=Plausible(low=50, high=100, source=f"{_CLIF}: spo2, 50 to 100"),
    typical=Typical(mean=97, between=0.8, within=0.6, daily=0.3, peak_hour=15),
)
PULSE_RATE = Quantity(
    name="oximeter_pulse_rate_per_min",
    title=Text(zh="脉率 (血氧仪)", en="Pulse rate, from an oximeter"),
    unit=PER_MIN,
    loinc="8867-4",
    mdc=149530,
    plausible=Plausible(low=20, high=300, source=f"{_CLIF}: heart_rate to 300; {_OWN}"),
    typical=Typical(mean=72, between=9, within=5, daily=5, peak_hour=15),
)
PULSE_AMPLITUDE_INDEX = Quantity(
    name="pulse_amplitude_index_percent",
    title=Text(zh="脉搏幅度指数", en="Pulse amplitude index"),
    unit=PERCENT,
    loinc=None,
    mdc=None,
    plausible=Plausible(
        low=0, high=100, source="a share: Pulse Oximeter Service 1.0.1, 3.1.1.7, in percent"
    ),
    typical=Typical(mean=6, between=2, within=1),
)


def decode(payload: bytes) -> Reading:
    """Return the reading in a PLX Spot-Check Measurement; fields in the order of its table 3.1."""
    reader = PayloadReader(payload)
    flags = reader.unsigned("Flags", 1)
    saturation = read_decimal(reader, "SpO2", SFLOAT)
    pulse_rate = read_decimal(reader, "PR", SFLOAT)
    device_time = read_date_time(reader) if flags & _TIME_STAMP else None
    status = reader.unsigned("Measurement Status", 2) if flags & _MEASUREMENT_STATUS else 0
    sensor = reader.unsigned("Device and Sensor Status", 3) if flags & _SENSOR_STATUS else 0
    amplitude = (
        read_decimal(reader, "Pulse Amplitude Index", SFLOAT)
        if flags & _AMPLITUDE_INDEX
        else Absent.NOT_SENT
    )
    reader.finish()
    return Reading(
        values=(saturation, pulse_rate, amplitude),
        device_time=_unset(device_time) if flags & _CLOCK_NOT_SET else device_time,
        status=status | sensor << _SENSOR_STATUS_AT,
    )


def encode(reading: Reading) -> bytes:
    """Return the PLX Spot-Check Measurement that says `reading`; what is None is left out."""
    saturation, pulse_rate, _amplitude = reading.values
    if Absent.NOT_SENT in (saturation, pulse_rate):
        raise EncodeError("saturation and pulse are always sent; name another absence (NaN)")
    flags = 0
    body = SFLOAT.encode(saturation) + SFLOAT.encode(pulse_rate)
    if reading.device_time is not None:
        flags |= _TIME_STAMP
        flags |= _CLOCK_NOT_SET if reading.device_time.synced is False else 0
        body += write_date_time(reading.device_time)
    more, end = _end(reading, _MEASUREMENT_STATUS, _SENSOR_STATUS, _AMPLITUDE_INDEX)
    return bytes((flags | more,)) + body + end


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuous:
    """All that a PLX Continuous Measurement says; each pair is SpO2 and pulse rate."""

    normal: tuple[Value, Value]
    fast: tuple[Value, Value]
    slow: tuple[Value, Value]
    status: int
    sensor_status: int
    amplitude: Value


def read_continuous(payload: bytes) -> Continuous:
    """Return the fields of a PLX Continuous Measurement in the order of its table 3.2."""
    reader = PayloadReader(payload)
    flags = reader.unsigned("Flags", 1)
    measured = Continuous(
        normal=_pair(reader, "Normal"),
        fast=_pair(reader, "Fast") if flags & _FAST else _NOTHING,
        slow=_pair(reader, "Slow") if flags & _SLOW else _NOTHING,
        status=reader.unsigned("Measurement Status", 2) if flags & _CONTINUOUS_STATUS else 0,
        sensor_status=reader.unsigned("Device and Sensor Status", 3)
        if flags & _CONTINUOUS_SENSOR_STATUS
        else 0,
        amplitude=read_decimal(reader, "Pulse Amplitude Index", SFLOAT)
        if flags & _CONTINUOUS_AMPLITUDE_INDEX
        else Absent.NOT_SENT,
    )
    reader.finish()
    return measured


def decode_continuous(payload: bytes) -> Reading:
    """Return the reading in a PLX Continuous Measurement: its normal pair."""
    measured = read_continuous(payload)
    averages = (*measured.fast, *measured.slow)
    return Reading(
        values=(*measured.normal, measured.amplitude),
        status=measured.status | measured.sensor_status << _SENSOR_STATUS_AT,
        beyond=sum(value is not Absent.NOT_SENT for value in averages),
    )


def encode_continuous(reading: Reading) -> bytes:
    """Return the PLX Continuous Measurement that says `reading`; the format has no time-stamp."""
    saturation, pulse_rate, _amplitude = reading.values
    if Absent.NOT_SENT in (saturation, pulse_rate):
        raise EncodeError("saturation and pulse are always sent; name another absence (NaN)")
    if reading.device_time is not None:
        raise EncodeError("a PLX Continuous Measurement has no time-stamp")
    flags, end = _end(
        reading, _CONTINUOUS_STATUS, _CONTINUOUS_SENSOR_STATUS, _CONTINUOUS_AMPLITUDE_INDEX
    )
    return bytes((flags,)) + SFLOAT.encode(saturation) + SFLOAT.encode(pulse_rate) + end


def _end(
    reading: Reading, status_flag: int, sensor_flag: int, index_flag: int
) -> tuple[int, bytes]:
    """Return how both formats end, with the flags that say so: statuses and amplitude index."""
    flags, body = 0, b""
    if status := reading.status & _STATUS_BITS:
        flags |= status_flag
        body += unsigned_field("Measurement Status", status, 2)
    if sensor := reading.status >> _SENSOR_STATUS_AT:
        flags |= sensor_flag
        body += unsigned_field("Device and Sensor Status", sensor, 3)
    amplitude = reading.values[2]
    if amplitude is not Absent.NOT_SENT:
        flags |= index_flag
        body += SFLOAT.encode(amplitude)
    return flags, body


def _pair(reader: PayloadReader, which: str) -> tuple[Value, Value]:
    saturation = read_decimal(reader, f"SpO2PR-{which} SpO2", SFLOAT)
    return saturation, read_decimal(reader, f"SpO2PR-{which} PR", SFLOAT)


def _unset(time: DeviceTime | None) -> DeviceTime | None:
    """Return the time of a clock that runs from some default: not synchronised, and it says so."""
    return time and DeviceTime(type=time.type, ms=time.ms, synced=False)


# Measurement Status, Pulse Oximeter Service 1.0.1, 3.1.1.5: bit, name, titles, artefact
_STATUSES = (
    (5, "measurement_ongoing", "测量进行中", "Measurement ongoing", True),
    (6, "early_estimate", "早期估计值", "Early estimated data", True),
    (7, "validated", "数据已验证", "Validated data", False),
    (8, "fully_qualified", "数据完全合格", "Fully qualified data", False),
    (9, "from_storage", "来自设备存储", "Data from measurement storage", False),
    (10, "demonstration", "演示数据", "Data for demonstration", True),
    (11, "testing", "测试数据", "Data for testing", True),
    (12, "calibration_ongoing", "校准进行中", "Calibration ongoing", True),
    (13, "unavailable", "测量不可用", "Measurement unavailable", True),
    (14, "questionable", "测量结果存疑", "Questionable measurement detected", True),
    (15, "invalid", "测量结果无效", "Invalid measurement detected", True),
)

SIGN = VitalSign(
    code=6,
    name="pulse_oximetry",
    title=Text(zh="血氧", en="Pulse oximetry"),
    quantities=(OXYGEN_SATURATION, PULSE_RATE, PULSE_AMPLITUDE_INDEX),
    unit_sets=(unit_set((PERCENT, "1"), (PER_MIN, "1"), (PERCENT, "0.1")),),
    gatt=(
        GattSource(
            title="Pulse Oximeter Service 1.0.1",
            service=0x1822,
            characteristic=0x2A5E,
            decode=decode,
            encode=encode,
        ),
        GattSource(
            title="Pulse Oximeter Service 1.0.1, continuous",
            service=0x1822,
            characteristic=0x2A5F,
            decode=decode_continuous,
            encode=encode_continuous,
            tells_time=False,
        ),
    ),
    statuses=tuple(
        Status(
            mask=1 << bit,
            value=1 << bit,
            name=name,
            title=Text(zh=zh, en=en),
            artefact=artefact,
        )
        for bit, name, zh, en, artefact in _STATUSES
    ),
)
