"""The hub's one SQLite file: opened so that it survives power loss, or set aside and begun anew.

WAL with synchronous=FULL: a commit is on the disk when it returns (sqlite.org/wal.html). Nothing
is ever deleted because it cannot be read: a damaged file is moved aside and kept.

A new *epoch* begins whenever the numbering could otherwise say the same (epoch, sequence) twice for
different batches, which ingest would take for a redelivery: the file is new, was damaged, was
copied or restored from a backup, or the machine went down while it was open (a disk that lies about
flushing, as memory cards do, may have forgotten the last commits). Batches keep the epoch they were
sealed in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from secrets import randbelow

from gateway.errors import HearthError, UnavailableError, UsageError
from gateway.platform.named_sql import load_statements
from gateway.wire import COUNTER_END, hub_name

SCHEMA_VERSION = 4
"""Raised with edge/sql/schema.sql; an older file is taken there by edge/sql/upgrade_N.sql."""
APPLICATION_ID = 0x48525442
"""Marks the file as ours ("HRTB"); `file` shows it."""
TABLES = frozenset({"hub", "entry", "batch", "tally", "time_line", "packet"})
"""Those that every version of edge/sql/schema.sql has."""
LOCK_WAIT_S = 5.0
"""How long a write waits for a reader of the file (`hearth hub status`); then it is unavailable."""
JOURNAL_BYTES_MAX = 4 << 20
"""The write-ahead log is cut back to this after a checkpoint."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_FOLDER = Path(__file__).parent / "sql"
_STATEMENTS = load_statements(_FOLDER / "outbox.sql")


class DamagedFileError(HearthError):
    """The file's contents cannot be trusted; it has to be opened anew, which sets it aside."""


class Beginning(Enum):
    """Why an epoch began, or that none did."""

    CONTINUED = "continued"
    NEW = "new"
    DAMAGED = "damaged"
    REPLACED = "replaced"
    POWER_LOSS = "power_loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """Where the file's numbering stood when it was opened."""

    epoch: int
    next_sequence: int
    beginning: Beginning


class HubFile:
    """An open file. Of one thread; at most one process has it open for writing (edge.storage)."""

    def __init__(self, connection: sqlite3.Connection, path: Path, numbering: Numbering) -> None:
        self._connection = connection
        self.path = path
        self.numbering = numbering

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside, whole, or nothing of it.

        Raises:
            UnavailableError: the disk is full or failing now; nothing was changed.
            DamagedFileError: the file has to be set aside.
        """
        with translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def run(self, name: str, /, **values: object) -> int:
        """Run a named statement that changes rows, inside a transaction; return how many."""
        with translated():
            return self._connection.execute(_STATEMENTS[name], values).rowcount

    def rows(self, name: str, /, **values: object) -> list[tuple[object, ...]]:
        """Return all rows of a named query."""
        with translated():
            return self._connection.execute(_STATEMENTS[name], values).fetchall()

    def close(self) -> None:
        """Close in order: the next opening continues the epoch."""
        try:
            with self.transaction():
                self.run("close_hub")
        except (UnavailableError, DamagedFileError):
            pass  # the next opening begins a new epoch, or sets the file aside
        finally:
            self._connection.close()

    def abandon(self) -> None:
        """Close a file that is damaged: nothing more is written to it."""
        self._connection.close()


def open_hub_file(path: Path, hub: int, *, boot: str) -> HubFile:
    """Open or make the file of `hub`; `boot` names the machine's boot (`current_boot`).

    Raises:
        UsageError: the file is another hub's, or a newer Hearth's.
        UnavailableError: the disk is full, failing, or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    is_new = not path.exists() or path.stat().st_size == 0
    try:
        return _open(path, hub, boot, Beginning.NEW if is_new else Beginning.CONTINUED)
    except DamagedFileError:
        _set_aside(path)
        return _open(path, hub, boot, Beginning.DAMAGED)


def open_read_only(path: Path) -> HubFile:
    """Open the file beside a running hub, to look at it.

    Raises:
        UnavailableError: it cannot be read now.
        DamagedFileError: it is damaged.
    """
    with translated():
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        file = HubFile(connection, path, Numbering(epoch=1, next_sequence=1, beginning=_AS_IT_IS))
        try:
            ((_name, epoch, next_sequence, _place, _boot),) = file.rows("hub")
        except BaseException:
            connection.close()
            raise
    file.numbering = Numbering(
        epoch=integer(epoch), next_sequence=integer(next_sequence), beginning=_AS_IT_IS
    )
    return file


def set_aside(path: Path) -> list[Path]:
    """Return the damaged files that were set aside and kept beside `path`."""
    beside = path.parent.glob(f"{path.name}.damaged-*")
    return sorted(kept for kept in beside if kept.suffix.removeprefix(".damaged-").isdigit())


