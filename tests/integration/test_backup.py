"""A backup comes back whole; and what came after it is sent again: nothing lost, nothing doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import UnavailableError, UsageError
from gateway.platform.changes import Changed, Place, record_change, summarised
from gateway.platform.embedded.database import NAME, SUPERUSER, Database
from gateway.platform.embedded.packages import Packages
from gateway.platform.postgres import connect, connect_blocking, sql
from ingest.backup import Tools, _exchange, backup, backup_keys, read_facts, restore
from ingest.ledger import read_ledger
from ingest.verdicts import Verdict
from tests.feeds import settled_changes
from tests.fixtures.database import close_to_all, database_for, make_timescale
from tests.fixtures.workers import Workers, a_hub
from tests.worlds import NOON, STRANGER, a_message, a_pressure, enter_registry, query

pytestmark = pytest.mark.integration


@pytest.fixture
def tools(packages: Packages, tmp_path: Path) -> Tools:
    return Tools(
        pg_dump=packages.program("pg_dump"),
        pg_restore=packages.program("pg_restore"),
        log=tmp_path / "backup.log",
    )


@pytest.fixture
def drop_former(database_server: Database, database: str) -> Iterator[None]:
    """Drop what a restore has kept under another name."""
    name = database.rpartition("/")[2]
    yield
    url = database_server.url(SUPERUSER, SUPERUSER)
    with connect_blocking(url, application="hearth-tests", autocommit=True) as admin:
        names = admin.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s OR datname = %s",
            [f"{name}_before_%", f"{name}_restoring"],
        ).fetchall()
        for (former,) in names:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(former)))


@pytest.mark.usefixtures("drop_former")
def test_after_a_restore_to_an_older_state_the_hubs_batches_come_back_once(
    workers: Workers, database_server: Database, tools: Tools, tmp_path: Path
) -> None:
    """Stored before the backup, stored after it, restored, sent again: every reading is one row."""
    workers.start()
    database = workers.database
    name = database.rpartition("/")[2]
    told: list[float] = []
    before = [a_message(a_pressure(at=NOON + timedelta(minutes=n)), sequence=n) for n in (1, 2, 3)]
    after = [a_message(a_pressure(at=NOON + timedelta(minutes=n)), sequence=n) for n in (4, 5)]
    with a_hub(workers.broker) as hub:
        hub.publish(*before)
        hub.receipts()
        facts = backup(database, tmp_path / "backup", tools, told.append)
        hub.publish(*after)
        assert len(hub.receipts()) == 5
    done = restore(
        database_server.url(SUPERUSER, SUPERUSER),
        name,
        NAME,
        tmp_path / "backup",
        tools,
        told.append,
    )
    assert (facts.stored, done.stored, told[-1]) == (3, 3, 1.0)
    assert query(database, "SELECT count(*) FROM measurement") == [(3,)]
    with a_hub(workers.broker) as hub:  # the worker has come back to the restored store by itself
        hub.publish(*before[1:], *after)
        receipts = hub.receipts()
    assert [receipts[n].stored for n in (2, 3, 4, 5)] == [1, 1, 1, 1]
    assert query(database, "SELECT count(*) FROM measurement") == [(5,)]
    ledger = read_ledger(database)
    assert (ledger.balanced, ledger.total("published")) == (True, 5)


@pytest.mark.usefixtures("drop_former")
def test_a_worker_that_runs_on_knows_nothing_of_what_was_registered_after_the_backup(
    workers: Workers, database_server: Database, tools: Tools, tmp_path: Path
) -> None:
    """Its keys are given out again: the next device to be entered would have the readings."""
    workers.start()
    database = workers.database
    with a_hub(workers.broker) as hub:
        hub.publish(a_message(a_pressure(), sequence=1))
        hub.receipts()
        backup(database, tmp_path / "backup", tools, lambda _part: None)
        query(
            database,
            "INSERT INTO device (device_id, address, home_id) OVERRIDING SYSTEM VALUE"
            " VALUES (13, 'C0:26:DA:0F:0F:0F', 1);"
            "INSERT INTO link (device_id, user_slot, resident_id, during)"
            " VALUES (13, 255, 102, '(,)')",
        )
        time.sleep(1.0)  # the worker has followed
        hub.publish(a_message(a_pressure(device=STRANGER), sequence=2))
        assert hub.receipts()[2].stored == 1
    restore(
        database_server.url(SUPERUSER, SUPERUSER),
        database.rpartition("/")[2],
        NAME,
        tmp_path / "backup",
        tools,
        lambda _part: None,
    )
    with a_hub(workers.broker) as hub:
        hub.publish(a_message(a_pressure(device=STRANGER), sequence=2))
        assert hub.receipts()[2].quarantined == 1
    assert query(database, "SELECT reason FROM quarantine") == [(Verdict.DEVICE_UNKNOWN,)]


def test_where_the_names_cannot_be_exchanged_the_database_in_use_stays_open(
    database: str, database_server: Database
) -> None:
    url = database_server.url(SUPERUSER, SUPERUSER)
    with pytest.raises(UnavailableError):
        _exchange(url, database.rpartition("/")[2], "never_made", "never_kept")
    assert query(database, "SELECT 1") == [(1,)]


def test_a_backup_comes_back_on_another_server_s_empty_database(
    workers: Workers, database_server: Database, tools: Tools, tmp_path: Path
) -> None:
    workers.start()
    with a_hub(workers.broker) as hub:
        hub.publish(a_message(a_pressure()))
        hub.receipts()
    backup(workers.database, tmp_path / "backup", tools, lambda _part: None)
    with database_for(database_server, "elsewhere"):
        make_timescale(database_server, "elsewhere")
        close_to_all(database_server, "elsewhere")
        done = restore(
            database_server.url(SUPERUSER, SUPERUSER),
            "elsewhere",
            NAME,
            tmp_path / "backup",
            tools,
            lambda _part: None,
        )
        url = database_server.url(database="elsewhere")
        assert read_ledger(url).balanced
        assert query(url, "SELECT systolic_mmhg FROM measurement") == [(128.0,)]
        query(
            database_server.url(SUPERUSER, SUPERUSER),
            f"DROP DATABASE {done.kept_as} WITH (FORCE)",
        )


@pytest.mark.usefixtures("drop_former")
async def test_who_follows_along_goes_on_after_a_restore_on_a_new_server(
    database: str, database_server: Database, tools: Tools, tmp_path: Path
) -> None:
    """A new server's transactions have low numbers: behind where the readers of the former one stood."""
    async with await connect(database, application="hearth-tests", autocommit=True) as connection:
        for resident in (1, 2, 3):
            await record_change(connection, _changed(resident), 4_000_000_000_000)
    query(
        database,
        "UPDATE change SET transaction_id = (transaction_id::text::bigint + 1000000000)::text::xid8;"
        "INSERT INTO alert_progress (pace, transaction_id, change_id, rules_entered)"
        " SELECT 'prompt', transaction_id::text::bigint, change_id, 0 FROM change"
        " ORDER BY change_id LIMIT 1",
    )
    backup(database, tmp_path / "backup", tools, lambda _part: None)
    restore(
        database_server.url(SUPERUSER, SUPERUSER),
        database.rpartition("/")[2],
        NAME,
        tmp_path / "backup",
        tools,
        lambda _part: None,
    )
    ((transaction, change),) = query(
        database, "SELECT transaction_id, change_id FROM alert_progress"
    )
    async with await connect(database, application="hearth-tests", autocommit=True) as connection:
        await record_change(connection, _changed(4), 4_000_000_000_000)
        news = await settled_changes(connection, Place(transaction, change), 3)
    assert [int(one.changed.resident[0]) for one in news] == [2, 3, 4]


