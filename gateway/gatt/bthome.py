"""BTHome v2 service data (0xFCD2), unencrypted: its objects, in order. bthome.io/format.

Device information byte, then objects: an id and little-endian data of the id's own length; ids
ascend. The lengths are those of bthome.io/format as bthome-ble 3.25.0 (MIT) has them.
"""

from __future__ import annotations

from gateway.errors import DecodeError, Fault
from gateway.gatt.payload import PayloadReader

SERVICE_DATA = 0xFCD2
PACKET_ID = 0x00
TIMESTAMP = 0x50

_ENCRYPTED = 1 << 0
_ADDRESS_INCLUDED = 1 << 1
_VERSION_SHIFT = 5
_VERSION = 2

_LENGTHS = {
    **dict.fromkeys((0x00, 0x01, 0x09, 0x0F, 0x10, 0x11, *range(0x15, 0x3B), 0x46), 1),
    **dict.fromkeys((0x57, 0x58, 0x59, 0x60, 0x64, 0x65), 1),
    **dict.fromkeys((0x02, 0x03, 0x06, 0x07, 0x08, 0x0C, 0x0D, 0x0E, 0x12, 0x13, 0x14), 2),
    **dict.fromkeys((0x3C, 0x3D, 0x3F, 0x40, 0x41, 0x43, 0x44, 0x45, 0x47, 0x48, 0x49, 0x4A), 2),
    **dict.fromkeys((0x51, 0x52, 0x56, 0x5A, 0x5D, 0x5E, 0x5F, 0x61, 0xF0), 2),
    **dict.fromkeys((0x04, 0x05, 0x0A, 0x0B, 0x42, 0x4B, 0xF2), 3),
    **dict.fromkeys((0x3E, 0x4C, 0x4D, 0x4E, 0x4F, 0x50, 0x55, 0x5B, 0x5C, 0x62, 0x63, 0xF1), 4),
}
_COUNTED = frozenset({0x53, 0x54})
"""Text and raw: a length byte first."""


def decode_objects(payload: bytes) -> dict[int, tuple[int, int]]:
    """Return id -> (unsigned value, offset of its data); of a repeated id, the first.

    Raises:
        DecodeError: not version 2, encrypted (that needs the device's key), or an id of unknown
            length, behind which nothing can be read.
    """
    reader = PayloadReader(payload)
    information = reader.unsigned("device information", 1)
    if information >> _VERSION_SHIFT != _VERSION:
        detail = f"says version {information >> _VERSION_SHIFT}, read is {_VERSION}"
        raise DecodeError(Fault.UNSUPPORTED, "device information", 0, detail)
    if information & _ENCRYPTED:
        detail = "says encrypted; no key is known for the device"
        raise DecodeError(Fault.UNSUPPORTED, "device information", 0, detail)
    if information & _ADDRESS_INCLUDED:
        reader.take("address", 6)
    objects: dict[int, tuple[int, int]] = {}
    while reader.remaining:
        object_id = reader.unsigned("object id", 1)
        if object_id in _COUNTED:
            length = reader.unsigned(f"length of object {object_id:#04x}", 1)
        elif object_id in _LENGTHS:
            length = _LENGTHS[object_id]
        else:
            detail = f"is {object_id:#04x}, whose length is not known"
            raise DecodeError(Fault.UNSUPPORTED, "object id", reader.offset - 1, detail)
        offset = reader.offset
        value = int.from_bytes(reader.take(f"object {object_id:#04x}", length), "little")
        objects.setdefault(object_id, (value, offset))
    return objects


def encode_objects(objects: dict[int, int], *, triggered: bool = True) -> bytes:
    """Return the service data that holds `objects` (id -> unsigned value), ids ascending."""
    information = _VERSION << _VERSION_SHIFT | (1 << 2 if triggered else 0)
    return bytes((information,)) + b"".join(
        bytes((object_id,)) + objects[object_id].to_bytes(_LENGTHS[object_id], "little")
        for object_id in sorted(objects)
    )
