"""Backup and restore of the whole store. PostgreSQL 17, chapter 25; TimescaleDB, "Logical backup".

A backup is a folder: `archive.dump` (pg_dump, custom format) and `backup.json`, what has to be known
before and checked after a restore. A restore makes a new database beside the one in use, with
timescaledb_pre_restore and timescaledb_post_restore around pg_restore, proves its ledger, and only
then takes the old one's name; the old one stays under another.

The residents' keys are not in it. An erasure destroys a key (docs/archive.md), and that holds for a copy
only if the copy lacks the key: so they have a backup of their own, one file a time, and each new one
removes those that are older than `KEYS_KEPT`. A restore puts in what file of keys it is given.

What a restore to an older state costs is told by the hubs' receipts: batches committed after the
backup are gone from the store and gone from the hubs' queues; the hubs keep them aside and send them
again when asked (`hearth admin hub resend`).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.errors import UnavailableError, UsageError
from gateway.platform.postgres import (
    Connection,
    connect_blocking,
    dsn_parts,
    dsn_with,
    load_queries,
    sql,
    translated,
)
from gateway.platform.process import Child, Program
from gateway.platform.secret_files import write_private
from ingest.ledger import read_ledger

FORMAT = 1
LOOK_S = 0.5
"""How often a running dump or restore is looked at."""
BLOCKS_SKIPPED = 1_000_000
"""Blocks of batch ids that no worker can have taken between a backup and its restore: 4e9 batches."""
MAINTENANCE = "postgres"
"""The database that initdb makes for such work; a server of one's own has it too."""
KEYS_KEPT = timedelta(days=30)
"""A backup of the keys is removed after this: so long after an erasure no backup opens the identity."""
KEYS_TABLE = "public.resident_key"
PROGRAM_S_MAX = 24 * 3600.0
"""A dump or restore that takes longer is ended."""

_KEYS_AT = "%Y%m%dT%H%M%SZ"
_QUERIES = load_queries(Path(__file__).parent / "sql" / "backup.sql")

Progress = Callable[[float], None]
"""Told the part that is done, 0 to 1, as well as it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What backup.json says. The terms are the ledger's at the moment before the dump began."""

    format: int
    taken_at: str
    database_bytes: int
    timescaledb: str
    migration: int
    roles: tuple[str, ...]
    published: int
    stored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """PostgreSQL's own programs, and where what they say goes."""

    pg_dump: Path
    pg_restore: Path
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did. `kept_as`: the name of the database that was in use before."""

    facts: Facts
    kept_as: str
    published: int
    stored: int
    keys: int
    """Residents whose identity can be opened again."""


def backup(dsn: str, folder: Path, tools: Tools, progress: Progress) -> Facts:
    """Write a backup; services may run meanwhile, it holds one moment's state.

    Raises:
        UsageError: the folder is there already.
        UnavailableError: the database is down, or the disk is full; nothing is left.
    """
    if folder.exists():
        raise UsageError(f"已存在 / {folder} is there already: 请换一个名字 / choose another name")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)
    try:
        facts = _facts(dsn)
        archive = unfinished / "archive.dump"
        _run(
            tools.pg_dump,
            ("--format=custom", f"--exclude-table-data={KEYS_TABLE}", f"--file={archive}"),
            dsn,
            tools.log,
            lambda: progress(min(_size(archive) * 4 / facts.database_bytes, 0.99)),
        )
        document = json.dumps(asdict(facts), indent=2)
        (unfinished / "backup.json").write_text(document + "\n", encoding="utf-8")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    progress(1.0)
    return facts


def backup_keys(dsn: str, folder: Path, now: datetime) -> Path:
    """Write the residents' keys into a file of `folder`, remove those older than `KEYS_KEPT`; return it.

    Raises:
        UnavailableError: the database is down; nothing was removed.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (
        _session(dsn) as connection,
        connection.cursor() as cursor,
        cursor.copy(_QUERIES["keys_out"]) as copy,
    ):
        text = b"".join(copy)
    file = folder / f"keys-{now.astimezone(UTC):{_KEYS_AT}}.copy"
    write_private(file, text)
    for other in folder.glob("keys-*.copy"):
        if _taken_at(other) < now - KEYS_KEPT:
            other.unlink()
    return file


