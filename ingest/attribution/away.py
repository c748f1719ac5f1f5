"""Was a device away when it measured? What a device brings home, and no hub heard, tells by the others.

A device that its home's hubs hear as it measures, all the time, and then not for a day of uses, although they
heard other devices of the home meanwhile, was not there: it was lent, or on a journey. Whose its
readings of that time are, nobody knows; they are held for a person. A hub that was off hears nothing of
the others either, and a device that is always read later is not heard at once at other times.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ingest.rows import LATE_MS

AWAY_MS_MIN = 12 * 3_600_000
"""From the first unheard reading to the last: a hub may be off, or a link break, for an evening."""
SILENCE_MS_MAX = AWAY_MS_MIN
"""A home's hubs that hear no other device for so long may have been off. Not longer than the above: then no
one time of a hub that was off is taken for an absence."""
PROMPT_MIN = 10
"""So many other readings of the device tell that it is heard at once."""
PROMPT_SHARE_MIN = 0.9
"""And so many of them were, or its hub may have been off."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def is_late(measured_ms: Ints, received_ms: Ints) -> Bools:
    """Tell which readings their home had long after they were measured."""
    late: Bools = received_ms - measured_ms >= LATE_MS
    return late


def absences(measured_ms: Ints, received_ms: Ints, heard_ms: Ints) -> list[tuple[int, int]]:
    """Return the times of the first and the last reading of each time that a device was away.

    Args:
        measured_ms: (n,) of all the device's readings, sorted.
        received_ms: (n,) when its home's hubs first had each.
        heard_ms: (m,) sorted, when they heard other devices of the home.
    """
    unheard = is_late(measured_ms, received_ms)
    unheard &= _was_on(measured_ms, received_ms, heard_ms)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], unheard, [False])).astype(np.int8)))
    found = []
    for first, last in zip(edges[::2].tolist(), (edges[1::2] - 1).tolist(), strict=True):
        is_long = measured_ms[last] - measured_ms[first] >= AWAY_MS_MIN
        if is_long and _is_prompt(np.delete(unheard, slice(first, last + 1))):
            found.append((int(measured_ms[first]), int(measured_ms[last])))
    return found


def _was_on(measured_ms: Ints, received_ms: Ints, heard_ms: Ints) -> Bools:
    """Tell at which readings a hub heard others soon before and after, before it had the reading."""
    if len(heard_ms) < 2:  # noqa: PLR2004 - one before, one after
        return np.zeros(len(measured_ms), np.bool_)
    behind = np.searchsorted(heard_ms, measured_ms, "right")
    between = (behind > 0) & (behind < len(heard_ms))
    behind = np.clip(behind, 1, len(heard_ms) - 1)
    before_ms, after_ms = heard_ms[behind - 1], heard_ms[behind]
    on: Bools = between & (after_ms - before_ms < SILENCE_MS_MAX) & (after_ms < received_ms)
    return on


def _is_prompt(unheard: Bools) -> bool:
    """Tell whether a device is heard at once by its other readings."""
    return len(unheard) >= PROMPT_MIN and bool((~unheard).mean() >= PROMPT_SHARE_MIN)
