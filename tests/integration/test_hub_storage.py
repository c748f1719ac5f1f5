"""The file under asyncio: group commit, bad disks, kill -9, one process at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from asyncio import TaskGroup
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge import collector, undated
from edge.adverts import UNREADABLE_MAX, Adverts
from edge.bluez import Bluez
from edge.counts import Counts
from edge.heard import Heard
from edge.hub_clock import HubClock
from edge.hub_file import HubFile, current_boot, set_aside
from edge.outbox import Limits, Tally
from edge.payloads import Item, Payload
from edge.storage import BUFFER_ITEMS_MAX, RESERVE_ITEMS, Storage, StorageSettings, open_storage
from edge.troubles import Troubles
from gateway.errors import UsageError
from gateway.gatt import bthome
from gateway.gatt.times import from_ms
from tests.hub_agent import items_in, until
from tests.outboxes import (
    HUB,
    close_all,
    items_of,
    measurement,
    number_of,
    open_outbox,
    receipt_for,
)

pytestmark = pytest.mark.integration

KILLS = 2
WRITER = """
import asyncio, sys
from asyncio import TaskGroup
from pathlib import Path
from edge.counts import Counts
from edge.storage import StorageSettings, open_storage
from gateway.platform.logs import configure_logs
from gateway.platform.settings import load_settings
from tests.outboxes import HUB, measurement

async def write(folder, first):
    settings = StorageSettings(path=folder / "outbox.sqlite", hub=HUB, batch_age_s=0.002)
    async with open_storage(settings, Counts()) as storage, TaskGroup() as tasks:
        tasks.create_task(storage.run())
        number = first
        while True:
            assert await storage.append([measurement(number)]) == 1
            print(number, flush=True)
            number += 1

configure_logs(load_settings())
asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    close_all()


@asynccontextmanager
async def storage_in(
    folder: Path, counts: Counts | None = None, *, limits: Limits | None = None
) -> AsyncIterator[Storage]:
    settings = StorageSettings(
        path=folder / "outbox.sqlite", hub=HUB, limits=limits or Limits(), batch_age_s=0.005
    )
    async with open_storage(settings, counts or Counts()) as storage:
        running = asyncio.create_task(storage.run())
        try:
            yield storage
        finally:
            running.cancel()
            await asyncio.wait({running})


async def numbers_in(storage: Storage) -> list[int]:
    return [number_of(item) for item in await items_in(storage)]


async def test_what_append_has_returned_for_is_durable(tmp_path: Path) -> None:
    async with storage_in(tmp_path) as storage:
        async with TaskGroup() as tasks:
            for number in range(100):
                tasks.create_task(storage.append([measurement(number)]))
        beside = open_outbox(tmp_path)
        assert beside.depth.held == 100


async def test_what_readings_say_beyond_their_sign_is_counted_once_they_are_kept(
    tmp_path: Path,
) -> None:
    counts = Counts()
    plain = measurement(1)
    full = replace(plain, reading=replace(plain.reading, beyond=3))
    async with storage_in(tmp_path, counts) as storage:
        await storage.append([plain, full, full])
    assert (counts.measurements, counts.values_beyond) == (3, 6)


async def test_many_devices_share_one_commit(tmp_path: Path) -> None:
    async with storage_in(tmp_path) as storage:
        before = await commits(storage)
        async with TaskGroup() as tasks:
            for number in range(100):
                tasks.create_task(storage.append([measurement(number)]))
        assert await commits(storage) - before < 20


async def test_a_batch_is_sealed_by_age(tmp_path: Path) -> None:
    async with storage_in(tmp_path) as storage:
        sealed = asyncio.Event()
        storage.on_sealed = sealed.set
        await storage.append([measurement(1)])
        async with asyncio.timeout(10):
            await sealed.wait()
        assert await numbers_in(storage) == [1]


