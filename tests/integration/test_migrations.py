"""The schema grows forward only, from the registry of signs, and never twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import UsageError
from gateway.quantity import Text
from gateway.vitals import QUANTITIES, SIGNS, body_temperature
from ingest import migrations
from tests.worlds import query

pytestmark = pytest.mark.integration


def test_every_quantity_has_its_column(database: str) -> None:
    columns = query(
        database,
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'measurement'"
        " AND data_type = 'double precision'",
    )
    assert {name for (name,) in columns} == {quantity.name for quantity in QUANTITIES}


def test_every_sign_has_its_view(database: str) -> None:
    views = query(
        database, "SELECT table_name FROM information_schema.views WHERE table_schema = 'public'"
    )
    assert {name for (name,) in views} == {f"sign_{sign.name}" for sign in SIGNS}


def test_migrating_again_changes_nothing(database: str) -> None:
    assert migrations.migrate(database) == []
    assert migrations.pending(database) == []


async def test_two_that_migrate_at_once_take_turns(database: str) -> None:
    query(database, "DROP SCHEMA public, access, issuer, enrolment CASCADE")
    query(database, "CREATE SCHEMA public")
    query(database, "CREATE EXTENSION IF NOT EXISTS timescaledb")
    done = await asyncio.gather(
        *(asyncio.to_thread(migrations.migrate, database) for _ in range(2))
    )
    assert sorted(len(applied) for applied in done) == [0, len(migrations.migrations())]


def test_a_changed_migration_stops_the_start(database: str) -> None:
    query(database, "UPDATE schema_migration SET checksum = 'other' WHERE version = 2")
    with pytest.raises(UsageError, match="migration 2"):
        migrations.migrate(database)


def test_a_database_of_a_newer_hearth_is_refused(database: str) -> None:
    query(database, "INSERT INTO schema_migration VALUES (9999, 'later', 'x')")
    with pytest.raises(UsageError, match="update Hearth"):
        migrations.migrate(database)


def test_a_new_sign_gets_its_columns_by_a_generated_migration(tmp_path: Path) -> None:
    for migration in migrations.migrations():
        name = f"{migration.version:04d}_{migration.title}.sql"
        (tmp_path / name).write_text(migration.text)
    glucose = replace(
        body_temperature.BODY_TEMPERATURE,
        name="glucose_mmol_per_l",
        title=Text(zh="血糖", en="Patient's glucose"),
    )
    sign = replace(body_temperature.SIGN, name="glucose", code=99, quantities=(glucose,))
    path = migrations.write_quantities(tmp_path, (*SIGNS, sign))
    assert path is not None
    assert path.name == f"{len(migrations.migrations()) + 1:04d}_glucose.sql"
    text = path.read_text()
    assert "ADD COLUMN glucose_mmol_per_l double precision" in text
    assert "Patient''s glucose" in text
    assert migrations.write_quantities(tmp_path, (*SIGNS, sign)) is None


def test_no_migration_lacks_a_quantity() -> None:
    names = migrations.declared_quantities(migrations.migrations())
    assert names == {quantity.name for quantity in QUANTITIES}
