"""Mutated payloads through the ingest path: no crash, none unaccounted for. `hearth chaos --payloads`.

Four kinds, from valid ones: records inside whole batches (most, as arrays), whole messages, batches of
undecoded payloads, and what devices send to the decoders that a replay uses. Every record must end as
stored, duplicate or quarantined; every message as a batch or rejected; every payload as a reading or a
located error. The first `COMMITTED_RECORDS_MAX` records are committed to the real store besides, whose
ledger is proved at the end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.databases import own_database
from bench.ingest import populate, typical
from gateway import wire
from gateway.errors import DataError, DecodeError, EncodeError, Fault
from gateway.gatt.times import DeviceTime, TimeType, ms_since_epoch
from gateway.measurement import Measurement, TimeQuality, Undecoded
from gateway.platform.postgres import connect
from gateway.vital_sign import NO_USER_SLOT, Reading
from gateway.vitals import SIGNS
from ingest.batches import RECORD_DTYPE, Message, hub_homes, read_messages, reference_ms
from ingest.layers import layered, sorted_rows
from ingest.ledger import read_ledger
from ingest.registry import SLOT_BITS, Registry, load_registry
from ingest.rows import quarantine_columns
from ingest.store import Prepared, Store, prepare
from ingest.table import stream_of
from ingest.verdicts import Verdict, judge, tables_of

RECORDS_A_BATCH = 1000
BATCHES_A_FLUSH = 20
COMMITTED_RECORDS_MAX = 500_000
"""Committed to the real store; ten million would fill gigabytes with rubbish."""
EXAMPLES_MAX = 10
"""Crashes that are told with their bytes."""
SHARES = {"records": 0.91, "messages": 0.03, "undecoded": 0.02, "decoders": 0.04}
"""Of all payloads. Each goes through Python by itself, but for records."""
PIECE = 1000
"""Payloads, other than records, between two looks at the progress."""
HUBS, DEVICES = 4, 8
"""Of the registry that the payloads speak of; each hub's home has two of the devices."""
NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)

_TABLES = tables_of()
_EXTREMES = (0x00, 0xFF, 0x7F, 0x80, 0x01, 0xFE)

