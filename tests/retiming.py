"""A cuff whose clock fell back, and a nurse who says when its readings were measured."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from gateway.measurement import Measurement, TimeQuality
from gateway.platform.audit import AuditEvent
from gateway.platform.postgres import AsyncConnection
from ingest.registry import load_registry
from ingest.retime import By, Choice, Retimed, retime
from tests.worlds import CUFF, a_pressure

CHINA = ZoneInfo("Asia/Shanghai")
BEHIND = timedelta(days=4000, seconds=12)
"""A new battery took the clock so far back."""
EVENT = AuditEvent(actor="cli:nurse", action="device.retime", reason="battery changed")


def as_shown(true_at: datetime, *, systolic: int = 128) -> Measurement:
    """A cuff's measurement, stamped by the clock that is behind; its device's time is local."""
    shown = a_pressure(Decimal(systolic), at=true_at - BEHIND)
    return replace(shown, measured_at=true_at, received_at=true_at + timedelta(minutes=1))


def unplaced(true_at: datetime, *, systolic: int = 128) -> Measurement:
    measurement = as_shown(true_at, systolic=systolic)
    return replace(
        measurement, time_quality=TimeQuality.UNPLACED, measured_at=measurement.received_at
    )


async def retimed(
    connection: AsyncConnection, by: By, *, dry_run: bool = False, choice: Choice | None = None
) -> Retimed:
    registry = await load_registry(connection)
    chosen = choice or Choice(device=CUFF)
    return await retime(connection, registry, chosen, by, event=EVENT, dry_run=dry_run)
