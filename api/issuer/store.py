"""The issuer's transactions: each runs as hearth_issuer, which alone reads credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from api.access import Role
from api.issuer.tokens import Account
from gateway.platform.audit import AuditEvent, write_audit
from gateway.platform.postgres import (
    AsyncConnection,
    AsyncConnectionPool,
    TupleRow,
    dict_row,
    load_queries,
    translated,
)

_QUERIES = load_queries(Path(__file__).parents[1] / "sql" / "issuer.sql")

Row = Mapping[str, Any]


class Transaction:
    """One open transaction; it commits when its block ends well."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def one(self, query: str, **parameters: object) -> Row | None:
        """Return the one row of a statement, None where there is none."""
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_QUERIES[query], parameters)
            return await cursor.fetchone()

    async def run(self, query: str, **parameters: object) -> int:
        """Run a statement; return how many rows it touched."""
        return (await self._connection.execute(_QUERIES[query], parameters)).rowcount

    async def audit(
        self, account: UUID | None, action: str, origin: str | None, **detail: object
    ) -> None:
        """Write what happened to an account; None: the login is nobody's."""
        actor = "user:unknown" if account is None else f"user:{account}"
        event = AuditEvent(actor=actor, action=action, origin=origin, detail=detail)
        await write_audit(self._connection, [event])


class IssuerStore:
    """Opens transactions on the API's pool."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[TupleRow]]) -> None:
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open one.

        Raises:
            UnavailableError: the database is down.
        """
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_QUERIES["become"])
                yield Transaction(connection)


def account_of(row: Row) -> Account:
    """Return the account that a row tells of."""
    return Account(
        id=row["public_id"],
        login=row["login"],
        role=Role(row["role"]),
        resident=row["resident"],
        scopes=row.get("scopes", ()),
    )
