"""Reads of the resident's archive: the one place of the API that asks the database.

Every read of what is somebody's goes through `Archive.reading`, which binds the transaction to the
one who asks and writes the audit in it: a read that cannot be audited does not happen. A statement
gives up after a named time. `UnavailableError`: the database is down, busy, or took too long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from api.access import ForbiddenError, Needs, Principal, Role, SignedOutError, require
from api.documents import AuditEntry, Health, HubLedger, NoticeDocument, Objection, ResidentDocument
from api.measurement_rows import (
    LATEST,
    PAGE,
    Selection,
    StoredMeasurement,
    page_parameters,
    read_measurement,
)
from api.records import Device, Home, Hub, Link, Resident
from api.registry import QUERIES as REGISTRY
from api.series import SeriesDocument, SeriesSelection, parameters, series_document, statement
from gateway import __version__
from gateway.errors import DataError
from gateway.platform.audit import write_audit
from gateway.platform.postgres import (
    AsyncConnection,
    AsyncConnectionPool,
    TupleRow,
    class_row,
    dsn_with,
    load_queries,
    microseconds_cursor,
    open_pool,
    sql,
    translated,
)
from gateway.stored import FLAG_ARTEFACT
from gateway.vital_sign import VitalSign
from gateway.vitals import BY_CODE, QUANTITIES

CONNECTIONS_MAX = 16
"""Further requests wait for a connection, at most `gateway.platform.postgres.POOL_WAIT_S_MAX`."""
STATEMENT_MS_MAX = 5_000
"""The database gives up on a statement that takes longer; the request ends with 503."""
_SESSION = f"-c statement_timeout={STATEMENT_MS_MAX} -c timezone=UTC"
_SQL = Path(__file__).parent / "sql"
_ACCESS = load_queries(_SQL / "access.sql")
_STATE = load_queries(_SQL / "state.sql")

_Row = TypeVar("_Row")


class UnknownResidentError(DataError):
    """No resident has this id."""


@asynccontextmanager
async def open_archive(dsn: str, connections_max: int = CONNECTIONS_MAX) -> AsyncIterator[Archive]:
    """Open the archive; connections are made when they are needed, so the database may be down."""
    session = dsn_with(dsn, options=_SESSION)
    async with open_pool(
        session,
        application="hearth-api",
        size_max=connections_max,
        autocommit=True,
    ) as pool:
        yield Archive(pool)


class Archive:
    """The archive over a pool of connections."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[TupleRow]]) -> None:
        self.pool = pool

    @asynccontextmanager
    async def reading(
        self,
        principal: Principal,
        *,
        action: str,
        needs: Needs = Needs.VALUES,
        resident: UUID | None = None,
        residents: Sequence[UUID] = (),
        reason: str | None = None,
    ) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """Open a transaction that reads for a principal, audited; it commits when the block ends.

        `action` (noun.verb) and `needs` say what is read; of `resident`, or of several `residents`, all
        of whom the principal must be allowed to see; without either, of all whom the principal may
        see (values then are of the care team, each audited). Answer only after the block: before
        it ends, the audit is not committed.

        Raises:
            UnknownResidentError: there is no such resident.
            ForbiddenError: the principal may not; this is audited too.
            SignedOutError: the account is disabled or the session revoked.
        """
        require(principal, needs, resident)
        whom = list(residents) or None if resident is None else [resident]
        parameters = beginning(principal, action, needs, whom, reason)
        with translated():
            async with self.pool.connection() as connection:
                async with connection.transaction():
                    cursor = await connection.execute(_ACCESS["begin"], parameters, prepare=True)
                    refusal = _refusal(await cursor.fetchall())
                    if refusal is None:
                        yield connection
                if refusal is not None:
                    raise refusal

    async def tell(
        self,
        connection: AsyncConnection[TupleRow],
        principal: Principal,
        *,
        action: str,
        needs: Needs,
        residents: Sequence[UUID],
    ) -> None:
        """Audit whom a list shows, each by name: the last act of a `reading` without them."""
        if residents:
            shown = beginning(principal, action, needs, residents, None)
            await connection.execute(_ACCESS["begin"], shown, prepare=True)

    async def read(
        self,
        principal: Principal,
        statement: bytes,
        parameters: dict[str, object],
        *,
        action: str,
        resident: UUID,
    ) -> list[TupleRow]:
        """Run one statement that decides and reads a resident's values; else as `reading`.

        It calls `access.begin` itself, so that it is a transaction of its own; each row ends with what
        stands in the way, null for nothing, and a row without a time is there for that alone. Times come
        in microseconds since 2000.
        """
        require(principal, Needs.VALUES, resident)
        begun = beginning(principal, action, Needs.VALUES, [resident], None)
        with translated():
            async with self.pool.connection() as connection:
                cursor = microseconds_cursor(connection)
                await cursor.execute(statement, begun | parameters, prepare=True)
                rows = await cursor.fetchall()
        measured_at, *_columns, why = rows[0]
        refusal = _refusal([(resident, why is None, why)])
        if refusal is not None:
            raise refusal
        return [] if measured_at is None else rows

    async def writing(
        self, principal: Principal, needs: Needs, query: sql.SQL, **given: object
    ) -> bool:
        """Run one write for a principal: a function of schema `access` that decides and audits.

        Returns whether there was anything to write to.

        Raises:
            UnknownResidentError: there is no such resident.
            ForbiddenError: the principal may not; this is audited too.
            SignedOutError: the account is disabled or the session revoked.
            DataError: it contradicts what is there.
        """
        require(principal, needs)
        asked = given | {
            "reader": principal.user,
            "session": principal.session,
            "origin": principal.origin,
        }
        with translated():
            async with self.pool.connection() as connection, connection.transaction():
                cursor = await connection.execute(query, asked)
                ((admitted, why, done),) = await cursor.fetchall()
        refusal = _refusal([(None, admitted, why)])
        if refusal is not None:
            raise refusal
        return bool(done)

    async def series(
        self, principal: Principal, resident: UUID, selection: SeriesSelection
    ) -> SeriesDocument:
        """Return a resident's measurements in buckets; `reading` names the errors."""
        asked = parameters(resident, FLAG_ARTEFACT, selection)
        async with self.reading(
            principal, action="measurement.series", resident=resident
        ) as connection:
            cursor = await connection.execute(statement(selection.signs), asked)
            rows = await cursor.fetchall()
        return series_document(selection, rows)

    async def measurements(
        self, principal: Principal, resident: UUID, selection: Selection
    ) -> list[StoredMeasurement]:
        """Return a page of a resident's measurements; `reading` names the errors."""
        return [
            read_measurement(row)
            for row in await self.measurement_rows(principal, resident, selection)
        ]

    async def measurement_rows(
        self, principal: Principal, resident: UUID, selection: Selection
    ) -> list[TupleRow]:
        """Return a page as rows, for `api.json_pages`; `reading` names the errors."""
        return await self.read(
            principal,
            PAGE[selection.order],
            page_parameters(selection),
            action="measurement.read",
            resident=resident,
        )

    async def latest(self, principal: Principal, resident: UUID) -> list[TupleRow]:
        """Return as rows, for each sign, the latest measurement and the latest that is no artefact.

        They are the same row, twice, where the latest is no artefact. `reading` names the errors.
        """
        parameters = {"signs": list(BY_CODE), "artefact": FLAG_ARTEFACT}
        return await self.read(
            principal, LATEST, parameters, action="measurement.latest", resident=resident
        )

    async def resident(self, principal: Principal, resident: UUID) -> ResidentDocument:
        """Return one resident with the links in force, past ones too; `reading` names the errors."""
        async with self.reading(
            principal, action="resident.read", needs=Needs.RECORD, resident=resident
        ) as connection:
            cursor = await connection.execute(
                REGISTRY["resident_with_links"], {"resident": resident}
            )
            rows = await cursor.fetchall()
        if not rows:
            raise UnknownResidentError
        return ResidentDocument(
            id=resident,
            created_at=rows[0][0],
            links=[
                Link(
                    device=device,
                    user_slot=user_slot,
                    resident=resident,
                    starts_at=starts_at,
                    ends_at=ends_at,
                )
                for _created_at, device, user_slot, starts_at, ends_at in rows
                if device is not None
            ],
        )

    async def residents(
        self, principal: Principal, after: UUID | None, limit: int
    ) -> list[Resident]:
        """Return residents whom the principal may see, in the order of their ids."""
        async with self.reading(
            principal, action="resident.list", needs=Needs.RECORD
        ) as connection:
            query = REGISTRY["list_residents"]
            return await _records(connection, Resident, query, after=after, limit=limit)

    async def homes(self, principal: Principal, after: UUID | None, limit: int) -> list[Home]:
        """Return homes in the order of their ids."""
        async with self._equipment(principal, "home.list") as connection:
            query = REGISTRY["list_homes"]
            return await _records(connection, Home, query, after=after, limit=limit)

    async def hubs(
        self, principal: Principal, home: UUID | None, after: str | None, limit: int
    ) -> list[Hub]:
        """Return hubs, all or one home's, in the order of their names."""
        async with self._equipment(principal, "hub.list") as connection:
            query = REGISTRY["list_hubs"]
            return await _records(connection, Hub, query, home=home, after=after, limit=limit)

    async def devices(
        self, principal: Principal, home: UUID | None, after: str | None, limit: int
    ) -> list[Device]:
        """Return devices, all or one home's, in the order of their addresses."""
        async with self._equipment(principal, "device.list") as connection:
            query = REGISTRY["list_devices"]
            return await _records(connection, Device, query, home=home, after=after, limit=limit)

    async def ledger(self, principal: Principal, after: str | None, limit: int) -> list[HubLedger]:
        """Return what became of what each hub published, in the order of their names."""
        async with self._equipment(principal, "ledger.read") as connection:
            query = _STATE["ledger"]
            return await _records(connection, HubLedger, query, after=after, limit=limit)

    async def vouch(self, principal: Principal) -> None:
        """Ask whether an account still stands, where nothing of a resident is read.

        Raises:
            SignedOutError: it does not, or its session is revoked.
        """
        parameters = {"reader": principal.user, "session": principal.session}
        ((stands,),) = await self.rows(_ACCESS["vouch"], parameters)
        if not stands:
            raise SignedOutError

    async def note(self, principal: Principal, action: str, **detail: object) -> None:
        """Audit what hands over or changes nothing of a resident that was not audited when it was read.

        Raises:
            SignedOutError: the account does not stand any more, or its session is revoked.
        """
        event = principal.event(action, **detail)
        who = {"reader": principal.user, "session": principal.session}
        with translated():
            async with self.pool.connection() as connection, connection.transaction():
                ((stands,),) = await (await connection.execute(_ACCESS["vouch"], who)).fetchall()
                if not stands:
                    raise SignedOutError
                await write_audit(connection, [event])

    async def account_of(self, issuer: str, subject: str) -> Principal | None:
        """Return who another issuer's subject is here; None: nobody."""
        rows = await self.rows(_ACCESS["account_of"], {"issuer": issuer, "subject": subject})
        return next(
            (
                Principal(user=user, role=Role(role), resident=resident)
                for user, role, resident in rows
            ),
            None,
        )

    async def audit(
        self, principal: Principal, resident: UUID, after: int | None, limit: int
    ) -> list[AuditEntry]:
        """Return who looked at a resident's data, the latest first; `reading` names the errors."""
        async with self.reading(
            principal, action="audit.read", needs=Needs.AUDIT, resident=resident
        ) as connection:
            query = _ACCESS["audit"]
            return await _records(
                connection, AuditEntry, query, resident=resident, after=after, limit=limit
            )

    async def notices(
        self, principal: Principal, after: int | None, limit: int
    ) -> list[NoticeDocument]:
        """Return what the principal is told, the latest first."""
        async with self.reading(principal, action="notice.list", needs=Needs.AUDIT) as connection:
            query = _ACCESS["notices"]
            return await _records(connection, NoticeDocument, query, after=after, limit=limit)

    async def objections(self, principal: Principal, resident: UUID) -> list[Objection]:
        """Return what a resident does not consent to; `reading` names the errors."""
        async with self.reading(
            principal, action="consent.read", needs=Needs.AUDIT, resident=resident
        ) as connection:
            cursor = await connection.execute(_ACCESS["objections"], {"resident": resident})
            return [
                Objection(
                    id=id_,
                    sign=None if sign is None else BY_CODE[sign].name,
                    account=account,
                    recorded_at=recorded_at,
                )
                for id_, sign, account, recorded_at in await cursor.fetchall()
            ]

    async def change_consent(
        self,
        principal: Principal,
        resident: UUID,
        *,
        sign: VitalSign | None,
        account: UUID | None,
        allow: bool,
    ) -> None:
        """Let a resident withhold a sign or refuse an account, or allow it again.

        Raises:
            ForbiddenError: only the resident may say so.
            SignedOutError: the account is disabled or the session revoked.
        """
        require(principal, Needs.AUDIT, resident)
        parameters = {
            "resident": resident,
            "sign": None if sign is None else sign.code,
            "account": account,
            "object": not allow,
        }
        ((why,),) = await self._act("object", principal, parameters)
        if why != "own":
            raise _refused(why)

    async def break_glass(self, principal: Principal, resident: UUID, reason: str) -> datetime:
        """Open access in an emergency; return until when. The resident is told.

        Raises:
            ForbiddenError: only clinicians may.
            UnknownResidentError: there is no such resident.
            SignedOutError: the account is disabled or the session revoked.
        """
        parameters = {"resident": resident, "reason": reason}
        ((admitted, why, expires_at),) = await self._act("break_glass", principal, parameters)
        if not admitted:
            raise _refused(why)
        until: datetime = expires_at
        return until

    async def lacking_columns(self) -> list[str]:
        """Return what this version reads and the schema does not have (yet)."""
        columns = {"columns": [quantity.name for quantity in QUANTITIES]}
        return [name for (name,) in await self.rows(_STATE["lacking_columns"], columns)]

    async def health(self) -> Health:
        """Return which version answers over which schema."""
        ((schema_version,),) = await self.rows(_STATE["schema_version"], {})
        return Health(
            version=__version__,
            schema_version=schema_version,
            lacking_columns=await self.lacking_columns(),
        )

    def _equipment(
        self, principal: Principal, action: str
    ) -> AbstractAsyncContextManager[AsyncConnection[TupleRow]]:
        return self.reading(principal, action=action, needs=Needs.EQUIPMENT)

    async def _act(
        self, query: str, principal: Principal, parameters: Mapping[str, object]
    ) -> list[TupleRow]:
        """Do what one function of the database decides, does and audits."""
        who = {
            "reader": principal.user,
            "session": principal.session,
            "origin": principal.origin,
        }
        with translated():
            async with self.pool.connection() as connection, connection.transaction():
                cursor = await connection.execute(_ACCESS[query], {**parameters, **who})
                return await cursor.fetchall()

    async def rows(self, query: sql.SQL, parameters: Mapping[str, object]) -> list[TupleRow]:
        """Return the rows of a statement that reads what is nobody's."""
        with translated():
            async with self.pool.connection() as connection:
                cursor = await connection.execute(query, parameters)
                return await cursor.fetchall()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """Lend a connection that reads what is nobody's."""
        with translated():
            async with self.pool.connection() as connection:
                yield connection

    async def write(self, query: sql.SQL, parameters: Mapping[str, object]) -> list[TupleRow]:
        """Run one statement on the API's own records; return its rows."""
        with translated():
            async with self.pool.connection() as connection, connection.transaction():
                cursor = await connection.execute(query, parameters)
                return await cursor.fetchall() if cursor.description else []


def beginning(
    principal: Principal,
    action: str,
    needs: Needs,
    whom: Sequence[UUID] | None,
    reason: str | None,
) -> dict[str, object]:
    """Return the parameters of `access.begin`; `whom` None: all whom the principal may see."""
    return {
        "reader": principal.user,
        "session": principal.session,
        "action": action,
        "needs": needs.value,
        "whom": whom,
        "reason": reason,
        "origin": principal.origin,
    }


def _refusal(verdicts: Sequence[TupleRow]) -> DataError | None:
    """Return what stands in the way; None: nothing."""
    return next((_refused(why) for _resident, admitted, why in verdicts if not admitted), None)


def _refused(why: str) -> DataError:
    """Return the error for a word of the schema `access`."""
    match why:
        case "unknown":
            return UnknownResidentError()
        case "account":
            return SignedOutError()
        case _:
            return ForbiddenError(why, is_audited=True)


async def _records(
    connection: AsyncConnection[TupleRow], record: type[_Row], query: sql.SQL, **parameters: object
) -> list[_Row]:
    async with connection.cursor(row_factory=class_row(record)) as cursor:
        await cursor.execute(query, parameters)
        return await cursor.fetchall()
