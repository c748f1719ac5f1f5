"""Placing afterwards what could not be placed in time: by hand, or by a later fact.

A record whose device's clock nobody could vouch for waits in quarantine at its own device time. A
person can say how wrong the clock was, or when one record was measured; or a reading that came
later, on the same stretch of the device's clock, tells it. The records are then judged again, and
stored at their time, in one transaction with its audit; the ledger moves with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway import wire
from gateway.errors import UsageError
from gateway.gatt.times import TimeType, from_ms, ms_since_epoch
from gateway.measurement import TimeQuality, device_address
from gateway.platform.audit import AuditEvent, write_audit
from gateway.platform.postgres import AsyncConnection, load_queries, translated
from ingest.batches import RECORD_DTYPE
from ingest.quarantine import REPLAY_ENTRIES_MAX, ActedBy, Filter, Replayed, replay, signed
from ingest.registry import Registry
from ingest.verdicts import Verdict, storable

REASONS = (
    Verdict.TIME_UNPLACED,
    Verdict.HUB_TIME_UNKNOWN,
    Verdict.TIME_FUTURE,
    Verdict.TIME_TOO_OLD,
)
"""What waits for a time."""
RECORDS_MAX = REPLAY_ENTRIES_MAX
"""Records placed by one command; more are refused with how to choose fewer."""
FACTS_MAX = 100_000
"""Stored readings looked at for what they tell of the clock: years of a tracker."""
RECORD_AGE_MAX_MS = 400 * 86_400_000
"""No home device's memory reaches back further; a fact that says so speaks of another time line."""
CLOCK_ERROR_MS_MAX = 5_000
"""A record is not measured after its reception by more than this."""

_QUERIES = load_queries(Path(__file__).parent / "sql" / "retime.sql")
_FACT_QUALITIES = (TimeQuality.SYNCHRONISED, TimeQuality.MAPPED, TimeQuality.MAPPED_EARLIER)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """The device's clock was slow by this much (negative: fast), against the right time of `zone`."""

    by: timedelta
    zone: tzinfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The record with this number in the quarantine was measured at this moment.

    It says so of the other records, too, which the same clock has stamped; of one without a time
    of its own it says nothing more.
    """

    quarantine_id: int
    measured_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterFacts:
    """What later readings of the same stretch of the device's clock tell."""


By = Slow | Anchor | LaterFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which records of a device: those whose own time lies in a range, end exclusive."""

    device: int
    from_time: datetime | None = None
    to_time: datetime | None = None
    """As the device showed it, without a zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retimed:
    """What became of the records that were chosen: `unplaced` got no time; the others, `replayed`."""

    chosen: int
    unplaced: int
    replayed: Replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """Records that wait for a time, (n,) each; `device_ms` is NO_TIME where a record has none."""

    device_id: int
    quarantine_id: Ints
    received_ms: Ints
    device_ms: Ints
    time_type: npt.NDArray[np.uint8]


async def retime(
    connection: AsyncConnection,
    registry: Registry,
    choice: Choice,
    by: By,
    *,
    event: AuditEvent,
    dry_run: bool = False,
) -> Retimed:
    """Place records and judge them again, all in one transaction; `dry_run` undoes it.

    Args:
        connection: with no transaction open.
        registry: the devices and links as they are now.
        choice: which records.
        by: what tells their time.
        event: who does it and why; what was done is added to it.
        dry_run: only tell what it would do.

    Raises:
        UsageError: nothing waits there, or too much.
        UnavailableError: the database is down; nothing was changed.
    """
    with translated():
        async with connection.transaction(force_rollback=dry_run):
            records = await _take(connection, choice)
            measured_ms = await _times(connection, records, by)
            known = np.flatnonzero(storable(measured_ms))
            await _place(connection, records.quarantine_id[known], measured_ms[known])
            ids = tuple(records.quarantine_id[known].tolist())
            done = await replay(connection, registry, Filter(ids=ids), ActedBy(actor=event.actor))
            result = Retimed(
                chosen=len(measured_ms), unplaced=len(measured_ms) - len(known), replayed=done
            )
            await write_audit(connection, [_with_detail(event, choice, by, result)])
    return result


