"""One run: the parts live under load, the faults of each round happen, all drains, all is compared."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.chaos.comparison import Comparison, compare
from bench.chaos.disks import Disk
from bench.chaos.faults import Fault, Kind, schedule
from bench.chaos.findings import QUERIES, disagreements, read_findings, waiting_reasons
from bench.chaos.load import homes_of
from bench.chaos.orders import Orders, give, read_events
from bench.chaos.proxy import Network, Weather
from bench.chaos.stage import WORKERS, Cast, Ports, Stage, build_stage
from edge.config import load_config
from edge.status import read_status
from gateway.errors import HearthError, UnavailableError
from gateway.platform.embedded.packages import Packages
from gateway.platform.logs import get_logger
from gateway.platform.postgres import connect, connect_blocking, translated
from ingest.ledger import read_ledger
from ingest.quarantine import ActedBy, Filter, replay
from ingest.registry import load_registry
from ingest.verdicts import Verdict

DEVICES_A_HOME = 4
REST_S = 1.5
"""Between the last fault of a round and the next round: some of the backlog drains."""
WARM_S = 3.0
"""Before the first round: every hub is connected and has sent something."""
DRAIN_S_MAX = 240.0
"""After the last round; what still waits then has not come through, and the run fails."""
DRAIN_LOOK_S = 0.5
TOLD_S_MAX = 1.0
"""A process that obeys an order has told so this long after the fault, if it lives."""
HUBS_CLOCK_BACK_MS_MAX = 6 * 3_600_000
INGEST_CLOCK_BACK_MS_MAX = 3_600_000
"""Beyond ten minutes ingest finds the hubs' clocks ahead: HUB_CLOCK, and a replay later."""
DELAY_S_MAX = 0.5
THROTTLED_BYTES_PER_S_MIN, THROTTLED_BYTES_PER_S_MAX = 4_000, 40_000
FULL_PAGES = 1
"""A bound on pages that every file has reached."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a run is to be."""

    rounds: int
    seed: int
    hubs: int
    readings_per_s: float
    kinds: tuple[Kind, ...] = tuple(Kind)
    cast: Cast = field(default_factory=Cast)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What --json prints.

    `faults`: how often each kind was seen to happen; `missed`: how often another fault kept it from
    happening (it is tried again). `emulated`: kinds that are imitated, not done (docs/reliability.md).
    """

    rounds: int
    seed: int
    hubs: int
    seconds: float
    drained_s: float | None
    kept: int
    lost: int
    doubled: int
    altered: int
    invented: int
    quarantined: int
    quarantine_reasons: dict[str, int]
    replayed: int
    published: int
    stored: int
    duplicates: int
    disagreements: list[str]
    faults: dict[str, int]
    missed: dict[str, int]
    emulated: list[str]
    ended_by_themselves: dict[str, int]
    examples: dict[str, list[int]]

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled, altered or left unaccounted for."""
        wrong = self.lost or self.doubled or self.altered or self.invented
        return not wrong and not self.disagreements and self.drained_s is not None


async def conduct(
    wish: Wish,
    folder: Path,
    packages: Packages,
    progress: Callable[[int, str], None],
    keep_logs: Path,
) -> Summary:
    """Run it. `progress` is told how many rounds are done and what goes on.

    The logs of a run that does not hold are moved to `keep_logs`; nothing else is left.
    """
    homes = homes_of(wish.hubs, DEVICES_A_HOME)
    stage = build_stage(
        folder,
        packages,
        homes,
        wish.cast,
        seed=wish.seed,
        readings_per_s=wish.readings_per_s,
    )
    run = _Run(wish, stage)
    holds = False
    try:
        async with AsyncExitStack() as stack:
            for network in run.networks:
                await stack.enter_async_context(network.open())
            progress(0, "启动各部分 / starting the parts")
            await asyncio.to_thread(stage.raise_curtain, run.ports)
            summary = await run.play(progress)
            holds = summary.holds and not summary.ended_by_themselves
            return summary
    finally:
        if not holds:
            await asyncio.to_thread(_keep_logs, folder / "log", keep_logs)
        await asyncio.to_thread(stage.lower_curtain)


