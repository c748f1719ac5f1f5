"""The hub's file: whose it is, when its numbering begins anew, and what becomes of a damaged one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from edge import memory, undated
from edge.clock import LINES_MAX, TimeLine
from edge.hub_file import SCHEMA_VERSION, Beginning, open_read_only, set_aside
from edge.memory import PACKETS_MAX, read_lines, read_packets, write_lines
from edge.outbox import Limits, Outbox, Packet
from edge.status import read_status
from gateway.errors import UnavailableError, UsageError
from gateway.gatt.times import TimeType
from tests.outboxes import (
    HUB,
    NOON,
    close_all,
    items_of,
    measurement,
    number_of,
    open_file,
    open_outbox,
)

SEED = [measurement(n) for n in range(5)]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    close_all()


def begin(folder: Path) -> int:
    """Make a file with a sealed batch in it, close it in order, return its epoch."""
    outbox = open_outbox(folder)
    outbox.append(SEED)
    outbox.seal()
    outbox._file.close()
    return outbox.epoch


def test_a_new_file_begins_an_epoch_that_is_never_zero(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    assert file.numbering.beginning is Beginning.NEW
    assert 0 < file.numbering.epoch < 1 << 63
    assert file.numbering.next_sequence == 1


def test_an_older_files_schema_is_brought_up_to_date_and_nothing_in_it_is_lost(
    tmp_path: Path,
) -> None:
    epoch = begin(tmp_path)
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as old:
        old.executescript(
            "DROP TABLE undated; DROP TABLE boot; DROP TABLE receipted; DROP TABLE request;"
            "ALTER TABLE batch DROP COLUMN times_receipted;"
            "ALTER TABLE time_line DROP COLUMN drift_ppm;"
            "ALTER TABLE time_line DROP COLUMN observed_ms;"
            "ALTER TABLE time_line DROP COLUMN doubtful;"
            "INSERT INTO time_line VALUES ('0000c026da010203', 0, 1, 5000, 1, 2, NULL);"
            "PRAGMA user_version = 1"
        )
    outbox = open_outbox(tmp_path)
    assert outbox.epoch == epoch
    assert [number_of(item) for item in items_of(*outbox.batches(limit=2))] == list(range(5))
    (line,) = read_lines(outbox._file, 0xC026DA010203)
    assert (line.ahead, line.drift_ppm) == (timedelta(seconds=5), 0.0)
    assert undated.count(outbox._file) == 0


def test_a_file_goes_on_where_it_stood(tmp_path: Path) -> None:
    epoch = begin(tmp_path)
    file = open_file(tmp_path, boot="another boot")
    assert file.numbering.beginning is Beginning.CONTINUED
    assert (file.numbering.epoch, file.numbering.next_sequence) == (epoch, 2)


def test_a_killed_process_costs_no_epoch(tmp_path: Path) -> None:
    epoch = open_file(tmp_path).numbering.epoch
    assert open_file(tmp_path).numbering.epoch == epoch


def test_after_power_loss_the_numbering_begins_anew(tmp_path: Path) -> None:
    """A memory card may have forgotten its last commits: their numbers must not come again."""
    epoch = open_file(tmp_path).numbering.epoch
    file = open_file(tmp_path, boot="after power came back")
    assert file.numbering.beginning is Beginning.POWER_LOSS
    assert file.numbering.epoch != epoch


def test_a_restored_backup_begins_anew_and_still_holds_its_batches(tmp_path: Path) -> None:
    epoch = begin(tmp_path)
    backup = tmp_path / "backup"
    backup.mkdir()
    shutil.copy(tmp_path / "outbox.sqlite", backup)
    outbox = open_outbox(backup)
    assert outbox._file.numbering.beginning is Beginning.REPLACED
    assert outbox.epoch != epoch
    outbox.append([measurement(99)])
    outbox.seal()
    old, new = outbox.batches(limit=10)
    assert (old.epoch, old.sequence) == (epoch, 1)
    assert (new.epoch, new.sequence) == (outbox.epoch, 1)


@pytest.mark.parametrize("damage", ["no database", "middle", "another database", "schema"])
def test_a_damaged_file_is_kept_aside_and_a_new_one_begun(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "outbox.sqlite"
    epoch = begin(tmp_path)
    match damage:
        case "no database":
            path.write_bytes(b"not a database at all" * 300)
        case "middle":
            content = bytearray(path.read_bytes())
            content[4096 : 4096 + 2000] = b"\xff" * 2000
            path.write_bytes(content)
        case "another database":
            path.unlink()
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE somebodys (thing)")
            connection.close()
        case "schema":
            with sqlite3.connect(path) as connection:
                connection.execute("DROP TABLE entry")
            connection.close()
    before = path.read_bytes()
    outbox = open_outbox(tmp_path)
    assert outbox._file.numbering.beginning is Beginning.DAMAGED
    assert outbox.epoch != epoch
    (kept,) = set_aside(path)
    assert kept.read_bytes()[: len(before)] == before
    outbox.append(SEED)
    path_again = path.read_bytes()
    assert path_again


def test_each_damaged_file_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    for content in (b"first" * 1000, b"second" * 1000):
        path.write_bytes(content)
        open_file(tmp_path).close()
    assert [kept.read_bytes()[:5] for kept in set_aside(path)] == [b"first", b"secon"]


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").touch()
    assert open_file(tmp_path).numbering.beginning is Beginning.NEW


def test_the_file_of_another_hub_is_refused(tmp_path: Path) -> None:
    open_file(tmp_path).close()
    with pytest.raises(UsageError, match="00c0ffee00c0ffee"):
        open_file(tmp_path, hub=HUB + 1)


def test_the_file_of_a_newer_hearth_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    open_file(tmp_path).close()
    path = tmp_path / "outbox.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(UsageError, match="newer"):
        open_file(tmp_path)
    assert set_aside(path) == []


def test_a_file_that_is_locked_is_unavailable_not_damaged(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    other = sqlite3.connect(tmp_path / "outbox.sqlite", timeout=0)
    other.execute("BEGIN IMMEDIATE")
    file._connection.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(UnavailableError, match="locked"), file.transaction():
        pass
    other.close()
    assert set_aside(file.path) == []


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    outbox = Outbox(file, HUB, Limits())
    outbox.append(SEED)
    with pytest.raises(sqlite3.ProgrammingError), file.transaction():  # noqa: PT012 - two steps
        file.run("delete_entries", last_id=10)
        file.run("put_entry")  # without its values
    outbox.seal()
    (batch,) = outbox.batches(limit=10)
    assert [number_of(item) for item in items_of(batch)] == list(range(5))


def test_the_status_is_read_beside_a_running_hub(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append(SEED)
    outbox.seal()
    outbox.append([measurement(9)])
    status = read_status(HUB, tmp_path / "outbox.sqlite", tmp_path / "identity")
    assert (status.epoch, status.next_sequence) == (outbox.epoch, 2)
    assert (status.depth.entries, status.depth.batches, status.depth.records) == (1, 1, 5)
    assert status.files_set_aside == 0
    assert status.as_json()["hub"] == "00c0ffee00c0ffee"


def test_the_status_of_a_hub_that_never_ran_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has not run"):
        read_status(HUB, tmp_path / "outbox.sqlite", tmp_path / "identity")


def test_the_status_of_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(UsageError, match="restart the hub"):
        read_status(HUB, path, tmp_path / "identity")


def test_looking_changes_nothing(tmp_path: Path) -> None:
    begin(tmp_path)
    file = open_read_only(tmp_path / "outbox.sqlite")
    with pytest.raises(UnavailableError, match="readonly"), file.transaction():
        file.run("delete_entries", last_id=10)
    file.abandon()


def a_line(ahead_s: int = 0, *, last_days: int = 0) -> TimeLine:
    return TimeLine(
        type=TimeType.LOCAL,
        ahead=timedelta(seconds=ahead_s),
        first_at=NOON,
        last_at=NOON + timedelta(days=last_days),
        set_at=None,
    )


def test_a_devices_time_lines_are_remembered(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    device = (1 << 64) - 1
    lines = tuple(a_line(ahead_s) for ahead_s in range(-4, LINES_MAX - 4))
    write_lines(file, device, lines)
    write_lines(file, 1, lines[:1])
    assert read_lines(file, device) == lines
    write_lines(file, device, lines[3:])
    assert read_lines(file, device) == lines[3:]
    assert read_lines(file, 2) == ()


def test_the_devices_met_longest_ago_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "DEVICES_MAX", 3)
    file = open_file(tmp_path)
    for device in range(5):
        write_lines(file, device, (a_line(last_days=device),))
    remembered = [bool(read_lines(file, device)) for device in range(5)]
    assert remembered == [False, False, True, True, True]


def test_the_latest_packets_are_remembered_in_their_order(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    outbox = Outbox(file, HUB, Limits())
    packets = [
        Packet(device=n % 3, source=0xFCD2, digest=n.to_bytes(8, "big"))
        for n in range(PACKETS_MAX + 10)
    ]
    outbox.append([], packets)
    outbox.append([], [packets[50]])
    remembered = read_packets(file)
    assert len(remembered) <= PACKETS_MAX
    assert remembered[-1] == packets[50]
    assert packets[0] not in remembered
