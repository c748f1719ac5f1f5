"""The audit's chains: any row that is changed or removed is named, and nothing is taken back."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from gateway.platform import audit_witness
from gateway.platform.audit import AuditEvent, Notary, Verified, write_audit_blocking
from gateway.platform.postgres import connect_blocking
from tests.worlds import query

pytestmark = pytest.mark.integration


@pytest.fixture
def notary(tmp_path: Path) -> Notary:
    return Notary(tmp_path)


def write(dsn: str, count: int) -> None:
    events = [AuditEvent(actor="cli:x", action="a.b", detail={"n": n}) for n in range(count)]
    with connect_blocking(dsn, application="hearth-tests") as connection:
        write_audit_blocking(connection, events)


def verified(dsn: str, notary: Notary) -> Verified:
    with connect_blocking(dsn, application="hearth-tests") as connection:
        return notary.verify(connection)


def anchor(dsn: str, notary: Notary) -> int:
    with connect_blocking(dsn, application="hearth-tests") as connection:
        return notary.anchor(connection)


def witness(dsn: str, notary: Notary) -> list[int]:
    with connect_blocking(dsn, application="hearth-tests") as connection:
        return notary.witness(connection)


def forge(dsn: str, *statements: LiteralString) -> None:
    """What only somebody with the database in their hands can do: the triggers are off."""
    with connect_blocking(dsn, application="hearth-tests") as connection:
        connection.execute("ALTER TABLE audit DISABLE TRIGGER USER")
        connection.execute("ALTER TABLE audit_anchor DISABLE TRIGGER USER")
        for statement in statements:
            connection.execute(statement)
        connection.execute("ALTER TABLE audit ENABLE TRIGGER USER")
        connection.execute("ALTER TABLE audit_anchor ENABLE TRIGGER USER")


def test_what_was_written_is_whole_before_and_after_anchors(database: str, notary: Notary) -> None:
    for count in (3, 5):
        write(database, count)
        assert anchor(database, notary) == 1
        assert anchor(database, notary) == 0, "nothing moved"
    found = verified(database, notary)
    assert (found.rows, found.anchors, found.damage) == (8, 2, [])


def test_sessions_that_write_at_once_do_so_in_chains_of_their_own(
    database: str, notary: Notary
) -> None:
    first = connect_blocking(database, application="hearth-tests")
    with first:
        write_audit_blocking(first, [AuditEvent(actor="cli:x", action="a.b")])
        write(database, 2)  # it does not wait for the first, which has not committed
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write(database, 10), range(16)))
    assert len(query(database, "SELECT chain FROM audit_chain WHERE seq > 0")) > 1
    assert verified(database, notary).damage == []


@pytest.mark.parametrize(
    ("statement", "audit_id", "what"),
    [
        ("UPDATE audit SET actor = 'cli:y' WHERE audit_id = 3", 3, "changed"),
        ("UPDATE audit SET at = at + interval '1 us' WHERE audit_id = 1", 1, "changed"),
        ("UPDATE audit SET detail = '{}' WHERE audit_id = 5", 5, "changed"),
        ("DELETE FROM audit WHERE audit_id = 2", None, "removed; the next row there is audit_id 3"),
        ("DELETE FROM audit WHERE audit_id = 1", None, "removed; the next row there is audit_id 2"),
        ("DELETE FROM audit WHERE audit_id = 5", None, "removed from the end"),
        ("DELETE FROM audit", None, "removed from the end"),
    ],
)
def test_the_first_row_that_was_changed_or_removed_is_named(
    database: str, notary: Notary, statement: LiteralString, audit_id: int | None, what: str
) -> None:
    write(database, 5)
    forge(database, statement)
    (damage,) = verified(database, notary).damage
    assert (damage.audit_id, damage.what) == (audit_id, what)


def test_a_tail_that_is_cut_off_with_its_head_is_found_by_the_anchor(
    database: str, notary: Notary
) -> None:
    write(database, 5)
    anchor(database, notary)
    forge(
        database,
        "DELETE FROM audit WHERE audit_id > 3; UPDATE audit_chain SET (seq, hash) ="
        " (SELECT seq, hash FROM audit WHERE audit_id = 3) WHERE seq = 5",
    )
    (damage,) = verified(database, notary).damage
    assert (damage.seq, damage.what) == (4, "removed from the end")
    forge(database, "DELETE FROM audit_anchor")
    damage, anchors = verified(database, notary).damage
    assert (damage.seq, damage.what) == (4, "removed from the end"), "the file still knows"
    assert anchors.what == "an anchor is gone from the database: anchors.jsonl has it"


HEADS_FOLLOW: LiteralString = (
    "UPDATE audit_chain AS head SET"
    " seq = coalesce((SELECT max(seq) FROM audit WHERE chain = head.chain), 0),"
    " hash = coalesce((SELECT hash FROM audit WHERE chain = head.chain ORDER BY seq DESC LIMIT 1),"
    " '')"
)
"""Makes each chain whole again by itself after its end was cut off."""
THREE_STAY: tuple[LiteralString, ...] = ("DELETE FROM audit WHERE audit_id > 3", HEADS_FOLLOW)
NONE_STAYS: tuple[LiteralString, ...] = (
    "DELETE FROM audit",
    "DELETE FROM audit_anchor",
    HEADS_FOLLOW,
)


def write_in_chains_of_their_own(dsn: str, count: int) -> None:
    with ExitStack() as stack:
        for n in range(count):
            connection = connect_blocking(dsn, application="hearth-tests")
            stack.enter_context(connection)
            write_audit_blocking(connection, [AuditEvent(actor="cli:x", action=f"a.{n}")])


@pytest.mark.parametrize(
    ("cut", "anchored", "named"),
    [
        pytest.param(THREE_STAY, 0, [4], id="the last row of one chain"),
        pytest.param(NONE_STAYS, 0, [1, 2, 3, 4], id="the last rows of all chains"),
        pytest.param(NONE_STAYS, 2, [1, 2, 3, 4], id="all of them with the anchors"),
    ],
)
def test_the_newest_rows_cut_off_with_their_heads_and_anchors_are_named_by_the_notes(
    database: str, notary: Notary, cut: tuple[LiteralString, ...], anchored: int, named: list[int]
) -> None:
    write_in_chains_of_their_own(database, anchored)
    anchor(database, notary)
    write_in_chains_of_their_own(database, 4 - anchored)
    assert witness(database, notary) == []
    rows = query(database, "SELECT chain, seq FROM audit ORDER BY audit_id")
    where = dict(enumerate(rows, 1))
    forge(database, *cut)
    found = [one for one in verified(database, notary).damage if one.chain >= 0]
    first: dict[int, int] = {}
    for audit_id in named:
        first.setdefault(*where[audit_id])
    assert {one.chain: one.seq for one in found} == first
    assert {one.what for one in found} == {"removed from the end"}


def test_a_chain_that_went_back_is_told_at_the_next_note(database: str, notary: Notary) -> None:
    write(database, 5)
    assert witness(database, notary) == []
    forge(database, *THREE_STAY)
    assert len(witness(database, notary)) == 1
    write(database, 4)
    witness(database, notary)
    assert {one.what for one in verified(database, notary).damage} & {
        "written anew: an anchor knows another",
        "removed from the end",  # the later rows went to another chain
    }


def test_a_head_that_is_gone_with_its_rows_is_named(database: str, notary: Notary) -> None:
    write(database, 2)
    witness(database, notary)
    forge(database, "DELETE FROM audit; DELETE FROM audit_chain WHERE seq = 2")
    (damage,) = verified(database, notary).damage
    assert (damage.seq, damage.what) == (1, "removed from the end")


def test_rows_that_nothing_outside_the_database_knows_yet_are_counted(
    database: str, notary: Notary
) -> None:
    write(database, 3)
    assert verified(database, notary).unwitnessed == 3
    witness(database, notary)
    assert verified(database, notary).unwitnessed == 0
    write_in_chains_of_their_own(database, 2)
    assert verified(database, notary).unwitnessed == 2


def test_the_file_of_notes_is_bounded_and_keeps_the_last_of_each_chain(
    database: str, notary: Notary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_witness, "HEADS_BYTES_MAX", 1_000)
    for _ in range(20):
        write_in_chains_of_their_own(database, 3)
        assert witness(database, notary) == []
    assert len((tmp_path / "audit" / "heads.jsonl").read_text().splitlines()) == 1
    found = verified(database, Notary(tmp_path))
    assert (found.unwitnessed, found.damage) == (0, [])


def test_a_forged_note_is_named_and_a_torn_one_is_not_read(
    database: str, notary: Notary, tmp_path: Path
) -> None:
    write(database, 1)
    witness(database, notary)
    file = tmp_path / "audit" / "heads.jsonl"
    whole = file.read_text()
    file.write_text(whole + whole[:-9])
    assert verified(database, notary).damage == []
    for forged in (whole.replace('"at_us": 1', '"at_us": 2'), "{}\n"):
        file.write_text(whole + forged)
        (damage,) = verified(database, notary).damage
        assert (damage.seq, damage.what) == (2, "a line of heads.jsonl is forged")


@pytest.mark.parametrize("name", ["heads.jsonl", "anchors.jsonl"])
@pytest.mark.parametrize("torn", [b'{"at_us": 17', bytes(4096)])
def test_a_line_that_a_full_disk_cut_off_spoils_none_behind_it(
    database: str, notary: Notary, tmp_path: Path, name: str, torn: bytes
) -> None:
    file = tmp_path / "audit" / name
    for _ in range(2):
        write(database, 1)
        witness(database, notary)
        anchor(database, notary)
        file.write_bytes(file.read_bytes() + torn)
    write(database, 1)
    witness(database, notary)
    anchor(database, notary)
    assert verified(database, notary).damage == []
    assert len(file.read_text().splitlines()) == 3


def test_an_anchor_costs_what_is_new_and_not_what_there_is(database: str, notary: Notary) -> None:
    with connect_blocking(database, application="hearth-tests") as connection:
        connection.execute(
            "INSERT INTO audit_anchor (at, heads, mac)"
            " SELECT now(), (SELECT jsonb_object_agg(chain, jsonb_build_array(0, repeat('ab', 32)))"
            " FROM audit_chain), decode('01', 'hex') FROM generate_series(1, 1000)"
        )
    peaks = []
    tracemalloc.start()
    try:
        for _ in range(2):
            write(database, 1)
            tracemalloc.reset_peak()
            before, _peak = tracemalloc.get_traced_memory()
            assert anchor(database, notary) == 1
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert peaks[0] < 8 * 1024 * 1024
    assert peaks[1] < 1024 * 1024


def test_an_anchor_continues_what_a_restore_has_left(database: str, notary: Notary) -> None:
    for _ in range(2):
        write(database, 1)
        anchor(database, notary)
    forge(database, "DELETE FROM audit_anchor WHERE anchor_id = 2")
    write(database, 1)
    anchor(database, notary)
    told = [damage.what for damage in verified(database, notary).damage]
    assert told == ["an anchor is gone from the database: anchors.jsonl has it"]


def test_a_chain_that_is_written_anew_is_found_by_the_anchor(database: str, notary: Notary) -> None:
    write(database, 3)
    anchor(database, notary)
    forge(
        database,
        "UPDATE audit SET actor = 'cli:y', hash = sha256((SELECT hash FROM audit WHERE audit_id ="
        " 2) || convert_to(audit_text((SELECT a FROM (SELECT audit_id, at, seq, resident_id, chain,"
        " 'cli:y' AS actor, action, reason, origin, detail, hash FROM audit WHERE audit_id = 3) AS"
        " b, LATERAL (SELECT (b.audit_id, b.at, b.seq, b.resident_id, b.chain, b.actor, b.action,"
        " b.reason, b.origin, b.detail, b.hash)::audit AS a) AS c)), 'UTF8')) WHERE audit_id = 3;"
        " UPDATE audit_chain SET hash = (SELECT hash FROM audit WHERE audit_id = 3) WHERE seq = 3",
    )
    (damage,) = verified(database, notary).damage
    assert (damage.audit_id, damage.what) == (3, "written anew: an anchor knows another")


def test_a_forged_anchor_is_named(database: str, notary: Notary, tmp_path: Path) -> None:
    write(database, 1)
    anchor(database, notary)
    forge(database, "UPDATE audit_anchor SET at = at - interval '1 day'")
    assert verified(database, notary).damage[0].what == "an anchor is forged or gone"
    other = Notary(tmp_path / "another")
    assert verified(database, other).damage[0].what == "an anchor is forged or gone"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'x'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "DELETE FROM audit_anchor",
        "INSERT INTO audit_pruned SELECT chain, seq, hash FROM audit_chain; DELETE FROM audit",
    ],
)
def test_not_even_the_schemas_owner_takes_anything_back(
    database: str, notary: Notary, statement: LiteralString
) -> None:
    write(database, 3)
    anchor(database, notary)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        query(database, statement)


def test_only_segments_that_are_anchored_and_old_enough_go(database: str, notary: Notary) -> None:
    def prune(before: datetime) -> int:
        with connect_blocking(database, application="hearth-tests") as connection:
            return notary.prune(connection, before)

    write(database, 3)
    anchor(database, notary)
    write(database, 2)
    now = datetime.now(UTC)
    assert prune(now - timedelta(days=183)) == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        prune(now)  # a caller that forgets the six months: the database does not
    assert verified(database, notary).rows == 5
    forge(
        database,
        "UPDATE audit SET at = at - interval '1 year';"
        " UPDATE audit_anchor SET at = at - interval '1 year'",
    )
    assert prune(now - timedelta(days=183)) == 3
    assert query(database, "SELECT count(*) FROM audit") == [(2,)], "no anchor has them yet"
