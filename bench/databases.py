"""A database of a bench's own, with the schema, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

from gateway.platform.postgres import connect_blocking, dsn_with, sql
from ingest.migrations import migrate


@contextmanager
def own_database(server: str, name: str) -> Iterator[str]:
    """Make the database `name` on `server` for the block; yields its DSN."""

    def execute(statement: LiteralString) -> None:
        with connect_blocking(server, application="hearth-bench", autocommit=True) as admin:
            admin.execute(sql.SQL(statement).format(sql.Identifier(name)))

    execute("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    execute("CREATE DATABASE {}")
    try:
        dsn = dsn_with(server, dbname=name)
        migrate(dsn)
        yield dsn
    finally:
        execute("DROP DATABASE IF EXISTS {} WITH (FORCE)")
