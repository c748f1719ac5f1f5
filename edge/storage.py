"""The hub's file for asyncio: one worker thread, group commit, and what happens on a bad disk.

All that arrives while a commit runs goes into the next one, so many devices share one flush of the
disk. While the disk is full or failing nothing is lost that a device still holds: `refusal` says
so, devices are left alone, what was already taken waits here, and the write is tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import TypeVar

from edge import memory, undated
from edge.clock import TimeLine
from edge.counts import Counts
from edge.hub_clock import HubClock
from edge.hub_file import Beginning, DamagedFileError, HubFile, current_boot, open_hub_file
from edge.outbox import Batch, Depth, Limits, Outbox, Packet, Policy, Tally
from edge.payloads import Item, Payload
from gateway import wire
from gateway.errors import UnavailableError, UsageError
from gateway.measurement import Measurement
from gateway.platform.backoff import Backoff
from gateway.platform.file_lock import FileLock
from gateway.platform.logs import get_logger
from gateway.resend import ResendRequest

BUFFER_ITEMS_MAX = 10_000
"""Items taken from devices that wait for the disk. At the bound `append` refuses, which is a loss
and counted as one; sessions end long before, on `refusal`."""
RESERVE_ITEMS = 1_000
"""Room below which no new session begins: a device may send its whole memory in one."""
DISK_BACKOFF = Backoff(first_s=0.5, longest_s=30.0)
"""Between attempts to write on a disk that is full or failing; without end."""

T = TypeVar("T")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Append:
    """A wish to keep items; `kept` is told how many were, once they are durable, if one waits."""

    items: Sequence[Item | Payload]
    packets: Sequence[Packet]
    kept: asyncio.Future[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Where the file lies, whose it is, and its limits. `batch_age_s`: how long an item waits.

    `boot` names the machine's boot; `knows_time` tells whether its clock can be believed.
    """

    path: Path
    hub: int
    limits: Limits = field(default_factory=Limits)
    batch_age_s: float = 0.2
    boot: str = field(default_factory=current_boot)
    knows_time: Callable[[], bool] = lambda: True


