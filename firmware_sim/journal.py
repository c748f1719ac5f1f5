"""The ground truth: what devices measured, of whom, and what they believe the hub to have.

An append-only file of JSON lines, to be held against what was stored. Values stand here as sent;
the people are simulated.
"""

from __future__ import annotations

import json
import time
from enum import Enum
from pathlib import Path
from typing import Self, TextIO

from firmware_sim.memory import Record
from gateway.gatt.times import DeviceTime
from gateway.quantity import Absent, Value


class Event(Enum):
    """What happened to a record."""

    TAKEN = "taken"
    OVERWRITTEN = "overwritten"
    """The device's memory was full: lost before anyone could have it."""
    ADVERTISED = "advertised"
    """It was advertised for the first time, by a device that only advertises."""
    CONFIRMED = "confirmed"
    """The hub's radio confirmed the indication; the device takes it for delivered."""
    DELETED = "deleted"
    """The hub told the device to delete it (Record Access Control Point)."""


class Journal:
    """Writes one line an event, at once, so that it survives a kill. Use it as a context.

    Every line has `event`, `wall_ns` (since 1970, UTC), `monotonic_ns` (this machine's
    CLOCK_MONOTONIC), `device`, `record`; a `taken` line also what was measured, of whom and when.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: TextIO | None = None
        self._path = path

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = self._path.open("a", encoding="utf-8", buffering=1)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()

    def taken(
        self,
        device: str,
        sign: int,
        record: Record,
        *,
        device_time: DeviceTime | None,
        garbled: bool,
    ) -> None:
        """Write that a reading was taken; `garbled`: its payload will be broken."""
        reading = record.reading
        self._write(
            Event.TAKEN,
            device,
            record.number,
            sign=sign,
            person=record.person,
            taken_at=record.taken_at.isoformat(),
            values=[_text(value) for value in reading.values],
            unit_set=reading.unit_set,
            user_slot=reading.user_slot,
            status=reading.status,
            device_time_ms=None if device_time is None else device_time.ms,
            garbled=garbled,
        )

    def note(self, event: Event, device: str, record: Record) -> None:
        """Write what else happened to a record."""
        self._write(event, device, record.number)

    def _write(self, event: Event, device: str, record: int, **more: object) -> None:
        if self._file is None:
            return
        line = {
            "event": event.value,
            "wall_ns": time.time_ns(),
            "monotonic_ns": time.monotonic_ns(),
            "device": device,
            "record": record,
            **more,
        }
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")


def _text(value: Value) -> str:
    return value.name if isinstance(value, Absent) else str(value)
