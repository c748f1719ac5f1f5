"""A reading with who and when: what travels from the hub and ends as one row of the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from gateway.errors import Fault
from gateway.vital_sign import Reading

EUI48_BYTES = 6


class TimeQuality(IntEnum):
    """How `measured_at` came about. The numbers are the wire format's and the store's."""

    SYNCHRONISED = 1
    """The device's own time, known to be synchronised."""
    MAPPED = 2
    """The device's time moved to the hub's time line by a coincident pair."""
    MAPPED_EARLIER = 3
    """The same, on a time line of the device that has ended (its clock jumped since)."""
    RECEPTION = 4
    """No usable device time: when the hub received it."""
    UNPLACED = 5
    """The device's time cannot be placed; `measured_at` is the reception. To quarantine."""
    HUB_UNSYNCHRONISED = 6
    """The hub did not know the time when it received it, and was switched off before it did; both
    instants are when it knew the time again. To quarantine."""
    RETIMED = 7
    """Placed afterwards, by a person or by what a later reading told of the device's clock
    (`hearth admin device retime`). No hub sends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One reading of one device, placed in time.

    `device` is the device's EUI-48 (or EUI-64) as an unsigned integer. `measured_at` and
    `received_at` are aware. `utc_offset_min` is the local time's distance to UTC where it was
    measured; `offset_is_device's` tells whether the device said so itself.
    """

    device: int
    sign: int
    reading: Reading
    measured_at: datetime
    received_at: datetime
    time_quality: TimeQuality
    utc_offset_min: int | None
    stored_record: bool = False
    """The device kept it in its memory and sent it in a later connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecoded:
    """A payload that no decoder could read, kept whole for quarantine.

    `source` is the characteristic's (or the service data's) 16-bit UUID. `clock_offset_ms` is the
    hub's time minus the device's clock in that connection, None where the device showed no clock:
    with it, a later decoder still places the reading at its own time.
    """

    device: int
    source: int
    fault: Fault
    payload: bytes
    received_at: datetime
    clock_offset_ms: int | None = None
    utc_offset_min: int | None = None


def device_id(address: str) -> int:
    """Return a Bluetooth address ("C0:26:DA:01:02:03") as an unsigned integer.

    Raises:
        ValueError: `address` is no EUI-48 or EUI-64.
    """
    digits = address.replace(":", "").replace("-", "")
    if len(digits) not in (12, 16) or not digits.isalnum():  # int() takes blanks, _ and a sign
        raise ValueError(f"{address!r} is no Bluetooth address: 12 (or 16) hexadecimal digits")
    return int(digits, 16)


def device_address(device: int) -> str:
    """Return a device id as a Bluetooth address, capital hexadecimal pairs between colons."""
    size = EUI48_BYTES if device < 1 << 48 else 8
    return device.to_bytes(size, "big").hex(":").upper()
