"""The hub agent: one or several hubs in one process.

    devices ~ Central > Session > Storage (outbox) > Uplink ~ broker
              one an adapter      one file a hub     forgets a batch on its receipt

Everything of all hubs runs in one TaskGroup; whatever is down outside is waited for, a mistake of
ours ends the process, and systemd starts it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from prometheus_client import REGISTRY

from edge.bluez import Bluez
from edge.central import CentralSettings
from edge.collector import Collector, CollectorSettings
from edge.config import HubConfig, check_together
from edge.counts import Counts, Gauges, HubMetrics, Watched
from edge.enrolment import post_to
from edge.hub_clock import HubClock, hub_clock
from edge.outbox import Limits
from edge.renewal import Renewer
from edge.session import Pace
from edge.storage import Storage, StorageSettings, open_storage
from edge.systemd import READY, STOPPING, notify, stay_alive
from edge.troubles import Troubles
from edge.uplink import Uplink, UplinkSettings
from gateway.platform.health import serve_health
from gateway.platform.logs import get_logger
from gateway.platform.ports import require_free
from gateway.platform.service import run_until_signalled

_log = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class _Hub:
    """The parts of one hub; its collector is made with the tasks."""

    config: HubConfig
    clock: HubClock
    counts: Counts
    storage: Storage
    uplink: Uplink
    renewer: Renewer
    troubles: Troubles
    collector: Collector | None = None

    def gauges(self) -> Gauges:
        """Return what its metrics show now."""
        depth = self.storage.depth
        return Gauges(
            entries=depth.entries,
            batches=depth.batches,
            records=depth.records,
            undated=self.storage.undated,
            is_connected=self.uplink.is_connected,
            certificate_left_s=self.renewer.left_s,
        )

    def not_ready(self) -> str | None:
        """Return why it cannot collect now; a broker that is away is no reason."""
        if self.collector is None or not self.collector.is_scanning:
            return f"hub {self.config.hub.id}: no Bluetooth adapter"
        refusal = self.collector.refusal
        return refusal and f"hub {self.config.hub.id}: {refusal}"


async def run(
    configs: Sequence[HubConfig],
    *,
    metrics_port: int = 0,
    central: CentralSettings | None = None,
    pace: Pace | None = None,
) -> None:
    """Run these hubs until SIGTERM or SIGINT.

    `metrics_port` is used where no configuration names one. `central` and `pace` are for those who
    run it beside simulated devices, which are in more of a hurry than real ones.

    Raises:
        UsageError: configurations contradict each other, or a file is in use or another hub's.
        UnavailableError: the disk is full or failing.
    """
    check_together(configs)
    bluez = Bluez()
    async with AsyncExitStack() as stack:
        hubs = [await stack.enter_async_context(_open(config)) for config in configs]
        stack.enter_context(_metrics_of(hubs))
        named = [c.hub.metrics_port for c in configs if c.hub.metrics_port is not None]
        wanted = named[0] if named else metrics_port
        require_free(wanted, "[hub] metrics_port")
        port = await stack.enter_async_context(serve_health(wanted, lambda: _first_reason(hubs)))

        def start(tasks: asyncio.TaskGroup) -> None:
            tasks.create_task(bluez.run())
            for hub in hubs:
                settings = _collector_settings(hub, central or CentralSettings(), pace)
                hub.collector = Collector(
                    settings, bluez, hub.storage, hub.counts, tasks, hub.troubles
                )
                tasks.create_task(hub.storage.run())
                tasks.create_task(hub.uplink.run())
                tasks.create_task(hub.renewer.run())
                hub.collector.start()
            tasks.create_task(stay_alive())
            _log.info("hubs_running", hubs=len(hubs), metrics_port=port)
            notify(READY)

        await run_until_signalled(start)
        notify(STOPPING)


@asynccontextmanager
async def _open(config: HubConfig) -> AsyncIterator[_Hub]:
    counts = Counts()
    clock = hub_clock(config.hub.clock)
    settings = StorageSettings(
        path=config.outbox_path,
        hub=config.hub_id,
        limits=Limits(
            capacity=config.outbox.capacity,
            policy=config.outbox.at_capacity,
            batch_records=config.outbox.batch_records,
            first=config.outbox.send_first,
            kept_days=config.outbox.keep_receipted_days,
        ),
        batch_age_s=config.outbox.batch_age_ms / 1000,
        knows_time=lambda: clock.is_known,
    )
    async with open_storage(settings, counts) as storage:
        uplink_settings = UplinkSettings(
            hub=config.hub_id, started_at=datetime.now(UTC), broker=config.broker
        )
        troubles = Troubles()
        uplink = Uplink(uplink_settings, storage, counts, lambda: troubles.devices)
        renewer = Renewer(config.hub.id, config.identity, post_to(config.enrolment.url), counts)
        yield _Hub(
            config=config,
            clock=clock,
            counts=counts,
            storage=storage,
            uplink=uplink,
            renewer=renewer,
            troubles=troubles,
        )


def _collector_settings(
    hub: _Hub, central: CentralSettings, pace: Pace | None
) -> CollectorSettings:
    config = hub.config
    return CollectorSettings(
        hub=config.hub_id,
        zone=config.zone,
        listed=config.listed,
        accepts_any=config.accepts_any,
        adapters=config.hub.adapters or (None,),
        central=replace(central, is_passive=config.hub.scan == "passive"),
        pace=pace or Pace(),
        clock=hub.clock,
    )


@contextmanager
def _metrics_of(hubs: Sequence[_Hub]) -> Iterator[None]:
    """Show the hubs in the process's Prometheus registry for the block."""
    metrics = HubMetrics(
        [Watched(hub=hub.config.hub_id, counts=hub.counts, gauges=hub.gauges) for hub in hubs]
    )
    REGISTRY.register(metrics)
    try:
        yield
    finally:
        REGISTRY.unregister(metrics)


def _first_reason(hubs: Sequence[_Hub]) -> str | None:
    return next((reason for hub in hubs if (reason := hub.not_ready())), None)
