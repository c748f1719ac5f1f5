"""The one door to PostgreSQL: connections, named SQL, binary COPY; psycopg 3 stays in here.

A statement that fails because the world is down (connection, disk, shutdown) raises
`UnavailableError`; one that breaks a unique key `DuplicateKeyError`; one whose values the store
refuses `DataError`; anything else is a mistake of ours and passes through.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import AsyncConnection, AsyncCursor, Connection, Notify, adapters, conninfo, sql
from psycopg.adapt import Dumper
from psycopg.postgres import types
from psycopg.pq import Format
from psycopg.rows import TupleRow, class_row, dict_row, namedtuple_row, tuple_row
from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int8BinaryLoader
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from gateway.errors import DataError, HearthError, UnavailableError
from gateway.platform.named_sql import load_statements

__all__ = [
    "AsyncConnection",
    "AsyncConnectionPool",
    "Connection",
    "DuplicateKeyError",
    "Int2s",
    "Int4s",
    "Int8s",
    "Jsonb",
    "Notify",
    "Queries",
    "TupleRow",
    "class_row",
    "compiled",
    "connect",
    "connect_blocking",
    "copy_in",
    "copy_out",
    "dict_row",
    "dsn_parts",
    "dsn_with",
    "load_queries",
    "microseconds_cursor",
    "namedtuple_row",
    "open_pool",
    "redacted",
    "sql",
    "translated",
    "tuple_row",
]

CONNECT_S_MAX = 10
"""A server that does not answer a connection attempt within this is down."""
POOL_WAIT_S_MAX = 5.0
"""A request that gets no connection of the pool within this is refused (503)."""
COPY_CHUNK_BYTES = 1 << 18
"""COPY data goes to libpq in pieces of this size, so that the server works while we send."""

POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01 UTC, where PostgreSQL counts from, in microseconds since 1970."""

KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 5, 2, 3
UNACKNOWLEDGED_MS_MAX = 15_000
"""A worker that lost its server notices within these: its locks are gone by then."""


class Int2s(NamedTuple):
    """A smallint[] parameter: (n,) of any integer dtype."""

    values: npt.NDArray[np.integer]


class Int4s(NamedTuple):
    """An integer[] parameter."""

    values: npt.NDArray[np.integer]


class Int8s(NamedTuple):
    """A bigint[] parameter."""

    values: npt.NDArray[np.integer]


class _IntsDumper(Dumper):
    """Writes an array in PostgreSQL's binary form (array_send): header, then length and value."""

    format = Format.BINARY
    element = ("int8", ">i8")

    def dump(self, obj: Int2s | Int4s | Int8s) -> bytes:
        name, form = self.element
        element_oid = types[name].oid
        elements = np.empty(len(obj.values), [("length", ">i4"), ("value", form)])
        elements["length"] = np.dtype(form).itemsize
        elements["value"] = obj.values
        has_dimension = 1 if len(elements) else 0
        head = struct.pack(">iiI", has_dimension, 0, element_oid)
        if has_dimension:
            head += struct.pack(">ii", len(elements), 1)
        return head + elements.tobytes()


class _Int2sDumper(_IntsDumper):
    element = ("int2", ">i2")
    oid = types["int2"].array_oid


class _Int4sDumper(_IntsDumper):
    element = ("int4", ">i4")
    oid = types["int4"].array_oid


class _Int8sDumper(_IntsDumper):
    oid = types["int8"].array_oid


adapters.register_dumper(Int2s, _Int2sDumper)
adapters.register_dumper(Int4s, _Int4sDumper)
adapters.register_dumper(Int8s, _Int8sDumper)


class DuplicateKeyError(HearthError):
    """A row with this key is there already."""


class Queries:
    """The statements of one .sql file, by name: `queries["ledger_of_hub"]`."""

    def __init__(self, statements: dict[str, sql.SQL]) -> None:
        self._statements = statements

    def __getitem__(self, name: str) -> sql.SQL:
        return self._statements[name]

    def all(self) -> Iterable[sql.SQL]:
        """Return the statements in the order of the file."""
        return self._statements.values()


def load_queries(path: Path) -> Queries:
    """Read named statements: each begins with a line "-- name: ..." and says what it does."""
    return Queries({name: sql.SQL(text) for name, text in load_statements(path).items()})


def compiled(statement: sql.Composed) -> bytes:
    """Return the text of a statement that does not change: psycopg else puts it together at each use."""
    return statement.as_bytes()


def dsn_with(dsn: str, **parameters: str | int) -> str:
    """Return `dsn` with some of its parameters replaced, such as `dbname`."""
    return conninfo.make_conninfo(dsn, **parameters)