async def test_what_an_earlier_process_left_is_sealed_at_once(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append([measurement(1)])
    outbox._file.close()
    async with storage_in(tmp_path) as storage:
        await until(lambda: storage.depth.batches == 1)


async def test_a_full_disk_delays_and_loses_nothing(tmp_path: Path) -> None:
    counts = Counts()
    async with storage_in(tmp_path, counts) as storage:
        await storage.append([measurement(0)])
        await pragma(storage, "max_page_count = 1")
        waiting = [asyncio.create_task(storage.append(many(n))) for n in (1, 2)]
        await until(lambda: storage.refusal is not None)
        assert not any(task.done() for task in waiting)
        await pragma(storage, "max_page_count = 1000000")
        assert await asyncio.gather(*waiting) == [2000, 2000]
        await until(lambda: storage.refusal is None)
        await until(lambda: not storage.depth.entries)
        assert len(await numbers_in(storage)) == 4001
    assert counts.lost == 0
    assert counts.storage_failures > 0


async def test_what_is_handed_over_last_is_written_on_the_way_out(tmp_path: Path) -> None:
    async with storage_in(tmp_path) as storage:
        storage.hand_over([measurement(1)])
    outbox = open_outbox(tmp_path)
    outbox.seal()
    assert [number_of(i) for b in outbox.batches(limit=9) for i in items_of(b)] == [1]


async def test_devices_are_refused_before_the_outbox_is_full(tmp_path: Path) -> None:
    limits = Limits(capacity=2 * RESERVE_ITEMS)
    counts = Counts()
    async with storage_in(tmp_path, counts, limits=limits) as storage:
        refusals = [storage.refusal]
        await storage.append([measurement(n) for n in range(RESERVE_ITEMS + 1)])
        refusals.append(storage.refusal)
        assert refusals == [None, "the outbox is full"]
        assert await storage.append(many(3)) == RESERVE_ITEMS - 1
        assert counts.lost == 2000 - (RESERVE_ITEMS - 1)
        assert (await storage.tallies())[Tally.REFUSED] == counts.lost


async def test_the_memory_that_waits_for_a_disk_is_bounded_and_what_is_beyond_is_counted(
    tmp_path: Path,
) -> None:
    counts = Counts()
    async with storage_in(tmp_path, counts) as storage:
        storage.hand_over([measurement(n) for n in range(BUFFER_ITEMS_MAX)])
        storage.hand_over([measurement(0)])
        assert await storage.append([measurement(0)]) == 0
    assert counts.lost == 2


async def test_what_waits_for_the_time_is_bounded_and_what_is_beyond_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices are left alone long before; what is advertised comes all the same."""
    monkeypatch.setattr(undated, "UNDATED_MAX", 3)
    counts = Counts()
    async with storage_in(tmp_path, counts) as storage:
        assert await storage.append([payload(n) for n in range(2)]) == 2
        assert await storage.append([payload(2), measurement(0), payload(3)]) == 2
        assert await storage.append([payload(4)]) == 0
        assert storage.undated == 3
    assert (counts.measurements, counts.lost) == (1, 2)


async def test_a_neighbours_encrypted_sensor_cannot_fill_the_room_of_what_waits_for_the_time(
    tmp_path: Path,
) -> None:
    """Its packets are never the same: full, the hub would leave the home's own devices alone."""
    counts = Counts()
    no_clock = HubClock(lambda: False)
    async with storage_in(tmp_path, counts) as storage:
        adverts = Adverts(storage, counts, UTC, no_clock)
        await adverts.recall()
        for number in range(UNREADABLE_MAX + 5):
            data = b"\x41" + number.to_bytes(8, "little")
            heard = Heard(
                address="A4:C1:38:0A:0B:0C",
                services=frozenset(),
                service_data={bthome.SERVICE_DATA: data},
                heard_at=datetime.now(UTC),
            )
            adverts.hear(0xA4C1380A0B0C, heard)
        for _ in range(UNREADABLE_MAX):
            await adverts.keep_next()
        assert storage.undated == UNREADABLE_MAX
    assert counts.adverts_ignored == 5


async def test_what_waits_for_the_time_is_tried_with_a_rest_while_the_outbox_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try is a commit: without a rest they wear a memory card out."""
    tries: list[datetime] = []
    remember_start = undated.remember_start

    def noted(file: HubFile, boot: str, at: datetime) -> None:
        tries.append(at)
        remember_start(file, boot, at)

    monkeypatch.setattr(undated, "remember_start", noted)
    monkeypatch.setattr(collector, "DATING_CHECK_S", 0.2)
    async with storage_in(tmp_path, limits=Limits(capacity=1)) as storage:
        await storage.append([measurement(0), payload(1)])
        await until(lambda: storage.depth.batches == 1)
        async with dating(storage):
            await asyncio.sleep(0.5)
            assert len(tries) <= 3
            (batch,) = await storage.batches(after=0, limit=9)
            await storage.receipted([receipt_for(batch)])
            await until(lambda: storage.undated == 0)


async def test_what_comes_counted_from_the_start_after_the_time_was_known_is_placed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that began before does not learn it, and may go on for minutes."""
    monkeypatch.setattr(collector, "DATING_CHECK_S", 0.05)
    async with storage_in(tmp_path) as storage, dating(storage):
        await asyncio.sleep(0.2)
        await storage.append([payload(1)])
        await until(lambda: storage.undated == 0)
        await until(lambda: storage.depth.batches == 1)


async def test_a_file_damaged_while_it_is_open_is_set_aside_and_the_hub_goes_on(
    tmp_path: Path,
) -> None:
    counts = Counts()
    async with storage_in(tmp_path, counts) as storage:
        await storage.append([measurement(1)])
        epoch = storage.epoch
        await damage(storage)
        assert await storage.append([measurement(2)]) == 1
        assert storage.epoch != epoch
        await until(lambda: storage.depth.batches == 1)
        assert await numbers_in(storage) == [2]
    assert counts.files_set_aside == 1
    assert len(set_aside(tmp_path / "outbox.sqlite")) == 1


async def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with storage_in(tmp_path):
        with pytest.raises(UsageError, match="another hub process"):
            async with storage_in(tmp_path):
                pass


def test_what_was_durable_outlives_kill_9(tmp_path: Path) -> None:
    """Killed in the middle of writing, again and again: every number that was printed is there."""
    durable: set[int] = set()
    for round_number in range(KILLS):
        first = 1 + 1_000_000 * round_number
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(first)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"HEARTH_LOG_LEVEL": "error", "PYTHONPATH": "."},
        ) as writer:
            assert writer.stdout is not None
            for _ in range(30 + 17 * round_number):
                durable.add(int(writer.stdout.readline()))
            writer.send_signal(signal.SIGKILL)
            durable |= {int(line) for line in writer.stdout.read().split(b"\n")[:-1]}
    outbox = open_outbox(tmp_path, boot=current_boot())
    outbox.seal()
    batches = outbox.batches(limit=100_000)
    found: list[Item] = [item for batch in batches for item in items_of(batch)]
    assert durable <= {number_of(item) for item in found}
    assert len({batch.epoch for batch in batches}) == 1
    assert [batch.sequence for batch in batches] == list(range(1, len(batches) + 1))


