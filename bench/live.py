"""Live events from commit to client: 500 streams in 50 care teams, readings stored all the while.

Each stream is decided and audited by itself for every event. A reading's stored_at is taken before its
transaction, so the figure is from a little before the commit to the client's socket, read in another
process of the same machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np

from bench.api_process import ApiProcess, readers_of, running_api
from bench.databases import own_database
from bench.result import Result, compare
from gateway import wire
from gateway.gatt.times import ms_since_epoch
from gateway.measurement import Measurement, TimeQuality
from gateway.platform.postgres import connect, connect_blocking, load_queries
from gateway.platform.settings import LOOPBACK
from gateway.vital_sign import Reading, VitalSign
from gateway.vitals import SIGNS
from ingest.batches import Message, hub_homes, read_messages, reference_ms
from ingest.registry import load_registry
from ingest.store import Store, prepare
from ingest.verdicts import judge, tables_of

CLIENTS, TEAMS, RESIDENTS = 500, 50, 500
FLUSH_S = 0.2
"""As ingest flushes by default."""
READINGS_A_FLUSH = 20
"""100 readings a second, each to the ten clients of its care team."""
SECONDS, SECONDS_QUICK = 60.0, 10.0
SETTLE_S = 3.0
"""After the last reading; what has not come by then counts as lost."""
GOAL_P99_MS = 500.0

_DATABASE = "hearth_bench_live"
_SQL = Path(__file__).parent / "sql"
_ARCHIVE, _LIVE = load_queries(_SQL / "api.sql"), load_queries(_SQL / "live.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the clients say."""

    ms: list[float]
    ended: int


def bench_live(server: str, *, quick: bool, progress: Callable[[str], None]) -> list[Result]:
    """Measure in a database of its own on `server`, which is dropped afterwards."""
    seconds = SECONDS_QUICK if quick else SECONDS
    with own_database(server, _DATABASE) as dsn:
        _populate(dsn)
        (reader,) = readers_of(server, dsn)
        with (
            running_api(reader) as api,
            _clients(api) as heard,
        ):
            progress(f"{CLIENTS} streams are open")
            stored = asyncio.run(_store_for(dsn, seconds))
            time.sleep(SETTLE_S)
            said = heard()
    expected = stored * CLIENTS // TEAMS
    p50, p99 = (
        said.ms[int(len(said.ms) * share)] if said.ms else float("inf") for share in (0.5, 0.99)
    )
    return [
        compare(
            "live events, p99", "ms", [p99], "the goal", [GOAL_P99_MS],
            goal=1.0, lower_is_better=True,
        ),
        compare("live events, p50", "ms", [p50], "their p99", [p99], goal=None, lower_is_better=True),
        compare(
            "live events received", "events", [len(said.ms)], "readings times clients of the team",
            [expected], goal=1.0,
        ),
    ]  # fmt: skip


def _populate(dsn: str) -> None:
    whole = {"first": 1, "last": RESIDENTS, "signs": len(SIGNS)}
    with connect_blocking(dsn, application="hearth-bench") as connection:
        for name in ("residents", "homes", "devices"):
            connection.execute(_ARCHIVE[name], whole)
        for statement in _LIVE.all():
            connection.execute(statement, whole)


@contextmanager
def _clients(api: ApiProcess) -> Iterator[Callable[[], Heard]]:
    """Open the streams in a process of their own; yields what closes them and tells."""
    paths = [_path(client % TEAMS) for client in range(CLIENTS)]
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "bench.follow", LOOPBACK, str(api.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HEARTH_BENCH_TOKEN": api.token},
    ) as process:
        assert process.stdin is not None  # noqa: S101 - they are pipes
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(json.dumps(paths) + "\n")
        process.stdin.flush()
        process.stdout.readline()  # ready

        def heard() -> Heard:
            said, _ = process.communicate("tell\n")
            return Heard(**json.loads(said))

        try:
            yield heard
        finally:
            process.kill()


def _path(team: int) -> str:
    of_team = (number for number in range(1, RESIDENTS + 1) if number % TEAMS == team)
    query = "&".join(f"resident={UUID(f'00000000-0000-4000-8000-{n:012x}')}" for n in of_team)
    return f"/api/v1/live?{query}"


async def _store_for(dsn: str, seconds: float) -> int:
    """Store flushes at their pace; returns how many readings there were."""
    drawn = random.Random(3)  # noqa: S311 - the same readings in each run
    stored = 0
    async with await connect(dsn, application="hearth-bench", autocommit=True) as connection:
        registry = await load_registry(connection)
        store = Store(connection)
        began = time.monotonic()
        for sequence in range(1, int(seconds / FLUSH_S) + 1):
            await asyncio.sleep(max(began + sequence * FLUSH_S - time.monotonic(), 0))
            flush = read_messages([_message(sequence, drawn)], registry)
            now_ms = time.time_ns() // 1_000_000
            judged = judge(
                flush.records, reference_ms(flush), hub_homes(flush), registry, tables_of(), now_ms
            )
            committed = await store.commit(
                prepare(flush, judged, registry, np.array([sequence], np.int64), now_ms)
            )
            stored += sum(outcome.stored for outcome in committed.outcomes)
    return stored


def _message(sequence: int, drawn: random.Random) -> Message:
    """Return a batch of readings of different residents, each a minute old or less."""
    now = datetime.now(UTC)
    reference_at = now.replace(microsecond=0)
    records = [
        wire.encode_record(_measurement(resident, drawn.choice(SIGNS), reference_at), reference_at)
        for resident in drawn.sample(range(1, RESIDENTS + 1), READINGS_A_FLUSH)
    ]
    header = wire.Header(
        hub=1,
        epoch=1,
        sequence=sequence,
        kind=wire.Kind.MEASUREMENTS,
        count=len(records),
        reference_at=reference_at,
    )
    payload = wire.encode_batch(header, b"".join(records))
    return Message(lane=wire.lane_of(1), token=0, hub=1, payload=payload, received_at=now)


def _measurement(resident: int, sign: VitalSign, at: datetime) -> Measurement:
    values = tuple(
        (Decimal(quantity.typical.mean) / step).to_integral_value() * step
        for quantity, step in zip(sign.quantities, sign.unit_sets[0].steps, strict=True)
    )
    return Measurement(
        device=(resident - 1) * len(SIGNS) + SIGNS.index(sign) + 1,
        sign=sign.code,
        reading=Reading(values=values),
        measured_at=at - timedelta(milliseconds=ms_since_epoch(at) % 1000),
        received_at=at,
        time_quality=TimeQuality.MAPPED,
        utc_offset_min=480,
    )
