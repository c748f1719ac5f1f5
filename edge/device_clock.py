"""The clocks that devices show: Current Time (0x2A2B), Elapsed Time (0x2BF2); reading and setting.

Current Time Service 1.1; Elapsed Time Service 1.0 as in gateway.gatt.health_observation.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from edge.clock import CLOCK_ERROR_MAX, Pair, clock_error
from gateway.gatt import health_observation as ghs
from gateway.gatt import uuids
from gateway.gatt.times import (
    DeviceTime,
    TimeType,
    decode_current_time,
    encode_current_time,
)

EXTERNAL_REFERENCE = 1 << 1
"""Adjust Reason of Current Time: "External Reference Time Update"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClock:
    """A kind of clock. `decode` gives None where the device says that it knows no date."""

    characteristic: int
    decode: Callable[[bytes], DeviceTime | None]
    encode: Callable[[datetime, DeviceTime | None], bytes]
    """What sets it to an aware moment in the home's zone, given what it shows now."""


def clock_of(characteristics: AbstractSet[int]) -> DeviceClock | None:
    """Return the clock of a device with these characteristics, if it shows one."""
    return next((clock for clock in _CLOCKS if clock.characteristic in characteristics), None)


def needs_setting(pair: Pair | None, zone: tzinfo) -> bool:
    """Tell whether a clock should be set; `pair` is None where it shows no date.

    A tick counter cannot be set. A clock that says itself that it is not synchronised is set even
    when it happens to be right: what it stamps from then on can be trusted for ever.
    """
    if pair is None:
        return True
    if pair.shown.type is TimeType.TICKS:
        return False
    return abs(clock_error(pair, zone)) > CLOCK_ERROR_MAX or pair.shown.synced is False


def _set_current_time(moment: datetime, _shown: DeviceTime | None) -> bytes:
    return encode_current_time(moment, adjust_reason=EXTERNAL_REFERENCE)


def _set_elapsed_time(moment: datetime, shown: DeviceTime | None) -> bytes:
    is_utc = shown is not None and shown.type is TimeType.UTC
    return ghs.encode_clock_setting(moment, moment.utcoffset() or timedelta(0), utc=is_utc)


_CLOCKS = (
    DeviceClock(
        characteristic=ghs.ELAPSED_TIME,
        decode=ghs.decode_current_elapsed_time,
        encode=_set_elapsed_time,
    ),
    DeviceClock(
        characteristic=uuids.CURRENT_TIME, decode=decode_current_time, encode=_set_current_time
    ),
)
