"""Body composition. Body Composition Service 1.0, Body Composition Measurement (0x2A9C).

Codes: LOINC 41982-0 body fat, 29463-7 weight; MDC_BODY_FAT 188748, MDC_BODY_MUSCLE 188772,
MDC_MASS_BODY_SOFT_LEAN 188760, MDC_BODY_WATER 188764 and MDC_MASS_BODY_ACTUAL 188736, IEEE
11073-10420.

A payload has up to ten numbers, a row five. Stored are those that nothing else tells: fat and muscle
by percentage, soft lean mass, water, and the weight that makes masses of percentages. Decoded and
not stored, but counted by the hub (`Reading.beyond`): fat free mass and muscle mass, which follow
from these; basal metabolism, a formula over age, sex, weight and height; the impedance, of which the
scale has made all others; the height, which a person has once typed in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal

from gateway.errors import DecodeError, EncodeError, Fault
from gateway.gatt.numbers import read_scaled, scaled_steps
from gateway.gatt.payload import PayloadReader, unsigned_field
from gateway.gatt.times import DeviceTime, read_date_time, write_date_time
from gateway.quantity import Absent, Plausible, Quantity, Text, Typical, Value
from gateway.vital_sign import NO_USER_SLOT, GattSource, Reading, VitalSign, unit_set
from gateway.vitals.units import KG, LB, PERCENT

# Flags, Body Composition Service 1.0, 3.2.1.1
_IMPERIAL = 1 << 0
_TIME_STAMP = 1 << 1
_USER_ID = 1 << 2
_BASAL_METABOLISM = 1 << 3
_MUSCLE_PERCENTAGE = 1 << 4
_MUSCLE_MASS = 1 << 5
_FAT_FREE_MASS = 1 << 6
_SOFT_LEAN_MASS = 1 << 7
_WATER_MASS = 1 << 8
_IMPEDANCE = 1 << 9
_WEIGHT = 1 << 10
_HEIGHT = 1 << 11
_MULTIPLE_PACKETS = 1 << 12

_UNSUCCESSFUL = 0xFFFF
"""Body Fat Percentage 0xFFFF: "Measurement Unsuccessful" (3.2.1.2); then nothing else is sent."""
_PERCENT_STEP = Decimal("0.1")
_KG_STEP, _LB_STEP = Decimal("0.005"), Decimal("0.01")
_OHM_STEP = Decimal("0.1")
_METRE_STEP, _INCH_STEP = Decimal("0.001"), Decimal("0.1")

_SHARE = "a share of the body, in percent"
_MASS = "Hearth's own: no more than the heaviest that is weighed at home"

FAT = Quantity(
    name="body_fat_percent",
    title=Text(zh="体脂率", en="Body fat"),
    unit=PERCENT,
    loinc="41982-0",
    mdc=188748,
    plausible=Plausible(
        low=1, high=80, source=f"{_SHARE}; Hearth's own: below the leanest, above the fattest"
    ),
    typical=Typical(mean=26, between=6, within=0.5, daily=0.3, peak_hour=8),
)
MUSCLE = Quantity(
    name="muscle_percent",
    title=Text(zh="肌肉率", en="Muscle"),
    unit=PERCENT,
    loinc=None,
    mdc=188772,
    plausible=Plausible(low=1, high=99, source=f"{_SHARE}; Hearth's own"),
    typical=Typical(mean=38, between=4, within=0.4),
)
SOFT_LEAN_MASS = Quantity(
    name="soft_lean_mass_kg",
    title=Text(zh="软瘦体重", en="Soft lean mass"),
    unit=KG,
    loinc=None,
    mdc=188760,
    plausible=Plausible(low=0.5, high=200, source=_MASS),
    typical=Typical(mean=46, between=7, within=0.4),
)
WATER_MASS = Quantity(
    name="body_water_mass_kg",
    title=Text(zh="体水分", en="Body water"),
    unit=KG,
    loinc=None,
    mdc=188764,
    plausible=Plausible(low=0.5, high=200, source=_MASS),
    typical=Typical(mean=36, between=6, within=0.4),
)
WEIGHT = Quantity(
    name="composition_weight_kg",
    title=Text(zh="体重 (体成分仪)", en="Body weight, from a composition scale"),
    unit=KG,
    loinc="29463-7",
    mdc=188736,
    plausible=Plausible(low=0.5, high=300, source=f"as body_weight_kg; {_MASS}"),
    typical=Typical(mean=65, between=11, within=0.35, daily=0.4, peak_hour=20),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyComposition:
    """All that a Body Composition Measurement says.

    Masses in kg, or lb where `imperial`; height in m, or inches; `bmr_kj` in kJ, impedance in ohm.
    """

    imperial: bool
    fat: Value
    time: DeviceTime | None
    user_id: int
    bmr_kj: Value
    muscle: Value
    muscle_mass: Value
    fat_free_mass: Value
    soft_lean_mass: Value
    water_mass: Value
    impedance: Value
    weight: Value
    height: Value


_BEYOND = ("bmr_kj", "muscle_mass", "fat_free_mass", "impedance", "height")
"""What a row has no place for."""


def read(payload: bytes) -> BodyComposition:
    """Return the fields of a payload in the order of its table 3.2; a `DecodeError` says where."""
    reader = PayloadReader(payload)
    flags = reader.unsigned("Flags", 2)
    if flags & _MULTIPLE_PACKETS:
        # Its other half is a payload of its own; until both are joined, both wait, whole.
        raise DecodeError(Fault.UNSUPPORTED, "Flags", 0, "says that it is half of a measurement")
    imperial = bool(flags & _IMPERIAL)
    mass_step = _LB_STEP if imperial else _KG_STEP

    def optional(flag: int, field: str, step: Decimal) -> Value:
        return reader.unsigned(field, 2) * step if flags & flag else Absent.NOT_SENT

    steps = reader.unsigned("Body Fat Percentage", 2)
    fat: Value = Absent.UNSUCCESSFUL if steps == _UNSUCCESSFUL else steps * _PERCENT_STEP
    time = read_date_time(reader) if flags & _TIME_STAMP else None
    user_id = reader.unsigned("User ID", 1) if flags & _USER_ID else NO_USER_SLOT
    basal: Value = Absent.NOT_SENT
    if flags & _BASAL_METABOLISM:
        basal = read_scaled(reader, "Basal Metabolism", 2, 0)
    measured = BodyComposition(
        imperial=imperial,
        fat=fat,
        time=time,
        user_id=user_id,
        bmr_kj=basal,
        muscle=optional(_MUSCLE_PERCENTAGE, "Muscle Percentage", _PERCENT_STEP),
        muscle_mass=optional(_MUSCLE_MASS, "Muscle Mass", mass_step),
        fat_free_mass=optional(_FAT_FREE_MASS, "Fat Free Mass", mass_step),
        soft_lean_mass=optional(_SOFT_LEAN_MASS, "Soft Lean Mass", mass_step),
        water_mass=optional(_WATER_MASS, "Body Water Mass", mass_step),
        impedance=optional(_IMPEDANCE, "Impedance", _OHM_STEP),
        weight=optional(_WEIGHT, "Weight", mass_step),
        height=optional(_HEIGHT, "Height", _INCH_STEP if imperial else _METRE_STEP),
    )
    reader.finish()
    return measured


def decode(payload: bytes) -> Reading:
    """Return the reading in a Body Composition Measurement; what has no place is counted."""
    measured = read(payload)
    return Reading(
        values=(
            measured.fat,
            measured.muscle,
            measured.soft_lean_mass,
            measured.water_mass,
            measured.weight,
        ),
        unit_set=1 if measured.imperial else 0,
        device_time=measured.time,
        user_slot=None if measured.user_id == NO_USER_SLOT else measured.user_id,
        beyond=sum(getattr(measured, name) is not Absent.NOT_SENT for name in _BEYOND),
    )


def encode(reading: Reading) -> bytes:
    """Return the Body Composition Measurement that says `reading`; what is None is left out."""
    fat, muscle, soft_lean_mass, water_mass, weight = reading.values
    imperial = reading.unit_set == 1
    mass_step = _LB_STEP if imperial else _KG_STEP
    flags = _IMPERIAL if imperial else 0
    body = _fat_field(fat)
    if reading.device_time is not None:
        flags |= _TIME_STAMP
        body += write_date_time(reading.device_time)
    if reading.user_slot is not None:
        flags |= _USER_ID
        body += unsigned_field("User ID", reading.user_slot, 1)
    for flag, field, value, step in (
        (_MUSCLE_PERCENTAGE, "Muscle Percentage", muscle, _PERCENT_STEP),
        (_SOFT_LEAN_MASS, "Soft Lean Mass", soft_lean_mass, mass_step),
        (_WATER_MASS, "Body Water Mass", water_mass, mass_step),
        (_WEIGHT, "Weight", weight, mass_step),
    ):
        if isinstance(value, Decimal):
            flags |= flag
            body += unsigned_field(field, scaled_steps(field, value, step), 2)
        elif value is not Absent.NOT_SENT:
            raise EncodeError(f"{field} cannot say {value.name}")
    return unsigned_field("Flags", flags, 2) + body


def _fat_field(fat: Value) -> bytes:
    if fat is Absent.UNSUCCESSFUL:
        return unsigned_field("Body Fat Percentage", _UNSUCCESSFUL, 2)
    if isinstance(fat, Absent):
        raise EncodeError(f"body fat is always sent and cannot say {fat.name}; only UNSUCCESSFUL")
    steps = scaled_steps("Body Fat Percentage", fat, _PERCENT_STEP)
    if steps == _UNSUCCESSFUL:
        raise EncodeError(f"body fat {fat} would read as unsuccessful")
    return unsigned_field("Body Fat Percentage", steps, 2)


assert set(_BEYOND) <= {field.name for field in fields(BodyComposition)}  # noqa: S101

SIGN = VitalSign(
    code=9,
    name="body_composition",
    title=Text(zh="体成分", en="Body composition"),
    quantities=(FAT, MUSCLE, SOFT_LEAN_MASS, WATER_MASS, WEIGHT),
    unit_sets=(
        unit_set((PERCENT, "0.1"), (PERCENT, "0.1"), (KG, "0.100"), (KG, "0.100"), (KG, "0.050")),
        unit_set((PERCENT, "0.1"), (PERCENT, "0.1"), (LB, "0.10"), (LB, "0.10"), (LB, "0.10")),
    ),
    user_slots=True,
    gatt=(
        GattSource(
            title="Body Composition Service 1.0",
            service=0x181B,
            characteristic=0x2A9C,
            decode=decode,
            encode=encode,
        ),
    ),
)
