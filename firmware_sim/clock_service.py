"""What a simulated device's clock characteristic reads as, and what becomes of a write to it.

Current Time Service 1.1 (0x2A2B); Elapsed Time Service 1.0 (0x2BF2) for health observations.
"""

from __future__ import annotations

from firmware_sim.clock import Setting
from firmware_sim.device import SimulatedDevice
from gateway.errors import DecodeError
from gateway.gatt import health_observation as ghs
from gateway.gatt import uuids
from gateway.gatt.payload import PayloadReader
from gateway.gatt.times import (
    DeviceTime,
    TimeType,
    decode_current_time,
    encode_current_time,
    from_ms,
)

_NEEDS_SETTING = 1
"""Elapsed Time, Clock Status bit 0."""


def clock_characteristic(device: SimulatedDevice) -> int | None:
    """Return the characteristic that shows the device's clock; None where it has none."""
    if device.model.clock.setting is Setting.NONE:
        return None
    return ghs.ELAPSED_TIME if _is_elapsed(device) else uuids.CURRENT_TIME


def read_clock(device: SimulatedDevice) -> bytes:
    """Return what the characteristic reads as now."""
    shown = device.clock.reads(device.now())
    return _elapsed(shown) if _is_elapsed(device) else _current_time(shown)


def write_clock(device: SimulatedDevice, value: bytes) -> bool:
    """Take a write; tell whether the device answers that all is well, whatever it did."""
    if device.model.clock.setting is Setting.REFUSES:
        return False
    try:
        shown = _decode_elapsed(value) if _is_elapsed(device) else decode_current_time(value)
    except DecodeError:
        return False
    if shown is None or shown.type is not device.model.clock.type:
        return False
    device.clock.set(shown, device.now())
    return True


def _is_elapsed(device: SimulatedDevice) -> bool:
    return any(source.service == ghs.SERVICE for source in device.sign.gatt)


def _current_time(shown: DeviceTime | None) -> bytes:
    return bytes(10) if shown is None else encode_current_time(from_ms(shown.ms))


def _elapsed(shown: DeviceTime | None) -> bytes:
    # A clock that knows no date counts ticks of none: all zero, in need of setting.
    time = shown or DeviceTime(type=TimeType.TICKS, ms=0, current=True, synced=False)
    status = 0 if time.synced else _NEEDS_SETTING
    return ghs.encode_elapsed_time(time) + bytes((status, 0))


def _decode_elapsed(value: bytes) -> DeviceTime:
    reader = PayloadReader(value)
    shown = ghs.read_elapsed_time(reader)
    reader.finish()
    return shown