Bytes = npt.NDArray[np.uint8]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of all payloads."""

    records: int = 0
    messages: int = 0
    undecoded: int = 0
    decoders: int = 0
    became: Counter[str] = field(default_factory=Counter)
    """Of records their verdicts; of messages and payloads what they turned out to be."""
    unaccounted: int = 0
    committed: int = 0
    ledger_balanced: bool | None = None
    crashes: list[str] = field(default_factory=list)

    @property
    def payloads(self) -> int:
        """All of them."""
        return self.records + self.messages + self.undecoded + self.decoders

    @property
    def holds(self) -> bool:
        """Whether nothing crashed and everything is accounted for."""
        return not self.crashes and not self.unaccounted and self.ledger_balanced is not False

    def as_json(self) -> dict[str, Any]:
        """Return what --json prints."""
        return {
            "payloads": self.payloads,
            "records": self.records,
            "messages": self.messages,
            "undecoded": self.undecoded,
            "decoders": self.decoders,
            "unaccounted": self.unaccounted,
            "crashes": len(self.crashes),
            "committed_to_store": self.committed,
            "ledger_balanced": self.ledger_balanced,
            "became": dict(sorted(self.became.items())),
            "examples": self.crashes[:EXAMPLES_MAX],
        }


def fuzz_store(server: str, count: int, seed: int, progress: Callable[[int], None]) -> Outcome:
    """Fuzz with a store of its own on `server`, which is dropped afterwards."""
    with own_database(server, "hearth_fuzz") as dsn:
        populate(dsn, hubs=HUBS, devices=DEVICES // HUBS)

        async def run() -> Outcome:
            connection = await connect(dsn, application="hearth-fuzz", autocommit=True)
            async with connection:
                registry = await load_registry(connection)
                return await fuzz(count, seed, registry, progress, Store(connection))

        outcome = asyncio.run(run())
        outcome.ledger_balanced = not read_ledger(dsn).disagreeing
        return outcome


async def fuzz(
    count: int,
    seed: int,
    registry: Registry,
    progress: Callable[[int], None],
    store: Store | None = None,
) -> Outcome:
    """Send `count` mutated payloads through the path; nothing is raised, all is told."""
    random = np.random.default_rng(seed)
    outcome = Outcome()
    wanted = {kind: int(count * share) for kind, share in SHARES.items()}
    wanted["records"] += count - sum(wanted.values())
    flushes = _flushes(random, wanted["records"])
    for number, messages in enumerate(flushes):
        await _try_records(messages, number, registry, outcome, store)
        progress(outcome.payloads)
    for kind, attempt in (
        ("messages", _try_message),
        ("undecoded", _try_undecoded),
        ("decoders", _try_decoder),
    ):
        one_by_one = Random(f"{seed}:{kind}")  # noqa: S311 - repeatable rubbish, no secret
        for done in range(wanted[kind]):
            attempt(one_by_one, registry, outcome)
            if done % PIECE == 0:
                progress(outcome.payloads)
    progress(outcome.payloads)
    return outcome


def a_registry() -> Registry:
    """Return the registry that `fuzz_store` enters into its store, without a store."""
    homes = np.arange(1, HUBS + 1, dtype=np.int32)
    devices = np.arange(1, DEVICES + 1, dtype=np.int32)
    none_shared = np.empty(0, np.int64)
    return Registry(
        hubs=layered(sorted_rows(homes.astype(np.int64), (homes, homes, np.zeros(HUBS, np.int32)))),
        devices=layered(
            sorted_rows(devices.astype(np.int64), (devices, (devices - 1) // (DEVICES // HUBS) + 1))
        ),
        links=layered(
            sorted_rows(
                devices.astype(np.int64) << SLOT_BITS | NO_USER_SLOT,
                (np.full(DEVICES, -(1 << 62)), np.full(DEVICES, 1 << 62), devices),
            ),
            SLOT_BITS,
        ),
        shared_links=layered(
            sorted_rows(
                none_shared,
                (none_shared, none_shared, none_shared.astype(np.int32), np.empty(0, np.float64)),
            ),
            SLOT_BITS,
        ),
        shared_homes=np.empty(0, np.int32),
        snapshot="",
    )


@cache
def templates() -> npt.NDArray[np.void]:
    """Return valid records, a few of each sign, of the registry's devices."""
    made = [
        wire.encode_record(_measurement(device, place, minute), NOW)
        for device in range(1, DEVICES + 1)
        for place in range(len(SIGNS))
        for minute in range(4)
    ]
    return np.frombuffer(b"".join(made), RECORD_DTYPE)


def mutated(random: np.random.Generator, rows: Bytes) -> Bytes:
    """Return (n, width) copies with something wrong in most: bytes, bits, extremes, everything."""
    rows = rows.copy()
    count, width = rows.shape
    way = random.integers(0, 6, count)
    for _ in range(4):
        hit = np.flatnonzero((way <= 1) & (random.random(count) < 0.5))  # noqa: PLR2004 - half
        rows[hit, random.integers(0, width, len(hit))] = random.integers(0, 256, len(hit), np.uint8)
    bits = np.flatnonzero(way == 2)  # noqa: PLR2004 - the third way
    rows[bits, random.integers(0, width, len(bits))] ^= (
        1 << random.integers(0, 8, len(bits))
    ).astype(np.uint8)
    for _ in range(3):
        extreme = np.flatnonzero(way == 3)  # noqa: PLR2004 - the fourth way
        start = random.integers(0, width, len(extreme))
        value = random.choice(np.array(_EXTREMES, np.uint8), len(extreme))
        for step in range(int(random.integers(1, 9))):
            rows[extreme, np.minimum(start + step, width - 1)] = value
    every = np.flatnonzero(way == 4)  # noqa: PLR2004 - the fifth way; the sixth leaves them whole
    rows[every] = random.integers(0, 256, (len(every), width), np.uint8)
    return rows


