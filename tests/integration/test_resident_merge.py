"""Double entries merged and parted again, and residents erased, over readings that ingest stored."""

from __future__ import annotations

import asyncio
import json
import os
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import pytest
from typer.testing import CliRunner

from api.corrections import Author, Period, reassign
from api.erasure import erase
from api.resident_merge import merge, unmerge
from gateway.cli.admin import app
from gateway.errors import UsageError
from gateway.measurement import device_address
from gateway.platform.postgres import Connection, connect, connect_blocking
from gateway.wire import RECORD_BYTES
from ingest.ledger import read_ledger
from ingest.quarantine import ActedBy, Filter, replay
from ingest.registry import load_registry
from ingest.retime import Slow
from ingest.store import Store
from tests.archives import public_id, store
from tests.flushes import committed
from tests.retiming import BEHIND, CHINA, retimed, unplaced
from tests.worlds import (
    NOON,
    OTHER_RESIDENT,
    RESIDENT,
    SCALE,
    a_message,
    a_pressure,
    a_weight,
    enter_registry,
    query,
)

pytestmark = pytest.mark.integration

WHOSE = (
    "SELECT measured_at, sign, resident_id FROM measurement ORDER BY measured_at, sign, resident_id"
)
LINK_OF_SECOND_SLOT: LiteralString = (
    "INSERT INTO link (device_id, user_slot, resident_id, during) VALUES (12, 2, 102, '(,)')"
)
LINKS = (
    "SELECT device_id, user_slot, resident_id, during::text FROM link"
    " WHERE superseded_at IS NULL ORDER BY 1, 2, 4"
)


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    enter_registry(database)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as session:
        yield session


def both(database: str) -> tuple[UUID, UUID]:
    return public_id(database, OTHER_RESIDENT), public_id(database, RESIDENT)


async def test_a_merge_moves_links_and_readings_and_its_undoing_restores_them_exactly(
    connection: Connection, database: str
) -> None:
    await store(database, a_pressure(), a_weight())
    before, links = query(database, WHOSE), query(database, LINKS)
    kept, gone = both(database)
    moved = merge(connection, kept, gone, "entered twice")
    assert (moved.links, moved.measurements) == (2, 2)
    assert {row[2] for row in query(database, WHOSE)} == {OTHER_RESIDENT}
    assert {row[2] for row in query(database, LINKS)} == {OTHER_RESIDENT}
    assert [row[:2] for row in query(database, WHOSE)] == [row[:2] for row in before]
    back = unmerge(connection, gone, "a mistake")
    assert (back.links, back.measurements) == (2, 2)
    assert query(database, WHOSE) == before
    assert query(database, LINKS) == links
    changes = query(
        database, "SELECT resident_id, sign FROM change ORDER BY change_id DESC LIMIT 2"
    )
    assert [set(residents) for residents, _signs in changes] == [{RESIDENT, OTHER_RESIDENT}] * 2
    told = query(
        database,
        "SELECT count(*) FROM measurement m JOIN change c ON c.stored_at = m.stored_at"
        " AND m.resident_id = ANY (c.resident_id)",
    )
    assert told == [(2,)]


async def test_what_came_since_by_a_moved_link_goes_back_with_it(
    connection: Connection, database: str
) -> None:
    await store(database, a_pressure())
    kept, gone = both(database)
    merge(connection, kept, gone, "entered twice")
    await store(database, a_pressure(at=NOON - timedelta(hours=1)), sequence=2)
    assert {row[2] for row in query(database, WHOSE)} == {OTHER_RESIDENT}
    assert unmerge(connection, gone, "a mistake").measurements == 2
    assert {row[2] for row in query(database, WHOSE)} == {RESIDENT}


async def test_what_was_placed_in_time_since_goes_back_too(
    connection: Connection, database: str
) -> None:
    """Records that waited for a time when their entry was merged."""
    waiting = [unplaced(NOON - timedelta(hours=hours)) for hours in (1, 2)]
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        await committed(Store(session), a_message(*waiting))
        kept, gone = both(database)
        merge(connection, kept, gone, "entered twice")
        await retimed(session, Slow(by=BEHIND, zone=CHINA))
    assert {row[2] for row in query(database, WHOSE)} == {OTHER_RESIDENT}
    assert unmerge(connection, gone, "a mistake").measurements == 2
    assert {row[2] for row in query(database, WHOSE)} == {RESIDENT}


