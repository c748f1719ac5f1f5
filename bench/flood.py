"""A hub that floods against the others: their time from publish to receipt, with and without it.

Real parts: the broker with its certificates, TimescaleDB, an ingest worker of its own process. Honest
hubs publish a reading now and then; one of them shares its lane with the hostile hub, which is a
process of its own (bench.flooder) and sends as fast as the broker takes it, in turn new batches and
rubbish. It runs at the lowest priority: in the world it would not share our processors.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.databases import own_database
from bench.flooder import Kind
from bench.ingest import a_reading, populate
from bench.result import Result, compare
from gateway import wire
from gateway.errors import UnavailableError, UsageError
from gateway.platform import mqtt
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.services import Services
from gateway.platform.ports import free_port
from gateway.platform.process import Child, Program
from gateway.platform.settings import LOOPBACK

GOAL = 2.0
"""The others' p99 under a flood, over their quiet one: at most."""
_HUBS = 8
"""Honest hubs."""
_EVERY_S = 0.2
"""How often each publishes."""
_REPEAT_S = 10.0
"""A batch without a receipt is sent again after this, as a hub does (edge.window)."""
_RECEIPT_S_MAX = 60.0
"""A receipt that takes longer is a loss of service, and ends the bench."""
_READY_S_MAX = 60.0
_CALM_LOOKS = 20
"""In a row, before a phase begins."""
_CALM_S = 1.0
"""A batch older than this without a receipt is what a flood has left."""
_SETTLE_S = 2.0
"""At the beginning of each phase, not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is measured: rounds of a quiet phase and a phase under each kind of flood."""

    rounds: int
    phase_s: float


def bench_flood(
    services: Services, *, quick: bool, progress: Callable[[str], None]
) -> list[Result]:
    """Measure in a database of its own on the server of `services`, with its broker.

    Raises:
        UsageError: the broker is a person's own: the bench admits hubs and floods it.
    """
    if services.broker is None:
        raise UsageError(
            "此测量只用自带的消息代理 / this bench floods the embedded broker only: unset HEARTH_MQTT_URL"
        )
    load = Load(rounds=3 if quick else 7, phase_s=8.0 if quick else 30.0)
    with own_database(services.maintenance_url, "hearth_bench_flood") as dsn:
        populate(dsn, hubs=_hubs()[-1])
        return asyncio.run(_measure(dsn, services.broker, load, progress))


async def _measure(
    dsn: str, broker: Broker, load: Load, progress: Callable[[str], None]
) -> list[Result]:
    *honest, hostile = _hubs()
    broker.admit(*map(wire.hub_name, (*honest, hostile)))
    quiet: list[float] = []
    under: dict[Kind, list[float]] = {kind: [] for kind in Kind}
    with _worker(dsn, broker) as metrics_port:
        async with asyncio.TaskGroup() as group:
            hubs = [_Hub(number=number, broker=broker) for number in honest]
            tasks = [group.create_task(hub.run()) for hub in hubs]
            for number in range(load.rounds):
                await _calm(hubs)
                quiet.append(await _p99_ms(hubs, load.phase_s))
                for kind in Kind:
                    await _calm(hubs)
                    with _flooding(broker, hostile, kind):
                        under[kind].append(await _p99_ms(hubs, load.phase_s))
                told = ", ".join(f"{kind.value} {values[-1]:.0f}" for kind, values in under.items())
                shed = _shed(metrics_port)
                progress(
                    f"round {number + 1}/{load.rounds}: p99 quiet {quiet[-1]:.0f} ms, under a flood "
                    f"of {told} ms; shed so far {shed:,}"
                )
            for task in tasks:
                task.cancel()
    progress(
        f"of honest hubs: {sum(hub.receipted for hub in hubs):,} batches receipted, "
        f"{sum(hub.repeated for hub in hubs)} sent again, "
        f"{sum(len(hub.waiting) for hub in hubs)} on their way at the end"
    )
    return [
        compare(
            f"flood of {kind.value}", "ms, p99 of the other hubs", values, "quiet", quiet,
            goal=GOAL, lower_is_better=True,
        )
        for kind, values in under.items()
    ]  # fmt: skip