def _flushes(random: np.random.Generator, records: int) -> Iterator[list[Message]]:
    """Yield flushes of well-formed batches whose records are mutated, `records` in all."""
    of_hub = {hub: _of_home(hub) for hub in range(1, HUBS + 1)}
    sequence = 0
    while records > 0:
        messages = []
        for _ in range(BATCHES_A_FLUSH):
            size = min(RECORDS_A_BATCH, records)
            if not size:
                break
            sequence += 1
            records -= size
            hub = 1 + sequence % HUBS
            valid = of_hub[hub]
            rows = mutated(random, valid[random.integers(0, len(valid), size)])
            messages.append(_message(hub, sequence, size, rows.tobytes()))
        yield messages


def _of_home(home: int) -> Bytes:
    """Return the valid records of a home's devices, as bytes."""
    valid = templates()
    mine = (valid["device"] - 1) // (DEVICES // HUBS) + 1 == home
    rows: Bytes = valid[mine].view(np.uint8).reshape(-1, wire.RECORD_BYTES)
    return rows


async def _try_records(
    messages: Sequence[Message],
    number: int,
    registry: Registry,
    outcome: Outcome,
    store: Store | None,
) -> None:
    sent = sum(len(m.payload) - wire.HEADER_BYTES for m in messages) // wire.RECORD_BYTES
    outcome.records += sent
    try:
        prepared = _prepared(messages, number, registry)
        verdict = prepared.verdict
        outcome.unaccounted += abs(sent - len(verdict)) + _unaccounted(prepared)
        if store is not None and outcome.committed < COMMITTED_RECORDS_MAX:
            committed = await store.commit(prepared)
            verdict = committed.verdict
            terms = sum(o.stored + o.duplicate + o.quarantined for o in committed.outcomes)
            outcome.unaccounted += abs(sent - terms)
            outcome.committed += sent
        for value, n in zip(*np.unique(verdict, return_counts=True), strict=True):
            outcome.became[Verdict(value).name.lower()] += int(n)
    except Exception as error:  # noqa: BLE001 - a crash is what is looked for
        _note(outcome, error, b"".join(m.payload[:200] for m in messages[:1]))


def _prepared(messages: Sequence[Message], number: int, registry: Registry) -> Prepared:
    now_ms = ms_since_epoch(NOW) + 1000
    flush = read_messages(messages, registry)
    judged = judge(flush.records, reference_ms(flush), hub_homes(flush), registry, _TABLES, now_ms)
    first = 1 + number * BATCHES_A_FLUSH
    return prepare(flush, judged, registry, np.arange(first, first + len(flush.batches)), now_ms)


def _unaccounted(prepared: Prepared) -> int:
    """Encode what is kept apart, and count the records that are nowhere, or stored implausible."""
    verdict, rows = prepared.verdict, prepared.content.rows
    apart = np.flatnonzero(verdict > Verdict.DUPLICATE)
    one = np.ones(len(apart), np.int32)
    stream_of("quarantine", quarantine_columns(rows, verdict, apart, one, one))
    stored = prepared.places
    duplicate = int((verdict == Verdict.DUPLICATE).sum())
    sign, values = rows.records["sign"][stored], rows.judged.values[stored]
    wrong = (values < _TABLES.low[sign]) | (values > _TABLES.high[sign]) | np.isinf(values)
    nowhere = len(verdict) - len(stored) - duplicate - len(apart)
    return abs(nowhere) + int(wrong.any(axis=1).sum())


def _try_message(random: Random, registry: Registry, outcome: Outcome) -> None:
    valid = templates()[: random.randint(1, 4)]
    message = _message(1, 1, len(valid), valid.tobytes())
    outcome.messages += 1
    _read_one(replace(message, payload=_mutated_bytes(random, message.payload)), registry, outcome)


