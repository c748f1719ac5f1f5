"""The hub agent for tests: real bleak, real outbox file; what it kept is read from the file.

async with hub_agent(tmp_path) as hub:
    (reading,) = await hub.items(1)
"""

from __future__ import annotations

import asyncio
from asyncio import TaskGroup
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from edge.bluez import Bluez
from edge.central import CentralSettings
from edge.collector import Collector, CollectorSettings
from edge.counts import Counts
from edge.outbox import Limits
from edge.payloads import Item
from edge.session import Pace
from edge.storage import Storage, StorageSettings, open_storage
from edge.troubles import Troubles
from gateway import wire
from gateway.measurement import Measurement

HUB = 0x00C0FFEE00C0FFEE
CHINA = ZoneInfo("Asia/Shanghai")
WITHIN_S = 20.0
"""A test that waits this long for the hub has failed."""
LOOK_S = 0.01
"""How often a condition is looked at."""
HURRY = CollectorSettings(
    hub=HUB,
    zone=CHINA,
    central=CentralSettings(connect_s_max=5.0),
    pace=Pace(quiet_s=1.0, procedure_s=2.0, rest_s=0.01),
)
ALL = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAgent:
    """A running hub: its file, its counts, its collector."""

    storage: Storage
    counts: Counts
    collector: Collector
    bluez: Bluez
    troubles: Troubles
    on_sealed: asyncio.Event = field(default_factory=asyncio.Event)

    async def items(self, count: int) -> list[Item]:
        """Return all that was kept, in order, once there are `count`."""
        async with asyncio.timeout(WITHIN_S):
            while len(items := await items_in(self.storage)) < count:
                self.on_sealed.clear()
                await self.on_sealed.wait()
        return items

    async def measurements(self, count: int) -> list[Measurement]:
        """Return all that was kept, once there are `count`; each must have been decoded."""
        items = await self.items(count)
        assert all(isinstance(item, Measurement) for item in items), items
        return [item for item in items if isinstance(item, Measurement)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds."""
        await until(condition)


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; it is looked at often, for as long as a test may wait."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody when it changes
            await asyncio.sleep(LOOK_S)


async def items_in(storage: Storage) -> list[Item]:
    """Return what the sealed batches of an outbox hold."""
    items: list[Item] = []
    for batch in await storage.batches(after=0, limit=ALL):
        header, body = wire.decode_batch(batch.message)
        if header.kind is wire.Kind.UNDECODED:
            items += wire.decode_undecoded(body, header)
        else:
            items += [
                wire.decode_record(body[start : start + wire.RECORD_BYTES], header.reference_at)
                for start in range(0, len(body), wire.RECORD_BYTES)
            ]
    return items


@asynccontextmanager
async def hub_agent(
    folder: Path, settings: CollectorSettings = HURRY, limits: Limits | None = None
) -> AsyncIterator[HubAgent]:
    """Run a hub whose outbox lies in `folder`; nothing is sent."""
    counts = Counts()
    storage_settings = StorageSettings(
        path=folder / "outbox.sqlite",
        hub=settings.hub,
        limits=limits or Limits(),
        batch_age_s=timedelta(milliseconds=5).total_seconds(),
    )
    started: asyncio.Future[HubAgent] = asyncio.get_running_loop().create_future()

    async def live(storage: Storage) -> None:
        async with TaskGroup() as tasks:
            bluez = Bluez()
            troubles = Troubles()
            collector = Collector(settings, bluez, storage, counts, tasks, troubles)
            hub = HubAgent(
                storage=storage,
                counts=counts,
                collector=collector,
                bluez=bluez,
                troubles=troubles,
            )
            storage.on_sealed = hub.on_sealed.set
            tasks.create_task(bluez.run())
            tasks.create_task(storage.run())
            collector.start()
            started.set_result(hub)

    async with open_storage(storage_settings, counts) as storage:
        living = asyncio.create_task(live(storage))
        try:
            yield await started
        finally:
            living.cancel()
            await asyncio.wait({living})
            if not living.cancelled():
                living.result()
