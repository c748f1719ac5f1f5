"""What the database itself holds of access: the API's role sees what its reader may, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest

from gateway.platform.postgres import Connection, connect_blocking, sql
from tests.archives import public_id, store
from tests.fixtures.database import as_api
from tests.worlds import OTHER_RESIDENT, a_pressure, a_weight, enter_registry, query

pytestmark = pytest.mark.integration

CLINICIAN, SESSION = UUID(int=7), UUID(int=8)


@pytest.fixture
async def town(database: str) -> str:
    """A clinician whose care team has one of two residents; both were measured."""
    enter_registry(database)
    await store(database, a_pressure(), a_weight())
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute(
            "INSERT INTO account (public_id, login, role) VALUES (%s, 'clinician', 'clinician');",
            [CLINICIAN],
        )
        connection.execute(
            "INSERT INTO session (session_id, account_id, client, expires_at)"
            " SELECT %s, account_id, 'tests', now() + interval '1 hour' FROM account"
            " WHERE login = 'clinician'",
            [SESSION],
        )
        connection.execute(
            "INSERT INTO care_team (name) VALUES ('clinic');"
            "INSERT INTO care_team_member SELECT care_team_id, account_id, '(,)'"
            " FROM care_team, account WHERE login = 'clinician';"
            "INSERT INTO care_team_resident SELECT care_team_id, 101, '(,)' FROM care_team"
        )
    return database


@contextmanager
def reading(dsn: str, whom: UUID | None, needs: str = "values") -> Iterator[Connection]:
    """A transaction of the API's role that began for the clinician, whatever was decided."""
    with connect_blocking(as_api(dsn), application="hearth-tests") as connection:
        connection.execute(
            "SELECT access.begin(%s, %s, 'measurement.read', %s, %s, NULL, NULL)",
            [CLINICIAN, SESSION, needs, None if whom is None else [whom]],
        )
        yield connection


def seen(connection: Connection, table: str) -> int:
    counted = connection.execute(
        sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*table.split(".")))
    ).fetchone()
    assert counted is not None
    return int(counted[0])


def test_without_a_reader_nothing_is_there(town: str) -> None:
    with connect_blocking(as_api(town), application="hearth-tests") as connection:
        for table in ("access.measurement", "resident", "link", "device", "home", "hub", "batch"):
            assert seen(connection, table) == 0, table


def test_a_forgotten_where_shows_only_the_resident_who_was_asked_for(town: str) -> None:
    with reading(town, public_id(town)) as connection:
        assert seen(connection, "access.measurement") == 2
        assert seen(connection, "resident") == 1


def test_outside_the_care_team_the_database_shows_nothing(town: str) -> None:
    query(town, "UPDATE measurement SET resident_id = 102")
    with reading(town, public_id(town, OTHER_RESIDENT)) as connection:
        assert seen(connection, "access.measurement") == 0
        assert seen(connection, "resident") == 0


def test_the_apis_role_reads_no_chunk_and_changes_no_audit(town: str) -> None:
    chunks = query(
        town, "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks"
    )
    assert chunks
    forbidden = [f"SELECT FROM {name}" for name in ["measurement", *(name for (name,) in chunks)]]
    forbidden += [
        "SELECT FROM sign_blood_pressure", "SELECT FROM account", "SELECT FROM audit",
        "UPDATE audit SET actor = 'x'", "DELETE FROM audit", "UPDATE audit_chain SET seq = 0",
        "TRUNCATE audit", "CREATE TABLE public.mine ()", "INSERT INTO resident DEFAULT VALUES",
    ]  # fmt: skip
    with reading(town, public_id(town)) as connection:
        for statement in forbidden:
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement)


def test_every_read_is_audited_and_a_refused_one_too(town: str) -> None:
    for whom in (public_id(town), public_id(town, OTHER_RESIDENT)):
        with reading(town, whom):
            pass
    assert query(town, "SELECT actor, resident_id, detail FROM audit ORDER BY audit_id") == [
        (f"user:{CLINICIAN}", 101, {"by": "care_team"}),
        (f"user:{CLINICIAN}", 102, {"refused": "outside"}),
    ]


def test_the_record_alone_opens_no_door_to_who_looked(town: str) -> None:
    with reading(town, public_id(town)):
        pass
    with reading(town, public_id(town), needs="record") as connection:
        for table in ("access.audit", "access.audited", "access.objection", "access.notice"):
            assert seen(connection, table) == 0, table
