"""The audit's chains: any row that is changed or removed is named, and nothing is taken back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

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


def forge(dsn: str, statement: LiteralString) -> None:
    """What only somebody with the database in their hands can do: the triggers are off."""
    with connect_blocking(dsn, application="hearth-tests") as connection:
        connection.execute("ALTER TABLE audit DISABLE TRIGGER USER")
        connection.execute("ALTER TABLE audit_anchor DISABLE TRIGGER USER")
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
    (damage,) = verified(database, notary).damage
    assert (damage.seq, damage.what) == (4, "removed from the end"), "the file still knows"


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
