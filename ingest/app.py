"""The ingest service: one worker. Any number of them share the lanes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gateway import wire
from gateway.errors import DataError, UnavailableError
from gateway.platform.backoff import Backoff
from gateway.platform.broker_address import BrokerAddress
from gateway.platform.health import serve_health
from gateway.platform.logs import get_logger
from gateway.platform.postgres import DuplicateKeyError, connect
from gateway.platform.service import run_until_signalled
from ingest import metrics
from ingest.attribution.settle import settle_due
from ingest.baselines.evaluate import evaluate_due
from ingest.batches import Flush
from ingest.device_states import StateBook
from ingest.fairness import REJECTED_BYTES, Fairness, is_like_a_batch
from ingest.following import Follower
from ingest.inbox import INBOX, Inbox
from ingest.leases import BROKER_AWAY_S_MAX, PERIOD_S, Leases
from ingest.pipeline import FlushRule, Gatherer, Pipeline, receipts_by_hub, wall_clock_ms
from ingest.quarantine import ActedBy, Filter, replay
from ingest.registry import Changes, Ids, addresses_of
from ingest.subscriber import Intake, Lane, LaneTakenError, reaches
from ingest.verdicts import Verdict
from ingest.writing import Outcome

HELD_BYTES_MAX = 256 * 1024 * 1024
"""Above this the lanes stop reading; the broker, and behind it the hubs, keep the rest."""
SETTLE_PERIOD_S = 1.0
"""How often a worker looks for shared slots that are due."""
BACKOFF = Backoff(first_s=0.2, longest_s=5.0)
BY_INGEST = ActedBy(actor="service:ingest", why="the registry has changed")
WAITING_FOR_A_LINK = Filter(reasons=(Verdict.UNLINKED, Verdict.DEVICE_UNKNOWN), linked=True)
_NOTHING = np.empty(0, np.int32)

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
        self._registry = Follower(config.dsn, self._take_changes)
        self._linked: Ids | None = None
        """Devices with new links, whose waiting readings are not replayed yet; None: any."""
        self._has_linked = asyncio.Event()
        self._gatherer = Gatherer(config.rule)
        self._fairness = Fairness()
        self._states = StateBook(config.dsn)
        self._intake = Intake(
            bytes_max=HELD_BYTES_MAX,
            deliver=self._gatherer.deliver,
            admits=self._fairness.admits,
            tell=self._states.take,
        )
        self._pipeline = Pipeline(
            config.dsn,
            self._gatherer.next,
            self._registry,
            self._answer,
            now_ms=config.now_ms,
        )
        self._inbox = Inbox(
            config.dsn, self._gatherer.deliver, took_turn=self._pipeline.forget_devices
        )
        self._lanes: dict[int, Lane] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        metrics.LANES.set_function(lambda: len(self._lanes))
        metrics.HELD_BYTES.set_function(lambda: self._intake.bytes_held)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the worker's tasks."""
        group.create_task(self._registry.follow_forever())
        group.create_task(self._pipeline.prepare_forever())
        group.create_task(self._pipeline.commit_forever())
        group.create_task(self._hold_lanes(group))
        group.create_task(self._read_inbox())
        group.create_task(self._replay_linked())
        group.create_task(self._settle_due())
        group.create_task(self._states.write_forever())

    def not_ready(self) -> str | None:
        """Return why the worker cannot take messages now, None when it can."""
        if not self._registry.ready.is_set():
            return "the registry is not loaded"
        if not any(lane.connected for lane in self._lanes.values()):
            return "no lane is connected"
        return None

    def _answer(self, flush: Flush, outcomes: Sequence[Outcome]) -> None:
        """Send receipts, then acknowledge: the flush is committed."""
        for rejected in flush.rejected:
            if is_like_a_batch(rejected.message.payload):  # else it was charged when it came
                self._fairness.charge(rejected.message.hub, REJECTED_BYTES)
        for hub, payload in receipts_by_hub(outcomes):
            lane = self._lanes.get(wire.lane_of(hub))
            if lane is not None:
                lane.publish(wire.topic(hub, wire.Channel.RECEIPT), payload)
        for message in flush.messages:
            lane = self._lanes.get(message.lane)
            if message.lane == INBOX:
                self._inbox.acknowledge(message.token)
            elif lane is not None:
                lane.acknowledge(message.token)
            else:
                self._intake.released(message.token)  # the lane is another worker's by now
        for lane in self._lanes.values():
            lane.flush()

    def _take_changes(self, changes: Changes) -> None:
        """Forget what a change of the registry makes doubtful, and replay what waited for it."""
        self._pipeline.forget_devices(changes.known)
        self._pipeline.forget_residents(changes.residents)
        if changes.devices is None or self._linked is None:
            self._linked = None
        else:
            self._linked = np.union1d(self._linked, changes.devices).astype(np.int32)
        if self._linked is None or len(self._linked):
            self._has_linked.set()

    async def _replay_linked(self) -> None:
        """Store what waited for its device's link, whenever links have changed."""
        failures = 0
        while True:
            await self._has_linked.wait()
            self._has_linked.clear()
            linked, self._linked = self._linked, np.empty(0, np.int32)
            try:
                await self._replay(linked)
                failures = 0
            except DataError as error:  # an entry that no replay can take must not end the worker
                _log.error("replay_refused", why=str(error))
            except (UnavailableError, DuplicateKeyError) as error:
                failures += 1
                _log.warning("replay_put_off", why=str(error))
                self._take_changes(Changes(devices=linked, known=_NOTHING, residents=_NOTHING))
                await asyncio.sleep(BACKOFF.wait_s(failures))

    async def _replay(self, linked: Ids | None) -> None:
        async with await connect(
            self._config.dsn, application="hearth-ingest-replay", autocommit=True
        ) as connection:
            which = WAITING_FOR_A_LINK
            if linked is not None:
                devices = tuple(await addresses_of(connection, linked))
                which = replace(WAITING_FOR_A_LINK, devices=devices)
            replayed = await replay(connection, self._registry.current(), which, BY_INGEST)
        if replayed.looked_at:
            _log.info("linked_replayed", stored=replayed.stored, of=replayed.looked_at)

    async def _settle_due(self) -> None:
        """Attribute readings of shared slots, and mark unusual ones, that are due; within seconds."""
        await self._registry.ready.wait()
        failures = 0
        while True:
            try:
                async with await connect(
                    self._config.dsn, application="hearth-ingest-settle", autocommit=True
                ) as connection:
                    while True:
                        settled = await settle_due(connection)
                        taken, _marked = await evaluate_due(connection)
                        metrics.count_settled(settled)
                        failures = 0
                        await asyncio.sleep(0 if settled.slots or taken else SETTLE_PERIOD_S)
            except UnavailableError as error:
                failures += 1
                _log.warning("settling_put_off", why=str(error))
                await asyncio.sleep(BACKOFF.wait_s(failures))

    async def _read_inbox(self) -> None:
        await self._registry.ready.wait()
        await self._inbox.read_forever()

    async def _hold_lanes(self, group: asyncio.TaskGroup) -> None:
        """Keep this worker's share of the lanes; without the database, none."""
        await self._registry.ready.wait()
        failures = 0
        while True:
            try:
                leases = await Leases.open(self._config.dsn)
                try:
                    failures = 0
                    await self._keep_share(group, leases)
                finally:
                    await leases.close()
                await self._await_broker()
            except UnavailableError as error:
                failures += 1
                _log.warning("leases_lost", why=str(error))
                for lane in list(self._lanes):
                    await self._stop_lane(lane)
                await asyncio.sleep(BACKOFF.wait_s(failures))

    async def _await_broker(self) -> None:
        failures = 0
        while not await reaches(self._config.broker):
            failures += 1
            await asyncio.sleep(BACKOFF.wait_s(failures))
        _log.info("broker_reached")

    async def _keep_share(self, group: asyncio.TaskGroup, leases: Leases) -> None:
        """Read this worker's share of the lanes, until the broker is away and there are others to read them."""
        reached_at_s = time.monotonic()
        while True:
            if not self._lanes or any(lane.connected for lane in self._lanes.values()):
                reached_at_s = time.monotonic()
            elif (
                time.monotonic() - reached_at_s >= BROKER_AWAY_S_MAX and await leases.has_company()
            ):
                _log.warning("lanes_left_to_others", lanes=len(self._lanes), why="broker away")
                for lane in list(self._lanes):
                    await self._stop_lane(lane)
                return
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
