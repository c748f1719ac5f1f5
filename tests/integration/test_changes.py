"""The feed of changes: nothing is missed, in whatever order transactions commit."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.platform import pruning
from gateway.platform.changes import (
    NOTHING,
    START,
    Changed,
    Place,
    end_of_changes,
    is_whole,
    merged,
    prune_changes,
    read_changes,
    record_change,
    summarised,
)
from gateway.platform.postgres import connect
from tests.feeds import settled_changes

pytestmark = pytest.mark.integration


def of(resident: int, *, sign: int = 1, at_ms: int = 1_000) -> Changed:
    return summarised(np.array([resident]), np.array([sign]), np.array([at_ms]))


def test_measurements_are_summed_up_by_resident_and_sign() -> None:
    changed = summarised(
        np.array([7, 5, 7, 7]), np.array([1, 1, 2, 1]), np.array([300, 50, 10, 100])
    )
    assert changed.resident.tolist() == [5, 7, 7]
    assert changed.sign.tolist() == [1, 1, 2]
    assert changed.oldest_ms.tolist() == [50, 100, 10]
    assert changed.newest_ms.tolist() == [50, 300, 10]


def test_several_changes_of_a_residents_sign_are_one() -> None:
    changed = merged([of(7, at_ms=300), of(5, at_ms=50), NOTHING, of(7, sign=2), of(7, at_ms=20)])
    assert list(zip(changed.resident, changed.sign, strict=True)) == [(5, 1), (7, 1), (7, 2)]
    assert changed.oldest_ms.tolist() == [50, 20, 1_000]
    assert changed.newest_ms.tolist() == [50, 300, 1_000]
    assert len(merged([NOTHING]).resident) == 0


async def test_a_change_is_read_as_it_was_recorded(database: str) -> None:
    recorded = summarised(
        np.array([(1 << 31) - 1, 5, 5]), np.array([1, 255, 1]), np.array([-1, 1 << 42, 7])
    )
    async with await connect(database, application="hearth-tests", autocommit=True) as connection:
        await record_change(connection, recorded, 1_000)
        ((read,),) = [await settled_changes(connection, START, 1)]
    for name in ("resident", "sign", "oldest_ms", "newest_ms"):
        assert getattr(read.changed, name).tolist() == getattr(recorded, name).tolist()


async def test_a_reader_goes_on_from_its_place(database: str) -> None:
    async with await connect(database, application="hearth-tests", autocommit=True) as connection:
        assert await end_of_changes(connection) == START
        for resident in (1, 2, 3):
            await record_change(connection, of(resident), 1_000)
        first = await settled_changes(connection, START, 2)
        rest = await settled_changes(connection, first[-1].place, 1)
        assert [int(change.changed.resident[0]) for change in (*first, *rest)] == [1, 2, 3]
        assert first[0].stored_at_ms == 1_000
        assert await end_of_changes(connection) == rest[-1].place
        assert await read_changes(connection, rest[-1].place) == []


async def test_a_change_waits_for_transactions_that_began_before_it(database: str) -> None:
    async with (
        await connect(database, application="hearth-tests") as early,
        await connect(database, application="hearth-tests", autocommit=True) as late,
    ):
        await record_change(early, of(1), 1_000)
        await record_change(late, of(2), 2_000)
        assert await read_changes(late, START) == []  # else the reader would go past 1
        await early.commit()
        changes = await settled_changes(late, START, 2)
        assert [int(change.changed.resident[0]) for change in changes] == [1, 2]


async def test_what_is_rolled_back_never_was(database: str) -> None:
    async with await connect(database, application="hearth-tests") as connection:
        await record_change(connection, of(1), 1_000)
        await connection.rollback()
        assert await read_changes(connection, START) == []


async def test_a_reader_that_was_away_too_long_is_told(database: str) -> None:
    async with await connect(database, application="hearth-tests", autocommit=True) as connection:
        await record_change(connection, of(1), 1_000)  # stored in 1970
        (old,) = await settled_changes(connection, START, 1)
        assert await prune_changes(connection) == 1
        await record_change(connection, of(2), 4_000_000_000_000)
        assert not await is_whole(connection, old.place)
        (new,) = await settled_changes(connection, START, 1)
        assert await is_whole(connection, new.place)


async def test_old_changes_go_some_at_a_time_until_none_is_left(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "ROWS_AT_ONCE", 2)
    async with await connect(database, application="hearth-tests", autocommit=True) as connection:
        for resident in range(5):
            await record_change(connection, of(resident), 1_000)
        await record_change(connection, of(9), 4_000_000_000_000)
        assert await prune_changes(connection) == 5
        (kept,) = await settled_changes(connection, START, 1)
        assert kept.changed.resident.tolist() == [9]


async def test_a_place_that_is_still_to_come_is_not_one_to_go_on_from(database: str) -> None:
    """Of another server, from which the database was restored."""
    async with await connect(database, application="hearth-tests", autocommit=True) as connection:
        await record_change(connection, of(1), 4_000_000_000_000)
        (here,) = await settled_changes(connection, START, 1)
        assert not await is_whole(connection, Place(here.place.transaction + 1_000_000_000, 1))
        assert await is_whole(connection, here.place)


async def test_a_place_of_a_server_before_this_one_is_told(database: str) -> None:
    """A restore on another machine: its server counts transactions from the beginning."""
    async with await connect(database, application="hearth-tests", autocommit=True) as connection:
        await record_change(connection, of(1), 4_000_000_000_000)
        await connection.execute("UPDATE change SET transaction_id = (1::bigint << 60)::text::xid8")
        assert not await is_whole(connection, Place(1 << 60, 1))
        assert await is_whole(connection, START), "nothing of this server is there yet"
        await record_change(connection, of(2), 4_000_000_000_000)
        (new,) = await settled_changes(connection, START, 1)
        assert await is_whole(connection, new.place)
