"""Which device to talk to next: pure decisions over what was heard and how sessions ended.

Times are seconds of one monotonic clock, given as arguments.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from gateway.platform.backoff import Backoff

DEVICES_MAX = 512
"""Devices kept in mind. At the bound the one heard longest ago is forgotten; if it speaks again it
is new, without back-off."""
HEARD_S_MAX = 30.0
"""A device heard longer ago than this has stopped advertising: connecting would only block others."""
WINDOW_GAP_S = 60.0
"""Silent for this long, then heard: a new advertising window, most likely a new reading. What went
wrong in the last window no longer counts."""
AFTER_TAKEN_S = 1.0
"""Rest after a session that brought something: devices advertise on for a moment."""
AFTER_FAILURE = Backoff(first_s=1.0, longest_s=60.0)
"""Rest after a session that failed. Short at first: a cuff's window is a few seconds."""
AFTER_NOTHING = Backoff(first_s=10.0, longest_s=600.0)
"""Rest after a session that brought nothing, of a device that advertises all the time."""


class Outcome(StrEnum):
    """How a session ended."""

    TAKEN = "taken"
    EMPTY = "empty"
    """The device had nothing to say."""
    FOREIGN = "foreign"
    """It has no characteristic that a sign reads."""
    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    """The link broke, or the device did not follow its profile, before anything was taken."""
    REFUSED = "refused"
    """Pairing failed: a person must put the device into pairing mode."""
    BOND_LOST = "bond_lost"
    """The device does not connect since it has lost its bond, which is removed here too: the next
    session pairs anew."""
    STOPPED = "stopped"
    """This side stopped: adapter gone, disk full, hub ending."""


_RESTS = {
    Outcome.EMPTY: AFTER_NOTHING,
    Outcome.FOREIGN: AFTER_NOTHING,
    Outcome.REFUSED: AFTER_NOTHING,
    Outcome.UNREACHABLE: AFTER_FAILURE,
    Outcome.BROKEN: AFTER_FAILURE,
    Outcome.BOND_LOST: AFTER_FAILURE,
}


@dataclass(slots=True, kw_only=True)
class _Known:
    adapter: str
    heard_s: float
    not_before_s: float
    barren: int = 0
    """Sessions in a row that brought nothing."""
    is_busy: bool = False
    began_s: float = float("-inf")
    silent_since_s: float = float("-inf")
    """It must have been heard since: a device with nothing more to say does not advertise."""


_FAILURES = frozenset({Outcome.UNREACHABLE, Outcome.BROKEN, Outcome.BOND_LOST, Outcome.STOPPED})


class Roster:
    """The devices heard, and when each may be talked to again."""

    def __init__(self, after_taken_s: float = AFTER_TAKEN_S) -> None:
        self._after_taken_s = after_taken_s
        self._known: dict[str, _Known] = {}

    def hear(self, address: str, adapter: str, now_s: float) -> None:
        """Note that `adapter` heard a device that has something to connect to."""
        known = self._known.get(address)
        if known is None:
            self._forget_beyond(DEVICES_MAX - 1)
            self._known[address] = _Known(adapter=adapter, heard_s=now_s, not_before_s=now_s)
            return
        if now_s - known.heard_s >= WINDOW_GAP_S and not known.is_busy:
            known.barren = 0
            known.not_before_s = now_s
        known.heard_s = now_s
        known.adapter = adapter

    def next(self, now_s: float, free: Collection[str]) -> tuple[str, str] | None:
        """Return the address and adapter of the device to talk to now; `free`: idle adapters.

        Of several, the one that has waited longest.
        """
        waiting = [
            (known.not_before_s, address, known.adapter)
            for address, known in self._known.items()
            if known.adapter in free and known.not_before_s <= now_s and _is_there(known, now_s)
        ]
        if not waiting:
            return None
        _since_s, address, adapter = min(waiting)
        return address, adapter

    def wake_s(self, now_s: float) -> float | None:
        """Return when the next rest of a device that is still heard ends; None: no such."""
        return min(
            (
                known.not_before_s
                for known in self._known.values()
                if known.not_before_s > now_s and _is_there(known, known.not_before_s)
            ),
            default=None,
        )

    def begin(self, address: str, now_s: float) -> None:
        """Note that a session with the device has begun."""
        known = self._known[address]
        known.is_busy = True
        known.began_s = now_s

    def end(self, address: str, outcome: Outcome, now_s: float) -> None:
        """Note how the session ended; decides when the next may begin."""
        known = self._known[address]
        known.is_busy = False
        # One that could not be talked to may go on advertising unheard while that was tried.
        known.silent_since_s = known.began_s if outcome in _FAILURES else now_s
        rest = _RESTS.get(outcome)
        known.barren = known.barren + 1 if rest else 0
        known.not_before_s = now_s + (rest.wait_s(known.barren) if rest else self._after_taken_s)

    def _forget_beyond(self, count: int) -> None:
        idle = [(known.heard_s, a) for a, known in self._known.items() if not known.is_busy]
        for _heard_s, address in sorted(idle)[: max(len(self._known) - count, 0)]:
            del self._known[address]


def _is_there(known: _Known, at_s: float) -> bool:
    """Tell whether a device is still likely to advertise."""
    return (
        not known.is_busy
        and known.heard_s > known.silent_since_s
        and at_s - known.heard_s <= HEARD_S_MAX
    )
