"""An hour of a part's absence, compressed: memory stays bounded, nothing is lost, all drains at full rate.

An hour's readings of the hubs (one a minute each, far more than a home's three an hour) are taken within
`DOWN_S` while one part is down: the database, all ingest workers, the broker. Then the part comes back,
and the time until every hub has its receipts is held against the same backlog drained when nothing but
the hubs' own network had been away. Real parts, as in `hearth chaos`; peaks of memory are the kernel's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.chaos.comparison import compare as compare_readings
from bench.chaos.findings import disagreements, read_findings
from bench.chaos.load import homes_of
from bench.chaos.orders import Orders, give
from bench.chaos.proxy import Network
from bench.chaos.stage import WORKERS, Cast, Ports, Stage, build_stage
from bench.result import Result
from edge.config import load_config
from edge.status import read_status
from gateway.errors import HearthError, UnavailableError
from gateway.platform.embedded.packages import Packages

READINGS_AN_HOUR = 60
"""Of a hub."""
DOWN_S = 20.0
"""So long is the hour."""
DRAIN_S_MAX = 300.0
LOOK_S = 0.2
DEVICES_A_HOME = 2
GOAL_RATE = 0.7
"""The drain's rate over that of the same backlog with no part down: reconnecting is in it."""
PEAK_MB_MAX = {"hubs": 512, "ingest-0": 512, "ingest-1": 512, "broker": 256}
"""What no process may ever need: of an ingest worker 256 MB are messages read and not committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much."""

    hubs: int

    @property
    def readings(self) -> int:
        """An hour of all hubs."""
        return self.hubs * READINGS_AN_HOUR


def bench_backpressure(
    home: Path, packages: Packages, *, quick: bool, progress: Callable[[str], None]
) -> list[Result]:
    """Measure on a stage of its own under `home`, which is gone afterwards."""
    load = Load(hubs=40 if quick else 200)
    return asyncio.run(_measure(home / "backpressure", packages, load, progress))


async def _measure(
    folder: Path, packages: Packages, load: Load, progress: Callable[[str], None]
) -> list[Result]:
    stage = build_stage(
        folder,
        packages,
        homes_of(load.hubs, DEVICES_A_HOME),
        Cast(),
        seed=1,
        readings_per_s=load.readings / DOWN_S,
    )
    networks = (
        Network(lambda: stage.broker.port),
        Network(lambda: stage.broker.services_port),
        Network(lambda: stage.database.port),
    )
    try:
        async with AsyncExitStack() as stack:
            for network in networks:
                await stack.enter_async_context(network.open())
            hubs_broker, ingest_broker, ingest_database = (network.port for network in networks)
            ports = Ports(
                hubs_broker=hubs_broker,
                ingest_broker=ingest_broker,
                ingest_database=ingest_database,
            )
            await asyncio.to_thread(stage.raise_curtain, ports)
            return await _compare_parts(stage, networks[0], progress)
    finally:
        await asyncio.to_thread(stage.lower_curtain)


async def _compare_parts(
    stage: Stage, hubs_network: Network, progress: Callable[[str], None]
) -> list[Result]:
    await _drained(stage)
    base = await _rate_after(stage, _Away(hubs_network), progress)
    results = []
    for part in (_DatabaseDown(stage), _IngestDown(stage), _BrokerDown(stage)):
        rate = await _rate_after(stage, part, progress)
        results.append(
            _result(f"backpressure, {part.name} down", rate, "readings/s",
                    "the same backlog, no part down", base, GOAL_RATE)
        )  # fmt: skip
    peaks = _peaks_mb(stage)
    results += [
        _result(f"backpressure, peak memory of {name}", peak, "MB", "its bound", PEAK_MB_MAX[name],
                1.0, lower_is_better=True)
        for name, peak in peaks.items()
    ]  # fmt: skip
    await asyncio.to_thread(stage.stop_hubs)
    dsn = stage.database.url()
    found = await asyncio.to_thread(lambda: compare_readings(*read_findings(dsn, stage.journals)))
    wrong = found.lost + found.doubled + found.altered + found.invented
    wrong += len(await asyncio.to_thread(disagreements, dsn, stage.configs))
    results.append(
        _result("backpressure, lost or doubled", wrong, "readings", "taken by hubs", found.kept, 0.0,
                lower_is_better=True)
    )  # fmt: skip
    return results