@dataclass(slots=True)
class _Run:
    """The faults at work."""

    wish: Wish
    stage: Stage
    happened: Counter[Kind] = field(default_factory=Counter)
    missed: Counter[Kind] = field(default_factory=Counter)
    owed: list[Fault] = field(default_factory=list)
    hub_orders: Orders = field(default_factory=Orders)
    ingest_orders: Orders = field(default_factory=Orders)
    hubs_broker: Network = field(init=False)
    ingest_broker: Network = field(init=False)
    ingest_database: Network = field(init=False)
    _database_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        stage = self.stage
        self.hubs_broker = Network(lambda: stage.broker.port)
        self.ingest_broker = Network(lambda: stage.broker.services_port)
        self.ingest_database = Network(lambda: stage.database.port)

    @property
    def networks(self) -> tuple[Network, ...]:
        return (self.hubs_broker, self.ingest_broker, self.ingest_database)

    @property
    def ports(self) -> Ports:
        return Ports(
            hubs_broker=self.hubs_broker.port,
            ingest_broker=self.ingest_broker.port,
            ingest_database=self.ingest_database.port,
        )

    async def play(self, progress: Callable[[int, str], None]) -> Summary:
        began_s = time.monotonic()
        await asyncio.sleep(WARM_S)
        for number, planned in enumerate(
            schedule(self.wish.seed, self.wish.rounds, self.wish.kinds)
        ):
            faults = planned + self._owed(planned)
            progress(number, " + ".join(fault.kind.value for fault in faults))
            async with asyncio.TaskGroup() as group:
                for fault in faults:
                    group.create_task(self._happen(fault))
            await asyncio.to_thread(self.stage.start_what_ended)
            await asyncio.sleep(REST_S)
        progress(self.wish.rounds, "排空 / draining")
        self._order_hubs(is_collecting=False)
        drained_s = await self._drain()
        progress(self.wish.rounds, "比对 / comparing")
        return await self._summary(time.monotonic() - began_s, drained_s)

    async def _happen(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s)
        if await self._acts()[fault.kind](fault):
            self.happened[fault.kind] += 1
        else:
            self.missed[fault.kind] += 1
            self.owed.append(fault)

    def _owed(self, planned: Sequence[Fault]) -> list[Fault]:
        """Return one fault that another one kept from happening: it is tried again, once more."""
        kinds = {fault.kind for fault in planned}
        for fault in self.owed:
            if fault.kind not in kinds:
                self.owed.remove(fault)
                return [fault]
        return []

    def _acts(self) -> dict[Kind, Callable[[Fault], Awaitable[bool]]]:
        return {
            Kind.BROKER_KILLED: self._kill_broker,
            Kind.DATABASE_KILLED: self._kill_database,
            Kind.INGEST_KILLED: self._kill_ingest,
            Kind.HUBS_KILLED: self._kill_hubs,
            Kind.HUBS_BROKER_CUT: lambda f: self._cut(self.hubs_broker, f),
            Kind.HUBS_BROKER_DELAYED: lambda f: self._delay(self.hubs_broker, f),
            Kind.HUBS_BROKER_THROTTLED: lambda f: self._throttle(self.hubs_broker, f),
            Kind.INGEST_BROKER_CUT: lambda f: self._cut(self.ingest_broker, f),
            Kind.INGEST_BROKER_DELAYED: lambda f: self._delay(self.ingest_broker, f),
            Kind.INGEST_BROKER_THROTTLED: lambda f: self._throttle(self.ingest_broker, f),
            Kind.INGEST_DATABASE_CUT: lambda f: self._cut(self.ingest_database, f),
            Kind.INGEST_DATABASE_DELAYED: lambda f: self._delay(self.ingest_database, f),
            Kind.INGEST_DATABASE_THROTTLED: lambda f: self._throttle(self.ingest_database, f),
            Kind.HUBS_DISK_FULL: self._fill_hubs_disk,
            Kind.DATABASE_DISK_FULL: self._fill_database_disk,
            Kind.HUBS_CLOCK_BACK: self._set_hubs_clock_back,
            Kind.INGEST_CLOCK_BACK: self._set_ingest_clock_back,
            Kind.MESSAGES_DUPLICATED: self._duplicate,
            Kind.MESSAGES_REORDERED: self._reorder,
        }

    async def _kill_broker(self, fault: Fault) -> bool:
        lived = self.stage.broker.pid is not None
        await asyncio.to_thread(self.stage.broker.kill)
        await asyncio.sleep(fault.lasts_s)
        await asyncio.to_thread(self.stage.start_server, self.stage.broker)
        return lived

    async def _kill_database(self, fault: Fault) -> bool:
        async with self._database_lock:
            lived = self.stage.database.pid is not None
            await asyncio.to_thread(self.stage.database.kill)
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(self.stage.start_server, self.stage.database)
        return lived

    async def _kill_ingest(self, fault: Fault) -> bool:
        worker = int(fault.strength * WORKERS) % WORKERS
        lived = await asyncio.to_thread(self.stage.kill_ingest, worker)
        await asyncio.sleep(fault.lasts_s)
        await asyncio.to_thread(self.stage.start_ingest, worker)
        return lived

    async def _kill_hubs(self, fault: Fault) -> bool:
        lived = await asyncio.to_thread(self.stage.kill_hubs)
        await asyncio.sleep(fault.lasts_s)
        await asyncio.to_thread(self.stage.start_hubs)
        return lived

    async def _cut(self, network: Network, fault: Fault) -> bool:
        """End connections and refuse new ones; or let them fall silent first, and then end them."""
        before = network.traffic.cut
        network.weather.is_refusing = True
        if fault.strength < 0.5:  # noqa: PLR2004 - one way or the other
            network.cut()
            await asyncio.sleep(fault.lasts_s)
        else:
            network.weather.is_silent = True
            await asyncio.sleep(fault.lasts_s)
            network.cut()
            network.weather.is_silent = False
        network.weather.is_refusing = False
        return network.traffic.cut > before

    async def _delay(self, network: Network, fault: Fault) -> bool:
        before = network.traffic.bytes_delayed
        network.weather.delay_s = DELAY_S_MAX * (0.1 + 0.9 * fault.strength)
        await asyncio.sleep(fault.lasts_s)
        network.weather.delay_s = Weather().delay_s
        return network.traffic.bytes_delayed > before

    async def _throttle(self, network: Network, fault: Fault) -> bool:
        before = network.traffic.bytes_throttled
        span = THROTTLED_BYTES_PER_S_MAX - THROTTLED_BYTES_PER_S_MIN
        network.weather.bytes_per_s = THROTTLED_BYTES_PER_S_MIN + span * fault.strength
        await asyncio.sleep(fault.lasts_s)
        network.weather.bytes_per_s = None
        return network.traffic.bytes_throttled > before

    async def _fill_hubs_disk(self, fault: Fault) -> bool:
        disk = self.stage.hubs_disk
        if disk.is_real:
            return await self._seen("disk_refusals", fault, self._full(disk, fault))
        self._order_hubs(pages_max=FULL_PAGES)
        seen = await self._seen("disk_refusals", fault)
        self._order_hubs(pages_max=None)
        return seen

    async def _fill_database_disk(self, fault: Fault) -> bool:
        async with self._database_lock:
            if not self.stage.database_disk.is_real:
                return await self._let_database_refuse(fault)
            await asyncio.to_thread(self._probe, "make_probe")
            filling = asyncio.ensure_future(self._full(self.stage.database_disk, fault))
            await asyncio.sleep(fault.lasts_s / 2)
            refused = not await asyncio.to_thread(self._probe, "fill_probe")
            await filling
            await asyncio.to_thread(self.stage.start_server, self.stage.database)
            await asyncio.to_thread(self._probe, "empty_probe")
        return refused

    async def _let_database_refuse(self, fault: Fault) -> bool:
        """Imitate a full disk: every transaction may only read."""
        read_only = "ALTER SYSTEM SET default_transaction_read_only = {}"
        for value in ("on", "off"):
            with connect_blocking(
                self.stage.superuser_url, application="hearth-chaos", autocommit=True
            ) as connection:
                connection.execute("SET default_transaction_read_only = off")
                connection.execute(read_only.format(value))  # ours, no value
                connection.execute("SELECT pg_reload_conf()")
            if value == "on":
                await asyncio.sleep(fault.lasts_s)
        return True

    async def _full(self, disk: Disk, fault: Fault) -> None:
        await asyncio.to_thread(disk.fill)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            disk.release()

    def _probe(self, statement: str) -> bool:
        """Do something to the probe's table; tell whether the database did it."""
        try:
            with (
                connect_blocking(
                    self.stage.superuser_url, application="hearth-chaos", autocommit=True
                ) as connection,
                translated(),
            ):
                connection.execute(QUERIES[statement])
        except UnavailableError:
            return False
        return True

    async def _set_hubs_clock_back(self, fault: Fault) -> bool:
        self._order_hubs(clock_ms=-int(HUBS_CLOCK_BACK_MS_MAX * (0.01 + 0.99 * fault.strength)))
        seen = await self._seen("clock_back", fault)
        self._order_hubs(clock_ms=0)
        return seen

    async def _set_ingest_clock_back(self, fault: Fault) -> bool:
        before = read_events(self.stage.ingest_events)["clock_back"]
        self.ingest_orders = replace(
            self.ingest_orders,
            clock_ms=-int(INGEST_CLOCK_BACK_MS_MAX * (0.25 + 0.75 * fault.strength)),
        )
        give(self.stage.ingest_orders, self.ingest_orders)
        await asyncio.sleep(fault.lasts_s)
        self.ingest_orders = replace(self.ingest_orders, clock_ms=0)
        give(self.stage.ingest_orders, self.ingest_orders)
        return read_events(self.stage.ingest_events)["clock_back"] > before

    async def _duplicate(self, fault: Fault) -> bool:
        self._order_hubs(duplicate=0.2 + 0.8 * fault.strength)
        seen = await self._seen("duplicated", fault)
        self._order_hubs(duplicate=0.0)
        return seen

    async def _reorder(self, fault: Fault) -> bool:
        self._order_hubs(reorder=0.2 + 0.6 * fault.strength)
        seen = await self._seen("reordered", fault)
        self._order_hubs(reorder=0.0)
        return seen

    async def _seen(self, event: str, fault: Fault, act: Awaitable[None] | None = None) -> bool:
        """Let the fault last; tell whether the hubs say that they met it."""
        before = read_events(self.stage.hub_events)[event]
        await (act or asyncio.sleep(fault.lasts_s))
        deadline = time.monotonic() + TOLD_S_MAX
        while read_events(self.stage.hub_events)[event] <= before:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(TOLD_S_MAX / 10)
        return True

    def _order_hubs(self, **changes: Any) -> None:  # noqa: ANN401 - fields of Orders
        self.hub_orders = replace(self.hub_orders, **changes)
        give(self.stage.hub_orders, self.hub_orders)

    async def _drain(self) -> float | None:
        """Wait until every hub is empty, and end them; return how long that took, None: it did not.

        What waits in a hub's memory for a disk that was full reaches its file at the end in good
        order; then the hubs live once more.
        """
        began_s = time.monotonic()
        while time.monotonic() - began_s < DRAIN_S_MAX:
            await asyncio.to_thread(self.stage.start_what_ended)
            with suppress(HearthError):  # a file that is just being written
                if not await asyncio.to_thread(self._held):
                    await asyncio.to_thread(self.stage.stop_hubs)
                    if not await asyncio.to_thread(self._held):
                        return round(time.monotonic() - began_s, 1)
                    await asyncio.to_thread(self.stage.start_hubs)
            await asyncio.sleep(DRAIN_LOOK_S)
        _log.error("hubs_not_drained", measurements=await asyncio.to_thread(self._held))
        return None

    def _held(self) -> int:
        held = 0
        for path in self.stage.configs:
            config = load_config(path)
            held += read_status(config.hub_id, config.outbox_path, config.identity).depth.held
        return held

    async def _summary(self, seconds: float, drained_s: float | None) -> Summary:
        dsn = self.stage.database.url()
        replayed = await _replay_clocks(dsn)
        comparison = await asyncio.to_thread(self._compare, dsn)
        terms = await asyncio.to_thread(_terms, dsn)
        disagreeing = await asyncio.to_thread(disagreements, dsn, self.stage.configs)
        return Summary(
            rounds=self.wish.rounds,
            seed=self.wish.seed,
            hubs=self.wish.hubs,
            seconds=round(seconds, 1),
            drained_s=drained_s,
            kept=comparison.kept,
            lost=comparison.lost,
            doubled=comparison.doubled,
            altered=comparison.altered,
            invented=comparison.invented,
            quarantined=comparison.quarantined,
            quarantine_reasons=await asyncio.to_thread(waiting_reasons, dsn),
            replayed=replayed,
            disagreements=disagreeing,
            faults={kind.value: self.happened[kind] for kind in self.wish.kinds},
            missed={kind.value: n for kind, n in self.missed.items()},
            emulated=self._emulated(),
            ended_by_themselves=dict(Counter(self.stage.ended_by_themselves)),
            examples=comparison.examples,
            **terms,
        )

    def _compare(self, dsn: str) -> Comparison:
        return compare(*read_findings(dsn, self.stage.journals))

    def _emulated(self) -> list[str]:
        disks = {
            Kind.HUBS_DISK_FULL: self.stage.hubs_disk,
            Kind.DATABASE_DISK_FULL: self.stage.database_disk,
        }
        clocks = [Kind.HUBS_CLOCK_BACK.value, Kind.INGEST_CLOCK_BACK.value]
        return [kind.value for kind, disk in disks.items() if not disk.is_real] + clocks


async def _replay_clocks(dsn: str) -> int:
    """Store what was kept apart because a clock was wrong, as a person would once it is right."""
    connection = await connect(dsn, application="hearth-chaos", autocommit=True)
    async with connection:
        registry = await load_registry(connection)
        done = await replay(
            connection,
            registry,
            Filter(reasons=(Verdict.HUB_CLOCK,)),
            ActedBy(actor="service:chaos"),
        )
    return done.stored + done.duplicate


def _terms(dsn: str) -> dict[str, int]:
    ledger = read_ledger(dsn, prove=False)
    return {
        "published": ledger.total("published"),
        "stored": ledger.total("stored"),
        "duplicates": ledger.total("duplicate"),
    }


def _keep_logs(logs: Path, kept: Path) -> None:
    if logs.exists():
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(logs, kept)
