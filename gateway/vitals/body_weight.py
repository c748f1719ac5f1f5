"""Body weight, with BMI and height when the scale sends them.

Weight Scale Service 1.0.1, Weight Measurement (0x2A9D). Codes: LOINC 29463-7, 39156-5 and 8302-2,
FHIR R4 vital signs profiles "bodyweight", "bmi", "bodyheight"; MDC_MASS_BODY_ACTUAL 188736,
MDC_RATIO_MASS_BODY_LEN_SQ 188752, MDC_LEN_BODY_ACTUAL 188740, IEEE 11073-10415.
"""

from __future__ import annotations

from decimal import Decimal

from gateway.errors import EncodeError
from gateway.gatt.numbers import read_scaled, scaled_steps
from gateway.gatt.payload import PayloadReader, unsigned_field
from gateway.gatt.times import read_date_time, write_date_time
from gateway.quantity import Absent, Plausible, Quantity, Text, Typical, Value
from gateway.vital_sign import NO_USER_SLOT, GattSource, Reading, VitalSign, unit_set
from gateway.vitals.units import CM, INCH_TO_CM, KG, KG_PER_M2, LB

# Flags, Weight Scale Service 1.0.1, 3.2.1.1
_IMPERIAL = 1 << 0
_TIME_STAMP = 1 << 1
_USER_ID = 1 << 2
_BMI_AND_HEIGHT = 1 << 3

_UNSUCCESSFUL = 0xFFFF
"""Weight 0xFFFF: "Measurement Unsuccessful" (3.2.1.2)."""
_KG_STEP, _LB_STEP = Decimal("0.005"), Decimal("0.01")
"""The unit is fixed by the flag (3.2.1.2); the Feature's resolution does not scale it."""
_BMI_STEP = Decimal("0.1")
_HEIGHT_STEP = Decimal("0.1")
"""Height counts 0.001 m, which is 0.1 cm, or 0.1 inch (3.2.1.6)."""

_MIMIC = "Harutyunyan et al. 2019 (Sci Data 6:96), variable_ranges.csv of mimic3-benchmarks ea0314c"

WEIGHT = Quantity(
    name="body_weight_kg",
    title=Text(zh="体重", en="Body weight"),
    unit=KG,
    loinc="29463-7",
    mdc=188736,
    plausible=Plausible(
        low=0.5,
        high=300,
        source=f"{_MIMIC}: Weight, valid to 250; to 300 for home scales of that capacity;"
        " low end: Hearth's own, an empty platform reads 0",
    ),
    typical=Typical(mean=65, between=11, within=0.35, daily=0.4, peak_hour=20),
)
BMI = Quantity(
    name="bmi_kg_per_m2",
    title=Text(zh="体质指数", en="Body mass index"),
    unit=KG_PER_M2,
    loinc="39156-5",
    mdc=188752,
    plausible=Plausible(
        low=5, high=150, source="Hearth's own: half the lowest and the highest survived"
    ),
    typical=Typical(mean=23.9, between=3.3, within=0.1),
)
HEIGHT = Quantity(
    name="body_height_cm",
    title=Text(zh="身高", en="Body height"),
    unit=CM,
    loinc="8302-2",
    mdc=188740,
    plausible=Plausible(
        low=30,
        high=275,
        source=f"{_MIMIC}: Height, outlier above 275; low end: Hearth's own, below any newborn",
    ),
    typical=Typical(mean=165, between=8, within=0),
)


def decode(payload: bytes) -> Reading:
    """Return the reading in a Weight Measurement; fields in the order of its table 3.2."""
    reader = PayloadReader(payload)
    flags = reader.unsigned("Flags", 1)
    weight_step = _LB_STEP if flags & _IMPERIAL else _KG_STEP
    steps = reader.unsigned("Weight", 2)
    weight: Value = Absent.UNSUCCESSFUL if steps == _UNSUCCESSFUL else steps * weight_step
    device_time = read_date_time(reader) if flags & _TIME_STAMP else None
    user_id = reader.unsigned("User ID", 1) if flags & _USER_ID else NO_USER_SLOT
    bmi: Value = Absent.NOT_SENT
    height: Value = Absent.NOT_SENT
    if flags & _BMI_AND_HEIGHT:
        bmi = read_scaled(reader, "BMI", 2, -1)
        height = read_scaled(reader, "Height", 2, -1)
    reader.finish()
    return Reading(
        values=(weight, bmi, height),
        unit_set=1 if flags & _IMPERIAL else 0,
        device_time=device_time,
        user_slot=None if user_id == NO_USER_SLOT else user_id,
    )


def encode(reading: Reading) -> bytes:
    """Return the Weight Measurement that says `reading`; BMI and height go together or not."""
    weight, bmi, height = reading.values
    imperial = reading.unit_set == 1
    flags = _IMPERIAL if imperial else 0
    body = _weight_field(weight, _LB_STEP if imperial else _KG_STEP)
    if reading.device_time is not None:
        flags |= _TIME_STAMP
        body += write_date_time(reading.device_time)
    if reading.user_slot is not None:
        flags |= _USER_ID
        body += unsigned_field("User ID", reading.user_slot, 1)
    if isinstance(bmi, Decimal) and isinstance(height, Decimal):
        flags |= _BMI_AND_HEIGHT
        body += unsigned_field("BMI", scaled_steps("BMI", bmi, _BMI_STEP), 2)
        body += unsigned_field("Height", scaled_steps("Height", height, _HEIGHT_STEP), 2)
    elif (bmi, height) != (Absent.NOT_SENT, Absent.NOT_SENT):
        raise EncodeError(
            "BMI and height are sent together or not at all, and have no special values"
        )
    return bytes((flags,)) + body


def _weight_field(weight: Value, step: Decimal) -> bytes:
    if weight is Absent.UNSUCCESSFUL:
        return _UNSUCCESSFUL.to_bytes(2, "little")
    if isinstance(weight, Absent):
        raise EncodeError(f"the weight cannot say {weight.name}; only UNSUCCESSFUL")
    steps = scaled_steps("Weight", weight, step)
    if steps == _UNSUCCESSFUL:
        raise EncodeError(f"weight {weight} would read as unsuccessful")
    return unsigned_field("Weight", steps, 2)


SIGN = VitalSign(
    code=3,
    name="body_weight",
    title=Text(zh="体重", en="Body weight"),
    quantities=(WEIGHT, BMI, HEIGHT),
    unit_sets=(
        unit_set((KG, "0.050"), (KG_PER_M2, "0.1"), (CM, "0.1")),
        unit_set((LB, "0.10"), (KG_PER_M2, "0.1"), (INCH_TO_CM, "0.1")),
    ),
    user_slots=True,
    gatt=(
        GattSource(
            title="Weight Scale Service 1.0.1",
            service=0x181D,
            characteristic=0x2A9D,
            decode=decode,
            encode=encode,
        ),
    ),
)
