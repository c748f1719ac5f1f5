"""The ingest path against the limit it cannot pass: COPY of the same rows, ready to be sent.

The path: messages (batches of the wire format) -> decode, validate, link, sort, encode -> one
transaction a flush with the ledger and COPY. The limit: a binary COPY of the same sorted rows, encoded
beforehand, one transaction a flush, into the same hypertable. Both in turn, round by round, each with
rows of its own. Then the path again with a stream made only of duplicates.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np

from bench.databases import own_database
from bench.result import Result, compare
from gateway import wire
from gateway.gatt.times import DeviceTime, TimeType, ms_since_epoch
from gateway.measurement import Measurement, TimeQuality
from gateway.platform.postgres import (
    AsyncConnection,
    connect,
    connect_blocking,
    load_queries,
)
from gateway.vital_sign import Reading, VitalSign
from gateway.vitals import SIGNS
from ingest.batches import Flush, Message, hub_homes, read_messages, reference_ms
from ingest.pipeline import Pipeline
from ingest.registry import Registry, load_registry
from ingest.rows import rows_of, settle_within
from ingest.table import Stream, encode_measurements, send
from ingest.verdicts import judge, tables_of
from ingest.writing import Outcome

GOAL_FRESH = 0.85
"""The path's rows/s over the raw COPY's."""
GOAL_DUPLICATES = 2.0
"""A stream made only of duplicates costs at most so many times a fresh one."""
_DATABASE = "hearth_bench_ingest"
_HUBS = 400
_DEVICES_A_HUB = 5
_RECORDS_A_BATCH = 50
_FLUSHES_A_ROUND = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is measured; a flush has `_HUBS` batches of `_RECORDS_A_BATCH`: 20,000 rows."""

    rounds: int

    @property
    def rows_a_round(self) -> int:
        """Rows that each side stores in a round."""
        return _HUBS * _RECORDS_A_BATCH * _FLUSHES_A_ROUND


def bench_ingest(server: str, *, quick: bool, progress: Callable[[str], None]) -> list[Result]:
    """Measure in a database of its own on `server`, which is dropped afterwards."""
    load = Load(rounds=3 if quick else 9)
    with own_database(server, _DATABASE) as dsn:
        return asyncio.run(_measure(dsn, load, progress))


async def _measure(dsn: str, load: Load, progress: Callable[[str], None]) -> list[Result]:
    populate(dsn)
    connection = await connect(dsn, application="hearth-bench", autocommit=True)
    async with connection:
        registry = await load_registry(connection)
        path = IngestPath(dsn, registry)
        stream = fresh_rounds()
        async with asyncio.TaskGroup() as group:
            tasks = path.start(group)
            await path.run(next(stream))  # warm: every device is known from here on
            fresh, raw, again = [], [], []
            for number in range(load.rounds):
                messages = next(stream)
                fresh.append(load.rows_a_round / await path.run(messages))
                raw.append(load.rows_a_round / await _raw_copy(connection, registry, next(stream)))
                again.append(load.rows_a_round / await path.run(_sent_again(messages)))
                progress(f"round {number + 1}/{load.rounds}")
            for task in tasks:
                task.cancel()
    return [
        compare(
            "ingest", "rows/s", fresh, "raw binary COPY of the same rows", raw, goal=GOAL_FRESH
        ),
        compare(
            "ingest duplicates", "us/row", [1e6 / rate for rate in again],
            "a fresh stream", [1e6 / rate for rate in fresh],
            goal=GOAL_DUPLICATES, lower_is_better=True,
        ),
    ]  # fmt: skip


