"""A big archive for benches, made by the server itself from the registry of signs.

A home a resident, a device a sign; some measurements a day, about what is typical, over weeks. Rows are
entered in the order of time, as they would have come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.platform.postgres import Connection, connect_blocking, load_queries, sql
from gateway.quantity import Absent
from gateway.stored import ABSENCE_BITS, ABSENCES_AT, EXPONENT_BITS
from gateway.vital_sign import VitalSign
from gateway.vitals import SIGNS

_QUERIES = load_queries(Path(__file__).parent / "sql" / "archive_rows.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How big an archive is made."""

    residents: int
    weeks: int
    a_day: int = 2
    """Measurements a day of each sign."""

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return self.residents * self.weeks * 7 * self.a_day * len(SIGNS)


QUICK = Size(residents=100, weeks=26)
WHOLE = Size(residents=50_000_000 // (52 * 7 * 2 * len(SIGNS)) + 1, weeks=52)
"""50 million rows."""


def fill(dsn: str, size: Size, progress: Callable[[str], None]) -> None:
    """Enter the registry and the rows, week by week up to now, and let the planner look at them."""
    until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with connect_blocking(dsn, application="hearth-bench", autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        shape = {"residents": size.residents, "signs": len(SIGNS)}
        for name in ("homes", "hubs", "residents", "devices", "links"):
            connection.execute(_QUERIES[name], shape)
        with indexed_afterwards(connection):
            for week in range(size.weeks):
                _enter_week(connection, size, week, until - timedelta(weeks=size.weeks - week))
                progress(f"rows: {size.rows * (week + 1) // size.weeks:,} of {size.rows:,}")


@contextmanager
def indexed_afterwards(connection: Connection) -> Iterator[None]:
    """Take the indexes off the measurements for the block, and let the planner look at the rows.

    Rows go in several times as fast, and the indexes, built from the schema's own definitions, are as dense.
    """
    indexes = connection.execute(_QUERIES["indexes"]).fetchall()
    for name, _definition in indexes:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    yield
    for _name, definition in indexes:
        connection.execute(definition)
    connection.execute("VACUUM ANALYZE")


def _enter_week(connection: Connection, size: Size, week: int, from_at: datetime) -> None:
    of_week = {"residents": size.residents, "signs": len(SIGNS), "week": week} | {
        "until": from_at + timedelta(weeks=1)
    }
    connection.execute(_QUERIES["batches"], of_week)
    for place, sign in enumerate(SIGNS):
        of_sign = {"place": place, "from_at": from_at, "a_day": size.a_day}
        _enter(connection, sign, of_week | of_sign)


def _enter(connection: Connection, sign: VitalSign, parameters: dict[str, object]) -> None:
    optional = [
        quantity not in sign.panel and quantity is not sign.period and place > 0
        for place, quantity in enumerate(sign.quantities)
    ]
    values = [
        _value(sign, place, optional=optional[place]) for place in range(len(sign.quantities))
    ]
    query = _QUERIES["week"].format(
        columns=sql.SQL(", ").join(sql.Identifier(q.name) for q in sign.quantities),
        values=sql.SQL(", ").join(values),
    )
    digits = _digits(sign)
    fewer = digits
    for place, is_optional in enumerate(optional):
        if is_optional:
            fewer |= Absent.NOT_SENT.value << (ABSENCES_AT + ABSENCE_BITS * place)
    connection.execute(
        query, parameters | {"sign": sign.code, "digits": digits, "digits_fewer": fewer}
    )


def _value(sign: VitalSign, place: int, *, optional: bool) -> sql.Composed:
    typical = sign.quantities[place].typical
    decimals = max(-int(sign.unit_sets[0].steps[place].as_tuple().exponent), 0)
    number = sql.SQL("round(({} + {} * (random() - 0.5))::numeric, {})::float8").format(
        sql.Literal(typical.mean), sql.Literal(2 * typical.within), sql.Literal(decimals)
    )
    if not optional:
        return number
    return sql.SQL("CASE WHEN who %% 2 = 0 THEN {} END").format(number)


def _digits(sign: VitalSign) -> int:
    steps = sign.unit_sets[0].steps
    return sum(
        (int(step.as_tuple().exponent) & 0xFF) << (EXPONENT_BITS * place)
        for place, step in enumerate(steps)
    )