def dsn_parts(dsn: str) -> dict[str, str]:
    """Return a DSN as the variables that PostgreSQL's own programs read (libpq, 32.15)."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    names |= {"dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}
    parts = conninfo.conninfo_to_dict(dsn)
    return {names[name]: str(value) for name, value in parts.items() if name in names and value}


def redacted(dsn: str) -> str:
    """Return what may be logged of a DSN: host, port and database."""
    parts = conninfo.conninfo_to_dict(dsn)
    return f"{parts.get('host', '')}:{parts.get('port', '')}/{parts.get('dbname', '')}"


async def connect(dsn: str, *, application: str, autocommit: bool = False) -> AsyncConnection:
    """Open one connection; `application` shows in pg_stat_activity.

    Raises:
        UnavailableError: the server cannot be reached or refuses.
    """
    with translated():
        return await AsyncConnection.connect(_full(dsn, application), autocommit=autocommit)


def connect_blocking(dsn: str, *, application: str, autocommit: bool = False) -> Connection:
    """Open one connection for a command that does one thing after the other."""
    with translated():
        return psycopg.connect(_full(dsn, application), autocommit=autocommit)


@asynccontextmanager
async def open_pool(
    dsn: str,
    *,
    application: str,
    size_max: int,
    autocommit: bool = False,
    configure: Callable[[AsyncConnection], Awaitable[None]] | None = None,
) -> AsyncIterator[AsyncConnectionPool[AsyncConnection[TupleRow]]]:
    """Open a pool of at most `size_max` connections; it reconnects by itself, in the background.

    `configure` is called with each new connection.
    """
    pool: AsyncConnectionPool[AsyncConnection[TupleRow]] = AsyncConnectionPool(
        _full(dsn, application),
        kwargs={"autocommit": autocommit},
        min_size=1,
        max_size=size_max,
        timeout=POOL_WAIT_S_MAX,
        configure=configure,
        open=False,
    )
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


def microseconds_cursor(
    connection: AsyncConnection[TupleRow],
) -> AsyncCursor[TupleRow]:
    """Return a binary cursor that gives a time as it is sent: microseconds since 2000, an int.

    For rows by the hundred, whose times NumPy works on; `POSTGRES_EPOCH_US` is where they begin.
    """
    cursor = connection.cursor(binary=True)
    for type_ in ("timestamptz", "timestamp"):
        cursor.adapters.register_loader(type_, Int8BinaryLoader)
    return cursor


async def copy_in(connection: AsyncConnection, statement: sql.Composed, data: memoryview) -> None:
    """Send `data`, a whole binary COPY stream, to a COPY ... FROM STDIN statement."""
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for start in range(0, len(data), COPY_CHUNK_BYTES):
            await copy.write(data[start : start + COPY_CHUNK_BYTES])


async def copy_out(
    connection: AsyncConnection,
    statement: sql.SQL | sql.Composed,
    parameters: Mapping[str, object] | None = None,
) -> bytes:
    """Return the whole stream of a COPY ... TO STDOUT statement."""
    async with connection.cursor() as cursor, cursor.copy(statement, parameters) as copy:
        return b"".join([bytes(piece) async for piece in copy])


@contextmanager
def translated() -> Iterator[None]:
    """Turn psycopg's errors into ours at the border of a unit of work."""
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        raise DuplicateKeyError(error.diag.constraint_name or "unique key") from error
    except (
        psycopg.errors.InsufficientResources,  # disk full, out of memory, too many connections
        psycopg.errors.OperatorIntervention,  # shutdown, cancelled, crashed
        psycopg.errors.SerializationFailure,
        psycopg.errors.DeadlockDetected,
        psycopg.errors.ReadOnlySqlTransaction,  # a standby, or a server in recovery
        PoolTimeout,
        psycopg.OperationalError,
        psycopg.InterfaceError,
    ) as error:
        raise UnavailableError(f"database: {_first_line(error)}") from error
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise DataError(f"database refuses: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    # Only the first line: the rest of a server's message can quote values (DETAIL, CONTEXT).
    return str(error).partition("\n")[0]


def _full(dsn: str, application: str) -> str:
    return conninfo.make_conninfo(
        dsn,
        application_name=application,
        connect_timeout=CONNECT_S_MAX,
        keepalives_idle=KEEPALIVE_IDLE_S,
        keepalives_interval=KEEPALIVE_INTERVAL_S,
        keepalives_count=KEEPALIVE_COUNT,
        tcp_user_timeout=UNACKNOWLEDGED_MS_MAX,
    )