async def test_what_came_since_goes_back_whatever_the_clock_of_the_worker_that_stored_it_says(
    connection: Connection, database: str
) -> None:
    kept, gone = both(database)
    merge(connection, kept, gone, "entered twice")
    await store(database, a_pressure())
    query(database, "UPDATE measurement SET stored_at = stored_at - interval '1 hour'")
    assert unmerge(connection, gone, "a mistake").measurements == 1
    assert query(database, "SELECT resident_id FROM measurement") == [(RESIDENT,)]


async def test_a_reading_that_was_the_others_before_the_merge_stays_theirs(
    connection: Connection, database: str
) -> None:
    """A person had said so, of a slot that is linked to the double entry."""
    await store(database, a_pressure(), a_pressure(at=NOON - timedelta(hours=1)))
    query(
        database,
        "UPDATE measurement SET resident_id = 102 WHERE measured_at ="
        " (SELECT min(measured_at) FROM measurement)",
    )
    kept, gone = both(database)
    merge(connection, kept, gone, "entered twice")
    assert unmerge(connection, gone, "a mistake").measurements == 1
    assert [row[2] for row in query(database, WHOSE)] == [OTHER_RESIDENT, RESIDENT]


async def test_merges_one_after_the_other_are_undone_to_the_links_of_before(
    connection: Connection, database: str
) -> None:
    connection.execute("INSERT INTO resident OVERRIDING SYSTEM VALUE VALUES (103)")
    kept, gone = both(database)
    last = public_id(database, 103)
    links = query(database, LINKS)
    merge(connection, kept, gone, "entered twice")
    merge(connection, last, kept, "entered thrice")
    await store(database, a_pressure())
    unmerge(connection, kept, "a mistake")
    unmerge(connection, gone, "another")
    assert query(database, LINKS) == links
    assert query(database, "SELECT resident_id FROM measurement") == [(RESIDENT,)]


def withheld(database: str) -> set[tuple[int, int]]:
    return set(
        query(database, "SELECT resident_id, sign FROM objection WHERE withdrawn_at IS NULL")
    )


def object_to(database: str, resident: int, sign: int) -> None:
    with connect_blocking(database, application="hearth-tests") as session:
        session.execute(
            "INSERT INTO objection (resident_id, sign) VALUES (%s, %s)", [resident, sign]
        )


async def test_what_a_double_entry_withholds_stays_withheld_wherever_its_readings_go(
    connection: Connection, database: str
) -> None:
    kept, gone = both(database)
    object_to(database, RESIDENT, 1)
    merge(connection, kept, gone, "entered twice")
    assert withheld(database) == {(RESIDENT, 1), (OTHER_RESIDENT, 1)}
    object_to(database, OTHER_RESIDENT, 2)  # said of both entries' readings
    unmerge(connection, gone, "a mistake")
    assert withheld(database) == {(RESIDENT, 1), (RESIDENT, 2), (OTHER_RESIDENT, 2)}
    merge(connection, kept, gone, "entered twice after all")
    assert withheld(database) == {(r, s) for r in (RESIDENT, OTHER_RESIDENT) for s in (1, 2)}


async def test_what_is_merged_is_not_merged_again_and_undone_in_order(
    connection: Connection, database: str
) -> None:
    kept, gone = both(database)
    merge(connection, kept, gone, "entered twice")
    with pytest.raises(UsageError, match="unmerge"):
        merge(connection, kept, gone, "again")
    with pytest.raises(UsageError, match="not merged"):
        unmerge(connection, kept, "wrong way")
    with pytest.raises(UsageError, match="same entry"):
        merge(connection, kept, kept, "itself")


async def test_a_merge_is_audited_for_both(connection: Connection, database: str) -> None:
    kept, gone = both(database)
    merge(connection, kept, gone, "entered twice")
    rows = query(database, "SELECT action, resident_id, reason FROM audit ORDER BY resident_id")
    assert rows == [
        ("resident.merge", RESIDENT, "entered twice"),
        ("resident.merge", OTHER_RESIDENT, "entered twice"),
    ]


