"""How the hub gets on with each of its devices, from how its sessions ended: no clocks, no I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from edge.roster import Outcome
from gateway.hub_state import DEVICES_MAX, Trouble

FAILURES_BEFORE_TROUBLE = 10
"""Sessions in a row that brought nothing because the device could not be reached, or the link broke;
with the rests between them several minutes of a device that goes on advertising."""

_FAILURES = frozenset({Outcome.UNREACHABLE, Outcome.BROKEN})
_WELL = frozenset({Outcome.TAKEN, Outcome.EMPTY})
_AT_ONCE = {
    Outcome.REFUSED: Trouble.PAIRING_REFUSED,
    Outcome.BOND_LOST: Trouble.BOND_LOST,
}


class Troubles:
    """The devices that sessions were had with, at most `DEVICES_MAX`; the one longest ago goes first."""

    def __init__(self) -> None:
        self._devices: OrderedDict[int, Trouble | None] = OrderedDict()
        self._failures: dict[int, int] = {}

    @property
    def devices(self) -> Mapping[int, Trouble | None]:
        """What there is to tell; None: the device is well."""
        return self._devices

    def session_ended(self, device: int, outcome: Outcome) -> None:
        """Note how a session ended."""
        if outcome in _WELL:
            self._failures.pop(device, None)
            self._note(device, None)
        elif outcome in _AT_ONCE:
            self._note(device, _AT_ONCE[outcome])
        elif outcome in _FAILURES:
            failures = self._failures.pop(device, 0) + 1
            self._failures[device] = failures  # the one longest ago stands first
            if len(self._failures) > DEVICES_MAX:
                del self._failures[next(iter(self._failures))]
            if failures >= FAILURES_BEFORE_TROUBLE and self._devices.get(device) is None:
                self._note(device, Trouble.UNREACHABLE)

    def _note(self, device: int, trouble: Trouble | None) -> None:
        self._devices[device] = trouble
        self._devices.move_to_end(device)
        if len(self._devices) > DEVICES_MAX:
            self._devices.popitem(last=False)
