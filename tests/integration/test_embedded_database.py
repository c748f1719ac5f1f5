"""The embedded database: made once, recovered after a crash, never two owners, no values in logs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import DatabaseError

from gateway.errors import UnavailableError, UsageError
from gateway.platform.embedded import unprivileged
from gateway.platform.embedded.database import NAME, Database
from gateway.platform.embedded.packages import Packages
from gateway.platform.embedded.unprivileged import can_reach
from gateway.platform.postgres import Connection, connect_blocking
from tests.fixtures.servers import is_gone, listening_on, reachable_folder

pytestmark = pytest.mark.integration
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")

OWNER = """
import sys
from pathlib import Path
from gateway.platform.embedded.database import Database
from gateway.platform.embedded.packages import Packages
database = Database(Path(sys.argv[1]), Packages(root=Path(sys.argv[2])), durable=False)
database.start()
sys.stderr.write(f"{database.pid}\\n")
sys.stderr.flush()
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def shared(packages: Packages) -> Iterator[Database]:
    """A server that no test stops."""
    with reachable_folder() as folder, Database(folder, packages, durable=False) as running:
        yield running


@pytest.fixture
def server(home: Path, packages: Packages) -> Iterator[Database]:
    """A server that the test may stop and kill."""
    with Database(home, packages, durable=False) as running:
        yield running


def connect(server: Database, role: str = NAME) -> Connection:
    return connect_blocking(server.url(role), application="test", autocommit=True)


def row(server: Database, query: str) -> tuple[object, ...] | None:
    with connect(server) as connection:
        return connection.execute(query.encode()).fetchone()


def test_it_has_timescaledb_and_utf_8_and_checksums(shared: Database) -> None:
    extension = "SELECT extname FROM pg_extension WHERE extname = 'timescaledb'"
    assert row(shared, extension) == ("timescaledb",)
    locale = "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = current_database()"
    assert row(shared, locale) == ("b", "C.UTF-8")
    for name, value in (
        ("server_encoding", "UTF8"),
        ("data_checksums", "on"),
        ("password_encryption", "scram-sha-256"),
        ("timescaledb.license", "apache"),
        ("timescaledb.telemetry_level", "off"),
        ("TimeZone", "UTC"),
    ):
        assert row(shared, f"SHOW {name}") == (value,)


