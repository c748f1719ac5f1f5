"""The ingest service: one worker. Any number of them share the lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway import wire
from gateway.errors import UnavailableError
from gateway.platform.backoff import Backoff
from gateway.platform.broker_address import BrokerAddress
from gateway.platform.health import serve_health
from gateway.platform.logs import get_logger
from gateway.platform.postgres import connect, translated
from gateway.platform.service import run_until_signalled
from ingest import metrics
from ingest.batches import Flush
from ingest.fairness import REJECTED_BYTES, Fairness
from ingest.leases import PERIOD_S, Leases
from ingest.pipeline import FlushRule, Gatherer, Pipeline, receipts_by_hub, wall_clock_ms
from ingest.quarantine import ActedBy, Filter, replay
from ingest.registry import Registry, load_registry, moved_devices
from ingest.store import Outcome
from ingest.subscriber import Intake, Lane, LaneTakenError
from ingest.verdicts import Verdict

HELD_BYTES_MAX = 256 * 1024 * 1024
"""Above this the lanes stop reading; the broker, and behind it the hubs, keep the rest."""
REGISTRY_AGE_S_MAX = 60.0
"""The registry is read again at least this often, should a notification have been lost."""
BACKOFF = Backoff(first_s=0.2, longest_s=5.0)
BY_INGEST = ActedBy(actor="service:ingest", why="the registry has changed")
WAITING_FOR_A_LINK = Filter(reasons=(Verdict.UNLINKED, Verdict.DEVICE_UNKNOWN), linked=True)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """What a worker needs to know."""

    dsn: str
    broker: Callable[[], BrokerAddress]
    """Asked at each connection: certificates are renewed meanwhile."""
    rule: FlushRule
    metrics_port: int = 0
    now_ms: Callable[[], int] = wall_clock_ms


async def run(config: IngestConfig) -> None:
    """Run until SIGTERM or SIGINT; what is in flight then is sent again by the broker."""
    worker = Worker(config)
    async with serve_health(config.metrics_port, worker.not_ready) as port:
        _log.info("ingest_started", metrics_port=port)
        await run_until_signalled(worker.start)
    _log.info("ingest_stopped")


class Worker:
    """The tasks of one worker and what they share."""

    def __init__(self, config: IngestConfig) -> None:
        self._config = config
        self._registry: Registry | None = None
        self._have_registry = asyncio.Event()
        self._registry_changed = asyncio.Event()
        self._gatherer = Gatherer(config.rule)
        self._fairness = Fairness()
        self._intake = Intake(
            bytes_max=HELD_BYTES_MAX,
            deliver=self._gatherer.deliver,
            admits=self._fairness.admits,
        )
        self._pipeline = Pipeline(
            config.dsn,
            self._gatherer.next,
            self._current_registry,
            self._answer,
            now_ms=config.now_ms,
        )
        self._lanes: dict[int, Lane] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        metrics.LANES.set_function(lambda: len(self._lanes))
        metrics.HELD_BYTES.set_function(lambda: self._intake.bytes_held)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the worker's tasks."""
        group.create_task(self._follow_registry())
        group.create_task(self._pipeline.prepare_forever())
        group.create_task(self._pipeline.commit_forever())
        group.create_task(self._hold_lanes(group))
        group.create_task(self._replay_linked())

    def not_ready(self) -> str | None:
        """Return why the worker cannot take messages now, None when it can."""
        if self._registry is None:
            return "the registry is not loaded"
        if not any(lane.connected for lane in self._lanes.values()):
            return "no lane is connected"
        return None

    def _current_registry(self) -> Registry:
        assert self._registry is not None  # noqa: S101 - lanes start after it is loaded
        return self._registry

    def _answer(self, flush: Flush, outcomes: Sequence[Outcome]) -> None:
        """Send receipts, then acknowledge: the flush is committed."""
        for rejected in flush.rejected:
            self._fairness.charge(rejected.message.hub, REJECTED_BYTES)
        for hub, payload in receipts_by_hub(outcomes):
            lane = self._lanes.get(wire.lane_of(hub))
            if lane is not None:
                lane.publish(wire.topic(hub, wire.Channel.RECEIPT), payload)
        for message in flush.messages:
            lane = self._lanes.get(message.lane)
            if lane is not None:
                lane.acknowledge(message.token)
        for lane in self._lanes.values():
            lane.flush()

    async def _follow_registry(self) -> None:
        """Load the registry, and again whenever the store says that it changed."""
        failures = 0
        while True:
            try:
                await self._follow_registry_once()
            except UnavailableError as error:
                failures += 1
                _log.warning("registry_lost", why=str(error))
                await asyncio.sleep(BACKOFF.wait_s(failures))

    async def _follow_registry_once(self) -> None:
        connection = await connect(
            self._config.dsn, application="hearth-ingest-registry", autocommit=True
        )
        async with connection:
            with translated():
                await connection.execute("LISTEN hearth_registry")
                while True:
                    self._take_registry(await load_registry(connection))
                    async for _ in connection.notifies(timeout=REGISTRY_AGE_S_MAX, stop_after=1):
                        pass

    def _take_registry(self, registry: Registry) -> None:
        if self._registry is not None:
            self._pipeline.forget_devices(moved_devices(self._registry, registry))
        self._registry = registry
        self._have_registry.set()
        self._registry_changed.set()
        _log.info(
            "registry_loaded",
            hubs=len(registry.hub_ids),
            devices=len(registry.device_ids),
            links=len(registry.link_keys),
        )

    async def _replay_linked(self) -> None:
        """Store what waited for its device's link, whenever the registry has changed."""
        failures = 0
        while True:
            await self._registry_changed.wait()
            self._registry_changed.clear()
            try:
                connection = await connect(
                    self._config.dsn, application="hearth-ingest-replay", autocommit=True
                )
                async with connection:
                    replayed = await replay(
                        connection, self._current_registry(), WAITING_FOR_A_LINK, BY_INGEST
                    )
                failures = 0
                if replayed.looked_at:
                    _log.info("linked_replayed", stored=replayed.stored, of=replayed.looked_at)
            except UnavailableError as error:
                failures += 1
                _log.warning("replay_put_off", why=str(error))
                self._registry_changed.set()
                await asyncio.sleep(BACKOFF.wait_s(failures))

    async def _hold_lanes(self, group: asyncio.TaskGroup) -> None:
        """Keep this worker's share of the lanes; without the database, none."""
        await self._have_registry.wait()
        failures = 0
        while True:
            try:
                leases = await Leases.open(self._config.dsn)
                try:
                    failures = 0
                    await self._keep_share(group, leases)
                finally:
                    await leases.close()
            except UnavailableError as error:
                failures += 1
                _log.warning("leases_lost", why=str(error))
                for lane in list(self._lanes):
                    await self._stop_lane(lane)
                await asyncio.sleep(BACKOFF.wait_s(failures))

    async def _keep_share(self, group: asyncio.TaskGroup, leases: Leases) -> None:
        while True:
            for lane in await leases.surplus():
                await self._stop_lane(lane)
                await leases.release(lane)
            for lane in [lane for lane, task in self._tasks.items() if task.done()]:
                await self._stop_lane(lane)
                await leases.release(lane)
            new = await leases.acquire()
            if new:
                self._pipeline.forget_devices()
            for lane in new:
                self._lanes[lane] = Lane(lane, self._config.broker, self._intake)
                self._tasks[lane] = group.create_task(self._read_lane(self._lanes[lane]))
            await asyncio.sleep(PERIOD_S)

    async def _read_lane(self, lane: Lane) -> None:
        try:
            await lane.run()
        except LaneTakenError:
            _log.warning("lane_taken", lane=lane.number)

    async def _stop_lane(self, lane: int) -> None:
        task = self._tasks.pop(lane)
        self._lanes.pop(lane)
        task.cancel()
        await asyncio.wait([task])