def _taken_at(file: Path) -> datetime:
    """Return when a backup of the keys was taken; one whose name we did not give counts as new."""
    try:
        at = datetime.strptime(file.stem.removeprefix("keys-"), _KEYS_AT)  # noqa: DTZ007 - below
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return at.replace(tzinfo=UTC)


def restore(
    superuser_dsn: str,
    database: str,
    owner: str,
    folder: Path,
    tools: Tools,
    progress: Progress,
    *,
    keys: Path | None = None,
) -> Restored:
    """Put a backup in the place of a database, which is kept under another name.

    `keys` is a file of `backup_keys`; without it the identities stay sealed. A resident whose key it
    lacks, who was erased before it was taken, stays sealed for good.

    Raises:
        UsageError: the folder is no backup, the file of keys cannot be read, or this server cannot hold it.
        UnavailableError: the server is down, or what was restored does not prove its ledger; then the
            database in use is as it was.
    """
    facts = read_facts(folder)
    given = None if keys is None else _read_keys(keys)
    # Not the database itself: it is renamed, and that goes from another one only.
    superuser_dsn = dsn_with(superuser_dsn, dbname=MAINTENANCE)
    made = f"{database}_restoring"
    with _session(superuser_dsn) as admin:
        _make_roles(admin, facts.roles)
        admin.execute(_named("DROP DATABASE IF EXISTS {} WITH (FORCE)", made))
        admin.execute(_named("CREATE DATABASE {} OWNER {} TEMPLATE template0", made, owner))
    target = dsn_with(superuser_dsn, dbname=made)
    with _session(target) as connection:
        _make_extension(connection, facts.timescaledb)
        connection.execute("SELECT timescaledb_pre_restore()")
    _run(
        tools.pg_restore,
        ("--exit-on-error", f"--dbname={made}", str(folder / "archive.dump")),
        target,
        tools.log,
        lambda: progress(min(_size_of(superuser_dsn, made) / facts.database_bytes, 0.99)),
    )
    with _session(target) as connection:
        connection.execute("SELECT timescaledb_post_restore()")
        connection.execute(_QUERIES["beyond_all_blocks"], {"blocks": BLOCKS_SKIPPED})
        _begin_feed(connection)
        put = 0 if given is None else _put_keys(connection, given)
        connection.execute("ANALYZE")
    ledger = read_ledger(target)
    if ledger.disagreeing or ledger.total("published") < facts.published:
        raise UnavailableError(
            f"恢复后的账本不平, 原库未动 / the restored ledger does not prove: it is left as {made}, and "
            "the database in use is as it was"
        )
    kept_as = f"{database}_before_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    _exchange(superuser_dsn, database, made, kept_as)
    progress(1.0)
    return Restored(
        facts=facts,
        kept_as=kept_as,
        published=ledger.total("published"),
        stored=ledger.total("stored"),
        keys=put,
    )


