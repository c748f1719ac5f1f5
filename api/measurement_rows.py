"""Measurements as the database gives them: which are asked for, and a row as a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from uuid import UUID

from api.cursor import BEFORE_ALL, BEHIND_ALL, Place
from gateway.platform.postgres import TupleRow, load_queries, sql
from gateway.vital_sign import VitalSign
from gateway.vitals import BY_CODE, QUANTITIES

_MEASUREMENTS = load_queries(Path(__file__).parent / "sql" / "measurements.sql")
COLUMNS = sql.SQL(", ").join(sql.Identifier(quantity.name) for quantity in QUANTITIES)
"""Those of all quantities, in their order."""
_FIRST_COLUMN = 13
"""The quantities' columns come behind so many others."""
COLUMN_OF = {quantity.name: _FIRST_COLUMN + i for i, quantity in enumerate(QUANTITIES)}
"""Where a quantity stands in a row."""


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
    order: _MEASUREMENTS["page"].format(quantities=COLUMNS, direction=sql.SQL(direction))
    for order, direction in ((Order.DESC, "descending"), (Order.ASC, "ascending"))
}
LATEST = _MEASUREMENTS["latest"].format(quantities=COLUMNS)
_START = {Order.DESC: BEHIND_ALL, Order.ASC: BEFORE_ALL}


def page_parameters(resident: UUID, selection: Selection) -> dict[str, object]:
    """Return the parameters of the statements in `PAGE`."""
    place = selection.after or _START[selection.order]
    return {
        "resident": resident,
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


def stored_measurement(row: TupleRow) -> StoredMeasurement:
    """Return the measurement of a row: the fixed columns, those of the quantities, the device."""
    (measured_at, device_id, user_slot, sign, identity_us, stored_at, received_after_s,
     utc_offset, time_quality, unit_set, digits, status, flags) = row[:_FIRST_COLUMN]  # fmt: skip
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
        values=tuple(row[COLUMN_OF[q.name]] for q in BY_CODE[sign].quantities),
        device=row[-1],
    )