@asynccontextmanager
async def dating(storage: Storage) -> AsyncIterator[None]:
    """Place what waits for the time, as a hub does that knows it."""
    settings = collector.CollectorSettings(hub=HUB, zone=UTC)
    async with TaskGroup() as tasks:
        hub = collector.Collector(settings, Bluez(), storage, Counts(), tasks, Troubles())
        task = tasks.create_task(hub._date())
        try:
            yield
        finally:
            task.cancel()


def payload(number: int) -> Payload:
    """A bottle's advertisement, taken a while after the machine's start."""
    return Payload(
        device=0xC026DA010203,
        source=bthome.SERVICE_DATA,
        data=bthome.encode_objects({0x48: 200 + number}),
        received_at=from_ms(60_000 + number),
    )


def many(thousands: int) -> list[Item]:
    return [measurement(1000 * thousands + n) for n in range(2000)]


async def pragma(storage: Storage, setting: str) -> None:
    connection = storage._file._connection
    await storage._on_file(lambda: connection.execute(f"PRAGMA {setting}").fetchall())


async def commits(storage: Storage) -> int:
    """Return how many commits the file has seen: each appends to the write-ahead log."""
    wal = storage._settings.path.with_name("outbox.sqlite-wal")
    return wal.stat().st_size // 4096


async def damage(storage: Storage) -> None:
    """Take the schema away under the open file: what SQLite reads is no longer ours."""
    connection = storage._file._connection

    def work() -> None:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with storage._settings.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096 * 8)
        connection.execute("PRAGMA shrink_memory")
        connection.execute("PRAGMA cache_size = 0")

    await storage._on_file(work)
