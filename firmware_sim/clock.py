"""A device's own clock: wrong, drifting, set or not, back at its start after a new battery.

What it shows is a `DeviceTime` of the vocabulary; what is true is an aware datetime, an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated

from pydantic import BeforeValidator

from firmware_sim.data import exact
from gateway.gatt.times import DeviceTime, TimeType, ms_since_epoch

_PPM = 1_000_000


class Setting(Enum):
    """What becomes of an attempt to set the clock."""

    TAKES = "takes"
    IGNORES = "ignores"
    """It answers that all is well and goes on as before."""
    REFUSES = "refuses"
    """It answers with an error."""
    NONE = "none"
    """It has no service to read or set its clock with."""


def _time_type(value: object) -> object:
    return TimeType.__members__.get(value, value) if isinstance(value, str) else value


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class ClockModel:
    """What a product's clock is like."""

    type: Annotated[TimeType, BeforeValidator(_time_type)] = TimeType.LOCAL
    """In a file by its name: "UTC"."""
    setting: Setting = Setting.TAKES
    fast_s: float = 0.0
    """How far it is ahead when the simulation starts; negative: behind."""
    drift_ppm: float = 0.0
    """How much too fast it runs; negative: too slow."""
    starts_at: datetime | None = None
    """The date after a new battery; None: it knows no date until it is set."""
    time_stamps: bool = True
    """Whether its readings carry a time at all."""
    offset_min: int | None = None
    """The distance to UTC that it tells with its times, where its profile can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """When a reading was taken, by the device's clock: on which of its time lines."""

    ms: int
    time_line: int
    synced: bool
    """Whether that time line was set by somebody who knew the time."""


@dataclass(slots=True, kw_only=True)
class DeviceClock:
    """One device's clock. It counts on steadily from an anchor; a jump starts a new time line."""

    model: ClockModel
    _true_at: datetime
    """The anchor: what was true..."""
    _shown_ms: float | None
    """...when the clock showed this; None: it knows no date."""
    _synced: bool = False
    _time_line: int = field(default=0)

    @classmethod
    def running(cls, model: ClockModel, now: datetime, utc_offset: timedelta) -> DeviceClock:
        """Return a clock that has run since long before `now`, wrong by what its model says."""
        right_ms = _right_ms(model.type, now, utc_offset)
        return cls(model=model, _true_at=now, _shown_ms=right_ms + model.fast_s * 1000)

    def stamp(self, now: datetime) -> Stamp | None:
        """Return what to keep with a reading taken `now`; None where the date is unknown."""
        shown_ms = self._shows_ms(now)
        if shown_ms is None or not self.model.time_stamps:
            return None
        return Stamp(ms=int(shown_ms), time_line=self._time_line, synced=self._synced)

    def reads(self, now: datetime) -> DeviceTime | None:
        """Return what the clock shows `now`; None: it knows no date."""
        shown_ms = self._shows_ms(now)
        if shown_ms is None:
            return None
        return self._device_time(int(shown_ms), current=True, synced=self._synced)

    def device_time(self, stamp: Stamp | None) -> DeviceTime | None:
        """Return a reading's time as its profile sends it now."""
        if stamp is None:
            return None
        current = stamp.time_line == self._time_line
        return self._device_time(stamp.ms, current=current, synced=stamp.synced)

    def set(self, shown: DeviceTime, now: datetime) -> None:
        """Follow an attempt to set the clock to `shown`, as its model does."""
        if self.model.setting is Setting.TAKES:
            self._jump(shown.ms, now)
            self._synced = bool(shown.synced)

    def replace_battery(self, now: datetime) -> None:
        """Start again: at the model's first date, or without any."""
        starts_at = self.model.starts_at
        if self.model.type is TimeType.TICKS:
            self._jump(0, now)
        else:
            self._jump(None if starts_at is None else ms_since_epoch(starts_at), now)
        self._synced = False

    def _jump(self, shown_ms: float | None, now: datetime) -> None:
        self._shown_ms = shown_ms
        self._true_at = now
        self._time_line += 1

    def _shows_ms(self, now: datetime) -> float | None:
        if self._shown_ms is None:
            return None
        passed_ms = (now - self._true_at) / timedelta(milliseconds=1)
        return self._shown_ms + passed_ms * (1 + self.model.drift_ppm / _PPM)

    def _device_time(self, ms: int, *, current: bool, synced: bool) -> DeviceTime:
        return DeviceTime(
            type=self.model.type,
            ms=ms - ms % 1000,
            utc_offset_min=self.model.offset_min,
            current=current,
            synced=synced,
        )


def _right_ms(kind: TimeType, now: datetime, utc_offset: timedelta) -> int:
    match kind:
        case TimeType.UTC:
            return ms_since_epoch(now)
        case TimeType.LOCAL:
            return ms_since_epoch(now.astimezone(UTC) + utc_offset)
        case TimeType.TICKS:
            return round(timedelta(days=10) / timedelta(milliseconds=1))
