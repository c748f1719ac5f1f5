"""What a device's clock says. Date Time (0x2A08), Current Time (0x2A2B); Current Time Service 1.1.

A device's time stays what it is, the device's own: placing it on the hub's time line is the hub's
work (edge.clock). It is held as milliseconds that its fields would be after 1970-01-01T00:00 of the
same calendar, whatever zone the device means.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from gateway.gatt.payload import PayloadReader

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_MIN, _YEAR_MAX = 1582, 9999  # Date Time: "The year as defined by the Gregorian calendar"


class TimeType(IntEnum):
    """What a device's time counts. The numbers are the wire format's; 0 there: no device time."""

    LOCAL = 1
    UTC = 2
    TICKS = 3
    """Time since some start of the device's own; no date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTime:
    """A time-stamp as the device gave it.

    `current` and `synced` are the device's own claims (facts/time: IEEE 11073-10206), None where
    its profile has no way to say so and the hub must infer them.
    """

    type: TimeType
    ms: int
    resolution_ms: int = 1000
    utc_offset_min: int | None = None
    current: bool | None = None
    synced: bool | None = None


def local_device_time(moment: datetime) -> DeviceTime:
    """Return the Date Time that a clock showing `moment`'s wall time would send."""
    wall = moment.replace(tzinfo=UTC, microsecond=0)
    return DeviceTime(type=TimeType.LOCAL, ms=ms_since_epoch(wall))


def read_date_time(reader: PayloadReader, field: str = "Time Stamp") -> DeviceTime | None:
    """Take a Date Time (7 bytes) off `reader`; None where the device says it knows no date.

    Year, month or day 0 mean "not known" (Date Time, 0x2A08); then no moment can be told.
    """
    year = reader.unsigned(f"{field} year", 2)
    year_fault = None if year == 0 or _YEAR_MIN <= year <= _YEAR_MAX else f"is {year}"
    if year_fault:
        raise reader.invalid(f"{field} year", 2, year_fault)
    month = _ranged(reader, f"{field} month", 0, 12)
    day = _ranged(reader, f"{field} day", 0, 31)
    hour = _ranged(reader, f"{field} hours", 0, 23)
    minute = _ranged(reader, f"{field} minutes", 0, 59)
    second = _ranged(reader, f"{field} seconds", 0, 59)
    if 0 in (year, month, day):
        return None
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise reader.invalid(field, 7, f"is no date: {year}-{month}-{day}") from error
    return DeviceTime(type=TimeType.LOCAL, ms=ms_since_epoch(moment))


def write_date_time(time: DeviceTime | None) -> bytes:
    """Return the Date Time of `time`, 7 bytes; of None, the one that says "not known"."""
    if time is None:
        return bytes(7)
    moment = from_ms(time.ms)
    fields = (moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return moment.year.to_bytes(2, "little") + bytes(fields)


def decode_current_time(payload: bytes) -> DeviceTime | None:
    """Return what a device's clock shows (Current Time, 0x2A2B), to 1/256 s.

    Fields: Date Time (7), Day of Week (1), Fractions256 (1), Adjust Reason (1).
    """
    reader = PayloadReader(payload)
    whole = read_date_time(reader, "Current Time")
    _ranged(reader, "Day of Week", 0, 7)
    fractions = reader.unsigned("Fractions256", 1)
    reader.unsigned("Adjust Reason", 1)
    reader.finish()
    if whole is None:
        return None
    ms = whole.ms + fractions * 1000 // 256
    return DeviceTime(type=TimeType.LOCAL, ms=ms, resolution_ms=4)


def encode_current_time(moment: datetime, *, adjust_reason: int = 0) -> bytes:
    """Return the Current Time (10 bytes) that sets a clock to `moment`'s wall time."""
    wall = local_device_time(moment)
    day_of_week = moment.isoweekday()
    fractions = moment.microsecond * 256 // 1_000_000
    return write_date_time(wall) + bytes((day_of_week, fractions, adjust_reason))


def ms_since_epoch(moment: datetime) -> int:
    """Return the whole milliseconds from 1970-01-01T00:00Z to `moment`, an aware datetime."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_ms(ms: int) -> datetime:
    """Return the aware UTC datetime `ms` milliseconds after 1970-01-01T00:00Z.

    Raises:
        OverflowError: outside the years 1 to 9999.
    """
    return _EPOCH + timedelta(milliseconds=ms)


def _ranged(reader: PayloadReader, field: str, low: int, high: int) -> int:
    value = reader.unsigned(field, 1)
    if not low <= value <= high:
        raise reader.invalid(field, 1, f"is {value}, outside {low}..{high}")
    return value
