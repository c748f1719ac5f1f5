"""Activity over a period: steps, distance, energy, active time.

Generic Health Sensor service 1.0 (0x1840), one compound observation a period (class 7), live
(0x2B8B) or stored (0x2BDD). Which components make "activity" is our profile: IEEE 11073-10441 terms
MDC_HF_DISTANCE (in steps and in metres), MDC_HF_ENERGY, MDC_HF_ACTIVITY_TIME inside MDC_HF_SESSION.
LOINC: the "unspecified time" codes 55423-8, 55430-3, 55424-6 and 55411-3, since the period is the
tracker's, not 24 hours.
"""

from __future__ import annotations

from gateway.errors import DecodeError
from gateway.gatt import health_observation as ghs
from gateway.quantity import Absent, Plausible, Quantity, Text, Typical
from gateway.vital_sign import (
    Category,
    CrossFieldRule,
    Framing,
    GattSource,
    MeasurementStatus,
    Reading,
    Status,
    VitalSign,
    unit_set,
)
from gateway.vitals.units import KCAL, METRE, MINUTE, SECOND, STEP

# IEEE 11073-10101, partition 129 (PHD HF)
_SESSION = 129 << 16 | 123
_DISTANCE = 129 << 16 | 103
_ENERGY = 129 << 16 | 119
_ACTIVITY_TIME = 129 << 16 | 125
_COMPONENTS = tuple(
    (mdc, (unit.mdc or 0) & 0xFFFF)  # on the air a unit is the low half of its partition 4 code
    for mdc, unit in (
        (_DISTANCE, STEP),
        (_DISTANCE, METRE),
        (_ENERGY, KCAL),
        (_ACTIVITY_TIME, MINUTE),
    )
)

_DAY_S = 86_400
_PERIOD = "Hearth's own: what a person can do in the longest period, one day"

STEPS = Quantity(
    name="steps",
    title=Text(zh="步数", en="Steps"),
    unit=STEP,
    loinc="55423-8",
    mdc=_DISTANCE,
    plausible=Plausible(low=0, high=200_000, source=f"{_PERIOD}: 24 h at 140 steps/min"),
    typical=Typical(mean=350, between=120, within=180, daily=300, peak_hour=16),
)
DISTANCE = Quantity(
    name="distance_m",
    title=Text(zh="距离", en="Distance"),
    unit=METRE,
    loinc="55430-3",
    mdc=_DISTANCE,
    plausible=Plausible(low=0, high=400_000, source=f"{_PERIOD}: above the 24 h running record"),
    typical=Typical(mean=240, between=80, within=120, daily=200, peak_hour=16),
)
ENERGY = Quantity(
    name="energy_kcal",
    title=Text(zh="能量消耗", en="Energy expended"),
    unit=KCAL,
    loinc="55424-6",
    mdc=_ENERGY,
    plausible=Plausible(low=0, high=20_000, source=f"{_PERIOD}: eight times a day's usual need"),
    typical=Typical(mean=15, between=4, within=7, daily=12, peak_hour=16),
)
ACTIVE_TIME = Quantity(
    name="active_min",
    title=Text(zh="活动时间", en="Active time"),
    unit=MINUTE,
    loinc="55411-3",
    mdc=_ACTIVITY_TIME,
    plausible=Plausible(low=0, high=1440, source="a day has 1440 minutes"),
    typical=Typical(mean=4, between=1, within=2, daily=3, peak_hour=16),
)
PERIOD = Quantity(
    name="activity_period_s",
    title=Text(zh="统计时段", en="Period covered"),
    unit=SECOND,
    loinc=None,
    mdc=None,
    plausible=Plausible(low=1, high=_DAY_S, source="a report covers at most a day"),
    typical=Typical(mean=900, between=0, within=0),
)


def decode(payload: bytes) -> Reading:
    """Return the activity in a compound observation; a component that is missing is NOT_SENT."""
    observation = ghs.decode_observation(payload)
    values = (ghs.component_value(observation, mdc, unit) for mdc, unit in _COMPONENTS)
    return Reading(
        values=(*values, observation.duration_s),
        device_time=observation.time,
        user_slot=observation.person,
        status=observation.status,
    )


def encode(reading: Reading) -> bytes:
    """Return the compound observation that says `reading`."""
    *numbers, period_s = reading.values
    return ghs.encode_observation(
        ghs.Observation(
            mdc=_SESSION,
            components=tuple(
                ghs.Component(mdc=mdc, unit=unit, value=value)
                for (mdc, unit), value in zip(_COMPONENTS, numbers, strict=True)
                if value is not Absent.NOT_SENT
            ),
            time=reading.device_time,
            duration_s=period_s,
            status=reading.status,
            person=reading.user_slot,
        )
    )


def recognises(payload: bytes) -> bool:
    """Tell whether an observation is activity; a broken one could be, so it is kept."""
    try:
        return ghs.observation_type(payload) == _SESSION
    except DecodeError:
        return True


SIGN = VitalSign(
    code=4,
    name="activity",
    title=Text(zh="活动量", en="Activity"),
    mdc=_SESSION,
    quantities=(STEPS, DISTANCE, ENERGY, ACTIVE_TIME, PERIOD),
    panel=(STEPS, DISTANCE, ENERGY, ACTIVE_TIME),
    period=PERIOD,
    category=Category.ACTIVITY,
    unit_sets=(unit_set((STEP, "1"), (METRE, "1"), (KCAL, "0.1"), (MINUTE, "1"), (SECOND, "1")),),
    user_slots=True,
    gatt=tuple(
        GattSource(
            title=f"Generic Health Sensor Service 1.0, {way} observations",
            service=ghs.SERVICE,
            characteristic=characteristic,
            framing=framing,
            decode=decode,
            encode=encode,
            recognises=recognises,
        )
        for way, characteristic, framing in (
            ("live", ghs.LIVE_OBSERVATIONS, Framing.SEGMENTS),
            ("stored", ghs.STORED_OBSERVATIONS, Framing.STORED_SEGMENTS),
        )
    ),
    rules=(
        CrossFieldRule(
            name="active_longer_than_period",
            says=Text(zh="活动时间长于统计时段", en="active time is longer than the period"),
            broken=lambda q: q["active_min"] * 60 > q["activity_period_s"] + 60,
        ),
    ),
    # Measurement Status, the bits of IEEE 11073-10206 as in the HL7 PHD guide
    statuses=tuple(
        Status(
            mask=1 << bit,
            value=1 << bit,
            name=meaning.value,
            title=Text(zh=zh, en=en),
            artefact=artefact,
            meaning=meaning,
        )
        for bit, meaning, zh, en, artefact in (
            (0, MeasurementStatus.INVALID, "无效", "Invalid", True),
            (1, MeasurementStatus.QUESTIONABLE, "可疑", "Questionable", True),
            (2, MeasurementStatus.NOT_AVAILABLE, "不可用", "Not available", True),
            (3, MeasurementStatus.CALIBRATING, "校准中", "Calibrating", True),
            (4, MeasurementStatus.TEST_DATA, "测试数据", "Test data", True),
            (5, MeasurementStatus.EARLY_ESTIMATE, "早期估计值", "Early estimate", True),
            (6, MeasurementStatus.MANUALLY_ENTERED, "手工录入", "Manually entered", False),
        )
    ),
)
