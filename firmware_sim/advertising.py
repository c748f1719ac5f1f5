"""What simulated devices advertise. Core Specification Supplement 11, Part A; 31 bytes at most."""

from __future__ import annotations

from bumble.core import AdvertisingData

from firmware_sim.device import SimulatedDevice
from firmware_sim.memory import Record
from gateway.gatt import bthome

BYTES_MAX = 31
"""Legacy advertising data (Core 5.4, Vol 6 Part B, 2.3.1); a name that does not fit is cut."""

_HEADER_BYTES = 2
_FLAGS = (AdvertisingData.FLAGS, b"\x06")
"""General discoverable, no Bluetooth Classic."""


def connectable_data(device: SimulatedDevice) -> bytes:
    """Return what a device says that waits for the hub: its services and name."""
    services = sorted({source.service for source in device.sign.gatt})
    listed = b"".join(service.to_bytes(2, "little") for service in services)
    structures = [
        _FLAGS,
        (AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS, listed),
    ]
    room = BYTES_MAX - len(bytes(AdvertisingData(structures))) - _HEADER_BYTES
    name = device.model.name.encode()[:room]
    return bytes(AdvertisingData([*structures, (AdvertisingData.COMPLETE_LOCAL_NAME, name)]))


def reading_data(device: SimulatedDevice, record: Record) -> bytes:
    """Return what a device says that only advertises: a reading as service data."""
    source = device.sign.advertised[0]
    payload = device.payload(record, source)
    if source.service_data == bthome.SERVICE_DATA and not device.is_garbled(record):
        payload = _numbered(payload, record.number)
    uuid = source.service_data.to_bytes(2, "little")
    structures = [_FLAGS, (AdvertisingData.SERVICE_DATA_16_BIT_UUID, uuid + payload)]
    return bytes(AdvertisingData(structures))


def _numbered(payload: bytes, number: int) -> bytes:
    """Return the payload with the record's packet id, which tells it from a repeat."""
    objects = {key: value for key, (value, _offset) in bthome.decode_objects(payload).items()}
    return bthome.encode_objects({**objects, bthome.PACKET_ID: number & 0xFF})
