"""Forgetting what nobody needs any more: many rows, a bounded number of them in a transaction.

What is kept how long, and why, is a table in docs/operations.md.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

ROWS_AT_ONCE = 5_000
"""A statement removes at most so many rows, so that none holds its locks, or the feed of changes, for long."""
PRUNE_S = 3_600.0
"""How often a service looks for what is old enough to go."""
TOLD_KEPT_DAYS = 30
"""What was told to a subscriber or a webhook can be told again, or looked up, for so long."""
UNTOLD_KEPT_DAYS = 365
"""What was given up, its receiver having failed for hours, can be caught up with for so long."""


class Hourly:
    """Says every `PRUNE_S` that it is time, at first at once."""

    def __init__(self) -> None:
        self._at_s = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether it is time; then it is not again for so long."""
        now_s = time.monotonic()
        if now_s < self._at_s:
            return False
        self._at_s = now_s + PRUNE_S
        return True


async def prune(remove: Callable[[int], Awaitable[int]]) -> int:
    """Remove until nothing is left to; return how many rows.

    Args:
        remove: removes at most so many rows, in a transaction of its own, and tells how many it did.
    """
    total = 0
    while True:
        removed = await remove(ROWS_AT_ONCE)
        total += removed
        if removed < ROWS_AT_ONCE:
            return total
