"""Which batches to publish now: pure decisions over what is in flight.

A batch is in flight from its first publication until its receipt. Batches go out in order. Without
a receipt in time only the oldest is published again, as a probe: while ingest is down, a hub's
whole window again and again would fill the broker's queue with copies. A receipt that came after a
batch was sent shows that ingest is at work and has passed it by; then what is overdue goes at once.

Times are seconds of one monotonic clock, given as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge.outbox import Batch
from gateway.platform.backoff import Backoff

WINDOW_BATCHES = 32
"""Batches in flight; further ones wait in the outbox. Bounds memory here (2 MB) and in ingest."""
RECEIPT_WAIT = Backoff(first_s=10.0, longest_s=900.0)
"""How long a receipt may take, doubled with each publication of the same batch."""

_AT_ONCE = float("-inf")


@dataclass(slots=True, kw_only=True)
class _Flight:
    batch: Batch
    times_sent: int = 0
    sent_s: float = 0.0
    due_s: float = _AT_ONCE
    mid: int | None = None
    """The publication that the broker has not acknowledged yet."""
    is_accepted: bool = False
    """The broker has acknowledged the last publication."""


class Window:
    """The batches in flight, oldest first."""

    def __init__(self, receipt_wait: Backoff = RECEIPT_WAIT) -> None:
        self._receipt_wait = receipt_wait
        self._flights: list[_Flight] = []
        self._last_id = 0
        self._receipt_s = float("-inf")

    @property
    def room(self) -> int:
        """How many more batches may be in flight."""
        return WINDOW_BATCHES - len(self._flights)

    @property
    def in_flight(self) -> frozenset[int]:
        """The ids of the batches in flight."""
        return frozenset(flight.batch.id for flight in self._flights)

    @property
    def last_id(self) -> int:
        """The id of the newest batch that was ever in flight."""
        return self._last_id

    def add(self, batches: Iterable[Batch]) -> None:
        """Take further batches, in order; they are due at once."""
        for batch in batches:
            self._flights.append(_Flight(batch=batch))
            self._last_id = max(self._last_id, batch.id)

    def begin_anew(self) -> None:
        """Note that the outbox is another file now; what is in flight stays in flight."""
        self._last_id = 0

    def due(self, now_s: float) -> list[Batch]:
        """Return the batches to publish now, in order."""
        return [
            flight.batch
            for index, flight in enumerate(self._flights)
            if flight.due_s <= now_s and self._may_go(index, flight)
        ]

    def wake_s(self) -> float | None:
        """Return when the next batch will be due; None: no batch is in flight."""
        return min(
            (f.due_s for i, f in enumerate(self._flights) if self._may_go(i, f)), default=None
        )

    def sent(self, batch: Batch, mid: int, now_s: float) -> bool:
        """Note a publication; tell whether it was not the batch's first."""
        flight = next(f for f in self._flights if f.batch is batch)
        flight.times_sent += 1
        flight.sent_s = now_s
        flight.due_s = now_s + self._receipt_wait.wait_s(flight.times_sent)
        flight.mid = mid
        flight.is_accepted = False
        return flight.times_sent > 1

    def accepted(self, mid: int) -> None:
        """Note that the broker has taken the publication `mid`."""
        for flight in self._flights:
            if flight.mid == mid:
                flight.mid = None
                flight.is_accepted = True

    def receipted(self, keys: Sequence[tuple[int, int]], now_s: float) -> None:
        """Forget the batches with these (epoch, sequence)."""
        done = set(keys)
        before = len(self._flights)
        self._flights = [f for f in self._flights if (f.batch.epoch, f.batch.sequence) not in done]
        if len(self._flights) < before:
            self._receipt_s = now_s

    def reconnected(self, *, is_resumed: bool) -> None:
        """Note a new connection.

        What the broker had not acknowledged is due; and everything, where it lost our session.
        """
        for flight in self._flights:
            flight.mid = None
            if not (is_resumed and flight.is_accepted):
                flight.due_s = _AT_ONCE
                flight.is_accepted = False

    def _may_go(self, index: int, flight: _Flight) -> bool:
        return index == 0 or flight.due_s == _AT_ONCE or flight.sent_s < self._receipt_s
