"""Readings that a number tells apart, so that each can be looked for at the end. Pure.

A device's n-th reading carries n in its device time (n seconds after `BEGINNING_MS`) and, in
another way, in its value: a row whose value does not go with its time was altered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from gateway.errors import Fault
from gateway.gatt.times import DeviceTime, TimeType
from gateway.measurement import Measurement, TimeQuality, Undecoded
from gateway.vital_sign import Reading
from gateway.vitals import BY_NAME

BEGINNING_MS = 1_767_225_600_000
"""2026-01-01T00:00 on the devices' clocks."""
NUMBERS_MAX = 1 << 24
"""Readings of a device; half a year of seconds."""
VALUES = 400
"""Different values: 36.00 to 39.99 degrees."""
UNREADABLE = b"\xff"
"""A thermometer payload that begins so announces fields it does not have: no decoder reads it."""
_FIRST_DEVICE = 0xC0_0000_000000
_FIRST_HUB = 0xC4A0_5000_0000_0000
_SIGN = BY_NAME["body_temperature"]
_THERMOMETER = 0x2A1C


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedHome:
    """A home: its hubs, and the devices that all of them hear."""

    hubs: tuple[int, ...]
    devices: tuple[int, ...]


def homes_of(hubs: int, devices_a_home: int) -> list[SimulatedHome]:
    """Return homes with `hubs` hubs in all; every third home has two."""
    homes: list[SimulatedHome] = []
    given = 0
    while given < hubs:
        here = min(2 if len(homes) % 3 == 2 else 1, hubs - given)  # noqa: PLR2004 - see above
        first = _FIRST_DEVICE + len(homes) * devices_a_home
        homes.append(
            SimulatedHome(
                hubs=tuple(_FIRST_HUB + given + n for n in range(here)),
                devices=tuple(range(first, first + devices_a_home)),
            )
        )
        given += here
    return homes


def a_measurement(device: int, number: int, received_at: datetime) -> Measurement:
    """Return a device's reading with this number, as a hub places it that hears it then."""
    return Measurement(
        device=device,
        sign=_SIGN.code,
        reading=Reading(
            values=(Decimal(3600 + number % VALUES) / 100,),
            device_time=DeviceTime(type=TimeType.LOCAL, ms=BEGINNING_MS + number * 1000),
        ),
        measured_at=received_at - timedelta(seconds=1),
        received_at=received_at,
        time_quality=TimeQuality.MAPPED,
        utc_offset_min=480,
    )


def an_undecoded(device: int, number: int, received_at: datetime) -> Undecoded:
    """Return a payload with this number that nobody reads."""
    return Undecoded(
        device=device,
        source=_THERMOMETER,
        fault=Fault.TRUNCATED,
        payload=UNREADABLE + number.to_bytes(4, "little"),
        received_at=received_at,
    )


def number_of_payload(payload: bytes) -> int:
    """Return the number that `an_undecoded` was given."""
    return int.from_bytes(payload[1:5], "little")


def numbers_of_times(identity_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (n,) the numbers of readings by their device times."""
    numbers: npt.NDArray[np.int64] = (identity_ms - BEGINNING_MS) // 1000
    return numbers


def values_of_numbers(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return (n,) the values that readings with these numbers have, as the store computes them."""
    values: npt.NDArray[np.float64] = (3600 + numbers % VALUES) / 100.0
    return values


def keys_of(
    devices: npt.NDArray[np.integer] | Sequence[int],
    numbers: npt.NDArray[np.integer] | Sequence[int],
) -> npt.NDArray[np.int64]:
    """Return (n,) one number for each reading: its device's place and its own number."""
    places = np.asarray(devices, np.int64) - _FIRST_DEVICE
    keys: npt.NDArray[np.int64] = places * NUMBERS_MAX + np.asarray(numbers, np.int64)
    return keys
