"""The process that is killed in the hubs' place: real storage and uplink, generated readings.

    python -m bench.chaos.hubs PLAN

Homes hand numbered readings to the storage of each hub that hears them, and journal what the hubs
said. What an earlier life was offered and did not confirm is offered again, as devices do; now and
then a device sends again what it sent long ago, placed by the clock of now.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from bench.chaos.journal import Entry, Event, Journal, What, read_journal, unfinished
from bench.chaos.load import a_measurement, an_undecoded
from bench.chaos.orders import POLL_S, Events, read_orders
from bench.chaos.unruly import unruly
from edge.config import HubConfig, load_config
from edge.counts import Counts
from edge.outbox import Limits
from edge.payloads import Item
from edge.storage import Storage, StorageSettings, open_storage
from edge.uplink import Patience, Uplink, UplinkSettings
from gateway.platform.backoff import Backoff
from gateway.platform.logs import configure_logs
from gateway.platform.service import run_until_signalled
from gateway.platform.settings import load_settings

PATIENCE = Patience(
    receipt=Backoff(first_s=2.0, longest_s=15.0),
    reconnect=Backoff(first_s=0.1, longest_s=2.0),
    refused=Backoff(first_s=0.5, longest_s=2.0),
    taken_over_s=1.0,
)
"""A hub's own is tens of seconds to minutes; a round has only seconds."""
BATCH_RECORDS = 50
"""Small batches: many numbers for the ledger to keep apart."""
READINGS_AT_ONCE_MAX = 20
"""What a device with a memory sends in one go."""
REPEATS = 0.1
"""The part of the offers that came before."""
PAYLOADS = 0.03
"""The part of the offers that no decoder reads."""
APART = timedelta(milliseconds=40)
"""Two hubs of a home hear a reading at different moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HomePlan:
    """One home: a hub.toml and a journal for each of its hubs, and its devices."""

    configs: tuple[str, ...]
    journals: tuple[str, ...]
    devices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one process of hubs plays."""

    homes: tuple[HomePlan, ...]
    orders: str
    events: str
    seed: int
    readings_per_s: float

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_plan(path: Path) -> Plan:
    """Return the plan in a file."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    homes = tuple(
        HomePlan(
            configs=tuple(home["configs"]),
            journals=tuple(home["journals"]),
            devices=tuple(home["devices"]),
        )
        for home in plan.pop("homes")
    )
    return Plan(homes=homes, **plan)


@dataclass(slots=True, kw_only=True)
class _Hub:
    config: HubConfig
    storage: Storage
    uplink: Uplink
    counts: Counts
    journal: Journal


class _Life:
    """Everything between a start and the next kill."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # Another life, other choices: the seed alone would play the same morning again and again.
        self.random = Random(f"{plan.seed}:{datetime.now(UTC).timestamp()}")  # noqa: S311 - play
        self.orders = read_orders(Path(plan.orders))
        self.told: Counter[str] = Counter()
        self.hubs: list[_Hub] = []

    def now(self) -> datetime:
        """Return the hubs' clock."""
        return datetime.now(UTC) + timedelta(milliseconds=self.orders.clock_ms)

    async def obey(self) -> None:
        """Follow the orders and tell what happened."""
        events = Events(Path(self._plan.events))
        while True:
            orders = read_orders(Path(self._plan.orders))
            if orders.clock_ms < self.orders.clock_ms:
                self.told["clock_back"] += 1
            if orders.pages_max != self.orders.pages_max:
                await self._bound_pages(orders.pages_max)
            self.orders = orders
            self.told["disk_refusals"] = sum(hub.counts.storage_failures for hub in self.hubs)
            events.tell(self.told)
            await asyncio.sleep(POLL_S)

    async def live_in(self, home: HomePlan, hubs: Sequence[_Hub]) -> None:
        """Take a home's readings, for as long as the process lives."""
        await self._offer_again(hubs)
        next_number = dict.fromkeys(home.devices, 1)
        for path in home.journals:
            lines = read_journal(Path(path))
            for device in home.devices:
                mine = lines["number"][lines["device"] == device]
                next_number[device] = max(next_number[device], int(mine.max(initial=0)) + 1)
        period_s = READINGS_AT_ONCE_MAX / 2 / self._plan.readings_per_s * len(self._plan.homes)
        while True:
            await asyncio.sleep(self.random.uniform(0, 2 * period_s))
            if not self.orders.is_collecting:
                continue
            device = self.random.choice(home.devices)
            entries = self._entries(device, next_number)
            async with asyncio.TaskGroup() as group:
                for hub in hubs:
                    group.create_task(self._offer(hub, entries))
                    # Two hubs may keep a payload each, as nothing tells that they are the same.
                    entries = [entry for entry in entries if entry.what is What.READING]
                    await asyncio.sleep(APART.total_seconds() * self.random.random())

    def _entries(self, device: int, next_number: dict[int, int]) -> list[Entry]:
        entries = []
        for _ in range(self.random.randint(1, READINGS_AT_ONCE_MAX)):
            what, number = What.READING, next_number[device]
            chance = self.random.random()
            if chance < REPEATS and number > 1:
                number = self.random.randint(max(1, number - 500), number - 1)
            else:
                next_number[device] += 1
                what = What.PAYLOAD if chance > 1 - PAYLOADS else What.READING
            entries.append(Entry(what=what, device=device, number=number))
        return entries

    async def _offer_again(self, hubs: Sequence[_Hub]) -> None:
        for hub, path in zip(hubs, self._journals(hubs), strict=True):
            # A payload is known again by nothing, so only readings may come twice.
            again = [e for e in unfinished(read_journal(path)) if e.what is What.READING]
            await self._offer(hub, again)

    async def _offer(self, hub: _Hub, entries: Sequence[Entry]) -> None:
        """Hand readings to a hub, unless it has said that it takes none now."""
        if hub.storage.refusal or not entries:
            return
        now = self.now()
        hub.journal.note(Event.OFFERED, entries)
        if await hub.storage.append([_item(entry, now) for entry in entries]) == len(entries):
            hub.journal.note(Event.KEPT, entries)

    def _journals(self, hubs: Sequence[_Hub]) -> list[Path]:
        paths = {
            config: Path(journal)
            for home in self._plan.homes
            for config, journal in zip(home.configs, home.journals, strict=True)
        }
        by_hub = {load_config(Path(config)).hub_id: path for config, path in paths.items()}
        return [by_hub[hub.config.hub_id] for hub in hubs]

    async def _bound_pages(self, pages_max: int | None) -> None:
        """Let the hubs' files grow no further, or again as they like."""
        for hub in self.hubs:
            await _set(hub.storage, f"max_page_count = {pages_max or 1 << 30}")


