"""From messages to receipts: gather, prepare, commit, answer.

Stages run side by side: NumPy work on the next flush in a thread, while the database works on those
before it. What waits is bounded by the intake's bytes; a flush that cannot be committed stays and is
tried again, and nothing is acknowledged meanwhile. Answers are given in the order of the flushes.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from gateway import wire
from gateway.errors import DataError, UnavailableError
from gateway.platform.backoff import Backoff
from gateway.platform.logs import get_logger
from gateway.platform.postgres import connect
from ingest import metrics
from ingest.baselines.evaluate import Baselines
from ingest.batches import Flush, Message, Rejected, hub_homes, read_messages, reference_ms
from ingest.guard import StaleRegistryError
from ingest.newest import Newest
from ingest.registry import Ids, Registry
from ingest.store import BatchIds, Committed, Prepared, Store, Wait, prepare, ready
from ingest.verdicts import Judged, Verdict, judge, tables_of
from ingest.writing import Outcome

PREPARED_MAX = 1
"""Flushes that wait for the database beside those it works on; then preparing waits too."""
COMMITS_AT_ONCE = 2
"""Flushes in their transactions at once: while one of them waits (for its COMMIT to reach the disk, for
its next rows to be sent), the database works on the other. More gain nothing on two cores."""
FLUSH_BYTES_MAX = 64 * 1024 * 1024
"""A flush is closed when its messages reach this, whatever their records."""
HUB_BYTES_MAX = 128 * 1024
"""One hub's share of a flush, some 2,000 readings; what is beyond waits for the next flush, which then
begins at once. A hub that has the worker for itself loses a tenth of its rate by it at most."""
HUB_MESSAGES_MAX = 256
"""Likewise; what is no batch costs a statement each."""
BACKOFF = Backoff(first_s=0.1, longest_s=10.0)

_log = get_logger(__name__)
_tables = tables_of()


def wall_clock_ms() -> int:
    """Return this machine's time, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushRule:
    """When a flush is closed: `rows_max` measurements, or `age_s` after its first message."""

    rows_max: int
    age_s: float


class RegistrySource(Protocol):
    """Where the pipeline finds the registry."""

    def current(self) -> Registry:
        """Return the state of now."""

    async def newer_than(self, registry: Registry) -> None:
        """Wait until `current` is another."""


class Gatherer:
    """Collects messages from all lanes until there is a flush of them.

    Each hub has a queue of its own and a share of each flush; what is beyond waits for the next, so
    that a hub with much to say holds up no other.
    """

    def __init__(self, rule: FlushRule) -> None:
        self._rule = rule
        self._queues: dict[int | None, deque[Message]] = {}
        """In the order in which they get their turn."""
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()

    def deliver(self, message: Message) -> None:
        """Take a message; called by the lanes."""
        queue = self._queues.get(message.hub)
        if queue is None:
            queue = self._queues[message.hub] = deque()
        queue.append(message)
        self._bytes += len(message.payload)
        self._arrived.set()
        rows = self._bytes // wire.RECORD_BYTES
        if rows >= self._rule.rows_max or self._bytes >= FLUSH_BYTES_MAX:
            self._full.set()

    async def next(self) -> list[Message]:
        """Wait for the next flush and return its messages, each hub's in the order of arrival."""
        await self._arrived.wait()
        try:
            async with asyncio.timeout(self._rule.age_s):
                await self._full.wait()
        except TimeoutError:
            pass  # old enough
        messages: list[Message] = []
        taken = 0
        for hub in list(self._queues):
            if taken >= FLUSH_BYTES_MAX:
                break
            taken += self._take_share(hub, messages)
        self._bytes -= taken
        if not self._queues:
            self._arrived.clear()
            self._full.clear()
        else:
            self._full.set()  # what waits is old enough
        return messages

    def _take_share(self, hub: int | None, messages: list[Message]) -> int:
        """Move a hub's share to `messages`, one message at least; returns its bytes."""
        queue = self._queues.pop(hub)
        share = 0
        for _ in range(min(len(queue), HUB_MESSAGES_MAX)):
            if share and share + len(queue[0].payload) > HUB_BYTES_MAX:
                break
            message = queue.popleft()
            share += len(message.payload)
            messages.append(message)
        if queue:
            self._queues[hub] = queue  # behind the others
        return share


