"""How long to wait before trying again: exponential, bounded, with jitter.

Jitter keeps those that failed together (every hub of a city, when a broker restarts) from coming
back together: each waits between half of the step and the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import SystemRandom

_RANDOM = SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Steps that double from `first_s` up to `longest_s` and stay there; trying never ends."""

    first_s: float
    longest_s: float

    def step_s(self, failures: int) -> float:
        """Return the step after this many failures in a row, 1 or more, without jitter."""
        # 2**64 times any first step is longer than any longest one; it bounds the exponent.
        return min(self.first_s * 2.0 ** min(failures - 1, 64), self.longest_s)

    def wait_s(self, failures: int) -> float:
        """Return how long to wait after this many failures in a row, 1 or more."""
        return self.step_s(failures) * _RANDOM.uniform(0.5, 1.0)
