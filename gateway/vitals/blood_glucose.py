"""Blood glucose. Glucose Service 1.0.1, Glucose Measurement (0x2A18).

Codes: LOINC 15074-8 (mmol/L); MDC_CONC_GLU_GEN 160020, IEEE 11073-10417: which of its narrower terms
it is (capillary whole blood 160184, ...) is what the Type says, a status here. On the air the
concentration is in mol/L or kg/L; moved by three or five places, which alters no digit, it is in
mmol/L or mg/dL.

A meter sends its records when it is asked for them (Record Access Control Point). The Sample
Location does not fit a record's 16 bits beside the annunciation and the Type: it is counted by the
hub (`Reading.beyond`). The Glucose Measurement Context (0x2A34: meals, medication) is no
measurement, and is not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.errors import DecodeError, EncodeError
from gateway.gatt.numbers import SFLOAT, read_decimal
from gateway.gatt.payload import PayloadReader, unsigned_field
from gateway.gatt.times import DeviceTime, from_ms, read_date_time, write_date_time
from gateway.quantity import Absent, Plausible, Quantity, Text, Typical, Value
from gateway.vital_sign import (
    Category,
    Framing,
    GattSource,
    MeasurementStatus,
    Reading,
    Status,
    VitalSign,
    unit_set,
)
from gateway.vitals.units import MG_PER_DL, MMOL_PER_L

# Flags, Glucose Service 1.0.1, 3.1.1.1
_TIME_OFFSET = 1 << 0
_CONCENTRATION = 1 << 1
_MOLES = 1 << 2
_ANNUNCIATION = 1 << 3

_TO_MMOL_PER_L, _TO_MG_PER_DL = 3, 5
"""Powers of ten from mol/L and from kg/L."""
_OFFSETS_SPECIAL = frozenset({0x7FFF, -0x8000})
"""Time Offset: "overrun" and "underrun" (3.1.1.4): the time cannot be told."""
_MS_PER_MIN = 60_000
_NO_SEQUENCE = 0

_NIBBLE = 0xF
_NIBBLE_BITS = 4
_TYPE_AT = 12
"""The Type stands above the twelve bits of the Sensor Status Annunciation that are defined."""
_ANNUNCIATIONS = (1 << _TYPE_AT) - 1
_TYPE_CONTROL, _LOCATION_CONTROL, _LOCATION_UNKNOWN = 10, 4, 15
_LOCATIONS = frozenset({1, 2, 3})
"""Finger, alternate site, earlobe."""

GLUCOSE = Quantity(
    name="blood_glucose_mmol_per_l",
    title=Text(zh="血糖", en="Blood glucose"),
    unit=MMOL_PER_L,
    loinc="15074-8",
    mdc=160020,
    plausible=Plausible(
        low=0.3,
        high=67,
        source="Hearth's own: meters for the home read 0.6 to 33.3 mmol/L and say so beyond;"
        " half of the one and twice the other",
    ),
    typical=Typical(mean=6.1, between=0.7, within=1.0, daily=0.5, peak_hour=13),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GlucoseMeasurement:
    """All that a Glucose Measurement says.

    `concentration` in mol/L or kg/L as `in_moles` tells; `time`: the meter's base time, without
    `offset_min`, which leads to what it shows its user.
    """

    sequence: int
    time: DeviceTime | None
    offset_min: int
    in_moles: bool
    concentration: Value
    type: int
    location: int
    annunciation: int


def read(payload: bytes) -> GlucoseMeasurement:
    """Return the fields of a payload in the order of its table 3.1; a `DecodeError` says where."""
    reader = PayloadReader(payload)
    flags = reader.unsigned("Flags", 1)
    sequence = reader.unsigned("Sequence Number", 2)
    time = read_date_time(reader, "Base Time")
    offset_min = reader.signed("Time Offset", 2) if flags & _TIME_OFFSET else 0
    if offset_min in _OFFSETS_SPECIAL:
        raise reader.invalid("Time Offset", 2, "says that the time cannot be told")
    _check_shown(reader, time, offset_min)
    concentration: Value = Absent.NOT_SENT
    kind = 0
    if flags & _CONCENTRATION:
        concentration = read_decimal(reader, "Glucose Concentration", SFLOAT)
        kind = reader.unsigned("Type-Sample Location", 1)
    of_type, location = kind & _NIBBLE, kind >> _NIBBLE_BITS
    if location == _LOCATION_CONTROL and of_type != _TYPE_CONTROL:
        detail = f"is a control solution by its location, and type {of_type}"
        raise reader.invalid("Type-Sample Location", 1, detail)
    annunciation = 0
    if flags & _ANNUNCIATION:
        annunciation = reader.unsigned("Sensor Status Annunciation", 2)
        if annunciation > _ANNUNCIATIONS:
            detail = f"is {annunciation:#06x}, bits 12 to 15 are reserved"
            raise reader.invalid("Sensor Status Annunciation", 2, detail)
    reader.finish()
    return GlucoseMeasurement(
        sequence=sequence,
        time=time,
        offset_min=offset_min,
        in_moles=bool(flags & _MOLES),
        concentration=concentration,
        type=of_type,
        location=location,
        annunciation=annunciation,
    )


def decode(payload: bytes) -> Reading:
    """Return the reading in a Glucose Measurement, at the time that the meter shows its user."""
    measured = read(payload)
    return Reading(
        values=(
            _moved(measured.concentration, _TO_MMOL_PER_L if measured.in_moles else _TO_MG_PER_DL),
        ),
        unit_set=0 if measured.in_moles else 1,
        device_time=_shown(measured.time, measured.offset_min),
        status=measured.annunciation | measured.type << _TYPE_AT,
        beyond=int(measured.location in _LOCATIONS),
    )


def encode(reading: Reading) -> bytes:
    """Return the Glucose Measurement that says `reading`; a reading has no sequence number."""
    (glucose,) = reading.values
    in_moles = reading.unit_set == 0
    of_type, annunciation = reading.status >> _TYPE_AT, reading.status & _ANNUNCIATIONS
    flags = _MOLES if in_moles else 0
    body = unsigned_field("Sequence Number", _NO_SEQUENCE, 2) + write_date_time(reading.device_time)
    if glucose is not Absent.NOT_SENT:
        flags |= _CONCENTRATION
        location = _LOCATION_CONTROL if of_type == _TYPE_CONTROL else _LOCATION_UNKNOWN
        body += SFLOAT.encode(_moved(glucose, -(_TO_MMOL_PER_L if in_moles else _TO_MG_PER_DL)))
        body += unsigned_field("Type-Sample Location", of_type | location << _NIBBLE_BITS, 1)
    elif of_type:
        raise EncodeError("without a concentration there is no type")
    if annunciation:
        flags |= _ANNUNCIATION
        body += unsigned_field("Sensor Status Annunciation", annunciation, 2)
    return bytes((flags,)) + body


def _moved(value: Value, places: int) -> Value:
    """Return the value in a unit that many powers of ten smaller, every digit as it was."""
    return value if isinstance(value, Absent) else value.scaleb(places)


def _shown(time: DeviceTime | None, offset_min: int) -> DeviceTime | None:
    return time and replace(time, ms=time.ms + offset_min * _MS_PER_MIN)


def _check_shown(reader: PayloadReader, time: DeviceTime | None, offset_min: int) -> None:
    shown = _shown(time, offset_min)
    try:
        if shown is not None:
            from_ms(shown.ms)
    except OverflowError as error:
        where: DecodeError = reader.invalid("Time Offset", 2, "leads out of the calendar")
        raise where from error


# Sensor Status Annunciation, Glucose Service 1.0.1, 3.1.1.6: bit, name, titles, artefact
_STATUSES = (
    (0, "battery_low", "电池电量低", "Battery low", False),
    (1, "sensor_malfunction", "传感器故障", "Sensor malfunction", True),
    (2, "sample_too_small", "样本量不足", "Sample size insufficient", True),
    (3, "strip_inserted_wrongly", "试纸插入错误", "Strip inserted wrongly", True),
    (4, "strip_of_wrong_type", "试纸类型错误", "Strip of a wrong type", True),
    (5, "result_too_high", "结果高于测量范围", "Result above what the meter can tell", False),
    (6, "result_too_low", "结果低于测量范围", "Result below what the meter can tell", False),
    (7, "temperature_too_high", "温度过高", "Temperature too high", True),
    (8, "temperature_too_low", "温度过低", "Temperature too low", True),
    (9, "strip_pulled_early", "试纸过早拔出", "Strip pulled too early", True),
    (10, "device_fault", "设备故障", "General device fault", True),
    (11, "time_fault", "时钟错误", "Time fault, the clock may be wrong", False),
)
# Type, Glucose Service 1.0.1, 3.1.1.5
_TYPES = (
    (1, "capillary_whole_blood", "毛细血管全血", "Capillary whole blood"),
    (2, "capillary_plasma", "毛细血管血浆", "Capillary plasma"),
    (3, "venous_whole_blood", "静脉全血", "Venous whole blood"),
    (4, "venous_plasma", "静脉血浆", "Venous plasma"),
    (5, "arterial_whole_blood", "动脉全血", "Arterial whole blood"),
    (6, "arterial_plasma", "动脉血浆", "Arterial plasma"),
    (7, "undetermined_whole_blood", "全血 (来源未定)", "Undetermined whole blood"),
    (8, "undetermined_plasma", "血浆 (来源未定)", "Undetermined plasma"),
    (9, "interstitial_fluid", "组织间液", "Interstitial fluid"),
    (_TYPE_CONTROL, "control_solution", "质控液", "Control solution"),
)

SIGN = VitalSign(
    code=8,
    name="blood_glucose",
    title=Text(zh="血糖", en="Blood glucose"),
    quantities=(GLUCOSE,),
    unit_sets=(unit_set((MMOL_PER_L, "0.1")), unit_set((MG_PER_DL, "1"))),
    category=Category.LABORATORY,
    gatt=(
        GattSource(
            title="Glucose Service 1.0.1",
            service=0x1808,
            characteristic=0x2A18,
            decode=decode,
            encode=encode,
            framing=Framing.STORED,
        ),
    ),
    statuses=(
        *(
            Status(
                mask=1 << bit,
                value=1 << bit,
                name=name,
                title=Text(zh=zh, en=en),
                artefact=artefact,
            )
            for bit, name, zh, en, artefact in _STATUSES
        ),
        *(
            Status(
                mask=_NIBBLE << _TYPE_AT,
                value=number << _TYPE_AT,
                name=name,
                title=Text(zh=zh, en=en),
                artefact=number == _TYPE_CONTROL,
                meaning=MeasurementStatus.TEST_DATA if number == _TYPE_CONTROL else None,
            )
            for number, name, zh, en in _TYPES
        ),
    ),
)
