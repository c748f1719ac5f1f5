"""The schema's migrations: named SQL files, applied in order, forward only.

A file that has been applied is never changed; its checksum is kept and compared. The quantity
columns come from the registry of signs: `write_quantities` writes the migration that adds those no
migration has added yet, so that a new sign needs no SQL by hand. The views, one table a sign for
analysts and the doors of the API (decisions.sql, access.sql, fhir.sql), are derived anew each time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import UsageError
from gateway.platform.postgres import Connection, connect_blocking, load_queries, sql, translated
from gateway.quantity import Quantity
from gateway.vital_sign import VitalSign
from gateway.vitals import SIGNS

FOLDER = Path(__file__).parent / "sql" / "migrations"
_DOORS = load_queries(Path(__file__).parent / "sql" / "access.sql")
_DECISIONS = load_queries(Path(__file__).parent / "sql" / "decisions.sql")
_FHIR_DOORS = load_queries(Path(__file__).parent / "sql" / "fhir.sql")
_DIRECTIONS = (("descending", "DESC", "<"), ("ascending", "ASC", ">"))
_FILE = re.compile(r"(?P<version>[0-9]{4})_(?P<title>[a-z0-9_]+)\.sql")
_QUANTITIES = re.compile(r"^-- quantities: (?P<names>.+)$", re.MULTILINE)
_LOCK = 0x4865617274681
"""Advisory lock: two that migrate at once take turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file of the folder."""

    version: int
    title: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """Return all migrations, in order; their versions count from 1 without a gap."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        assert match, path.name  # noqa: S101 - a mistake of ours
        text = path.read_text(encoding="utf-8")
        found.append(Migration(version=int(match["version"]), title=match["title"], text=text))
    assert [m.version for m in found] == list(range(1, len(found) + 1))  # noqa: S101
    return found


def migrate(dsn: str) -> list[Migration]:
    """Bring the schema up to date and return what was applied.

    Raises:
        UsageError: the database was made by a newer Hearth, or an applied file was changed.
        UnavailableError: the database cannot be reached.
    """
    known = migrations()
    applied: list[Migration] = []
    with _session(dsn) as connection, translated():
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        _make_journal(connection)
        done = _journal(connection)
        _check(done, known)
        for migration in known[len(done) :]:
            _apply(connection, migration)
            applied.append(migration)
        _make_views(connection)
        _make_decisions(connection)
        _make_doors(connection)
        _make_fhir_doors(connection)
    return applied


def pending(dsn: str) -> list[Migration]:
    """Return the migrations that `migrate` would apply."""
    known = migrations()
    with _session(dsn) as connection, translated():
        _make_journal(connection)
        done = _journal(connection)
    _check(done, known)
    return known[len(done) :]


def declared_quantities(files: Iterable[Migration]) -> set[str]:
    """Return the names of the quantity columns that these migrations add."""
    return {
        name
        for migration in files
        for match in _QUANTITIES.finditer(migration.text)
        for name in match["names"].split()
    }


def write_quantities(folder: Path = FOLDER, signs: Sequence[VitalSign] = SIGNS) -> Path | None:
    """Write the migration that adds the columns no migration has yet; None where none lacks."""
    known = migrations(folder)
    have = declared_quantities(known)
    lacking = [
        (sign, [quantity for quantity in sign.quantities if quantity.name not in have])
        for sign in signs
    ]
    lacking = [(sign, quantities) for sign, quantities in lacking if quantities]
    if not lacking:
        return None
    title = "_".join(sign.name for sign, _ in lacking) if len(lacking) == 1 else "quantities"
    path = folder / f"{len(known) + 1:04d}_{title}.sql"
    path.write_text(_quantities_migration(lacking), encoding="utf-8")
    return path


def _quantities_migration(lacking: Sequence[tuple[VitalSign, list[Quantity]]]) -> str:
    lines = ["-- Made by `hearth db new-migration` from the registry of vital signs."]
    lines += [
        f"-- quantities: {' '.join(quantity.name for quantity in quantities)}"
        for _sign, quantities in lacking
    ]
    columns = [quantity for _sign, quantities in lacking for quantity in quantities]
    added = ",\n".join(f"    ADD COLUMN {quantity.name} double precision" for quantity in columns)
    lines += ["", f"ALTER TABLE measurement\n{added};", ""]
    lines += [
        f"COMMENT ON COLUMN measurement.{quantity.name} IS '{_comment(quantity)}';"
        for quantity in columns
    ]
    return "\n".join(lines) + "\n"


def _comment(quantity: Quantity) -> str:
    codes = [
        f"LOINC {quantity.loinc}" if quantity.loinc else "",
        f"MDC {quantity.mdc}" if quantity.mdc else "",
    ]
    text = ", ".join([quantity.title.en, quantity.unit.ucum, *filter(None, codes)])
    return text.replace("'", "''")


