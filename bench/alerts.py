"""What the evaluation of alerts costs the ingest: its rate with the service beside it over without.

The ingest path is bench.ingest's, at full speed; the service is `hearth alerts run` in a process of its
own, over the same PostgreSQL. The rounds take turns: with it, without it. Before and after a round with
it the service has evaluated all there is, so that it neither works off what came while it was away nor
puts its work off. How far behind it is when the ingest ends is told as well, and the processor time of
both, with their sessions in the database: on a busy machine that says more than the rates. Rules that
look back over days are evaluated less often than a round is long: what once for everybody costs is told
against how often that is.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bench.databases import own_database
from bench.ingest import IngestPath, Load, fresh_rounds, populate
from bench.result import Result, compare
from gateway.errors import UnavailableError
from gateway.platform.postgres import AsyncConnection, connect
from ingest.alerts.app import OVER_DAYS_S, Work, catch_up
from ingest.alerts.evaluator import Evaluator
from ingest.alerts.rules import Pace
from ingest.batches import Message
from ingest.registry import load_registry

GOAL = 0.95
"""Ingest's rows/s with alerts beside it, over those without."""
BEHIND_S_MAX = 300.0
"""A service that has not evaluated everything by then does not work."""
_DATABASE = "hearth_bench_alerts"
_APART, _AGO = timedelta(hours=8), timedelta(days=300)
"""Residents measure three times a day, as people do, though ten times at once: a rule over a week then
looks at 210 readings."""
_STRETCH = 4
"""So many rounds of the ingest bench are one of ours: it takes longer than the service ever rests."""
_SESSIONS = ("hearth-ingest", "hearth-alerts")
_OWN_SESSION = "hearth-bench"
_IS_BEHIND = """
    SELECT (SELECT change_id FROM change ORDER BY transaction_id DESC, change_id DESC LIMIT 1)
        IS DISTINCT FROM (SELECT change_id FROM alert_progress WHERE pace = 'prompt')
        OR NOT EXISTS (SELECT FROM alert_progress WHERE pace = 'over-days')
        OR %(works)s > (
            SELECT count(*) FROM pg_locks
            WHERE locktype = 'advisory' AND classid = 18509 AND granted AND database = (
                SELECT oid FROM pg_database WHERE datname = current_database()
            )
        )
"""
"""Also while it is still starting, which takes more processor time than it does in a round."""


def bench_alerts(server: str, *, quick: bool, progress: Callable[[str], None]) -> list[Result]:
    """Measure in a database of its own on `server`, which is dropped afterwards."""
    with own_database(server, _DATABASE) as dsn:
        return asyncio.run(_measure(dsn, Load(rounds=3 if quick else 9), progress))


async def _measure(dsn: str, load: Load, progress: Callable[[str], None]) -> list[Result]:
    populate(dsn)
    connection = await connect(dsn, application=_OWN_SESSION, autocommit=True)
    async with connection:
        path = IngestPath(dsn, await load_registry(connection))
        stream = fresh_rounds(_APART, _AGO)
        rows = load.rows_a_round * _STRETCH
        beside: list[_Beside] = []
        alone: list[float] = []
        async with asyncio.TaskGroup() as group:
            tasks = path.start(group)
            await path.run(next(stream))  # warm: every device is known from here on
            for number in range(load.rounds):
                for is_beside in (True, False) if number % 2 else (False, True):
                    flushes = [flush for _ in range(_STRETCH) for flush in next(stream)]
                    if is_beside:
                        beside.append(await _beside(dsn, connection, path, flushes))
                    else:
                        alone.append(rows / await path.run(flushes))
                progress(
                    f"round {number + 1}/{load.rounds}: {rows / alone[-1]:.2f} s, {beside[-1]}"
                )
            for task in tasks:
                task.cancel()
        over_days_s = await _over_days_cpu_s(connection)
    rates = [rows / found.elapsed_s for found in beside]
    return [
        compare("alerts", "rows/s", rates, "ingest without alerts", alone, goal=GOAL),
        compare(
            "alerts behind", "s", [found.behind_s for found in beside],
            "ingest of the round", [found.elapsed_s for found in beside], goal=None,
        ),
        compare(
            "alerts processor", "s", [found.alerts_cpu_s for found in beside],
            "ingest of the same rows", [found.ingest_cpu_s for found in beside], goal=None,
        ),
        compare(
            "alerts over days, processor", "s", [over_days_s],
            "how often they are evaluated", [OVER_DAYS_S], goal=None,
        ),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beside:
    """A round with the service beside it. `behind_s`: for how long it then still had to evaluate."""

    elapsed_s: float
    behind_s: float
    ingest_cpu_s: float
    alerts_cpu_s: float


async def _beside(
    dsn: str, connection: AsyncConnection, path: IngestPath, messages: list[list[Message]]
) -> _Beside:
    with _service(dsn) as pid:
        await _until_evaluated(connection)
        own_s, service_s = time.process_time(), cpu_s(pid)
        sessions = [await _sessions_cpu_s(connection, name) for name in _SESSIONS]
        elapsed_s = await path.run(messages)
        ingest_s = time.process_time() - own_s
        behind_s = await _until_evaluated(connection)
        after = [await _sessions_cpu_s(connection, name) for name in _SESSIONS]
        return _Beside(
            elapsed_s=elapsed_s,
            behind_s=behind_s,
            ingest_cpu_s=ingest_s + after[0] - sessions[0],
            alerts_cpu_s=cpu_s(pid) - service_s + after[1] - sessions[1],
        )


async def _over_days_cpu_s(connection: AsyncConnection) -> float:
    """Return the processor time of evaluating every resident's days once, in seconds."""
    own_s, session_s = time.process_time(), await _sessions_cpu_s(connection, _OWN_SESSION)
    done = await catch_up(connection, Evaluator(connection, Pace.OVER_DAYS))
    assert done is not None  # noqa: S101 - every round stored readings of everybody
    session_s = await _sessions_cpu_s(connection, _OWN_SESSION) - session_s
    return time.process_time() - own_s + session_s


async def _sessions_cpu_s(connection: AsyncConnection, application: str) -> float:
    """Return the processor time of an application's sessions; the server is on this machine."""
    cursor = await connection.execute(
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = %s",
        [application],
    )
    return sum(cpu_s(pid) for (pid,) in await cursor.fetchall())


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has taken, in seconds (proc(5): utime, stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _until_evaluated(connection: AsyncConnection) -> float:
    """Wait until the service has evaluated everything; returns for how long, in seconds."""
    began_s = time.perf_counter()
    for _attempt in itertools.count():
        cursor = await connection.execute(_IS_BEHIND, {"works": len(Work)})
        ((is_behind,),) = await cursor.fetchall()
        waited_s = time.perf_counter() - began_s
        if not is_behind:
            return waited_s
        if waited_s > BEHIND_S_MAX:
            break
        await asyncio.sleep(0.05)
    raise UnavailableError("the alerts service does not evaluate")


@contextmanager
def _service(dsn: str) -> Iterator[int]:
    """Run the alerts service for the block; yields its process id."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {
            "HEARTH_HOME": home,
            "HEARTH_DATABASE_URL": dsn,
            "HEARTH_LOG_LEVEL": "warning",
        }
        command = [sys.executable, "-m", "gateway.cli.main", "alerts", "run"]
        with subprocess.Popen(command, env=environment) as process:  # noqa: S603 - ours
            try:
                yield process.pid
            finally:
                process.terminate()
                process.wait(30)