async def _set(storage: Storage, pragma: str) -> None:
    """Set what is no setting of a hub, on the file's own thread."""
    await storage._on_file(lambda: storage._file._connection.execute(f"PRAGMA {pragma}"))  # noqa: SLF001


def _item(entry: Entry, now: datetime) -> Item:
    make = a_measurement if entry.what is What.READING else an_undecoded
    return make(entry.device, entry.number, now)


async def run(plan: Plan) -> None:
    """Play the hubs until a signal or a kill."""
    life = _Life(plan)
    async with AsyncExitStack() as stack:
        homes = [(home, [await _open(stack, life, *paths) for paths in
                  zip(home.configs, home.journals, strict=True)]) for home in plan.homes]  # fmt: skip
        life.hubs = [hub for _home, hubs in homes for hub in hubs]

        def start(tasks: asyncio.TaskGroup) -> None:
            tasks.create_task(life.obey())
            for home, hubs in homes:
                for hub in hubs:
                    tasks.create_task(hub.storage.run())
                    tasks.create_task(hub.uplink.run())
                tasks.create_task(life.live_in(home, hubs))

        await run_until_signalled(start)


async def _open(stack: AsyncExitStack, life: _Life, config: str, journal: str) -> _Hub:
    read = load_config(Path(config))
    counts = Counts()
    storage = await stack.enter_async_context(
        open_storage(
            StorageSettings(
                path=read.outbox_path,
                hub=read.hub_id,
                limits=Limits(capacity=read.outbox.capacity, batch_records=BATCH_RECORDS),
            ),
            counts,
        )
    )
    # A journal that is kept at its length would have room on a disk that is full.
    await _set(storage, "journal_size_limit = 0")
    uplink = Uplink(
        UplinkSettings(
            hub=read.hub_id,
            started_at=datetime.now(UTC),
            broker=read.broker,
            patience=PATIENCE,
            connect=unruly(lambda: life.orders, life.random, life.told),
        ),
        storage,
        counts,
    )
    opened = stack.enter_context(Journal(Path(journal)))
    return _Hub(config=read, storage=storage, uplink=uplink, counts=counts, journal=opened)


def main() -> None:
    """Play the plan that the command line names."""
    configure_logs(load_settings())
    asyncio.run(run(read_plan(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