class Storage:
    """The open file of one hub. `run` must be running for `append` to return."""

    def __init__(
        self, settings: StorageSettings, counts: Counts, worker: ThreadPoolExecutor, file: HubFile
    ) -> None:
        self._settings = settings
        self._counts = counts
        self._worker = worker
        self._file = file
        self._outbox = Outbox(file, settings.hub, settings.limits)
        self._waiting: list[_Append] = []
        self._arrived = asyncio.Event()
        self._is_failing = False
        self._undated = undated.count(file)
        self.on_sealed: Callable[[], None] = lambda: None
        """Called when batches were sealed."""

    @property
    def epoch(self) -> int:
        """The epoch of the batches sealed from now on."""
        return self._outbox.epoch

    @property
    def depth(self) -> Depth:
        """How much waits in the file."""
        return self._outbox.depth

    @property
    def undated(self) -> int:
        """How many payloads wait until the hub knows the time."""
        return self._undated

    @property
    def refusal(self) -> str | None:
        """Why nothing more should be taken from devices now; None when all is well."""
        if self._is_failing:
            return "the disk is full or failing"
        if self._undated > undated.UNDATED_MAX - RESERVE_ITEMS:
            return "this hub does not know the time, and what waits for it fills its room"
        if self._settings.limits.policy is Policy.DROP_OLDEST:
            return None
        return "the outbox is full" if self._outbox.room < RESERVE_ITEMS else None

    async def append(self, items: Sequence[Item | Payload], packets: Sequence[Packet] = ()) -> int:
        """Keep items; return once they are durable, with how many were kept.

        A payload, received in time counted from the machine's start, waits until the hub knows it.
        Fewer than all: at a named bound. The loss is counted.
        """
        kept: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if not self._take(_Append(items=items, packets=packets, kept=kept)):
            self._counts.lost += len(items)
            return 0
        return await kept

    async def batches(self, *, after: int, limit: int) -> list[Batch]:
        """Return batches without a receipt, oldest first, behind the batch with id `after`.

        Raises:
            UnavailableError: the disk is failing.
        """
        return await self._on_file(lambda: self._outbox.batches(after=after, limit=limit))

    async def next_batches(
        self, *, after: int, in_flight: Collection[int], limit: int
    ) -> list[Batch]:
        """Return the batches to send next, by the order that the limits name.

        Raises:
            UnavailableError: the disk is failing.
        """
        return await self._on_file(
            lambda: self._outbox.next_batches(after=after, in_flight=in_flight, limit=limit)
        )

    async def resend(self, request: ResendRequest) -> int | None:
        """Put receipted batches back into the queue; return how many, None: it was done before.

        Raises:
            UnavailableError: the disk is failing; the request will come again.
        """
        return await self._on_file(lambda: self._outbox.resend(request))

    async def receipted(self, receipts: Iterable[wire.Receipt]) -> list[wire.Receipt]:
        """Take batches off the queue on their receipts; return the receipts that had one.

        Raises:
            UnavailableError: the disk is failing; the batches stay and are sent again.
        """
        now_ms = _wall_ms() if self._settings.knows_time() else None
        return await self._on_file(lambda: self._outbox.receipted(receipts, now_ms))

    async def tallies(self) -> dict[Tally, int]:
        """Return the counts since the file was made."""
        return await self._on_file(self._outbox.tallies)

    async def lines(self, device: int) -> tuple[TimeLine, ...]:
        """Return the time lines remembered of a device's clock."""
        return await self._on_file(lambda: memory.read_lines(self._file, device))

    async def remember_lines(self, device: int, lines: Sequence[TimeLine]) -> None:
        """Remember the time lines of a device's clock."""
        await self._on_file(lambda: memory.write_lines(self._file, device, lines))

    async def recall_start(self, clock: HubClock) -> None:
        """Tell the clock when this boot began, if an earlier process has found that out."""
        at = await self._on_file(lambda: undated.started_at(self._file, clock.boot))
        if at is not None:
            clock.know(at)

    async def date(self, clock: HubClock, zone: tzinfo) -> int:
        """Place some of what came before the time was known; return how many still wait.

        Raises:
            UnavailableError: the disk is failing.
        """
        started = clock.started_at
        assert started is not None  # noqa: S101 - called once the time is known

        def work() -> Sequence[Item]:
            undated.remember_start(self._file, clock.boot, started)
            return undated.place_some(
                self._file,
                self._outbox,
                boot=clock.boot,
                started=started,
                now=clock.wall(),
                zone=zone,
            )

        placed = await self._on_file(work)
        self._undated = await self._on_file(lambda: undated.count(self._file))
        self._count(placed, lost=0)
        self._arrived.set()
        return self._undated

    async def packets(self) -> list[Packet]:
        """Return the advertised packets that were taken last, oldest first."""
        return await self._on_file(lambda: memory.read_packets(self._file))

    def hand_over(self, items: Sequence[Item | Payload], packets: Sequence[Packet] = ()) -> None:
        """Take items without waiting until they are durable: nothing depends on it there."""
        if not self._take(_Append(items=items, packets=packets, kept=None)):
            self._counts.lost += len(items)

    async def run(self) -> None:
        """Write what arrives, group by group, and seal it, until cancelled."""
        seal_at_s = self._now_s()  # what an earlier process left has waited long enough
        while True:
            try:
                async with asyncio.timeout_at(seal_at_s if self.depth.entries else None):
                    await self._arrived.wait()
            except TimeoutError:
                pass
            if not self._waiting:
                self._arrived.clear()  # what came was dated, and is in the file already
            else:
                if not self.depth.entries:
                    seal_at_s = self._now_s() + self._settings.batch_age_s
                await self._insist(self._write_waiting)
            full = self.depth.entries >= self._settings.limits.batch_records
            if self.depth.entries and (full or self._now_s() >= seal_at_s):
                await self._insist(self._seal)

    async def close(self) -> None:
        """Write what was handed over last and close the file; `run` must have ended."""
        try:
            if self._waiting:
                await self._write_waiting()
        except UnavailableError as error:
            self._note_failing(error)
            self._counts.lost += sum(len(wish.items) for wish in self._waiting)
        finally:
            await self._on_file(self._file.close)

    def _take(self, wish: _Append) -> bool:
        waiting = sum(len(earlier.items) for earlier in self._waiting)
        if waiting + len(wish.items) > BUFFER_ITEMS_MAX:
            return False
        self._waiting.append(wish)
        self._arrived.set()
        return True

    async def _write_waiting(self) -> None:
        """Commit all that waits, together.

        Cancelled meanwhile, it may be written twice: two deliveries of one reading, which ingest
        stores once.
        """
        wishes = self._waiting[:]
        every = [item for wish in wishes for item in wish.items]
        items = [item for item in every if not isinstance(item, Payload)]
        undatable = [item for item in every if isinstance(item, Payload)]
        payloads = undatable[: max(undated.UNDATED_MAX - self._undated, 0)]
        packets = [packet for wish in wishes for packet in wish.packets]
        boot = self._settings.boot

        def also() -> None:
            undated.put(self._file, boot, payloads)

        kept = await self._on_file(lambda: self._outbox.append(items, packets, also=also))
        self._undated += len(payloads)
        del self._waiting[: len(wishes)]
        if not self._waiting:
            self._arrived.clear()
        self._count(items[:kept], lost=len(every) - kept - len(payloads))
        for wish, mine in zip(wishes, _shares(wishes, kept, len(payloads)), strict=True):
            if wish.kept and not wish.kept.done():  # done: its session was cancelled meanwhile
                wish.kept.set_result(mine)

    def _count(self, kept: Sequence[Item], *, lost: int) -> None:
        measurements = sum(isinstance(item, Measurement) for item in kept)
        self._counts.measurements += measurements
        self._counts.undecoded += len(kept) - measurements
        self._counts.values_beyond += sum(
            item.reading.beyond for item in kept if isinstance(item, Measurement)
        )
        self._counts.lost += lost

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def _seal(self) -> None:
        if await self._on_file(self._outbox.seal):
            self.on_sealed()

    async def _insist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` until the disk lets it succeed."""
        failures = 0
        while True:
            try:
                await work()
            except UnavailableError as error:
                failures += 1
                self._counts.storage_failures += 1
                self._note_failing(error)
                await asyncio.sleep(DISK_BACKOFF.wait_s(failures))
            else:
                self._note_failing(None)
                return

    def _note_failing(self, error: UnavailableError | None) -> None:
        if error is not None and not self._is_failing:
            _log.error("disk_failing", hub=wire.hub_name(self._settings.hub), why=str(error))
        if error is None and self._is_failing:
            _log.warning("disk_works_again", hub=wire.hub_name(self._settings.hub))
        self._is_failing = error is not None

    async def _on_file(self, work: Callable[[], T]) -> T:
        """Do `work` in the worker thread; a damaged file is set aside and a new one begun."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._worker, work)
        except DamagedFileError as error:
            _log.error("outbox_damaged", hub=wire.hub_name(self._settings.hub), why=str(error))
            self._counts.files_set_aside += 1
            await loop.run_in_executor(self._worker, self._begin_anew)
            raise UnavailableError("outbox: set aside as damaged") from error

    def _begin_anew(self) -> None:
        self._file.abandon()
        self._file = _open(self._settings)
        self._outbox = Outbox(self._file, self._settings.hub, self._settings.limits)
        self._undated = undated.count(self._file)


@asynccontextmanager
async def open_storage(settings: StorageSettings, counts: Counts) -> AsyncIterator[Storage]:
    """Open the file of a hub; on leaving, write what was handed over last and close it.

    Raises:
        UsageError: another process has it, or it is another hub's or a newer Hearth's.
        UnavailableError: the disk is full or failing.
    """
    loop = asyncio.get_running_loop()
    with (
        _lock(settings.path.with_suffix(".lock")),
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox") as worker,
    ):
        file = await loop.run_in_executor(worker, _open, settings)
        storage = await loop.run_in_executor(worker, Storage, settings, counts, worker, file)
        _log.info(
            "outbox_opened",
            hub=wire.hub_name(settings.hub),
            beginning=file.numbering.beginning.value,
            epoch=file.numbering.epoch,
            next_sequence=file.numbering.next_sequence,
            batches=storage.depth.batches,
            measurements=storage.depth.held,
        )
        try:
            yield storage
        finally:
            await storage.close()


def _shares(wishes: Sequence[_Append], items: int, payloads: int) -> Iterator[int]:
    """Yield how many each wish had kept, of so many items and payloads kept together, in order."""
    for wish in wishes:
        undatable = sum(isinstance(item, Payload) for item in wish.items)
        mine_dated = min(len(wish.items) - undatable, items)
        mine_undated = min(undatable, payloads)
        items -= mine_dated
        payloads -= mine_undated
        yield mine_dated + mine_undated


def _wall_ms() -> int:
    """Return the hub's clock; batches that have their receipt are kept by it."""
    return time.time_ns() // 1_000_000


def _open(settings: StorageSettings) -> HubFile:
    file = open_hub_file(settings.path, settings.hub, boot=settings.boot)
    if file.numbering.beginning is Beginning.DAMAGED:
        _log.error("outbox_set_aside", hub=wire.hub_name(settings.hub))
    return file


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the file's lock, so that no two processes number batches; a kill releases it."""
    lock = FileLock(path)
    if not lock.try_acquire():
        raise UsageError(
            f"另一个网关进程正在使用 {path.parent} / another hub process is using {path.parent}: "
            "stop it, or give this hub a data_dir of its own"
        )
    try:
        yield
    finally:
        lock.release()
