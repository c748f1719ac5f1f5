"""What the hub remembers of its devices over restarts: their clocks' time lines, their packets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from edge.clock import TimeLine
from edge.hub_file import HubFile, blob, integer, real
from edge.outbox import Packet
from gateway.gatt.times import TimeType, from_ms, ms_since_epoch
from gateway.wire import hub_name as device_name

DEVICES_MAX = 512
"""Devices whose time lines are remembered; at the bound those met longest ago are forgotten."""
PACKETS_MAX = 4096
"""Advertised packets remembered, of all devices; at the bound the oldest are forgotten, and a
repeat of one of them would count as new."""

_MS = timedelta(milliseconds=1)


def read_lines(file: HubFile, device: int) -> tuple[TimeLine, ...]:
    """Return a device's time lines, oldest first; none where it was never met."""
    return tuple(
        TimeLine(
            type=TimeType(integer(type_)),
            ahead=integer(ahead_ms) * _MS,
            first_at=from_ms(integer(first_ms)),
            last_at=from_ms(integer(last_ms)),
            set_at=None if set_ms is None else from_ms(integer(set_ms)),
            drift_ppm=real(drift_ppm),
            observed=integer(observed_ms) * _MS,
            is_doubtful=bool(doubtful),
        )
        for (
            type_,
            ahead_ms,
            first_ms,
            last_ms,
            set_ms,
            drift_ppm,
            observed_ms,
            doubtful,
        ) in file.rows("time_lines", device=device_name(device))
    )


def write_lines(file: HubFile, device: int, lines: Sequence[TimeLine]) -> None:
    """Remember a device's time lines as they are now."""
    with file.transaction():
        put_lines(file, device, lines)


def put_lines(file: HubFile, device: int, lines: Sequence[TimeLine]) -> None:
    """Remember a device's time lines in the transaction that is open."""
    file.run("delete_time_lines", device=device_name(device))
    for position, line in enumerate(lines):
        file.run(
            "put_time_line",
            device=device_name(device),
            position=position,
            type=line.type,
            ahead_ms=line.ahead // _MS,
            first_ms=ms_since_epoch(line.first_at),
            last_ms=ms_since_epoch(line.last_at),
            set_ms=None if line.set_at is None else ms_since_epoch(line.set_at),
            drift_ppm=line.drift_ppm,
            observed_ms=line.observed // _MS,
            doubtful=int(line.is_doubtful),
        )
    file.run("trim_devices", devices_max=DEVICES_MAX)


def read_packets(file: HubFile) -> list[Packet]:
    """Return the packets that were taken last, oldest first; forgets those beyond the bound."""
    with file.transaction():
        file.run("trim_packets", packets_max=PACKETS_MAX)
    return [
        Packet(device=int(str(device), 16), source=integer(source), digest=blob(digest))
        for device, source, digest in file.rows("packets")
    ]
