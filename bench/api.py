"""The REST API against the SQL that it cannot do without, on the same cores in the same run.

Three reads of a large archive, each with its token checked, its access decided by the database and
its audit written: (a) a resident's blood pressure of 90 days, (b) the latest of all signs, (c) a
worklist of 500. Beside each, pgbench runs the statements that the API runs, as the API's role, in the
same statements. A second archive of a million rows is asked in the same rounds, in turn with the large
one: what a request costs more in the large one is not what the machine did in between.
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from api.archive import CONNECTIONS_MAX
from bench.api_process import SERVICE, ApiProcess, readers_of, running_api
from bench.archive_rows import indexed_afterwards
from bench.databases import own_database
from bench.result import Result, compare
from gateway.errors import UnavailableError
from gateway.platform.embedded.packages import find_packages
from gateway.platform.named_sql import load_statements
from gateway.platform.postgres import Connection, connect_blocking, dsn_parts, load_queries, sql
from gateway.platform.settings import LOOPBACK, load_settings
from gateway.vital_sign import VitalSign
from gateway.vitals import SIGNS

ROWS, ROWS_QUICK = 50_000_000, 5_000_000
ROWS_SMALL = 1_000_000
DAYS = 364
"""Of each resident, in weekly chunks."""
A_DAY = (3, 2, 1, 24, 7)
"""Readings a day, sign by sign in the order of the registry; a sixth sign has as many as the first."""
GOAL_P99_MS = 25.0
GOAL_RATE = 0.4
"""Requests a second over pgbench's transactions a second."""
GOAL_GROWTH = 1.2
"""The cost of a request over the whole archive, over that in the small one."""
CONNECTIONS_FEW = 2
"""Connections at which it is measured how long a request takes; one for each core of a small server."""
CONNECTIONS = 32
"""Twice as many as the API has to the database: it is never without a request."""
CONNECTIONS_HEAVY = 4
"""The same for what keeps a core of the database busy for long: at more of them each only waits for the others."""
SECONDS, SECONDS_QUICK = 15.0, 5.0
WARM_S = 8.0
"""Beforehand, unmeasured: each connection's first look over a year of chunks is planned, 0.2 s of work."""
ROUNDS, ROUNDS_QUICK = 5, 3
ROUNDS_UNJUDGED = 2
"""Of what has no goal."""
ASKED_RESIDENTS = 2_000
"""So many different residents are asked for, drawn at random."""
WORKLIST = 500

_DATABASE, _DATABASE_SMALL = "hearth_bench_api", "hearth_bench_api_small"
_SQL = Path(__file__).parent / "sql"
_QUERIES = load_queries(_SQL / "api.sql")
_REGISTRY = ("residents", "homes", "devices")
_LAST_DAY = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of request: its path for a resident, and the script that does the same in pgbench."""

    name: str
    path: Callable[[UUID], str]
    script: str
    goal: bool
    """Whether the goals of latency, rate and growth are for it."""
    connections: int = CONNECTIONS
    """At which the rate is measured; pgbench's as far as the API has so many to the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round measured."""

    p50_ms: float
    p99_ms: float
    rate: float


def bench_api(server: str, *, quick: bool, progress: Callable[[str], None]) -> list[Result]:
    """Measure in two databases of its own on `server`, which are dropped afterwards."""
    rows = ROWS_QUICK if quick else ROWS
    seconds, rounds = (SECONDS_QUICK, ROUNDS_QUICK) if quick else (SECONDS, ROUNDS)
    with own_database(server, _DATABASE) as dsn, own_database(server, _DATABASE_SMALL) as dsn_small:
        reader, reader_small = readers_of(server, dsn, dsn_small)
        small = _Archive(dsn_small, reader_small, ROWS_SMALL, progress)
        large = _Archive(dsn, reader, rows, progress)
        results = []
        for case in cases():
            measured = _measured(
                large, small, case, seconds, rounds if case.goal else ROUNDS_UNJUDGED
            )
            for result in measured:
                progress(str(result))
            results += measured
        return results


