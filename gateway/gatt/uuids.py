"""16-bit UUIDs and their 128-bit form. Bluetooth Assigned Numbers; Core 5.4, Vol 3 Part B, 2.5.1."""

from __future__ import annotations

BASE = "0000{:04x}-0000-1000-8000-00805f9b34fb"

CURRENT_TIME_SERVICE = 0x1805
CURRENT_TIME = 0x2A2B
LOCAL_TIME_INFORMATION = 0x2A0F
BATTERY_SERVICE = 0x180F
BATTERY_LEVEL = 0x2A19
DEVICE_INFORMATION_SERVICE = 0x180A
MANUFACTURER_NAME = 0x2A29
MODEL_NUMBER = 0x2A24
SERIAL_NUMBER = 0x2A25
FIRMWARE_REVISION = 0x2A26


def uuid128(short: int) -> str:
    """Return the 128-bit form of a 16-bit UUID as bleak and BlueZ write it."""
    return BASE.format(short)


def uuid16(uuid: str) -> int | None:
    """Return the 16-bit UUID of a 128-bit one; None where it is not of the Bluetooth base."""
    lowered = uuid.lower()
    head, tail = lowered[:8], lowered[8:]
    if tail != BASE[10:].lower() or not head.startswith("0000"):
        return None
    return int(head, 16)