async def test_an_erasure_leaves_no_reading_no_key_no_link_and_a_ledger_that_balances(
    connection: Connection, database: str
) -> None:
    await store(database, a_pressure(), a_weight())
    kept, gone = both(database)
    merge(connection, kept, gone, "entered twice")
    connection.execute(
        "INSERT INTO fhir_export (account, principal, request, kinds, state)"
        " VALUES (gen_random_uuid(), '{}', '', '{}', 'complete')"
    )
    connection.execute(
        "INSERT INTO fhir_subscription (account, principal, resident, resident_id, criteria,"
        " endpoint, sealed, content, transaction_id, change_id)"
        " VALUES (gen_random_uuid(), '{}', %s, %s, '', '', '', 'empty', 0, 0)",
        [gone, RESIDENT],
    )
    erased = erase(connection, kept, "asked for")
    assert query(database, "SELECT state FROM fhir_export") == [("cancelled",)]
    assert query(database, "SELECT count(*) FROM fhir_subscription") == [(0,)]
    assert (erased.entries, erased.measurements) == (2, 2)
    assert query(database, WHOSE) == []
    assert query(database, LINKS) == []
    for table in ("resident_key", "resident_profile", "resident_merge_measurement"):
        assert query(database, f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608 - our tables
    assert read_ledger(database).balanced
    assert query(database, "SELECT count(*) FROM audit WHERE action = 'resident.erase'") == [(2,)]


async def kept_apart_and_replayed(database: str) -> None:
    """A weight of the scale's second slot that waited until somebody was linked to it."""
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        await committed(Store(session), a_message(a_weight(slot=2)))
        query(database, LINK_OF_SECOND_SLOT)
        done = await replay(
            session, await load_registry(session), Filter(linked=True), ActedBy(actor="test")
        )
    assert done.stored == 1


async def test_what_was_replayed_stays_stored_in_the_ledger_after_an_erasure(
    connection: Connection, database: str
) -> None:
    await kept_apart_and_replayed(database)
    kept, _gone = both(database)
    assert erase(connection, kept, "asked for").measurements == 1
    assert query(database, "SELECT state, content FROM quarantine") == [("replayed", b"")]
    assert read_ledger(database).balanced


async def test_an_erasure_keeps_what_was_kept_apart_of_another_user_of_the_device(
    connection: Connection, database: str
) -> None:
    query(database, LINK_OF_SECOND_SLOT)
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        impossible = [a_weight("0.005", slot=slot) for slot in (1, 2)]
        await committed(Store(session), a_message(*impossible))
    _kept, gone = both(database)
    erase(connection, gone, "asked for")
    left = query(database, "SELECT state, length(content) FROM quarantine ORDER BY 2")
    assert left == [("discarded", 0), ("waiting", RECORD_BYTES)]
    assert read_ledger(database).balanced


async def test_an_erasure_keeps_what_a_correction_has_made_anothers(
    connection: Connection, database: str
) -> None:
    async with await connect(database, application="hearth-tests", autocommit=True) as session:
        await committed(Store(session), a_message(a_weight("0.005")))
    other, former = both(database)
    whole = Period(device=device_address(SCALE), user_slot=1, from_at=None, until_at=None)
    reassign(connection, whole, other, Author(actor="test", origin="here", reason="a mix-up"))
    erase(connection, former, "asked for")
    assert query(database, "SELECT state FROM quarantine") == [("waiting",)]


async def test_an_entry_that_leads_to_another_is_not_erased_by_itself(
    connection: Connection, database: str
) -> None:
    kept, gone = both(database)
    merge(connection, kept, gone, "entered twice")
    with pytest.raises(UsageError, match="merged into another entry"):
        erase(connection, gone, "asked for")


@pytest.mark.usefixtures("connection")
async def test_a_copy_is_written_whole_or_not_at_all_and_audited(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTH_DATABASE_URL", database)
    monkeypatch.setenv("HEARTH_HOME", str(tmp_path))
    await store(database, a_pressure(), a_weight())
    file = tmp_path / "copy.zip"
    words = ["resident", "export", str(public_id(database)), str(file), "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, app, words, catch_exceptions=False)
    assert json.loads(done.stdout)["measurements"] == 2
    with zipfile.ZipFile(file) as copy:
        assert len(copy.read("measurements.json").splitlines()) == 2
        observations = [
            json.loads(line) for line in copy.read("fhir/Observation.ndjson").splitlines()
        ]
    assert {one["subject"]["reference"] for one in observations} == {
        f"Patient/{public_id(database)}"
    }
    assert file.stat().st_mode & 0o777 == 0o600
    assert query(database, "SELECT action, resident_id FROM audit") == [("resident.copy", RESIDENT)]
    words[2] = "00000000-0000-0000-0000-000000000000"
    words[3] = str(tmp_path / "nobody.zip")
    with pytest.raises(UsageError, match="not entered"):
        await asyncio.to_thread(CliRunner().invoke, app, words, catch_exceptions=False)
    assert {name for name in os.listdir(tmp_path) if "zip" in name} == {"copy.zip"}  # noqa: PTH208