def read_facts(folder: Path) -> Facts:
    """Return what a backup says of itself.

    Raises:
        UsageError: it is none, or a newer Hearth's.
    """
    try:
        document = json.loads((folder / "backup.json").read_text(encoding="utf-8"))
        facts = Facts(**document | {"roles": tuple(document["roles"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"不是备份目录 / {folder} is no backup of Hearth") from error
    if facts.format != FORMAT:
        raise UsageError(
            f"备份由更新版本创建 / {folder} was made by a newer Hearth: upgrade this one"
        )
    return facts


def _read_keys(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"无法读取密钥备份 / {file} cannot be read: {error.strerror}") from error


def _put_keys(connection: Connection, text: bytes) -> int:
    with translated(), connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_QUERIES["make_given_keys"])
        with cursor.copy(_QUERIES["keys_in"]) as copy:
            copy.write(text)
        cursor.execute(_QUERIES["put_keys"])
        return cursor.rowcount


def _facts(dsn: str) -> Facts:
    taken_at = datetime.now(UTC)
    ledger = read_ledger(dsn, prove=False)
    with _session(dsn) as connection:
        ((size, extension, migration),) = connection.execute(_QUERIES["facts"]).fetchall()
        roles = sorted(str(name) for (name,) in connection.execute(_QUERIES["roles"]))
    return Facts(
        format=FORMAT,
        taken_at=taken_at.isoformat(timespec="seconds"),
        database_bytes=size,
        timescaledb=extension,
        migration=migration,
        roles=tuple(roles),
        published=ledger.total("published"),
        stored=ledger.total("stored"),
    )


def _make_roles(admin: Connection, roles: tuple[str, ...]) -> None:
    """Make the roles that the schema's rights name; one that is there stays as it is."""
    for role in roles:
        if admin.execute(_QUERIES["has_role"], {"role": role}).fetchone() is None:
            admin.execute(_named("CREATE ROLE {} NOLOGIN", role))


def _make_extension(connection: Connection, version: str) -> None:
    """Make TimescaleDB in the version that the backup was taken with: its catalogue is in the dump."""
    try:
        connection.execute(_named("CREATE EXTENSION timescaledb VERSION {}", version))
    except UnavailableError:
        raise
    except Exception as error:
        raise UsageError(
            f"需要 TimescaleDB {version} / the backup needs TimescaleDB {version} on this server: "
            "restore it there, then upgrade the extension"
        ) from error


def _begin_feed(connection: Connection) -> None:
    """Let the feed of changes go on where each reader stands, on a server that counts its own way.

    Places are transactions' numbers; a new server begins at the low ones, behind where readers stand.
    """
    with connection.transaction():
        ((is_ahead,),) = connection.execute(_QUERIES["is_feed_ahead"]).fetchall()
        if not is_ahead:
            return
        for readers in ("alert_progress", "fhir_subscription"):
            connection.execute(_QUERIES["move_readers"].format(readers=sql.Identifier(readers)))
        connection.execute(_QUERIES["move_changes"])
        connection.execute(_QUERIES["move_alert_events"])


def _exchange(superuser_dsn: str, database: str, made: str, kept_as: str) -> None:
    """Give the restored database the name, or leave both as they are; services come back by themselves.

    Those that run know the registry of the former one: they are told once they can read it no more.
    """
    with _session(superuser_dsn) as admin:
        admin.execute(_named("ALTER DATABASE {} ALLOW_CONNECTIONS false", database))
        try:
            admin.execute(_QUERIES["end_sessions"], {"database": database})
            with _session(dsn_with(superuser_dsn, dbname=made)) as connection:
                connection.execute(_QUERIES["registry_is_another"])
            admin.execute(_QUERIES["end_sessions"], {"database": made})
            with translated(), admin.transaction():
                admin.execute(_named("ALTER DATABASE {} RENAME TO {}", database, kept_as))
                admin.execute(_named("ALTER DATABASE {} RENAME TO {}", made, database))
                admin.execute(_named("ALTER DATABASE {} ALLOW_CONNECTIONS true", kept_as))
        except BaseException:
            admin.execute(_named("ALTER DATABASE {} ALLOW_CONNECTIONS true", database))
            raise


def _run(
    program: Path, arguments: tuple[str, ...], dsn: str, log: Path, look: Callable[[], None]
) -> None:
    """Run one of PostgreSQL's programs; the password reaches it by its environment only."""
    child = Child(
        Program(
            name=program.name,
            argv=(str(program), "--no-password", *arguments),
            log=log,
            environment=os.environ | dsn_parts(dsn),
        )
    )
    deadline = time.monotonic() + PROGRAM_S_MAX
    while child.is_alive() and time.monotonic() < deadline:
        look()
        time.sleep(LOOK_S)
    child.wait(0.0 if child.is_alive() else LOOK_S)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _size_of(dsn: str, database: str) -> int:
    with _session(dsn) as connection:
        ((size,),) = connection.execute(_QUERIES["size_of"], {"database": database}).fetchall()
        return int(size)


def _session(dsn: str) -> Connection:
    return connect_blocking(dsn, application="hearth-backup", autocommit=True)


def _named(statement: str, *names: str) -> sql.Composed:
    return sql.SQL(statement).format(*map(sql.Identifier, names))
