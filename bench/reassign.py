"""`hearth admin device reassign` on ten thousand readings, in a store that holds many more."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from api.corrections import Author, Period, reassign, undo
from bench.databases import own_database
from bench.result import Result, compare
from gateway.platform.postgres import Connection, connect_blocking, load_queries

GOAL_S = 5.0
READINGS = 10_000
_DATABASE = "hearth_bench_reassign"
_DEVICES = 100
_AUTHOR = Author(actor="cli:bench", origin=None, reason="bench")
_ADDRESS = "00:00:00:00:00:01"


def bench_reassign(server: str, *, quick: bool, progress: Callable[[str], None]) -> list[Result]:
    """Measure in a database of its own on `server`, which is dropped afterwards."""
    rounds = 3 if quick else 9
    with (
        own_database(server, _DATABASE) as dsn,
        connect_blocking(dsn, application="hearth-bench", autocommit=True) as connection,
    ):
        for statement in load_queries(Path(__file__).parent / "sql" / "reassign.sql").all():
            connection.execute(statement, {"devices": _DEVICES, "readings": READINGS})
        row = connection.execute("SELECT public_id FROM resident WHERE resident_id = 2").fetchone()
        assert row is not None  # noqa: S101 - populated above
        elapsed = [_round(connection, row[0], progress) for _ in range(rounds)]
    goal = [GOAL_S] * rounds
    return [
        compare(
            f"reassign {READINGS:,} readings", "s", [there for there, _back in elapsed],
            "goal", goal, goal=1.0, lower_is_better=True,
        ),
        compare(
            f"undo {READINGS:,} readings", "s", [back for _there, back in elapsed],
            "goal", goal, goal=1.0, lower_is_better=True,
        ),
    ]  # fmt: skip


def _round(
    connection: Connection, resident: UUID, progress: Callable[[str], None]
) -> tuple[float, float]:
    period = Period(
        device=_ADDRESS, user_slot=255, from_at=datetime(2020, 1, 1, tzinfo=UTC), until_at=None
    )
    started = time.perf_counter()
    done = reassign(connection, period, resident, _AUTHOR)
    there_s = time.perf_counter() - started
    assert done.readings == READINGS, done.readings  # noqa: S101 - else it is no measurement
    started = time.perf_counter()
    undo(connection, done.correction_id, _AUTHOR)
    back_s = time.perf_counter() - started
    progress(f"reassign {there_s:.2f} s, undo {back_s:.2f} s")
    return there_s, back_s
