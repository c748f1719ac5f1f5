"""The hub's own clock: whether it knows the time, and what counts until it does.

A Raspberry Pi has no battery clock: powered on, it shows whatever its disk last knew. Until the
clock is synchronised, time is counted from the machine's start (CLOCK_BOOTTIME, which no setting of
the clock moves); edge.undated keeps what is read meanwhile and places it once the start is known.
adjtimex(2), time_namespaces(7), random(4); systemd-timesyncd(8), chronyd(8).
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from edge.hub_file import current_boot
from gateway.gatt.times import from_ms
from gateway.platform.logs import get_logger

FLOOR = datetime(2026, 1, 1, tzinfo=UTC)
"""No hub ran before this: a clock that shows less has not been told the time, whatever is said."""
SYNCHRONISED_MARK = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd touches this once it has set the clock. chronyd tells the kernel instead, with
its directive `rtcsync`, which stands in the configuration that distributions ship."""

_ERROR = 5
"""TIME_ERROR, what adjtimex(2) returns while STA_UNSYNC is set."""
_TIMEX_BYTES = 512
"""struct timex has 208 bytes on 64-bit Linux, 128 on 32-bit; the rest is room."""
_STATUS_OFFSET = 5 * ctypes.sizeof(ctypes.c_long)
"""modes, offset, freq, maxerror and esterror stand before `status`; modes is padded to a long."""
_STA_UNSYNC = 0x0040

_log = get_logger(__name__)


def since_start() -> timedelta:
    """Return how long ago the machine was started; sleep counts, settings of the clock do not."""
    return timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))


class Trust(StrEnum):
    """By what the machine's clock is trusted: [hub] clock."""

    NTP = "ntp"
    """Once the kernel, or the time service, says that it is synchronised."""
    SYSTEM = "system"
    """As it is: for machines with a battery clock, and containers that cannot see the service."""


class HubClock:
    """One machine's clock. Known once, it stays known: a crystal does not lose the time in hours.

    `started_at` is when the machine was started, on the true time line; None until it is known.
    """

    def __init__(
        self,
        is_set: Callable[[], bool],
        *,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        since_start: Callable[[], timedelta] = since_start,
        boot: str | None = None,
    ) -> None:
        self._is_set = is_set
        self._wall = wall
        self._since_start = since_start
        self.boot = current_boot() if boot is None else boot
        self.started_at: datetime | None = None

    @property
    def is_known(self) -> bool:
        """Whether the time is known; looks, while it is not."""
        if self.started_at is None and self._wall() >= FLOOR and self._is_set():
            self.started_at = self._wall() - self._since_start()
            _log.info("clock_known", started_at=self.started_at.isoformat(timespec="seconds"))
        return self.started_at is not None

    def know(self, started_at: datetime) -> None:
        """Take over what an earlier process of the same boot has found out."""
        self.started_at = self.started_at or started_at

    def wall(self) -> datetime:
        """Return the time the machine shows."""
        return self._wall()

    def counted(self) -> datetime:
        """Return the time since the machine's start, as if that had been in 1970."""
        return from_ms(0) + self._since_start()


def hub_clock(trust: Trust) -> HubClock:
    """Return this machine's clock."""
    return HubClock(is_synchronised if trust is Trust.NTP else lambda: True)


def is_synchronised() -> bool:
    """Tell whether the kernel's clock is synchronised, or a time service says that it set it."""
    return _kernel_is_synchronised() or SYNCHRONISED_MARK.exists()


def _kernel_is_synchronised() -> bool:
    """Ask adjtimex(2); where it may not be asked, nothing is known and that is no."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: only read
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(timex)
    status = int.from_bytes(timex.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], sys.byteorder)
    return 0 <= state < _ERROR and not status & _STA_UNSYNC