class _Away:
    """Nothing is down; the hubs cannot reach the broker."""

    name = "nothing"

    def __init__(self, network: Network) -> None:
        self._network = network

    def begin(self) -> None:
        self._network.weather.is_refusing = True
        self._network.cut()

    def end(self) -> None:
        self._network.weather.is_refusing = False


class _DatabaseDown:
    """The database, killed."""

    name = "database"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def begin(self) -> None:
        self._stage.database.kill()

    def end(self) -> None:
        self._stage.start_server(self._stage.database)


class _IngestDown:
    """All ingest workers, killed."""

    name = "ingest"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def begin(self) -> None:
        for worker in range(WORKERS):
            self._stage.kill_ingest(worker)

    def end(self) -> None:
        for worker in range(WORKERS):
            self._stage.start_ingest(worker)


class _BrokerDown:
    """The broker, killed."""

    name = "broker"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def begin(self) -> None:
        self._stage.broker.kill()

    def end(self) -> None:
        self._stage.start_server(self._stage.broker)


_Part = _Away | _DatabaseDown | _IngestDown | _BrokerDown


async def _rate_after(stage: Stage, part: _Part, progress: Callable[[str], None]) -> float:
    """Take an hour's readings without a part; return how many a second drained afterwards."""
    begin = asyncio.to_thread(part.begin) if not isinstance(part, _Away) else None
    if begin is None:
        part.begin()
    else:
        await begin
    give(stage.hub_orders, Orders())
    await asyncio.sleep(DOWN_S)
    give(stage.hub_orders, Orders(is_collecting=False))
    await asyncio.sleep(LOOK_S)
    held = await asyncio.to_thread(_held, stage)
    progress(f"{part.name}: {held:,} 条待发 / readings wait")
    began_s = time.monotonic()
    if isinstance(part, _Away):
        part.end()
    else:
        await asyncio.to_thread(part.end)
    await _drained(stage)
    return held / (time.monotonic() - began_s)


async def _drained(stage: Stage) -> None:
    give(stage.hub_orders, Orders(is_collecting=False))
    deadline = time.monotonic() + DRAIN_S_MAX
    while await asyncio.to_thread(_held, stage):
        if time.monotonic() > deadline:
            raise UnavailableError("未能排空 / the hubs do not drain")
        await asyncio.sleep(LOOK_S)


def _held(stage: Stage) -> int:
    """Return how much all hubs hold; 1 while a file is not there yet."""
    configs = [load_config(path) for path in stage.configs]
    try:
        return sum(read_status(c.hub_id, c.outbox_path, c.identity).depth.held for c in configs)
    except HearthError:
        return 1


def _peaks_mb(stage: Stage) -> dict[str, float]:
    """Return the most that each process has ever held in memory (proc(5), VmHWM)."""
    peaks = {}
    for name, pid in stage.pids().items():
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        line = next(line for line in status if line.startswith("VmHWM:"))
        peaks[name] = round(int(line.split()[1]) / 1024, 1)
    return peaks


def _result(
    name: str,
    value: float,
    unit: str,
    against: str,
    against_value: float,
    goal: float,
    *,
    lower_is_better: bool = False,
) -> Result:
    ratio = value / against_value
    return Result(
        name=name,
        value=round(value, 1),
        unit=unit,
        against=against,
        against_value=round(against_value, 1),
        ratio=round(ratio, 4),
        goal=goal,
        met=ratio <= goal if lower_is_better else ratio >= goal,
        rounds=1,
        spread=0.0,
    )
