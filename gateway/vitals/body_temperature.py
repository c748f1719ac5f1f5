"""Body temperature. Health Thermometer Service 1.0, Temperature Measurement (0x2A1C).

Codes: LOINC 8310-5, FHIR R4 vital signs profile "bodytemp"; MDC_TEMP_BODY 150364, IEEE
11073-10408.
"""

from __future__ import annotations

from gateway.errors import EncodeError
from gateway.gatt.numbers import FLOAT, read_decimal
from gateway.gatt.payload import PayloadReader, unsigned_field
from gateway.gatt.times import read_date_time, write_date_time
from gateway.quantity import Absent, Plausible, Quantity, Text, Typical
from gateway.vital_sign import GattSource, Reading, Status, VitalSign, unit_set
from gateway.vitals.units import CELSIUS, FAHRENHEIT

# Flags, Health Thermometer Service 1.0, 3.1.1.1
_FAHRENHEIT = 1 << 0
_TIME_STAMP = 1 << 1
_TYPE = 1 << 2

BODY_TEMPERATURE = Quantity(
    name="body_temperature_celsius",
    title=Text(zh="体温", en="Body temperature"),
    unit=CELSIUS,
    loinc="8310-5",
    mdc=150364,
    plausible=Plausible(
        low=26,
        high=45,
        source="Harutyunyan et al. 2019 (Sci Data 6:96), variable_ranges.csv of mimic3-benchmarks"
        " ea0314c: Temperature, valid 26 to 45",
    ),
    typical=Typical(mean=36.5, between=0.2, within=0.12, daily=0.3, peak_hour=18),
)

# Temperature Type (0x2A1D): where it was measured, and the SNOMED CT body structure of that name.
_SITES = (
    (1, "armpit", "91470000", "腋下", "Armpit"),
    (2, "body", "38266002", "体表", "Body (general)"),
    (3, "ear", "117590005", "耳部", "Ear (usually ear lobe)"),
    (4, "finger", "7569003", "手指", "Finger"),
    (5, "gastrointestinal_tract", "122865005", "胃肠道", "Gastro-intestinal tract"),
    (6, "mouth", "74262004", "口腔", "Mouth"),
    (7, "rectum", "34402009", "直肠", "Rectum"),
    (8, "toe", "29707007", "脚趾", "Toe"),
    (9, "tympanum", "42859004", "鼓膜", "Tympanum (ear drum)"),
)


def decode(payload: bytes) -> Reading:
    """Return the reading in a Temperature Measurement; fields in the order of its table 3.1."""
    reader = PayloadReader(payload)
    flags = reader.unsigned("Flags", 1)
    temperature = read_decimal(reader, "Temperature Measurement Value", FLOAT)
    device_time = read_date_time(reader) if flags & _TIME_STAMP else None
    site = reader.unsigned("Temperature Type", 1) if flags & _TYPE else 0
    reader.finish()
    return Reading(
        values=(temperature,),
        unit_set=1 if flags & _FAHRENHEIT else 0,
        device_time=device_time,
        status=site,
    )


def encode(reading: Reading) -> bytes:
    """Return the Temperature Measurement that says `reading`."""
    (temperature,) = reading.values
    if temperature is Absent.NOT_SENT:
        raise EncodeError("the temperature is always sent; name another absence (NaN)")
    flags = _FAHRENHEIT if reading.unit_set == 1 else 0
    body = FLOAT.encode(temperature)
    if reading.device_time is not None:
        flags |= _TIME_STAMP
        body += write_date_time(reading.device_time)
    if reading.status:
        flags |= _TYPE
        body += unsigned_field("Temperature Type", reading.status, 1)
    return bytes((flags,)) + body


SIGN = VitalSign(
    code=2,
    name="body_temperature",
    title=Text(zh="体温", en="Body temperature"),
    quantities=(BODY_TEMPERATURE,),
    unit_sets=(
        unit_set((CELSIUS, "0.01")),
        unit_set((FAHRENHEIT, "0.1")),
    ),
    gatt=(
        GattSource(
            title="Health Thermometer Service 1.0",
            service=0x1809,
            characteristic=0x2A1C,
            decode=decode,
            encode=encode,
        ),
    ),
    statuses=tuple(
        Status(mask=0xFF, value=value, name=name, title=Text(zh=zh, en=en), body_site=snomed)
        for value, name, snomed, zh, en in _SITES
    ),
)
