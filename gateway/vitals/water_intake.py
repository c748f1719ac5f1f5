"""Water intake, one drink a reading. BTHome v2 service data (0xFCD2), object "volume".

By our profile a bottle's volume object is what was drunk; BTHome itself does not say. The packet
id tells repeats of one advertisement from the next drink, the time-stamp (UTC) when it was drunk.
Codes: LOINC 9000-1 "Fluid intake oral Measured" (9108-2 is a 24 hour total, 9052-2 a calorie
intake). IEEE 11073-10101 has no term for it.
"""

from __future__ import annotations

from gateway.errors import DecodeError, EncodeError, Fault
from gateway.gatt.bthome import PACKET_ID, SERVICE_DATA, TIMESTAMP, decode_objects, encode_objects
from gateway.gatt.numbers import decimal_from, mantissa_and_exponent
from gateway.gatt.times import DeviceTime, TimeType
from gateway.quantity import Absent, Plausible, Quantity, Text, Typical
from gateway.vital_sign import AdvertisedSource, Reading, VitalSign, unit_set
from gateway.vitals.units import LITRE_TO_ML, ML

_OBJECTS = {0x48: (0, 0), 0x4E: (1, -3), 0x4F: (1, -3), 0x47: (1, -1)}
"""Object id -> (unit set, exponent): volume in mL; volume and water in 0.001 L; volume in 0.1 L."""
_VOLUME_ML = 0x48
_VOLUME_LITRES = 0x4E

WATER = Quantity(
    name="water_intake_ml",
    title=Text(zh="饮水量", en="Water intake"),
    unit=ML,
    loinc="9000-1",
    mdc=None,
    plausible=Plausible(
        low=1,
        high=3000,
        source="Hearth's own: from a sip to the largest common bottle, emptied at once",
    ),
    typical=Typical(mean=180, between=40, within=60, daily=30, peak_hour=14),
)


_NUMBERED = 0x100
"""In a status: bits 0-7 are the packet id. Only where there is no time-stamp to know a drink by."""
_ID_BITS = 0xFF


def decode(payload: bytes) -> Reading:
    """Return the drink in a BTHome advertisement; without a time-stamp, its packet id as status."""
    objects = decode_objects(payload)
    found = next((object_id for object_id in _OBJECTS if object_id in objects), None)
    if found is None:
        raise DecodeError(Fault.UNSUPPORTED, "volume", len(payload), "is not in the payload")
    unit_set, exponent = _OBJECTS[found]
    device_time, status = None, 0
    if TIMESTAMP in objects:
        device_time = DeviceTime(type=TimeType.UTC, ms=objects[TIMESTAMP][0] * 1000)
    elif PACKET_ID in objects:
        status = _NUMBERED | objects[PACKET_ID][0]
    return Reading(
        values=(decimal_from(objects[found][0], exponent),),
        unit_set=unit_set,
        device_time=device_time,
        status=status,
    )


def encode(reading: Reading) -> bytes:
    """Return the service data of one drink."""
    (volume,) = reading.values
    if isinstance(volume, Absent):
        raise EncodeError("a drink without its volume is not advertised")
    object_id = _VOLUME_LITRES if reading.unit_set == 1 else _VOLUME_ML
    mantissa, exponent = mantissa_and_exponent(volume)
    steps = mantissa * 10 ** (exponent - _OBJECTS[object_id][1])
    size = 4 if object_id == _VOLUME_LITRES else 2
    if steps != int(steps) or not 0 <= steps < 1 << (8 * size):
        raise EncodeError(f"volume {volume} does not fit object {object_id:#04x}")
    objects = {PACKET_ID: reading.status & _ID_BITS, object_id: int(steps)}
    if reading.device_time is not None:
        objects[TIMESTAMP] = reading.device_time.ms // 1000
    return encode_objects(objects)


def recognises(payload: bytes) -> bool:
    """Tell whether BTHome data is a bottle's: most BTHome devices are thermometers and buttons.

    Encrypted or broken data could be a bottle's; it is kept, not passed over.
    """
    try:
        objects = decode_objects(payload)
    except DecodeError:
        return True
    return any(object_id in objects for object_id in _OBJECTS)


SIGN = VitalSign(
    code=5,
    name="water_intake",
    title=Text(zh="饮水", en="Water intake"),
    quantities=(WATER,),
    unit_sets=(
        unit_set((ML, "1")),
        unit_set((LITRE_TO_ML, "0.001")),
    ),
    broadcast_number=_NUMBERED,
    advertised=(
        AdvertisedSource(
            title="BTHome v2, volume",
            service_data=SERVICE_DATA,
            decode=decode,
            encode=encode,
            recognises=recognises,
        ),
    ),
)
