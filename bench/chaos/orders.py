"""How the conductor speaks with its processes over their deaths: two files.

Orders: one JSON object, replaced whole, read again by the process every `POLL_S`. Events: lines that
a process appends, each one write, so that a kill costs at most the last.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a process is to do from now on. `clock_ms`: its clock minus the true one."""

    is_collecting: bool = True
    clock_ms: int = 0
    duplicate: float = 0.0
    """The part of its messages that is sent again, some time later."""
    reorder: float = 0.0
    """The part of its messages that is held back behind later ones."""
    pages_max: int | None = None
    """Where no disk of our own can be filled: SQLite takes no page more than it has."""


def give(path: Path, orders: Orders) -> None:
    """Replace the orders."""
    written = path.with_suffix(".new")
    written.write_text(json.dumps(asdict(orders)), encoding="utf-8")
    written.replace(path)


def read_orders(path: Path) -> Orders:
    """Return the orders as they are now."""
    return Orders(**json.loads(path.read_text(encoding="utf-8")))


class Events:
    """Tells what happened in a process: counts by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: Counter[str] = Counter()

    def tell(self, totals: Counter[str]) -> None:
        """Write by how much `totals` has grown since the last time."""
        grown = totals - self._told
        if grown:
            with self._path.open("ab", buffering=0) as file:
                file.write((json.dumps(grown) + "\n").encode())
            self._told = totals.copy()


def read_events(path: Path) -> Counter[str]:
    """Return the sums of all that was told."""
    total: Counter[str] = Counter()
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                total.update(json.loads(line))
            except json.JSONDecodeError:
                continue  # cut short by a kill
    return total