def _session(dsn: str) -> Connection:
    return connect_blocking(dsn, application="hearth-migrate", autocommit=True)


def _make_journal(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration ("
        "version integer PRIMARY KEY, title text NOT NULL, checksum text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )


def _journal(connection: Connection) -> list[tuple[int, str]]:
    rows = connection.execute("SELECT version, checksum FROM schema_migration ORDER BY version")
    return [(version, checksum) for version, checksum in rows]


def _check(done: Sequence[tuple[int, str]], known: Sequence[Migration]) -> None:
    if len(done) > len(known):
        raise UsageError(
            f"数据库版本较新 / the database has migration {done[-1][0]}, this Hearth knows up to "
            f"{known[-1].version}: update Hearth"
        )
    for (version, checksum), migration in zip(done, known, strict=False):
        if checksum != migration.checksum:
            raise UsageError(
                f"迁移文件被改动 / migration {version} ({migration.title}) is not the one that "
                "was applied: restore the file; a change needs a new migration"
            )


def _apply(connection: Connection, migration: Migration) -> None:
    with connection.transaction():
        connection.execute(migration.text)
        connection.execute(
            "INSERT INTO schema_migration (version, title, checksum) VALUES (%s, %s, %s)",
            [migration.version, migration.title, migration.checksum],
        )


def _make_views(connection: Connection) -> None:
    """One view a sign, `sign_blood_pressure`: its rows, its columns, names instead of numbers."""
    with connection.transaction():
        for sign in SIGNS:
            columns = sql.SQL(", ").join(
                sql.SQL("m.{}").format(sql.Identifier(quantity.name))
                for quantity in sign.quantities
            )
            view = sql.Identifier(f"sign_{sign.name}")
            connection.execute(sql.SQL("DROP VIEW IF EXISTS {view}").format(view=view))
            connection.execute(
                sql.SQL(
                    "CREATE VIEW {view} AS SELECT r.public_id AS resident,"
                    " m.measured_at, m.utc_offset, {columns}, m.status, m.flags, m.time_quality,"
                    " d.address AS device, m.user_slot, m.stored_at FROM measurement m"
                    " JOIN resident r USING (resident_id) JOIN device d USING (device_id)"
                    " WHERE m.sign = {code}"
                ).format(
                    view=view,
                    columns=columns,
                    code=sql.Literal(sign.code),
                )
            )


def _make_decisions(connection: Connection) -> None:
    """Make the functions that decide who may read whom, of one rule."""
    with connection.transaction():
        for name in ("begin", "begin_each"):
            connection.execute(_DECISIONS[name].format(verdict=_DECISIONS["verdict"]))


def _make_doors(connection: Connection) -> None:
    """Make the views and functions by which the API reads measurements, with all their columns."""
    with connection.transaction():
        connection.execute(_DOORS["drop"])
        connection.execute(_DOORS["view"].format(may_be_read=_DOORS["may_be_read"]))
        for direction, order, beyond in _DIRECTIONS:
            page = _DOORS["page"].format(
                direction=sql.SQL(direction), order=sql.SQL(order), beyond=sql.SQL(beyond)
            )
            connection.execute(page)
        connection.execute(_DOORS["latest"])
        connection.execute(_DOORS["grant"])


def _make_fhir_doors(connection: Connection) -> None:
    """Make those by which FHIR reads them, Observation by Observation."""
    periods = [
        sql.SQL("WHEN {} THEN measurement.{}").format(
            sql.Literal(sign.code), sql.Identifier(sign.period.name)
        )
        for sign in SIGNS
        if sign.period is not None
    ]
    period = sql.SQL("CASE measurement.sign {} END").format(sql.SQL(" ").join(periods))
    is_sent = _FHIR_DOORS["is_sent"]
    matches = _FHIR_DOORS["matches"].format(period=period, is_sent=is_sent)
    with connection.transaction():
        connection.execute(_FHIR_DOORS["drop"])
        connection.execute(_FHIR_DOORS["view"].format(may_be_read=_DOORS["may_be_read"]))
        for name in ("is_within", "device_ids"):
            connection.execute(_FHIR_DOORS[name])
        for direction, order, beyond in _DIRECTIONS:
            page = _FHIR_DOORS["page"].format(
                direction=sql.SQL(direction),
                order=sql.SQL(order),
                beyond=sql.SQL(beyond),
                matches=matches,
            )
            connection.execute(page)
        for name in ("last", "count"):
            connection.execute(_FHIR_DOORS[name].format(matches=matches, is_sent=is_sent))
        connection.execute(_FHIR_DOORS["owner"])
        connection.execute(_FHIR_DOORS["audited"])
        connection.execute(_FHIR_DOORS["grant"])