def test_the_owner_of_the_schema_is_no_superuser(shared: Database) -> None:
    assert row(shared, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == (False,)


def test_what_was_committed_outlives_a_kill(server: Database) -> None:
    with connect(server) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    server.kill()
    assert server.pid is None
    server.start()
    assert row(server, "SELECT count(*) FROM kept") == (1000,)


def test_its_port_and_passwords_are_the_same_after_a_restart(server: Database) -> None:
    url = server.url()
    server.stop()
    server.start()
    assert server.url() == url
    assert row(server, "SELECT 1") == (1,)


def test_a_port_that_another_program_took_is_exchanged(server: Database) -> None:
    port = server.port
    server.stop()
    with listening_on(port):
        server.start()
        assert server.port != port
        assert row(server, "SELECT 1") == (1,)


def test_a_second_owner_is_told_that_it_runs_already(shared: Database, packages: Packages) -> None:
    second = Database(shared.home, packages)
    with pytest.raises(UsageError, match="已在运行, 属于另一进程 / runs already"):
        second.start()
    assert second.pid == shared.pid
    assert row(second, "SELECT 1") == (1,)


def test_it_ends_with_its_owner_and_the_next_one_finds_the_data(
    home: Path, packages: Packages
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(home), str(packages.root)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as owner:
        assert owner.stderr is not None
        pid = int(owner.stderr.readline())
        other = Database(home, packages, durable=False)
        with connect(other) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        owner.kill()
    with other:  # at once: it waits for what the dead owner left behind
        assert is_gone(pid)
        assert row(other, "SELECT n FROM kept") == (1,)


def test_a_crash_whose_process_number_is_another_programs_by_now(server: Database) -> None:
    stale = server.folder / "data" / "postmaster.pid"
    server.kill()
    lines = stale.read_text().splitlines()
    lines[0] = str(os.getpid())
    stale.write_text("\n".join(lines))
    server.start()
    assert row(server, "SELECT 1") == (1,)


def test_a_home_that_was_moved_still_works(server: Database, packages: Packages) -> None:
    with connect(server) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    server.stop()
    with reachable_folder() as place:
        moved = place / "moved"
        shutil.move(server.home, moved)
        server.home.mkdir()  # the fixture takes it away
        with Database(moved, packages, durable=False) as database:
            assert row(database, "SELECT n FROM kept") == (1,)


def test_half_a_cluster_is_made_anew(home: Path, packages: Packages) -> None:
    unfinished = home / "database" / "unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("17\n")
    with Database(home, packages, durable=False) as database:
        assert row(database, "SELECT 1") == (1,)


def test_data_without_its_passwords_is_not_touched(server: Database) -> None:
    server.stop()
    shutil.rmtree(server.home / "secrets")
    with pytest.raises(UsageError, match="密码丢失"):
        server.start()
    assert (server.folder / "data" / "PG_VERSION").exists()


def test_no_value_reaches_the_log_when_a_statement_fails(shared: Database) -> None:
    with connect(shared) as connection:
        connection.execute("CREATE TABLE reading (value text PRIMARY KEY)")
        connection.execute("INSERT INTO reading VALUES ('patient-value')")
        for statement in (
            b"INSERT INTO reading VALUES ('patient-value')",
            b"SELECT 'patient-value'::integer",
            b"SELECT 1 / 0, 'patient-value'",
        ):
            with pytest.raises(DatabaseError):
                connection.execute(statement)
    log = (shared.home / "log" / "database.log").read_text()
    assert "ready to accept connections" in log
    assert "patient-value" not in log


def test_a_role_of_the_schema_logs_in_once_it_is_admitted(shared: Database) -> None:
    with connect(shared) as connection:
        connection.execute("CREATE ROLE visitor")
    with connect_blocking(shared.admit("visitor"), application="test") as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("visitor",)


def test_a_wrong_password_is_refused(shared: Database) -> None:
    with pytest.raises(UnavailableError, match="password authentication failed"):
        connect_blocking(shared.url().replace(f"{NAME}:", f"{NAME}:wrong"), application="test")


def test_a_server_that_cannot_start_quotes_its_log(server: Database) -> None:
    server.stop()
    (server.folder / "data" / "global" / "pg_control").unlink()
    with pytest.raises(UnavailableError, match="pg_control"):
        server.start()
    assert server.pid is None


@as_root
def test_for_root_it_runs_as_nobody_and_only_the_data_is_nobodys(
    home: Path, reachable_packages: Packages
) -> None:
    with Database(home, reachable_packages, durable=False) as database:
        status = Path(f"/proc/{database.pid}/status").read_text()
    assert "\nUid:\t65534\t65534\t65534\t65534\n" in status
    assert (database.folder / "data").stat().st_uid == 65534
    for path in (database.folder, database.folder / "postgresql.conf", home / "secrets"):
        assert path.stat().st_uid == 0


@as_root
def test_for_root_in_a_folder_closed_to_others_it_runs_in_a_namespace(
    home: Path, reachable_packages: Packages
) -> None:
    home.chmod(0o700)
    assert not can_reach(home, 65534, 65534)
    with Database(home, reachable_packages, durable=False) as database:
        assert (database.folder / "data").stat().st_uid == 0
        mine, its = (Path(f"/proc/{pid}/ns/user").readlink() for pid in ("self", database.pid))
        assert mine != its
    home.chmod(0o711)  # and back: the same data, now as nobody
    with Database(home, reachable_packages, durable=False) as database:
        assert (database.folder / "data" / "base").stat().st_uid == 65534
        assert row(database, "SELECT 1") == (1,)


@as_root
def test_for_root_without_namespaces_the_way_out_is_named(
    home: Path, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.chmod(0o700)
    monkeypatch.setattr(unprivileged, "_can_make_namespaces", lambda _: False)
    with pytest.raises(UsageError, match="such as /var/lib/hearth"):
        Database(home, packages).start()
