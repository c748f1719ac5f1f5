"""A resident's measurements in buckets, for charts: mean, least and greatest of each.

Pure: what is asked of the database, and its rows as the document. All signs share one axis, so that
a year of all of them by the day stays below 100 kB. Days are those of a zone's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from typing import ClassVar, LiteralString
from zoneinfo import ZoneInfo, available_timezones

from pydantic import ConfigDict

from gateway.platform.postgres import TupleRow, load_queries, sql
from gateway.quantity import Quantity
from gateway.vital_sign import VitalSign
from gateway.vitals import BY_CODE

BUCKETS_MAX = 400
"""Without a width the narrowest is taken that makes no more buckets; with one, more are refused."""
ZONE_DEFAULT = "Asia/Shanghai"

_QUERIES = load_queries(Path(__file__).parent / "sql" / "series.sql")
_MEAN_DIGITS = 1
"""A mean has so many decimals more than the quantity's step."""


class Width(Enum):
    """How long a bucket is."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    @property
    def least(self) -> timedelta:
        """Return how long such a bucket is at least."""
        return _LEAST[self]


_LEAST = {
    Width.HOUR: timedelta(hours=1),
    Width.DAY: timedelta(hours=23),  # when a clock goes forward
    Width.WEEK: timedelta(days=7, hours=-1),
    Width.MONTH: timedelta(days=28, hours=-1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSelection:
    """Which buckets: of these signs, measured from `from_at` up to before `to_at`."""

    signs: Sequence[VitalSign]
    from_at: datetime
    to_at: datetime
    width: Width
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantitySeries:
    """One quantity, a number a bucket of the axis; null: no undisturbed value in it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    unit: str
    """UCUM."""
    mean: Sequence[float | None]
    min: Sequence[float | None]
    max: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignSeries:
    """One sign, an entry a bucket of the axis."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    count: Sequence[int]
    """Measurements in the bucket, artefacts too."""
    artefacts: Sequence[int]
    """Of these, those that were disturbed and are left out of the numbers."""
    quantities: dict[str, QuantitySeries]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesDocument:
    """Buckets on one axis."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    zone: str
    """The time zone whose clock bounds the buckets."""
    width: str
    begins: Sequence[str]
    """The axis: when each bucket with a measurement begins, local; a date where it is a midnight."""
    signs: dict[str, SignSeries]


def fitting_width(from_at: datetime, to_at: datetime) -> Width | None:
    """Return the narrowest width that makes no more than `BUCKETS_MAX` buckets, None if none does."""
    return next((width for width in Width if fits(width, from_at, to_at)), None)


def fits(width: Width, from_at: datetime, to_at: datetime) -> bool:
    """Tell whether buckets of this width are no more than `BUCKETS_MAX`."""
    return (to_at - from_at) / width.least <= BUCKETS_MAX


def is_zone(name: str) -> bool:
    """Tell whether the IANA database has a zone of this name."""
    return name in _zones()


def statement(signs: Sequence[VitalSign]) -> sql.Composed:
    """Return the statement that gives the buckets of these signs."""
    return sql.SQL("\nUNION ALL\n").join(_of_sign(sign) for sign in signs)


def parameters(resident: object, artefact: int, selection: SeriesSelection) -> dict[str, object]:
    """Return the parameters of `statement`."""
    return {
        "resident": resident,
        "artefact": artefact,
        "from_at": selection.from_at,
        "to_at": selection.to_at,
        "width": f"1 {selection.width.value}",
        "zone": selection.zone,
    }


def series_document(selection: SeriesSelection, rows: Sequence[TupleRow]) -> SeriesDocument:
    """Return what the API says of the buckets that `statement` gave."""
    moments = sorted({row[1] for row in rows})
    place = {moment: i for i, moment in enumerate(moments)}
    by_sign: dict[int, dict[int, TupleRow]] = {sign.code: {} for sign in selection.signs}
    for row in rows:
        by_sign[row[0]][place[row[1]]] = row
    return SeriesDocument(
        zone=selection.zone,
        width=selection.width.value,
        begins=[_local(moment, selection) for moment in moments],
        signs={
            BY_CODE[code].name: _sign_series(BY_CODE[code], buckets, len(moments))
            for code, buckets in by_sign.items()
            if buckets
        },
    )


def _of_sign(sign: VitalSign) -> sql.Composed:
    def each(aggregate: LiteralString) -> sql.Composed:
        return sql.SQL(", ").join(
            _QUERIES["aggregate"].format(
                aggregate=sql.SQL(aggregate),
                quantity=sql.Identifier(quantity.name),
            )
            for quantity in sign.quantities
        )

    return _QUERIES["of_sign"].format(
        code=sql.Literal(sign.code), means=each("avg"), lows=each("min"), highs=each("max")
    )


def _sign_series(sign: VitalSign, buckets: dict[int, TupleRow], length: int) -> SignSeries:
    rows = [buckets.get(i) for i in range(length)]
    return SignSeries(
        count=[row[2] if row else 0 for row in rows],
        artefacts=[row[3] if row else 0 for row in rows],
        quantities={
            quantity.name: QuantitySeries(
                unit=quantity.unit.ucum,
                mean=_rounded(rows, 4, index, digits + _MEAN_DIGITS),
                min=_rounded(rows, 5, index, digits),
                max=_rounded(rows, 6, index, digits),
            )
            for index, (quantity, digits) in enumerate(_digits(sign))
        },
    )


def _digits(sign: VitalSign) -> list[tuple[Quantity, int]]:
    """Return each quantity with the decimals of its step."""
    steps = sign.unit_sets[0].steps
    return [
        (quantity, max(-int(step.normalize().as_tuple().exponent), 0))
        for quantity, step in zip(sign.quantities, steps, strict=True)
    ]


def _rounded(
    rows: Sequence[TupleRow | None], column: int, index: int, digits: int
) -> list[float | None]:
    numbers = []
    for row in rows:
        number = None if row is None else row[column][index]
        if number is not None:
            number = round(number, digits)
            number = int(number) if number.is_integer() else number  # 128, not 128.0
        numbers.append(number)
    return numbers


def _local(moment: datetime, selection: SeriesSelection) -> str:
    local = moment.astimezone(ZoneInfo(selection.zone))
    if selection.width is Width.HOUR:
        return local.isoformat(timespec="minutes")
    return local.date().isoformat()


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
