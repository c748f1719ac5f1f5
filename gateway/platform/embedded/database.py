"""The embedded database: PostgreSQL 17 with TimescaleDB on loopback, its data under HEARTH_HOME.

When the process that owns it dies, even by kill -9, the server shuts down; when the server itself
is killed, the next start recovers from its log.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from gateway.errors import UsageError
from gateway.platform.embedded.database_config import HOST_ACCESS, Tuning, configuration
from gateway.platform.embedded.packages import Packages
from gateway.platform.embedded.server import Server
from gateway.platform.embedded.unprivileged import own_all, write_for
from gateway.platform.logs import get_logger
from gateway.platform.postgres import Connection, connect_blocking, sql, translated
from gateway.platform.process import READY_POLL_S, Child, Program, RunAs
from gateway.platform.secret_files import secret, secret_path
from gateway.platform.settings import LOOPBACK

NAME = "hearth"
"""The database, and the role that owns it."""
SUPERUSER = "postgres"
INITDB_S_MAX = 120.0
"""Making a new cluster takes about 2 s; past this the disk is taken as stuck."""
LEFTOVER_S_MAX = 30.0
"""What an owner that died left behind shuts down by itself; after this it is killed."""
TIME_ZONES = Path("/usr/share/zoneinfo")
"""Debian's PostgreSQL reads the machine's own time zones."""

log = get_logger(__name__)


class Database(Server):
    """The embedded database of one home."""

    name = "database"
    title = "数据库 / the database"
    ready_s_max = 120.0
    """A start includes the recovery after a crash, which the size of the log bounds."""

    def __init__(self, home: Path, packages: Packages, *, durable: bool = True) -> None:
        """Describe it; nothing is started.

        `durable` False makes commits quicker and bets on there being no power cut: for tests.
        """
        super().__init__(home, packages)
        self._data = self.folder / "data"
        self._durable = durable

    def url(self, role: str = NAME, database: str = NAME) -> str:
        """Return the DSN of a role, by default the database's owner; it holds the password."""
        return f"postgresql://{role}:{self._password(role)}@{LOOPBACK}:{self.port}/{database}"

    def admit(self, role: str) -> str:
        """Let a role that the schema made log in by a password of its own; return its DSN."""
        change = sql.SQL("ALTER ROLE {role} LOGIN PASSWORD {password}").format(
            role=sql.Identifier(role), password=self._password(role)
        )
        # Roles are the server's: in one database, so that two who change one take turns.
        with self._superuser(SUPERUSER) as connection, translated(), connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('hearth-admit'))")
            connection.execute(change)
        return self.url(role)

    def prepare(self, run_as: RunAs | None) -> None:
        """Make the cluster if there is none; clear away what a crash left."""
        if not TIME_ZONES.is_dir():
            raise UsageError(
                "缺少时区数据 / this machine has no time zones: 请安装 / install them with "
                "`apt-get install tzdata`"
            )
        end_processes_in(self._data)
        if not self._data.exists():
            self._make_cluster(run_as)
        elif not secret_path(self.home, f"database_{SUPERUSER}").exists():
            raise UsageError(
                f"密码丢失 / {self._data} is there but its passwords are not: 请恢复 / restore "
                f"{self.home / 'secrets'}, or move the data away to begin anew"
            )
        own_all(run_as, self._data)
        # No process is in the folder, so this names nobody; the number may be another's by now.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def program(self, port: int, run_as: RunAs | None) -> Program:
        """Write the configuration and return the command."""
        file, host_access = self.folder / "postgresql.conf", self.folder / "pg_hba.conf"
        tuning = Tuning(
            host_access=host_access,
            port=port,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            durable=self._durable,
        )
        file.write_text(configuration(tuning), encoding="utf-8")
        host_access.write_text(HOST_ACCESS, encoding="ascii")
        return self._program(
            "postgres", "-D", str(self._data), "-c", f"config_file={file}", run_as=run_as
        )

    def is_ready(self) -> bool:
        """PostgreSQL's own sign, as pg_ctl reads it: line 8 of its file says "ready"."""
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"  # noqa: PLR2004 - see above

    def complete(self) -> None:
        """Make role, database and extension where they are not there yet."""
        role = sql.Identifier(NAME)
        with self._superuser(SUPERUSER) as connection, translated():
            has_role = "SELECT 1 FROM pg_roles WHERE rolname = %s"
            if connection.execute(has_role, [NAME]).fetchone() is None:
                # It makes the roles of the services; only the extension needs the superuser.
                make = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {}")
                connection.execute(make.format(role, self._password(NAME)))
            has_database = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(has_database, [NAME]).fetchone() is None:
                # template1 can be in use: TimescaleDB's workers look into every database.
                make = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0")
                connection.execute(make.format(role, role))
        with self._superuser(NAME) as connection, translated():
            connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")

    def _make_cluster(self, run_as: RunAs | None) -> None:
        unfinished, password = self.folder / "unfinished", self.folder / "password"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        own_all(run_as, unfinished)
        write_for(run_as, password, self._password(SUPERUSER))
        initdb = self._program(
            "initdb",
            *("--pgdata", str(unfinished), "--username", SUPERUSER, "--data-checksums"),
            *("--auth", "scram-sha-256", "--pwfile", str(password), "--encoding", "UTF8"),
            # Collation of PostgreSQL's own: an index does not depend on the machine's C library.
            *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            *("--no-instructions", *(() if self._durable else ("--no-sync",))),
            run_as=run_as,
        )
        try:
            Child(initdb).wait(INITDB_S_MAX)
        finally:
            password.unlink()
        unfinished.rename(self._data)

    def _program(self, name: str, *arguments: str, run_as: RunAs | None) -> Program:
        return Program(
            name=name,
            argv=(str(self.packages.program(name)), *arguments),
            log=self.home / "log" / "database.log",
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            run_as=run_as,
            stop_signal=signal.SIGINT,  # "fast": clients are cut off, then a checkpoint
        )

    def _superuser(self, database: str) -> Connection:
        url = self.url(SUPERUSER, database)
        return connect_blocking(url, application="hearth-embedded", autocommit=True)

    def _password(self, role: str) -> str:
        return secret(self.home, f"database_{role}")


def end_processes_in(folder: Path) -> None:
    """Wait for the processes that work in a folder to end; kill them after `LEFTOVER_S_MAX`."""
    deadline = time.monotonic() + LEFTOVER_S_MAX
    while pids := _processes_in(folder):
        if time.monotonic() > deadline:
            log.warning("leftovers_killed", pids=pids)
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(READY_POLL_S)


def _processes_in(folder: Path) -> list[int]:
    where = str(folder.resolve())
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        # It may end while we look; another user's is not ours to see, and not ours.
        with suppress(OSError):
            if str(link.readlink()) == where:
                found.append(int(link.parent.name))
    return found
