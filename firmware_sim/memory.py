"""What a device remembers until the hub has it: bounded, oldest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from firmware_sim.clock import Stamp
from gateway.vital_sign import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One reading in a device's memory, with what the simulation knows of it."""

    number: int
    """Counts up from 1 over the device's life (the Record Number of health observations)."""
    reading: Reading
    """Without its time, which is told as the clock's time line is when it is sent."""
    stamp: Stamp | None
    taken_at: datetime
    """True time."""
    person: int | None
    """Who really was measured."""


class Memory:
    """Holds at most `capacity` records; one more overwrites the oldest, which is counted."""

    def __init__(self, capacity: int, *, keeps: bool) -> None:
        self._capacity = capacity
        self._keeps = keeps
        self._unsent: dict[int, Record] = {}
        self._kept: dict[int, Record] = {}
        self.overwritten = 0

    def __len__(self) -> int:
        return len(self._unsent)

    def __iter__(self) -> Iterator[Record]:
        """Give the unsent records, oldest first."""
        return iter(list(self._unsent.values()))

    def add(self, record: Record) -> Record | None:
        """Keep `record`; return the unsent one that it overwrites, if any."""
        self._unsent[record.number] = record
        while len(self._unsent) + len(self._kept) > self._capacity:
            if self._kept:
                del self._kept[next(iter(self._kept))]
                continue
            self.overwritten += 1
            return self._unsent.pop(next(iter(self._unsent)))
        return None

    def oldest(self) -> Record | None:
        """Return the record to send next."""
        return next(iter(self._unsent.values()), None)

    def release(self, number: int) -> Record | None:
        """Take note that the hub has a record; return it, None where it is gone already."""
        record = self._unsent.pop(number, None)
        if record is not None and self._keeps:
            self._kept[number] = record
        return record

    def resend(self) -> None:
        """Treat every kept record as unsent again."""
        self._unsent = dict(sorted({**self._kept, **self._unsent}.items()))
        self._kept.clear()