class Pipeline:
    """Runs flushes through; `answer` sends receipts and acknowledgements after each COMMIT."""

    def __init__(
        self,
        dsn: str,
        next_flush: Callable[[], Awaitable[list[Message]]],
        registry: RegistrySource,
        answer: Callable[[Flush, Sequence[Outcome]], None],
        *,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._dsn = dsn
        self._next_flush = next_flush
        self._registry = registry
        self._answer = answer
        self._now_ms = now_ms
        self._batch_ids = BatchIds(dsn)
        self._baselines = Baselines(dsn)
        self._prepared: asyncio.Queue[Prepared] = asyncio.Queue(PREPARED_MAX)
        self._newest = Newest()
        self._taking = asyncio.Lock()
        """Flushes are taken one after the other, so that each knows the one before it."""
        self._answered = asyncio.Event()
        """That of the flush which was taken last."""
        self._answered.set()

    def forget_devices(self, device_ids: Ids | None = None) -> None:
        """Look before trusting memory: another worker may have stored readings of these devices."""
        self._newest.forget(device_ids)

    def forget_residents(self, resident_ids: Ids | None = None) -> None:
        """Forget what is usual for these residents, or all: their readings were re-attributed."""
        self._baselines.memory.forget(resident_ids)

    async def prepare_forever(self) -> None:
        """Run the first stage: messages to arrays, judged and encoded."""
        try:
            while True:
                messages = await self._next_flush()
                await self._prepared.put(await self._prepare(messages))
        finally:
            await self._batch_ids.close()
            await self._baselines.close()

    async def commit_forever(self) -> None:
        """Run the second stage: arrays to rows, then the answer."""
        async with asyncio.TaskGroup() as group:
            for _ in range(COMMITS_AT_ONCE):
                group.create_task(self._commit_each())

    async def _commit_each(self) -> None:
        session = _Session(self._dsn, self._newest)
        try:
            while True:
                async with self._taking:
                    prepared = await self._prepared.get()
                    earlier, self._answered = self._answered, asyncio.Event()
                    answered = self._answered
                await self._commit(prepared, session, earlier.wait)
                answered.set()
        finally:
            await session.close()

    async def _prepare(self, messages: Sequence[Message]) -> Prepared:
        patience = _Patience("batch_ids")
        while True:
            try:
                batch_ids = await self._batch_ids.take(len(messages))
            except UnavailableError as error:
                await patience.wait(error)
                continue
            registry, now_ms = self._registry.current(), self._now_ms()
            flush, judged = await asyncio.to_thread(_judged, messages, registry, now_ms)
            stored = np.flatnonzero(judged.verdict == Verdict.STORED)
            try:
                await self._baselines.load(ready(flush.records, judged, stored))
            except UnavailableError as error:
                await patience.wait(error)
                continue
            return await asyncio.to_thread(
                prepare, flush, judged, registry, batch_ids[: len(flush.batches)], now_ms,
                self._baselines.memory,
            )  # fmt: skip

    async def _commit(self, prepared: Prepared, session: _Session, earlier: Wait) -> None:
        """Commit a flush, whatever it takes, and answer it once `earlier` ones are answered."""
        messages = prepared.content.flush.messages
        patience = _Patience("commit")
        while True:
            try:
                store = await session.store()
                with metrics.COMMIT_SECONDS.time():
                    committed = await store.commit(prepared, earlier)
            except StaleRegistryError:
                metrics.JUDGED_AGAIN.inc()
                await self._registry.newer_than(prepared.registry)
                prepared = await self._prepared_again(prepared)
            except UnavailableError as error:
                await session.close()
                await patience.wait(error)
                # Time has passed and links may have changed: judge by what holds now.
                prepared = await self._prepared_again(prepared)
            except DataError as error:
                await self._divide(messages, error, session, earlier)
                return
            else:
                metrics.count_committed(committed)
                tell_differing(committed)
                self._forget_late(prepared, committed)
                await earlier()
                self._answer(prepared.content.flush, committed.outcomes)
                return

    async def _prepared_again(self, prepared: Prepared) -> Prepared:
        # Its readings are remembered already, maybe as another resident's.
        self.forget_residents(np.unique(prepared.content.rows.judged.resident_id))
        return await self._prepare(prepared.content.flush.messages)

    def _forget_late(self, prepared: Prepared, committed: Committed) -> None:
        """Load anew where readings came late: they belong in the middle of what is remembered."""
        content = prepared.content
        late = content.unjudged & (committed.verdict == Verdict.STORED)
        if late.any():
            self.forget_residents(np.unique(content.rows.judged.resident_id[late]))

    async def _divide(
        self, messages: Sequence[Message], error: DataError, session: _Session, earlier: Wait
    ) -> None:
        """Find the message that the store refuses, and keep it apart from its neighbours."""
        _log.error("flush_refused", messages=len(messages), why=str(error))
        if len(messages) == 1:
            (message,) = messages
            rejected = Rejected(message=message, reason=Verdict.NO_BATCH, detail=str(error))
            nothing = await self._prepare([])
            flush = replace(nothing.content.flush, messages=(message,), rejected=(rejected,))
            alone = replace(nothing, content=replace(nothing.content, flush=flush))
            await self._commit(alone, session, earlier)
            return
        half = len(messages) // 2
        for part in (messages[:half], messages[half:]):
            await self._commit(await self._prepare(part), session, earlier)


class _Session:
    """A connection for one flush after the other, opened when it is needed."""

    def __init__(self, dsn: str, newest: Newest) -> None:
        self._dsn = dsn
        self._newest = newest
        self._store: Store | None = None

    async def store(self) -> Store:
        if self._store is None:
            connection = await connect(self._dsn, application="hearth-ingest", autocommit=True)
            self._store = Store(connection, self._newest)
        return self._store

    async def close(self) -> None:
        """Close it; what was known of the devices is doubtful then: the database may be another.

        So no flush passes one whose session must connect first: it looks, and waits.
        """
        self._newest.forget()
        if self._store is not None:
            store, self._store = self._store, None
            await store.close()


class _Patience:
    """Waits longer after each failure in a row."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0

    async def wait(self, error: UnavailableError) -> None:
        self._failures += 1
        metrics.DATABASE_FAILURES.inc()
        wait_s = BACKOFF.wait_s(self._failures)
        _log.warning("database_lost", at=self._what, why=str(error), again_in_s=round(wait_s, 2))
        await asyncio.sleep(wait_s)


def _judged(messages: Sequence[Message], registry: Registry, now_ms: int) -> tuple[Flush, Judged]:
    """Do the array work of a flush up to its verdicts; runs in a thread."""
    flush = read_messages(messages, registry)
    return flush, judge(
        flush.records, reference_ms(flush), hub_homes(flush), registry, _tables, now_ms
    )


def tell_differing(committed: Committed) -> None:
    """Log the batches that came under a number of another: a person has to see why."""
    for rejected in committed.rejected:
        if rejected.reason is Verdict.BATCH_DIFFERS:
            hub = wire.hub_name(rejected.message.hub or 0)
            _log.error("batch_differs", hub=hub, which=rejected.detail)


def receipts_by_hub(outcomes: Iterable[Outcome]) -> list[tuple[int, bytes]]:
    """Return (hub, receipt message) pairs, one message a hub and epoch where they fit."""
    grouped: dict[tuple[int, int], list[wire.Receipt]] = defaultdict(list)
    for outcome in outcomes:
        header = outcome.batch.header
        grouped[header.hub, header.epoch].append(
            wire.Receipt(
                epoch=header.epoch,
                sequence=header.sequence,
                stored=outcome.stored,
                duplicate=outcome.duplicate,
                quarantined=outcome.quarantined,
            )
        )
    return [
        (hub, wire.encode_receipts(epoch, receipts[start : start + wire.RECEIPTS_MAX]))
        for (hub, epoch), receipts in grouped.items()
        for start in range(0, len(receipts), wire.RECEIPTS_MAX)
    ]