def _changed(resident: int) -> Changed:
    return summarised(np.array([resident]), np.array([1]), np.array([1_000]))


@pytest.mark.usefixtures("drop_former")
def test_a_backup_of_the_store_opens_nobody_without_the_backup_of_the_keys(
    database: str, database_server: Database, tools: Tools, tmp_path: Path
) -> None:
    """One resident is erased after the store's backup and before the keys'; another stays."""
    name = database.rpartition("/")[2]
    enter_registry(database)
    query(
        database,
        "INSERT INTO resident_key (resident_id, key_id, wrapped)"
        " SELECT resident_id, 1, decode(repeat(to_hex(resident_id % 256), 30), 'hex') FROM resident"
        " WHERE resident_id IN (101, 102)",
    )
    backup(database, tmp_path / "backup", tools, lambda _part: None)
    query(database, "DELETE FROM resident_key WHERE resident_id = 101")
    keys = backup_keys(database, tmp_path / "keys", datetime.now(UTC))
    known = query(database, "SELECT * FROM resident_key ORDER BY resident_id")
    assert [resident for resident, *_key in known] == [102]
    assert keys.stat().st_mode & 0o777 == 0o600
    where = (database_server.url(SUPERUSER, SUPERUSER), name, NAME, tmp_path / "backup", tools)
    assert restore(*where, lambda _part: None).keys == 0
    assert query(database, "SELECT * FROM resident_key") == []
    time.sleep(1.1)  # what is kept of the former database is named by the second
    assert restore(*where, lambda _part: None, keys=keys).keys == 1
    assert query(database, "SELECT * FROM resident_key ORDER BY resident_id") == known
    with pytest.raises(UsageError, match="cannot be read"):
        restore(*where, lambda _part: None, keys=tmp_path / "none")


def test_backups_of_the_keys_are_removed_after_thirty_days(database: str, tmp_path: Path) -> None:
    (tmp_path / "keys-of-another.copy").touch()
    first = backup_keys(database, tmp_path, NOON)
    second = backup_keys(database, tmp_path, NOON + timedelta(days=29))
    third = backup_keys(database, tmp_path, NOON + timedelta(days=31))
    assert not first.exists()
    assert {second.name, third.name, "keys-of-another.copy"} == {f.name for f in tmp_path.iterdir()}


def test_a_folder_that_is_there_is_not_overwritten(tools: Tools, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there already"):
        backup("postgresql:///none", tmp_path, tools, lambda _part: None)
    with pytest.raises(UsageError, match="no backup"):
        read_facts(tmp_path)