def _try_undecoded(random: Random, registry: Registry, outcome: Outcome) -> None:
    entries = [
        Undecoded(
            device=1,
            source=0x2A35,
            fault=Fault.INVALID,
            payload=random.randbytes(random.randint(0, 30)),
            received_at=NOW,
        )
        for _ in range(random.randint(1, 3))
    ]
    body = b"".join(wire.encode_undecoded(entry, NOW) for entry in entries)
    message = _message(1, 1, len(entries), _mutated_bytes(random, body), wire.Kind.UNDECODED)
    outcome.undecoded += 1
    _read_one(message, registry, outcome)


def _read_one(message: Message, registry: Registry, outcome: Outcome) -> None:
    try:
        flush = read_messages([message], registry)
        outcome.unaccounted += len(flush.batches) + len(flush.rejected) != 1
        if len(flush.records):
            outcome.unaccounted += _unaccounted(_prepared([message], 0, registry))
        outcome.became["rejected" if flush.rejected else "batch"] += 1
    except Exception as error:  # noqa: BLE001 - as above
        _note(outcome, error, message.payload)


def _try_decoder(random: Random, _registry: Registry, outcome: Outcome) -> None:
    sign = random.choice(SIGNS)
    source = random.choice(sign.sources)
    payload = _mutated_bytes(
        random, source.encode(_reading_of(sign.code, has_time=source.tells_time))
    )
    outcome.decoders += 1
    try:
        if source.recognises(payload):
            reading = source.decode(payload)
            measurement = replace(_measurement(1, 0, 0), sign=sign.code, reading=reading)
            wire.decode_record(wire.encode_record(measurement, NOW), NOW)
            outcome.became["reading"] += 1
        else:
            outcome.became["not_recognised"] += 1
    except (DecodeError, EncodeError):
        outcome.became["located_error"] += 1
    except Exception as error:  # noqa: BLE001 - as above
        _note(outcome, error, payload)


def _mutated_bytes(random: Random, payload: bytes) -> bytes:
    """Return a payload that is altered, cut, longer, or all three."""
    row = bytearray(payload)
    for _ in range(random.randint(0, 4)):
        if row:
            row[random.randrange(len(row))] = random.choice((random.randrange(256), *_EXTREMES))
    if random.random() < 0.3:  # noqa: PLR2004 - now and then
        del row[random.randint(0, len(row)) :]
    if random.random() < 0.3:  # noqa: PLR2004 - now and then
        row += random.randbytes(random.randint(1, 20))
    return bytes(row)


def _note(outcome: Outcome, error: Exception, payload: bytes) -> None:
    kind = "refused" if isinstance(error, DataError) else "crashed"
    outcome.crashes.append(f"{kind}: {type(error).__name__}: {error}: {payload.hex()}")


def _message(
    hub: int, sequence: int, count: int, body: bytes, kind: wire.Kind = wire.Kind.MEASUREMENTS
) -> Message:
    header = wire.Header(
        hub=hub, epoch=1, sequence=sequence, kind=kind, count=count, reference_at=NOW
    )
    payload = wire.encode_batch(header, body)
    return Message(lane=wire.lane_of(hub), token=0, hub=hub, payload=payload, received_at=NOW)


def _reading_of(code: int, *, has_time: bool) -> Reading:
    sign = next(sign for sign in SIGNS if sign.code == code)
    now = DeviceTime(type=TimeType.LOCAL, ms=ms_since_epoch(NOW) // 1000 * 1000)
    return Reading(values=typical(sign), device_time=now if has_time else None)


def _measurement(device: int, place: int, minute: int) -> Measurement:
    at = NOW - timedelta(minutes=1 + minute)
    sign = SIGNS[place]
    local_ms = ms_since_epoch(at) // 1000 * 1000
    return Measurement(
        device=device,
        sign=sign.code,
        reading=Reading(
            values=typical(sign), device_time=DeviceTime(type=TimeType.LOCAL, ms=local_ms)
        ),
        measured_at=at,
        received_at=at + timedelta(seconds=30),
        time_quality=TimeQuality.MAPPED,
        utc_offset_min=480,
    )
