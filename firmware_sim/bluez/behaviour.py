"""How this BlueZ behaves: its times, and the faults that a test can order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """The times of BlueZ 5.87 and Linux; a test may shorten them."""

    disconnect_s: float = 2.0
    """From Disconnect to the end of the link (src/device.c, DISCONNECT_TIMER)."""
    temporary_s: float = 30.0
    """An unpaired device's object vanishes this long after it was last heard (TemporaryTimeout)."""
    link_attempt_s: float = 4.0
    """A connection that is not made by then waits for the next advertisement again."""
    rssi_step_dbm: int = 8
    """A smaller change of signal strength is not told (src/device.c, RSSI_THRESHOLD)."""


@dataclass(slots=True, kw_only=True)
class Faults:
    """What goes wrong next on an adapter; each is used up as it happens."""

    start_discovery_in_progress: int = 0
    """So many calls of StartDiscovery answer InProgress."""
    connect_errors: deque[str] = field(default_factory=deque)
    """The next connections are made and dropped at once; Connect answers Failed with this text."""
    connects_unanswered: int = 0
    """So many calls of Connect get no answer until Disconnect is called."""
    services_before_objects: int = 0
    """So many times ServicesResolved is told before the GATT objects appear (bleak#1806)."""