@dataclass(slots=True, kw_only=True)
class _Hub:
    """An honest hub: a reading every now and then, and when its receipt came."""

    number: int
    broker: Broker
    latencies_ms: list[float] = field(default_factory=list)
    waiting: dict[int, float] = field(default_factory=dict)
    """Sequence -> when it was published."""
    receipted: int = 0
    repeated: int = 0
    _sent: dict[int, tuple[float, bytes]] = field(default_factory=dict)

    async def run(self) -> None:
        """Publish until cancelled.

        Raises:
            UnavailableError: a receipt did not come in time.
        """
        identity = mqtt.Identity(
            client_id=wire.hub_name(self.number),
            expiry_s=0,
            will=mqtt.Will(topic=wire.topic(self.number, wire.Channel.STATE), payload=b"{}"),
        )
        address = self.broker.access(wire.hub_name(self.number)).address()
        async with mqtt.connect(address, identity) as session:
            session.subscribe([wire.topic(self.number, wire.Channel.RECEIPT)])
            await asyncio.sleep(_EVERY_S * (self.number % _HUBS) / _HUBS)
            epoch = time.time_ns()
            for sequence in itertools.count(1):
                due_s = time.perf_counter() + _EVERY_S
                self.waiting[sequence] = time.perf_counter()
                self._sent[sequence] = (
                    self.waiting[sequence],
                    _batch(self.number, epoch, sequence),
                )
                session.publish(self._topic, self._sent[sequence][1])
                self._repeat(session)
                while (left_s := due_s - time.perf_counter()) > 0:
                    self._take(await session.next_event(left_s))

    @property
    def is_answered(self) -> bool:
        """Whether no batch has waited long for its receipt."""
        now_s = time.perf_counter()
        return now_s - min(self.waiting.values(), default=now_s) < _CALM_S

    @property
    def _topic(self) -> str:
        return wire.topic(self.number, wire.Channel.BATCH)

    def _repeat(self, session: mqtt.Session) -> None:
        now_s = time.perf_counter()
        for sequence, (sent_s, payload) in self._sent.items():
            if now_s - sent_s > _REPEAT_S:
                self._sent[sequence] = (now_s, payload)
                session.publish(self._topic, payload)
                self.repeated += 1

    def _take(self, event: mqtt.Event | None) -> None:
        now_s = time.perf_counter()
        if isinstance(event, mqtt.Arrived):
            for receipt in wire.decode_receipts(event.payload):
                self._sent.pop(receipt.sequence, None)
                since_s = self.waiting.pop(receipt.sequence, None)
                if since_s is not None:  # else the broker delivered the batch twice
                    self.latencies_ms.append(1000 * (now_s - since_s))
                    self.receipted += 1
        late = min(self.waiting.values(), default=now_s)
        if now_s - late > _RECEIPT_S_MAX:
            raise UnavailableError(f"no receipt within {_RECEIPT_S_MAX:.0f} s")


async def _calm(hubs: Sequence[_Hub]) -> None:
    """Wait until what a flood has left behind is over: every hub's last batch had its receipt."""
    calm = 0
    while calm < _CALM_LOOKS:
        await asyncio.sleep(_EVERY_S)
        calm = calm + 1 if all(hub.is_answered for hub in hubs) else 0


async def _p99_ms(hubs: Sequence[_Hub], phase_s: float) -> float:
    await asyncio.sleep(_SETTLE_S)
    for hub in hubs:
        hub.latencies_ms.clear()
    await asyncio.sleep(phase_s)
    return float(np.percentile([ms for hub in hubs for ms in hub.latencies_ms], 99))


def _hubs() -> list[int]:
    """Return the honest hubs, then the hostile one, which has the lane of the first."""
    lane = wire.lane_of(1)
    hostile = next(number for number in itertools.count(_HUBS + 1) if wire.lane_of(number) == lane)
    return [*range(1, _HUBS + 1), hostile]


def _batch(hub: int, epoch: int, sequence: int) -> bytes:
    now = datetime.now(UTC)
    record = wire.encode_record(a_reading(hub, sequence % 5, now), now)
    header = wire.Header(
        hub=hub,
        epoch=epoch,
        sequence=sequence,
        kind=wire.Kind.MEASUREMENTS,
        count=1,
        reference_at=now,
    )
    return wire.encode_batch(header, record)


@contextmanager
def _worker(dsn: str, broker: Broker) -> Iterator[int]:
    """Run an ingest worker; yields its metrics port once it reads every lane."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="hearth-bench-") as folder:
        program = Program(
            name="ingest",
            argv=(sys.executable, "-m", "gateway.cli.main", "ingest"),
            log=Path(folder) / "ingest.log",
            environment=os.environ
            | {
                "HEARTH_DATABASE_URL": dsn,
                "HEARTH_METRICS_PORT": str(port),
                "HEARTH_LOG_LEVEL": "warning",
            }
            | broker.access().environment(),
        )
        child = Child(program)
        try:
            child.wait_ready(
                lambda: _metric(port, "hearth_ingest_lanes") == wire.LANES, _READY_S_MAX
            )
            yield port
        finally:
            child.stop()


@contextmanager
def _flooding(broker: Broker, hub: int, kind: Kind) -> Iterator[None]:
    access = broker.access(wire.hub_name(hub))
    with tempfile.TemporaryDirectory(prefix="hearth-bench-") as folder:
        log = Path(folder) / "flooder.log"
        program = Program(
            name="flooder",
            argv=(
                sys.executable, "-m", "bench.flooder",
                access.url, str(access.ca_file), str(access.cert_file), str(hub), kind.value,
            ),
            log=log,
            stop_signal=signal.SIGKILL,
        )  # fmt: skip
        child = Child(program)
        try:
            yield
            if not child.is_alive():
                raise UnavailableError(f"the flooder ended: {log.read_text()}")
        finally:
            child.kill()


def _shed(port: int) -> int:
    return int(_metric(port, "hearth_ingest_shed_messages_total") or 0)


def _metric(port: int, name: str) -> float | None:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5) as answer:
            found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    except OSError:
        return None
    return float(found[1]) if found else None
