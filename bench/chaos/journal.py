"""A hub's own journal: what its devices offered it and what it said it had taken.

One file a hub, on another disk than the outbox, written past every cache of ours: a line is there
when its write has returned, whoever is killed then. OFFERED stands before the hub may take a
reading, KEPT after it has said that it is durable; what a kill cuts between the two may be there or
not, and is no loss either way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

LINE = np.dtype(
    [("event", "u1"), ("what", "u1"), ("pad", "u2"), ("number", "<u4"), ("device", "<u8")]
)


class Event(IntEnum):
    """What a line tells."""

    OFFERED = 1
    KEPT = 2


class What(IntEnum):
    """Of what it tells."""

    READING = 1
    PAYLOAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A reading, or an undecoded payload, by its number."""

    what: What
    device: int
    number: int


class Journal:
    """An open journal."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        whole = os.fstat(self._file).st_size // LINE.itemsize * LINE.itemsize
        os.ftruncate(self._file, whole)  # a line that a kill cut short says nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def note(self, event: Event, entries: Iterable[Entry]) -> None:
        """Write a line for each entry."""
        lines = [(event, entry.what, 0, entry.number, entry.device) for entry in entries]
        os.write(self._file, np.array(lines, LINE).tobytes())


def read_journal(path: Path) -> npt.NDArray[np.void]:
    """Return (n,) of `LINE`, in the order of writing; empty where there is none yet."""
    data = path.read_bytes() if path.exists() else b""
    return np.frombuffer(data[: len(data) // LINE.itemsize * LINE.itemsize], LINE)


def unfinished(lines: npt.NDArray[np.void]) -> list[Entry]:
    """Return what was offered and never said to be kept: a device would send it again."""
    kept = {(int(line["what"]), int(line["device"]), int(line["number"]))
            for line in lines[lines["event"] == Event.KEPT]}  # fmt: skip
    offered = {(int(line["what"]), int(line["device"]), int(line["number"]))
               for line in lines[lines["event"] == Event.OFFERED]}  # fmt: skip
    return [
        Entry(what=What(what), device=device, number=number)
        for what, device, number in sorted(offered - kept)
    ]
