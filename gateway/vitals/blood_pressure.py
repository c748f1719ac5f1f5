"""Blood pressure. Blood Pressure Service 1.1.1, Blood Pressure Measurement (0x2A35).

Codes: LOINC 85354-9 panel and its members, FHIR R4 vital signs profile "bp"; MDC: IEEE
11073-10101 (MDC_PRESS_BLD_NONINV 150020 and its _SYS, _DIA, _MEAN; MDC_PULS_RATE_NON_INV 149546),
as in IEEE 11073-10407 and the HL7 PHD guide.
"""

from __future__ import annotations

from gateway.errors import EncodeError
from gateway.gatt.numbers import SFLOAT, read_decimal
from gateway.gatt.payload import PayloadReader, unsigned_field
from gateway.gatt.times import read_date_time, write_date_time
from gateway.quantity import Absent, Plausible, Quantity, Text, Typical
from gateway.vital_sign import (
    NO_USER_SLOT,
    CrossFieldRule,
    GattSource,
    Reading,
    Status,
    VitalSign,
    unit_set,
)
from gateway.vitals.units import KPA, MMHG, PER_MIN

# Flags, Blood Pressure Service 1.1.1, 3.1.1.1
_KPA = 1 << 0
_TIME_STAMP = 1 << 1
_PULSE_RATE = 1 << 2
_USER_ID = 1 << 3
_STATUS = 1 << 4

_CLIF = "CLIF 2.1, outlier_config.yaml of clifpy 149ea93 (vitals)"
_CUFF = "low end: Hearth's own; a cuff that shows less has found no pulse"

SYSTOLIC = Quantity(
    name="systolic_mmhg",
    title=Text(zh="收缩压", en="Systolic pressure"),
    unit=MMHG,
    loinc="8480-6",
    mdc=150021,
    plausible=Plausible(low=40, high=300, source=f"{_CLIF}: sbp to 300; {_CUFF}"),
    typical=Typical(mean=124, between=13, within=6, daily=6, peak_hour=10),
)
DIASTOLIC = Quantity(
    name="diastolic_mmhg",
    title=Text(zh="舒张压", en="Diastolic pressure"),
    unit=MMHG,
    loinc="8462-4",
    mdc=150022,
    plausible=Plausible(low=20, high=200, source=f"{_CLIF}: dbp to 200; {_CUFF}"),
    typical=Typical(mean=77, between=8, within=4, daily=4, peak_hour=10),
)
MEAN_ARTERIAL = Quantity(
    name="mean_arterial_mmhg",
    title=Text(zh="平均动脉压", en="Mean arterial pressure"),
    unit=MMHG,
    loinc="8478-0",
    mdc=150023,
    plausible=Plausible(low=20, high=250, source=f"{_CLIF}: map to 250; {_CUFF}"),
    typical=Typical(mean=93, between=9, within=4, daily=5, peak_hour=10),
)
PULSE_RATE = Quantity(
    name="pulse_rate_per_min",
    title=Text(zh="脉率", en="Pulse rate"),
    unit=PER_MIN,
    loinc="8867-4",
    mdc=149546,
    plausible=Plausible(low=20, high=300, source=f"{_CLIF}: heart_rate to 300; {_CUFF}"),
    typical=Typical(mean=72, between=9, within=5, daily=5, peak_hour=15),
)


def decode(payload: bytes) -> Reading:
    """Return the reading in a Blood Pressure Measurement; fields in the order of its table 3.1."""
    reader = PayloadReader(payload)
    flags = reader.unsigned("Flags", 1)
    systolic = read_decimal(reader, "Systolic", SFLOAT)
    diastolic = read_decimal(reader, "Diastolic", SFLOAT)
    mean_arterial = read_decimal(reader, "Mean Arterial Pressure", SFLOAT)
    device_time = read_date_time(reader) if flags & _TIME_STAMP else None
    pulse_rate = (
        read_decimal(reader, "Pulse Rate", SFLOAT) if flags & _PULSE_RATE else Absent.NOT_SENT
    )
    user_id = reader.unsigned("User ID", 1) if flags & _USER_ID else NO_USER_SLOT
    status = reader.unsigned("Measurement Status", 2) if flags & _STATUS else 0
    reader.finish()
    return Reading(
        values=(systolic, diastolic, mean_arterial, pulse_rate),
        unit_set=1 if flags & _KPA else 0,
        device_time=device_time,
        user_slot=None if user_id == NO_USER_SLOT else user_id,
        status=status,
    )


