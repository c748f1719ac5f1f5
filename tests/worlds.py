"""Small worlds for tests: a registry in memory, measurements, batches, messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any, LiteralString

import numpy as np
import numpy.typing as npt

from gateway import wire
from gateway.gatt.times import DeviceTime, TimeType, ms_since_epoch
from gateway.measurement import Measurement, TimeQuality, device_address
from gateway.platform.postgres import connect_blocking
from gateway.quantity import Absent, Value
from gateway.vital_sign import NO_USER_SLOT, Reading
from gateway.vitals import BY_NAME
from ingest.batches import Flush, Message
from ingest.layers import Sorted, layered, sorted_rows
from ingest.registry import SLOT_BITS, Registry

NOON = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
HUB, OTHER_HUB = 0xA1, 0xB2
CUFF, SCALE, STRANGER = 0xC026DA010203, 0xC026DA040506, 0xC026DA0F0F0F
CUFF_ID, SCALE_ID = 11, 12
HOME, OTHER_HOME = 1, 2
RESIDENT, OTHER_RESIDENT = 101, 102
EPOCH = 7


def a_registry(
    links: Sequence[tuple[int, int, int, int, int]] = (
        (CUFF_ID, NO_USER_SLOT, -(1 << 62), 1 << 62, RESIDENT),
        (SCALE_ID, 1, -(1 << 62), 1 << 62, RESIDENT),
    ),
    shared_homes: Sequence[int] = (),
    shared_links: Sequence[tuple[int, int, int, int, int]] = (),
) -> Registry:
    """Two hubs of two homes; a cuff and a scale in the first. Links: device, slot, from, to, who."""
    none_said = np.full(len(shared_links), np.nan)
    return Registry(
        hubs=layered(_sorted([HUB, OTHER_HUB], [1, 2], [HOME, OTHER_HOME], [0, 0])),
        devices=layered(_sorted([CUFF, SCALE], [CUFF_ID, SCALE_ID], [HOME, HOME])),
        links=layered(links_sorted(links), SLOT_BITS),
        shared_links=layered(links_sorted(shared_links, none_said), SLOT_BITS),
        shared_homes=np.array(shared_homes, np.int32),
        snapshot="3:3:",
    )


def links_sorted(
    links: Sequence[tuple[int, int, int, int, int]], *more: npt.NDArray[np.float64]
) -> Sorted:
    """Links as the registry has them."""
    device, slot, start, end, who = np.array(links, np.int64).reshape(-1, 5).T
    return sorted_rows(
        (device << SLOT_BITS) | slot, (start, end, who.astype(np.int32), *more), start
    )


def _sorted(keys: Sequence[int], *columns: Sequence[int]) -> Sorted:
    return sorted_rows(np.array(keys, np.int64), [np.array(column, np.int32) for column in columns])


def a_reading(
    *values: Value, at: datetime | None = NOON, slot: int | None = None, status: int = 0
) -> Reading:
    """A reading whose device shows `at` as its own local time (UTC + 8 h)."""
    device_time = None
    if at is not None:
        device_time = DeviceTime(
            type=TimeType.LOCAL, ms=ms_since_epoch(at + timedelta(hours=8)) // 1000 * 1000
        )
    return Reading(values=values, device_time=device_time, user_slot=slot, status=status)


def a_pressure(
    systolic: Value = Decimal(128),
    diastolic: Value = Decimal(82),
    *,
    at: datetime = NOON,
    device: int = CUFF,
    status: int = 0,
) -> Measurement:
    """A cuff's measurement at `at`, received a second later."""
    reading = a_reading(systolic, diastolic, Absent.NOT_SENT, Decimal(71), at=at, status=status)
    return Measurement(
        device=device,
        sign=BY_NAME["blood_pressure"].code,
        reading=reading,
        measured_at=at,
        received_at=at + timedelta(seconds=1),
        time_quality=TimeQuality.MAPPED,
        utc_offset_min=480,
    )


def a_weight(kg: str = "70.050", *, at: datetime = NOON, slot: int | None = 1) -> Measurement:
    """A scale's measurement."""
    return replace(
        a_pressure(at=at, device=SCALE),
        sign=BY_NAME["body_weight"].code,
        reading=a_reading(Decimal(kg), Absent.NOT_SENT, Absent.NOT_SENT, at=at, slot=slot),
    )


def a_message(
    *measurements: Measurement, sequence: int = 1, hub: int = HUB, epoch: int = EPOCH
) -> Message:
    """The message of a batch as its hub sends it."""
    reference_at = max((m.received_at for m in measurements), default=NOON)
    header = wire.Header(
        hub=hub,
        epoch=epoch,
        sequence=sequence,
        kind=wire.Kind.MEASUREMENTS,
        count=len(measurements),
        reference_at=reference_at,
    )
    body = b"".join(wire.encode_record(m, reference_at) for m in measurements)
    return as_message(wire.encode_batch(header, body), hub=hub)


def as_message(payload: bytes, *, hub: int | None = HUB, token: int = 1) -> Message:
    """Any bytes on a hub's topic."""
    lane = 0 if hub is None else wire.lane_of(hub)
    return Message(lane=lane, token=token, hub=hub, payload=payload, received_at=NOON)


def enter_registry(dsn: str) -> None:
    """Enter the hubs, devices, residents and links of `a_registry` into a database, same keys."""
    with connect_blocking(dsn, application="hearth-tests") as connection:
        connection.execute(
            "INSERT INTO home (home_id) OVERRIDING SYSTEM VALUE VALUES (1), (2);"
            "INSERT INTO resident (resident_id) OVERRIDING SYSTEM VALUE VALUES (101), (102)"
        )
        connection.execute(
            "INSERT INTO hub (hub_id, name, home_id) OVERRIDING SYSTEM VALUE"
            " VALUES (1, %s, 1), (2, %s, 2)",
            [wire.hub_name(HUB), wire.hub_name(OTHER_HUB)],
        )
        connection.execute(
            "INSERT INTO device (device_id, address, home_id) OVERRIDING SYSTEM VALUE"
            " VALUES (11, %s, 1), (12, %s, 1)",
            [device_address(CUFF), device_address(SCALE)],
        )
        connection.execute(
            "INSERT INTO link (device_id, user_slot, resident_id, during)"
            " VALUES (11, 255, 101, '(,)'), (12, 1, 101, '(,)')"
        )


def query(dsn: str, statement: LiteralString) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    with connect_blocking(dsn, application="hearth-tests", autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


_batch_ids = count(1)


def some_batch_ids(flush: Flush) -> npt.NDArray[np.int64]:
    """Ids for the batches of a flush that no other flush of this process has."""
    return np.array([next(_batch_ids) for _ in flush.batches], np.int64)
