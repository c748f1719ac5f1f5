"""Measurements as the database gives them: which are asked for, and a row as a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from api.cursor import BEFORE_ALL, BEHIND_ALL, EPOCH, Place
from gateway.platform.postgres import (
    POSTGRES_EPOCH_US,
    TupleRow,
    compiled,
    load_queries,
    sql,
)
from gateway.vital_sign import QUANTITIES_MAX, VitalSign
from gateway.vitals import BY_CODE, SIGNS

_MEASUREMENTS = load_queries(Path(__file__).parent / "sql" / "measurements.sql")
VALUES_AT = 13
"""A row's values come behind so many columns: those of its sign, in the order of its quantities."""
DEVICE_AT = VALUES_AT + QUANTITIES_MAX
"""Behind them, the device's address."""


def _value(place: int) -> sql.Composable:
    """Return the value at a place, whatever the row's sign is; null where it has no such quantity."""
    cases = [
        sql.SQL("WHEN {} THEN {}").format(
            sign.code, sql.Identifier("m", sign.quantities[place].name)
        )
        for sign in SIGNS
        if place < len(sign.quantities)
    ]
    return sql.SQL("CASE m.sign {} END").format(sql.SQL(" ").join(cases))


VALUES = sql.SQL(", ").join(map(_value, range(QUANTITIES_MAX)))
"""The values of a row `m`, in `QUANTITIES_MAX` columns: not one a quantity, most of them no value."""


class Order(Enum):
    """Which measurement a page begins with."""

    DESC = "desc"
    """The newest."""
    ASC = "asc"
    """The oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of a resident's measurements: at most `limit`, in an order, behind a place.

    They were measured from `from_at` up to before `to_at`.
    """

    signs: Sequence[VitalSign]
    from_at: datetime
    to_at: datetime
    order: Order
    after: Place | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMeasurement:
    """One row of the measurement table; the columns are described in the schema.

    `values` stand in the order of the sign's quantities, canonical, None where absent.
    """

    place: Place
    stored_at: datetime
    received_after_s: float
    utc_offset: int | None
    time_quality: int
    unit_set: int
    digits: int
    status: int
    flags: int
    values: tuple[float | None, ...]
    device: str


PAGE = {
    order: compiled(_MEASUREMENTS["page"].format(values=VALUES, direction=sql.SQL(direction)))
    for order, direction in ((Order.DESC, "descending"), (Order.ASC, "ascending"))
}
LATEST = compiled(_MEASUREMENTS["latest"].format(values=VALUES))
"""Both give the columns of `stored_measurement`, with each time in microseconds since 2000, and then
what stands in the way (`Archive.read`)."""
_START = {Order.DESC: BEHIND_ALL, Order.ASC: BEFORE_ALL}


def page_parameters(selection: Selection) -> dict[str, object]:
    """Return the parameters of the statements in `PAGE`, but for those of `access.begin`."""
    place = selection.after or _START[selection.order]
    return {
        "signs": [sign.code for sign in selection.signs],
        "from_at": selection.from_at,
        "to_at": selection.to_at,
        "measured_at": place.measured_at,
        "device_id": place.device_id,
        "user_slot": place.user_slot,
        "sign": place.sign,
        "identity_us": place.identity_us,
        "limit": selection.limit,
    }


def read_measurement(row: TupleRow) -> StoredMeasurement:
    """Return the measurement of a row of `PAGE` or `LATEST`, whose times are numbers."""
    measured_us, device_id, user_slot, sign, identity_us, stored_us, *rest = row
    return stored_measurement(
        (
            _moment(measured_us), device_id, user_slot, sign, identity_us + POSTGRES_EPOCH_US,
            _moment(stored_us), *rest,
        )
    )  # fmt: skip


def _moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us + POSTGRES_EPOCH_US)


def stored_measurement(row: TupleRow) -> StoredMeasurement:
    """Return the measurement of a row: the fixed columns, the values, the device."""
    (measured_at, device_id, user_slot, sign, identity_us, stored_at, received_after_s,
     utc_offset, time_quality, unit_set, digits, status, flags) = row[:VALUES_AT]  # fmt: skip
    return StoredMeasurement(
        place=Place(
            measured_at=measured_at,
            device_id=device_id,
            user_slot=user_slot,
            sign=sign,
            identity_us=identity_us,
        ),
        stored_at=stored_at,
        received_after_s=received_after_s,
        utc_offset=utc_offset,
        time_quality=time_quality,
        unit_set=unit_set,
        digits=digits,
        status=status,
        flags=flags,
        values=row[VALUES_AT : VALUES_AT + len(BY_CODE[sign].quantities)],
        device=row[DEVICE_AT],
    )