class IngestPath:
    """The service's pipeline, timed from messages to answers."""

    def __init__(self, dsn: str, registry: Registry) -> None:
        self._waiting: asyncio.Queue[list[Message]] = asyncio.Queue()
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._pipeline = Pipeline(dsn, self._waiting.get, Still(registry), self._answer)

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Run the pipeline in a group; cancel what is returned to end it."""
        return [
            group.create_task(self._pipeline.prepare_forever()),
            group.create_task(self._pipeline.commit_forever()),
        ]

    async def run(self, flushes: Sequence[list[Message]]) -> float:
        """Store messages, a flush each; returns how long it took until the last answer, in seconds."""
        self._unanswered = len(flushes)
        self._answered.clear()
        started = time.perf_counter()
        for messages in flushes:
            self._waiting.put_nowait(messages)
        await self._answered.wait()
        return time.perf_counter() - started

    def _answer(self, _flush: Flush, _outcomes: Sequence[Outcome]) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            self._answered.set()


@dataclass(frozen=True, slots=True)
class Still:
    """A registry that does not change."""

    registry: Registry

    def current(self) -> Registry:
        """Return it."""
        return self.registry

    async def newer_than(self, registry: Registry) -> None:
        """Fail: there is none."""
        raise AssertionError(f"the registry changed behind {registry.snapshot}")


async def _raw_copy(
    connection: AsyncConnection, registry: Registry, flushes: Sequence[list[Message]]
) -> float:
    """Encode the rows beforehand, then time nothing but COPY and COMMIT."""
    prepared = [_encoded(messages, registry) for messages in flushes]
    elapsed_s = 0.0
    for streams in prepared:
        started = time.perf_counter()
        async with connection.transaction():
            for stream in streams:
                await send(connection, stream)
        elapsed_s += time.perf_counter() - started
    return elapsed_s


def _encoded(messages: Sequence[Message], registry: Registry) -> list[Stream]:
    flush = read_messages(messages, registry)
    judged = judge(
        flush.records,
        reference_ms(flush),
        hub_homes(flush),
        registry,
        tables_of(),
        time.time_ns() // 1_000_000,
    )
    rows = rows_of(flush.records, judged, np.ones(len(flush.records), np.int64))
    places = settle_within(rows, judged.verdict)
    assert len(places) == len(flush.records)  # noqa: S101 - else the two sides differ
    return encode_measurements(rows, places, ms_since_epoch(datetime.now(UTC)))


def fresh_rounds(
    apart: timedelta = timedelta(minutes=15), ago: timedelta = timedelta(days=20)
) -> Iterator[list[list[Message]]]:
    """Yield the flushes of one round after the other; no reading comes twice.

    In each flush every device says what it measured in ten seconds; the flushes' readings lie `apart`,
    the first `ago`.
    """
    start = datetime.now(UTC) - ago
    for first in itertools.count(0, _FLUSHES_A_ROUND):
        yield [
            [_batch(hub, start + apart * flush, flush + 1) for hub in _hubs()]
            for flush in range(first, first + _FLUSHES_A_ROUND)
        ]


def _sent_again(flushes: Sequence[list[Message]]) -> list[list[Message]]:
    """Return the same readings in new batches, as from devices that send their memory again."""
    return [[_renumbered(message) for message in messages] for messages in flushes]


def _renumbered(message: Message) -> Message:
    header, body = wire.decode_batch(message.payload)
    again = replace(header, epoch=header.epoch + 1)
    return replace(message, payload=wire.encode_batch(again, body))


def _hubs() -> range:
    return range(1, _HUBS + 1)


def _batch(hub: int, at: datetime, sequence: int) -> Message:
    """Return a batch with `_RECORDS_A_BATCH` readings, those of each device a second apart."""
    reference_at = at + timedelta(minutes=1)
    records = [
        wire.encode_record(a_reading(hub, place, at), reference_at)
        for place in range(_RECORDS_A_BATCH)
    ]
    header = wire.Header(
        hub=hub,
        epoch=1,
        sequence=sequence,
        kind=wire.Kind.MEASUREMENTS,
        count=len(records),
        reference_at=reference_at,
    )
    payload = wire.encode_batch(header, b"".join(records))
    return Message(
        lane=wire.lane_of(hub), token=0, hub=hub, payload=payload, received_at=reference_at
    )


def a_reading(hub: int, place: int, at: datetime) -> Measurement:
    """Return one of a hub's readings around a moment, of its devices in turn."""
    order = place % _DEVICES_A_HUB
    sign = SIGNS[order % len(SIGNS)]
    measured_at = at + timedelta(seconds=place // _DEVICES_A_HUB)
    local_ms = ms_since_epoch(measured_at) + 8 * 3_600_000
    return Measurement(
        device=(hub - 1) * _DEVICES_A_HUB + order + 1,
        sign=sign.code,
        reading=Reading(
            values=typical(sign),
            device_time=DeviceTime(type=TimeType.LOCAL, ms=local_ms // 1000 * 1000),
        ),
        measured_at=measured_at,
        received_at=at + timedelta(seconds=30),
        time_quality=TimeQuality.MAPPED,
        utc_offset_min=480,
    )


def typical(sign: VitalSign) -> tuple[Decimal, ...]:
    """Return the values that are usual of a sign, at its resolution."""
    steps = sign.unit_sets[0].steps
    return tuple(
        (Decimal(quantity.typical.mean) / step).to_integral_value() * step
        for quantity, step in zip(sign.quantities, steps, strict=True)
    )


def populate(dsn: str, *, hubs: int = _HUBS, devices: int = _DEVICES_A_HUB) -> None:
    """Enter homes of one hub and so many devices, with their residents and links."""
    with connect_blocking(dsn, application="hearth-bench") as connection:
        for statement in load_queries(Path(__file__).parent / "sql" / "ingest.sql").all():
            connection.execute(statement, {"hubs": hubs, "devices": devices})