def encode(reading: Reading) -> bytes:
    """Return the Blood Pressure Measurement that says `reading`; what is None is left out."""
    systolic, diastolic, mean_arterial, pulse_rate = reading.values
    if Absent.NOT_SENT in (systolic, diastolic, mean_arterial):
        raise EncodeError("the three pressures are always sent; name another absence (NaN)")
    flags = _KPA if reading.unit_set == 1 else 0
    body = b"".join(map(SFLOAT.encode, (systolic, diastolic, mean_arterial)))
    if reading.device_time is not None:
        flags |= _TIME_STAMP
        body += write_date_time(reading.device_time)
    if pulse_rate is not Absent.NOT_SENT:
        flags |= _PULSE_RATE
        body += SFLOAT.encode(pulse_rate)
    if reading.user_slot is not None:
        flags |= _USER_ID
        body += unsigned_field("User ID", reading.user_slot, 1)
    if reading.status:
        flags |= _STATUS
        body += unsigned_field("Measurement Status", reading.status, 2)
    return bytes((flags,)) + body


SIGN = VitalSign(
    code=1,
    name="blood_pressure",
    title=Text(zh="血压", en="Blood pressure"),
    loinc="85354-9",
    mdc=150020,
    quantities=(SYSTOLIC, DIASTOLIC, MEAN_ARTERIAL, PULSE_RATE),
    panel=(SYSTOLIC, DIASTOLIC, MEAN_ARTERIAL),
    unit_sets=(
        unit_set((MMHG, "1"), (MMHG, "1"), (MMHG, "1"), (PER_MIN, "1")),
        unit_set((KPA, "0.1"), (KPA, "0.1"), (KPA, "0.1"), (PER_MIN, "1")),
    ),
    user_slots=True,
    gatt=(
        GattSource(
            title="Blood Pressure Service 1.1.1",
            service=0x1810,
            characteristic=0x2A35,
            decode=decode,
            encode=encode,
        ),
    ),
    rules=(
        CrossFieldRule(
            name="diastolic_not_below_systolic",
            says=Text(zh="舒张压不低于收缩压", en="diastolic is not below systolic"),
            broken=lambda q: q["diastolic_mmhg"] >= q["systolic_mmhg"],
        ),
        CrossFieldRule(
            name="mean_outside_systolic_diastolic",
            says=Text(
                zh="平均压不在舒张压与收缩压之间",
                en="mean arterial pressure is not between diastolic and systolic",
            ),
            broken=lambda q: (
                (q["mean_arterial_mmhg"] > q["systolic_mmhg"])
                | (q["mean_arterial_mmhg"] < q["diastolic_mmhg"])
            ),
        ),
    ),
    status_mdc=8410608,  # MDC_BLOOD_PRESSURE_MEASUREMENT_STATUS, IEEE 11073-10101
    # Measurement Status, Blood Pressure Service 1.1.1, 3.1.1.7
    statuses=(
        Status(
            mask=1 << 0,
            value=1 << 0,
            name="body_movement",
            title=Text(zh="测量时身体移动", en="Body movement during the measurement"),
            artefact=True,
        ),
        Status(
            mask=1 << 1,
            value=1 << 1,
            name="cuff_too_loose",
            title=Text(zh="袖带过松", en="Cuff too loose"),
            artefact=True,
        ),
        Status(
            mask=1 << 2,
            value=1 << 2,
            name="irregular_pulse",
            title=Text(zh="脉搏不规则", en="Irregular pulse"),
            artefact=True,
        ),
        Status(
            mask=0b11 << 3,
            value=0b01 << 3,
            name="pulse_rate_above_range",
            title=Text(zh="脉率高于上限", en="Pulse rate above the device's range"),
            artefact=True,
        ),
        Status(
            mask=0b11 << 3,
            value=0b10 << 3,
            name="pulse_rate_below_range",
            title=Text(zh="脉率低于下限", en="Pulse rate below the device's range"),
            artefact=True,
        ),
        Status(
            mask=1 << 5,
            value=1 << 5,
            name="improper_position",
            title=Text(zh="测量位置不当", en="Improper measurement position"),
            artefact=True,
        ),
    ),
)