def cases() -> tuple[Case, ...]:
    """Return the three reads."""
    since = (_LAST_DAY - timedelta(days=90)).strftime("%Y-%m-%dT%H:%M:%SZ")
    pressure = SIGNS[0]
    peers = {
        name: script.format(
            reader=SERVICE.id,
            since=since,
            pressure=f"{{{pressure.code}}}",
            signs="{" + ",".join(str(sign.code) for sign in SIGNS) + "}",
            worklist=WORKLIST,
        )
        for name, script in load_statements(_SQL / "api_peer.sql").items()
    }
    asked = f"measurements?sign={pressure.name}&from={since}&limit=1000"
    return (
        Case(
            name="90 days of blood pressure",
            path=lambda resident: f"/api/v1/residents/{resident}/{asked}",
            script=peers["pressure"],
            goal=True,
        ),
        Case(
            name="latest of all signs",
            path=lambda resident: f"/api/v1/residents/{resident}/latest",
            script=peers["latest"],
            goal=True,
        ),
        Case(
            name=f"worklist of {WORKLIST}",
            path=lambda _resident: f"/api/v1/worklists/last-measured?limit={WORKLIST}",
            script=peers["worklist"],
            goal=False,
            connections=CONNECTIONS_HEAVY,
        ),
    )


class _Archive:
    """A database with about so many measurements, and those who read it."""

    def __init__(self, dsn: str, reader: str, rows: int, progress: Callable[[str], None]) -> None:
        self._reader = reader
        self.size = f"{rows // 1_000_000} million rows"
        settings = load_settings()
        packages = find_packages(settings.home)
        assert packages is not None  # noqa: S101 - the embedded server runs from them
        self._program = str(packages.program("pgbench"))
        self._residents = rows // (DAYS * sum(map(_a_day, range(len(SIGNS)))))
        whole = {"first": 1, "last": self._residents, "signs": len(SIGNS)}
        with connect_blocking(dsn, application="hearth-bench", autocommit=True) as connection:
            for name in _REGISTRY:
                connection.execute(_QUERIES[name], whole)
            weeks = DAYS // 7
            with indexed_afterwards(connection):
                for week in range(weeks):
                    self._fill_week(connection, week, whole)
                    progress(f"filling {self._residents:,} residents: week {week + 1}/{weeks}")
            counted = connection.execute(_QUERIES["count"]).fetchone()
        progress(f"{counted[0] if counted else 0:,} measurements")

    def _fill_week(self, connection: Connection, week: int, whole: dict[str, int]) -> None:
        from_at = _LAST_DAY - timedelta(days=DAYS - 7 * week)
        for place, sign in enumerate(SIGNS):
            of_sign = {"place": place + 1, "sign": sign.code, "a_day": _a_day(place)}
            connection.execute(_week(sign), whole | of_sign | {"from_at": from_at})

    def api(self) -> AbstractContextManager[ApiProcess]:
        """Run the API over it."""
        return running_api(self._reader)

    def rate(self, api: ApiProcess, case: Case, seconds: float) -> float:
        """Return the requests a second at so many connections that the API is never idle."""
        said = self._ask(api, case, seconds, case.connections)
        rate: float = said["requests"] / said["seconds"]
        return rate

    def latency(self, api: ApiProcess, case: Case, seconds: float) -> tuple[float, float]:
        """Return p50 and p99 in ms at as many connections as there are cores: none waits for others."""
        ms = self._ask(api, case, seconds, CONNECTIONS_FEW)["ms"]
        return ms[len(ms) // 2], ms[min(int(len(ms) * 0.99), len(ms) - 1)]

    def _ask(self, api: ApiProcess, case: Case, seconds: float, connections: int) -> dict[str, Any]:
        drawn = random.Random(7)  # noqa: S311 - the same residents in each round
        paths = [
            case.path(_public_id(drawn.randint(1, self._residents))) for _ in range(ASKED_RESIDENTS)
        ]
        done = subprocess.run(  # noqa: S603 - our own program
            [
                *(sys.executable, "-m", "bench.load", LOOPBACK, str(api.port)),
                *(str(connections), str(seconds)),
            ],
            input="\n".join(map(json.dumps, paths)),
            env=os.environ | {"HEARTH_BENCH_TOKEN": api.token},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UnavailableError(f"bench.load: {done.stderr.strip()}")
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def pgbench(self, case: Case, seconds: float) -> float:
        """Return the transactions a second of the same statements, by as many connections as the API's.

        Those of its first seconds are left out, as the API's are: each connection plans then.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write(case.script)
            script.flush()
            done = subprocess.run(  # noqa: S603 - PostgreSQL's own
                [
                    *(self._program, "-n", "-M", "prepared", "-f", script.name),
                    *("-c", str(min(case.connections, CONNECTIONS_MAX))),
                    *("-T", str(int(WARM_S + seconds)), "-P", "1"),
                    *("-D", f"residents={self._residents}"),
                ],
                env=os.environ | dsn_parts(self._reader),
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise UnavailableError(f"pgbench: {done.stderr.strip()}")
        told = [float(tps) for tps in re.findall(r"progress: .* s, ([0-9.]+) tps", done.stderr)]
        return statistics.fmean(told[int(WARM_S) :])


def _measured(
    large: _Archive, small: _Archive, case: Case, seconds: float, rounds: int
) -> list[Result]:
    with large.api() as api, small.api() as api_small:
        for archive, its_api in ((large, api), (small, api_small)):
            archive.rate(its_api, case, WARM_S)
        asked, raw, few = [], [], []
        for _ in range(rounds):
            p50_ms, p99_ms = large.latency(api, case, seconds)
            few.append(small.rate(api_small, case, seconds))
            asked.append(Round(p50_ms=p50_ms, p99_ms=p99_ms, rate=large.rate(api, case, seconds)))
            raw.append(large.pgbench(case, seconds))
    return _results(case, asked, raw, few, large.size)


def _results(
    case: Case, asked: Sequence[Round], raw: Sequence[float], small: Sequence[float], size: str
) -> list[Result]:
    goal = case.goal
    return [
        compare(
            f"{case.name}, p99", "ms", [one.p99_ms for one in asked],
            "the goal", [GOAL_P99_MS] * len(asked),
            goal=1.0 if goal else None, lower_is_better=True,
        ),
        compare(
            f"{case.name}, p50", "ms", [one.p50_ms for one in asked],
            "its p99", [one.p99_ms for one in asked], goal=None, lower_is_better=True,
        ),
        compare(
            f"{case.name}, {size}", "requests/s", [one.rate for one in asked],
            "pgbench, the same SQL", raw, goal=GOAL_RATE if goal else None,
        ),
        compare(
            f"{case.name}, growth", "ms/request", [1000 / one.rate for one in asked],
            "1 million rows", [1000 / rate for rate in small],
            goal=GOAL_GROWTH if goal else None, lower_is_better=True,
        ),
    ]  # fmt: skip


def _a_day(place: int) -> int:
    return A_DAY[place % len(A_DAY)]


def _week(sign: VitalSign) -> sql.Composed:
    return _QUERIES["week"].format(
        a_day=sql.SQL("%(a_day)s"),
        quantities=sql.SQL(", ").join(sql.Identifier(q.name) for q in sign.quantities),
        values=sql.SQL(", ").join(
            sql.SQL("round({} + {} * random())").format(
                sql.Literal(q.typical.mean), sql.Literal(q.typical.between)
            )
            for q in sign.quantities
        ),
    )


def _public_id(number: int) -> UUID:
    return UUID(f"00000000-0000-4000-8000-{number:012x}")