def by_later_facts(records: Unplaced, facts: Ints) -> Ints:
    """Return (n,) when the records were measured, NO_TIME where no fact tells.

    Args:
        records: of one type of device time.
        facts: (m, 3) device time, true time and reception of readings that are placed, in the order
            of their device time.

    A record lies on the same stretch of the clock as the next reading by device time that came
    later, unless that would have it measured after it was received, or longer before than any
    memory reaches back.
    """
    times = np.full(len(records.device_ms), wire.NO_TIME, np.int64)
    if not len(facts):
        return times
    next_fact = np.searchsorted(facts[:, 0], records.device_ms)
    for index in range(len(times)):
        later = facts[next_fact[index] :]
        later = later[later[:, 2] >= records.received_ms[index]]
        if not len(later) or records.device_ms[index] == wire.NO_TIME:
            continue
        measured_ms = records.device_ms[index] + later[0, 1] - later[0, 0]
        age_ms = records.received_ms[index] - measured_ms
        if -CLOCK_ERROR_MS_MAX <= age_ms <= RECORD_AGE_MAX_MS:
            times[index] = measured_ms
    return times


def by_hand(records: Unplaced, by: Slow | Anchor) -> Ints:
    """Return (n,) when the records were measured by what a person says, NO_TIME where it does not.

    Raises:
        UsageError: the record that is spoken of is none of them.
    """
    has_time = records.device_ms != wire.NO_TIME
    if isinstance(by, Anchor):
        (place,) = np.nonzero(records.quarantine_id == by.quarantine_id)
        if not len(place):
            raise UsageError(
                f"没有此记录 / record {by.quarantine_id} does not wait for a time: 请查看 / see "
                "`hearth quarantine list --reason time_unplaced --device DEVICE`"
            )
        anchor = int(place[0])
        measured_ms = ms_since_epoch(by.measured_at)
        alike = has_time & (records.time_type == records.time_type[anchor])
        ahead_ms = measured_ms - int(records.device_ms[anchor]) if has_time[anchor] else 0
        times = np.where(alike & has_time[anchor], records.device_ms + ahead_ms, wire.NO_TIME)
        times[anchor] = measured_ms
        return times
    by_ms = by.by // timedelta(milliseconds=1)
    times = np.full(len(has_time), wire.NO_TIME, np.int64)
    for index in np.flatnonzero(has_time & (records.time_type != TimeType.TICKS)):
        right = from_ms(int(records.device_ms[index]) + by_ms)
        if records.time_type[index] == TimeType.LOCAL:
            right = right.replace(tzinfo=by.zone).astimezone(UTC)
        times[index] = ms_since_epoch(right)
    return times


async def _take(connection: AsyncConnection, choice: Choice) -> Unplaced:
    """Return the records chosen, locked with all that were looked at."""
    parts: list[Unplaced] = []
    after = 0
    while True:
        rows = await _waiting(connection, choice.device, after)
        if rows:
            parts.append(_chosen(rows, choice))
            after = rows[-1][0]
        _require_few(parts)
        if len(rows) <= RECORDS_MAX:
            break
    if not any(len(part.quarantine_id) for part in parts):
        address = device_address(choice.device)
        raise UsageError(
            f"没有等待定时的记录 / no record of {address} waits for a time (in that range): 请查看 / see "
            f"`hearth quarantine list --device {address}`"
        )
    return Unplaced(
        device_id=parts[0].device_id,
        quarantine_id=np.concatenate([part.quarantine_id for part in parts]),
        received_ms=np.concatenate([part.received_ms for part in parts]),
        device_ms=np.concatenate([part.device_ms for part in parts]),
        time_type=np.concatenate([part.time_type for part in parts]),
    )


async def _waiting(connection: AsyncConnection, device: int, after: int) -> list[tuple[Any, ...]]:
    rows = await connection.execute(
        _QUERIES["take_unplaced"],
        {
            "device": signed(device),
            "reasons": [int(reason) for reason in REASONS],
            "after": after,
            "limit": RECORDS_MAX + 1,
        },
    )
    return await rows.fetchall()