def current_boot() -> str:
    """Return a name of the machine's current boot (random(4)); empty where there is none."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def integer(value: object) -> int:
    """Return a column that the schema says is an integer."""
    if not isinstance(value, int):
        raise DamagedFileError(f"a column holds {type(value).__name__}, not an integer")
    return value


def real(value: object) -> float:
    """Return a column that the schema says is a real number."""
    if not isinstance(value, (int, float)):
        raise DamagedFileError(f"a column holds {type(value).__name__}, not a number")
    return float(value)


def blob(value: object) -> bytes:
    """Return a column that the schema says is a blob."""
    if not isinstance(value, bytes):
        raise DamagedFileError(f"a column holds {type(value).__name__}, not bytes")
    return value


@contextmanager
def translated() -> Iterator[None]:
    """Turn SQLite's errors into ours; what is a mistake of ours passes through."""
    try:
        yield
    except sqlite3.OperationalError as error:
        # full, I/O error, read-only, locked, cannot open: the machine's state, not the file's
        raise UnavailableError(f"outbox: {error}") from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise  # a constraint, a wrong parameter
        raise DamagedFileError(f"outbox: {error}") from error


_AS_IT_IS = Beginning.CONTINUED


def _open(path: Path, hub: int, boot: str, beginning: Beginning) -> HubFile:
    with translated():
        connection = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None)
    try:
        _prepare(connection)
        file = HubFile(
            connection, path, Numbering(epoch=1, next_sequence=1, beginning=Beginning.NEW)
        )
        file.numbering = _number(file, hub, boot, beginning)
    except BaseException:
        connection.close()
        raise
    return file


def _prepare(connection: sqlite3.Connection) -> None:
    """Check that the file is a hub's and whole, or make it one; it is not touched before."""
    with translated():
        ((verdict,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        ((application,),) = connection.execute("PRAGMA application_id").fetchall()
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = {name for (name,) in tables.fetchall()}
        if version > SCHEMA_VERSION and application == APPLICATION_ID:
            raise UsageError(
                f"发件箱由更新版本的 Hearth 创建, 请升级本程序 / the outbox was made by a newer "
                f"Hearth (schema {version}): upgrade this one"
            )
        is_ours = application == APPLICATION_ID and names >= TABLES
        if verdict != "ok" or not (is_ours or not names):
            raise DamagedFileError(f"outbox: no whole database of a hub: {verdict}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES_MAX}")
        if not names:
            schema = (_FOLDER / "schema.sql").read_text(encoding="utf-8")
            connection.executescript(
                f"BEGIN;\n{schema}\nPRAGMA application_id = {APPLICATION_ID};\n"
                f"PRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;"
            )
        for newer in range(version + 1 if names else SCHEMA_VERSION + 1, SCHEMA_VERSION + 1):
            upgrade = (_FOLDER / f"upgrade_{newer}.sql").read_text(encoding="utf-8")
            connection.executescript(f"BEGIN;\n{upgrade}\nPRAGMA user_version = {newer};\nCOMMIT;")


def _number(file: HubFile, hub: int, boot: str, beginning: Beginning) -> Numbering:
    stat = file.path.stat()
    place = f"{stat.st_dev}:{stat.st_ino}"
    rows = file.rows("hub")
    epoch, next_sequence = 0, 1
    if not rows:
        # A file whose making was interrupted has its tables or not, but no row.
        beginning = Beginning.NEW if beginning is Beginning.CONTINUED else beginning
    else:
        ((name, stored_epoch, stored_next, stored_place, open_in),) = rows
        if name != hub_name(hub):
            raise UsageError(
                f"发件箱 {file.path} 属于网关 {name}, 请为每个网关使用单独的 data_dir / the outbox "
                f"is hub {name}'s: give each hub a data_dir of its own"
            )
        epoch, next_sequence = integer(stored_epoch), integer(stored_next)
        if stored_place != place:
            beginning = Beginning.REPLACED
        elif open_in is not None and open_in != boot:
            beginning = Beginning.POWER_LOSS
    if beginning is not Beginning.CONTINUED:
        epoch, next_sequence = 1 + randbelow(COUNTER_END - 1), 1
    with file.transaction():
        file.run(
            "put_hub",
            name=hub_name(hub),
            epoch=epoch,
            next_sequence=next_sequence,
            place=place,
            open_in_boot=boot,
        )
    return Numbering(epoch=epoch, next_sequence=next_sequence, beginning=beginning)


def _set_aside(path: Path) -> None:
    """Move a damaged file and its journal out of the way, each under a name of its own."""
    kept = path.with_name(f"{path.name}.damaged-{len(set_aside(path)) + 1}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(kept.with_name(kept.name + suffix))