def _require_few(parts: Sequence[Unplaced]) -> None:
    if sum(len(part.quarantine_id) for part in parts) > RECORDS_MAX:
        raise UsageError(
            f"记录过多 / more than {RECORDS_MAX} records: 请用 --from 和 --to 分段 / choose fewer with "
            "--from and --to"
        )


def _chosen(rows: Sequence[tuple[Any, ...]], choice: Choice) -> Unplaced:
    """Return those of the rows of `take_unplaced` whose own time is in the range."""
    content = np.frombuffer(b"".join(row[2] for row in rows), RECORD_DTYPE)
    device_ms = content["device_time_ms"].astype(np.int64)
    time_type = content["time_flags"] & np.uint8(wire.TIME_TYPE_MASK)
    device_ms[time_type == 0] = wire.NO_TIME
    chosen = np.ones(len(rows), np.bool_)
    for bound, keeps in ((choice.from_time, np.greater_equal), (choice.to_time, np.less)):
        if bound is not None:
            bound_ms = ms_since_epoch(bound.replace(tzinfo=UTC))
            chosen &= (device_ms != wire.NO_TIME) & keeps(device_ms, bound_ms)
    received_ms = np.array([ms_since_epoch(row[1]) for row in rows], np.int64)
    return Unplaced(
        device_id=rows[0][3],
        quarantine_id=np.array([row[0] for row in rows], np.int64)[chosen],
        received_ms=received_ms[chosen],
        device_ms=device_ms[chosen],
        time_type=time_type[chosen],
    )


async def _times(connection: AsyncConnection, records: Unplaced, by: By) -> Ints:
    if not isinstance(by, LaterFacts):
        return by_hand(records, by)
    times = np.full(len(records.device_ms), wire.NO_TIME, np.int64)
    for kind in TimeType:
        (of_kind,) = np.nonzero((records.time_type == kind) & storable(records.device_ms))
        if not len(of_kind):
            continue
        device_ms = records.device_ms[of_kind]
        found = await connection.execute(
            _QUERIES["facts"],
            {
                "device_id": records.device_id,
                "from_time": from_ms(int(device_ms.min())).replace(tzinfo=None),
                "to_time": from_ms(int(device_ms.max()) + RECORD_AGE_MAX_MS).replace(tzinfo=None),
                "qualities": [int(quality) for quality in _FACT_QUALITIES],
                "time_type": int(kind),
                "limit": FACTS_MAX,
            },
        )
        facts = np.array(await found.fetchall(), np.int64).reshape(-1, 3)
        chosen = Unplaced(
            device_id=records.device_id,
            quarantine_id=records.quarantine_id[of_kind],
            received_ms=records.received_ms[of_kind],
            device_ms=device_ms,
            time_type=records.time_type[of_kind],
        )
        times[of_kind] = by_later_facts(chosen, facts)
    return times


async def _place(connection: AsyncConnection, quarantine_id: Ints, measured_ms: Ints) -> None:
    await connection.execute(
        _QUERIES["place"],
        {
            "quarantine_id": quarantine_id.tolist(),
            "measured_at": [from_ms(ms) for ms in measured_ms.tolist()],
            "quality": int(TimeQuality.RETIMED),
        },
    )


def _with_detail(event: AuditEvent, choice: Choice, by: By, result: Retimed) -> AuditEvent:
    how: dict[str, object]
    match by:
        case Slow():
            how = {"slow_by_s": by.by.total_seconds()}
        case Anchor():
            how = {"record": by.quarantine_id, "measured_at": by.measured_at.isoformat()}
        case LaterFacts():
            how = {"later_facts": True}
    return AuditEvent(
        actor=event.actor,
        action=event.action,
        reason=event.reason,
        origin=event.origin,
        detail={
            "device": device_address(choice.device),
            **how,
            "chosen": result.chosen,
            "stored": result.replayed.stored,
            "duplicate": result.replayed.duplicate,
        },
    )
