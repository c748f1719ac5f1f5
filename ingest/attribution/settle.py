"""Settles shared slots: reads a household's readings from the store, asks the model, writes back.

A slot is settled in one transaction that holds the links still, from the store as it is: late
readings, claims and corrections count as if they had always been there. What changes is kept
(tables correction, attribution) and told (the feed of changes). Readings that nobody's link covered
when they were made nobody's, and that a link covers now, go to its resident here as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.gatt.times import from_ms, ms_since_epoch
from gateway.platform.audit import AuditEvent, write_audit
from gateway.platform.changes import record_change, summarised
from gateway.platform.postgres import (
    AsyncConnection,
    Int2s,
    Int4s,
    Int8s,
    load_queries,
    sql,
    translated,
)
from gateway.stored import (
    FLAG_ARTEFACT,
    FLAG_CLAIMED,
    FLAG_ELSEWHERE,
    FLAG_INFERRED,
    FLAG_UNUSUAL,
)
from gateway.vital_sign import VitalSign
from gateway.vitals import BY_CODE
from ingest.attribution.away import SILENCE_MS_MAX, absences, is_late
from ingest.attribution.model import SOMEONE_ELSE, UNKNOWN, Floats, Household, Ints, settle
from ingest.guard import hold
from ingest.rows import LATE_MS

SETTLED_DAYS = 120
"""Readings that are older than this beside the slot's newest stay whose they are."""
CONTEXT_DAYS = 30
"""So much before that still tells of the others, as it stands."""
READINGS_MAX = 500
"""Of a slot, and of each member from elsewhere, the newest so many are looked at."""
DEVICE_READINGS_MAX = 5_000
"""Of a device, the newest so many tell whether it was away."""
DUE_SLOTS_MAX = 200
"""So many slots are taken up in one go."""
PROBABILITY_MIN = 0.001
"""A candidate who is less likely is not kept with an unassigned reading."""
ACTOR = "service:ingest"

_QUERIES = load_queries(Path(__file__).parent.parent / "sql" / "attribution.sql")
_DAY_MS = 86_400_000
_QUARTER_MS = 900_000
_NOBODY = 0

Slot = tuple[int, int]
"""(device key, user slot)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledSlots:
    """What settling did: readings looked at, given to somebody or taken back, left unassigned."""

    slots: int = 0
    readings: int = 0
    changed: int = 0
    unassigned: int = 0

    def __add__(self, other: SettledSlots) -> SettledSlots:
        """Return the sums."""
        return SettledSlots(
            slots=self.slots + other.slots,
            readings=self.readings + other.readings,
            changed=self.changed + other.changed,
            unassigned=self.unassigned + other.unassigned,
        )


async def settle_due(connection: AsyncConnection) -> SettledSlots:
    """Settle the slots that are due, at most `DUE_SLOTS_MAX`.

    Raises:
        UnavailableError: the database is down.
    """
    with translated():
        rows = await connection.execute(_QUERIES["due"], {"limit": DUE_SLOTS_MAX})
        slots = await rows.fetchall()
    return await _settle_slots(connection, [(device, slot) for device, slot in slots])


async def settle_shared(connection: AsyncConnection, device: str | None = None) -> SettledSlots:
    """Settle every slot that is shared, or those of one device (its address), and all that is due.

    Raises:
        UnavailableError: the database is down.
    """
    with translated():
        rows = await connection.execute(_QUERIES["shared_slots"], {"device": device})
        slots = await rows.fetchall()
    done = await _settle_slots(connection, [(device_id, slot) for device_id, slot in slots])
    while device is None and (more := await settle_due(connection)).slots:
        done += more
    return done


async def _settle_slots(connection: AsyncConnection, slots: Sequence[Slot]) -> SettledSlots:
    done = SettledSlots()
    for device_id, user_slot in slots:
        with translated():
            async with connection.transaction():
                done += await _settle_slot(connection, device_id, user_slot)
    return done


async def _settle_slot(connection: AsyncConnection, device_id: int, user_slot: int) -> SettledSlots:
    place = {"device_id": device_id, "user_slot": user_slot}
    await hold(connection)
    taken = await connection.execute(_QUERIES["take_slot"], place)
    ((is_ours,),) = await taken.fetchall()
    if not is_ours:
        return SettledSlots()
    await connection.execute(_QUERIES["not_due"], place)
    members = await _rows(connection, "members", place)
    links = await _rows(connection, "links", place)
    done = SettledSlots(slots=1)
    for sign, newest_at in await _rows(connection, "newest", place):
        readings = await _readings(
            connection, place, BY_CODE[sign], ms_since_epoch(newest_at), members, links
        )
        done += await _write(connection, place, readings)
    return done


@dataclass(frozen=True, slots=True, kw_only=True)
class _Readings:
    """The slot's readings of a sign that may change; (n,) each.

    `owner`, `flags`: as they are to be. `probability`: (n, members + 1), NaN where the model was
    not asked.
    """

    sign: VitalSign
    measured_ms: Ints
    identity_ms: Ints
    stored_us: Ints
    old_owner: Ints
    old_flags: Ints
    owner: Ints
    flags: Ints
    members: Ints
    probability: Floats


async def _readings(
    connection: AsyncConnection,
    place: dict[str, int],
    sign: VitalSign,
    newest_ms: int,
    members: Sequence[tuple[Any, ...]],
    links: Sequence[tuple[Any, ...]],
) -> _Readings:
    """Read the slot's readings of a sign and say whose they are."""
    from_ms_ = newest_ms - (SETTLED_DAYS + CONTEXT_DAYS) * _DAY_MS
    parameters = {
        **place,
        "sign": sign.code,
        "from_at": from_ms(from_ms_),
        "claimed": FLAG_CLAIMED,
        "excluded": FLAG_INFERRED | FLAG_ARTEFACT,
        "limit": READINGS_MAX,
    }
    columns = _columns(await _of_sign(connection, "of_slot", sign, parameters), 8)
    measured_ms, identity_ms, stored_us, owner, flags, quarters = columns[:6].astype(np.int64)
    value = columns[6].astype(np.float64)
    received_ms = measured_ms + (columns[7].astype(np.float64) * 1000).astype(np.int64)
    residents = np.unique(np.array([row[0] for row in members], np.int64))
    present, usual = _present(residents, members, measured_ms)
    linked, is_told = _linked(links, measured_ms)
    shared = present.any(axis=1)
    frozen = measured_ms < newest_ms - SETTLED_DAYS * _DAY_MS
    claimed = flags & FLAG_CLAIMED != 0
    told = _place_of(residents, owner)
    told[told == UNKNOWN] = SOMEONE_ELSE
    # A person alone says whose it is that another home's hub had first.
    elsewhere = ~claimed & (flags & FLAG_ELSEWHERE != 0)
    late = is_late(measured_ms, received_ms)
    away = np.zeros(len(late), np.bool_)
    # Who claims what the device brought home is its owner on journeys too.
    if late.any() and not (late & claimed & (owner == linked)).any():
        away = late & ~claimed & ~frozen & ~is_told
        away &= await _was_away(connection, place, from_ms(from_ms_), measured_ms)
    usable = ~np.isnan(value) & (flags & FLAG_ARTEFACT == 0) & ~elsewhere & ~away
    asked = shared & ~claimed & ~frozen & usable
    new_owner, new_flags = owner.copy(), flags.copy()
    probability = np.full((len(owner), len(residents) + 1), np.nan)
    if asked.any():
        # What was nobody's and is frozen tells nothing.
        part = usable & (asked | claimed | (owner != _NOBODY))
        said = np.where(asked, UNKNOWN, told)[part]
        parameters["members"] = residents.tolist()
        theirs = _columns(await _of_sign(connection, "of_members", sign, parameters), 4)
        hour = _hours(measured_ms, quarters)
        own = Household(
            day=measured_ms[part] / _DAY_MS,
            hour=hour[part],
            value=value[part],
            said=said,
            here=np.ones(len(said), np.bool_),
            present=present[part],
            linked=_place_of(residents, linked)[part],
            usual=usual,
        )
        # In a thread: large households take minutes, and the lanes are read meanwhile.
        settled = await asyncio.to_thread(
            settle, _with_elsewhere(own, theirs, residents), sign.quantities[0]
        )
        count = int(part.sum())
        label, probability[part] = settled.label[:count], settled.probability[:count]
        among = asked[part]
        places = np.flatnonzero(part)[among]
        found = label[among]
        new_owner[places] = np.where(found >= 0, residents[np.maximum(found, 0)], _NOBODY)
        new_flags[places] &= ~FLAG_INFERRED
        new_flags[places[found >= 0]] |= FLAG_INFERRED
        probability[np.flatnonzero(~asked)] = np.nan
    # Unusable readings of a shared slot, and those that a link covers now, go by the link.
    new_owner[away] = _NOBODY
    new_flags[away] &= ~FLAG_INFERRED
    by_link = (
        ~claimed & ~elsewhere & ~away & ~frozen & ~asked & (owner == _NOBODY) & (linked != _NOBODY)
    )
    new_owner[by_link] = linked[by_link]
    new_flags[new_owner != owner] &= ~FLAG_UNUSUAL
    return _Readings(
        sign=sign,
        measured_ms=measured_ms,
        identity_ms=identity_ms,
        stored_us=stored_us,
        old_owner=owner,
        old_flags=flags,
        owner=new_owner,
        flags=new_flags,
        members=residents,
        probability=probability,
    )


async def _was_away(
    connection: AsyncConnection, place: dict[str, int], from_at: datetime, at_ms: Ints
) -> npt.NDArray[np.bool_]:
    """Return (n,) whether the device was away at these times."""
    of_device = await connection.execute(
        _QUERIES["of_device"], {**place, "from_at": from_at, "limit": DEVICE_READINGS_MAX}
    )
    measured_ms, after_ms = np.array(await of_device.fetchall(), np.int64).reshape(-1, 2).T
    late_ms = measured_ms[is_late(measured_ms, measured_ms + after_ms)]
    heard = await connection.execute(
        _QUERIES["heard_at_home"],
        {
            **place,
            "late_s": LATE_MS / 1000,
            "from_at": from_ms(int(late_ms.min()) - SILENCE_MS_MAX),
            "to_at": from_ms(int(late_ms.max()) + SILENCE_MS_MAX),
        },
    )
    heard_ms = np.array([ms for (ms,) in await heard.fetchall()], np.int64)
    away = np.zeros(len(at_ms), np.bool_)
    for first_ms, last_ms in absences(measured_ms, measured_ms + after_ms, heard_ms):
        away |= (first_ms <= at_ms) & (at_ms <= last_ms)
    return away


def _with_elsewhere(own: Household, theirs: npt.NDArray[Any], residents: Ints) -> Household:
    """Return the slot's readings with those that its members have from elsewhere behind them."""
    at_ms, owner, quarters = theirs[:3].astype(np.int64)
    count = len(at_ms)
    return Household(
        day=np.concatenate((own.day, at_ms / _DAY_MS)),
        hour=np.concatenate((own.hour, _hours(at_ms, quarters))),
        value=np.concatenate((own.value, theirs[3].astype(np.float64))),
        said=np.concatenate((own.said, _place_of(residents, owner))),
        here=np.concatenate((own.here, np.zeros(count, np.bool_))),
        present=np.concatenate((own.present, np.ones((count, len(residents)), np.bool_))),
        linked=np.concatenate((own.linked, np.full(count, UNKNOWN, np.int64))),
        usual=own.usual,
    )


async def _write(
    connection: AsyncConnection, place: dict[str, int], readings: _Readings
) -> SettledSlots:
    """Write what is to change, keep what was, and tell."""
    count = len(readings.measured_ms)
    done = SettledSlots(
        readings=count,
        unassigned=int(
            (np.isfinite(readings.probability[:, -1]) & (readings.owner == _NOBODY)).sum()
        ),
    )
    if not count:
        return done
    span = {
        **place,
        "sign": readings.sign.code,
        "oldest_at": from_ms(int(readings.measured_ms.min())),
        "newest_at": from_ms(int(readings.measured_ms.max())),
    }
    await connection.execute(_QUERIES["forget_posteriors"], span)
    await _keep_posteriors(connection, span, readings)
    moved = (readings.owner != readings.old_owner) | (readings.flags != readings.old_flags)
    if not moved.any():
        return done
    row = await connection.execute(
        _QUERIES["add_correction"], {**place, "actor": ACTOR, "readings": int(moved.sum())}
    )
    ((correction_id, now_ms),) = await row.fetchall()
    rows = {
        **span,
        "correction_id": correction_id,
        "measured_ms": Int8s(readings.measured_ms[moved]),
        "identity_ms": Int8s(readings.identity_ms[moved]),
        "stored_us": Int8s(readings.stored_us[moved]),
        "old_owner": Int4s(readings.old_owner[moved]),
        "new_owner": Int4s(readings.owner[moved]),
        "old_flags": Int2s(readings.old_flags[moved]),
        "new_flags": Int2s(readings.flags[moved]),
    }
    await connection.execute(_QUERIES["remember"], rows)
    await connection.execute(_QUERIES["attribute"], rows)
    await _tell(connection, readings, moved, correction_id, now_ms)
    return SettledSlots(
        readings=done.readings, changed=int(moved.sum()), unassigned=done.unassigned
    )


async def _keep_posteriors(
    connection: AsyncConnection, span: dict[str, Any], readings: _Readings
) -> None:
    waiting = (readings.owner == _NOBODY) & (readings.flags & FLAG_CLAIMED == 0)
    probability = np.where(waiting[:, None], readings.probability, np.nan)
    place, candidate = np.nonzero(probability >= PROBABILITY_MIN)
    if len(place):
        residents = np.append(readings.members, _NOBODY)
        kept = {
            **span,
            "measured_ms": Int8s(readings.measured_ms[place]),
            "identity_ms": Int8s(readings.identity_ms[place]),
            "resident_id": Int4s(residents[candidate]),
            "probability": probability[place, candidate].tolist(),
        }
        await connection.execute(_QUERIES["keep_posteriors"], kept)


async def _tell(
    connection: AsyncConnection,
    readings: _Readings,
    moved: npt.NDArray[np.bool_],
    correction_id: int,
    now_ms: int,
) -> None:
    owners = np.concatenate((readings.old_owner[moved], readings.owner[moved]))
    at_ms = np.concatenate((readings.measured_ms[moved], readings.measured_ms[moved]))
    somebody = owners != _NOBODY
    sign = np.full(int(somebody.sum()), readings.sign.code)
    changed = summarised(owners[somebody], sign, at_ms[somebody])
    await record_change(connection, changed, now_ms)
    due = {
        "sign": readings.sign.code,
        "residents": Int4s(changed.resident),
        "oldest_ms": Int8s(changed.oldest_ms),
        "newest_ms": Int8s(changed.newest_ms),
    }
    await connection.execute(_QUERIES["make_due"], due)
    # That a reading found its first owner is told by the reading; that it lost one, by the audit.
    lost = moved & (readings.old_owner != _NOBODY) & (readings.old_owner != readings.owner)
    concerned = np.unique(np.concatenate((readings.old_owner[lost], readings.owner[lost])))
    await write_audit(
        connection,
        [
            AuditEvent(
                actor=ACTOR,
                action="attribution.settle",
                resident_id=int(resident),
                detail={
                    "correction": correction_id,
                    "lost": int((readings.old_owner[lost] == resident).sum()),
                    "gained": int((readings.owner[lost] == resident).sum()),
                },
            )
            for resident in concerned
            if resident != _NOBODY
        ],
    )


def _present(
    residents: Ints, members: Sequence[tuple[Any, ...]], at_ms: Ints
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Return (n, k) who shared the slot when, and (k,) what is usual for them (said last)."""
    present = np.zeros((len(at_ms), len(residents)), np.bool_)
    usual = np.full(len(residents), np.nan)
    for resident, start_ms, end_ms, says in members:
        place = int(np.searchsorted(residents, resident))
        present[:, place] |= (start_ms <= at_ms) & (at_ms < end_ms)
        usual[place] = usual[place] if says is None else says
    return present, usual


def _linked(links: Sequence[tuple[Any, ...]], at_ms: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return (n,) whose the slot was by a link, 0 nobody's, and whether a correction said so."""
    linked = np.zeros(len(at_ms), np.int64)
    is_told = np.zeros(len(at_ms), np.bool_)
    for resident, start_ms, end_ms, by_correction in links:
        within = (start_ms <= at_ms) & (at_ms < end_ms)
        linked[within] = resident
        is_told[within] = by_correction
    return linked, is_told


def _place_of(residents: Ints, owner: Ints) -> Ints:
    """Return (n,) the places of owners among the members, `UNKNOWN` of others."""
    if not len(residents):
        return np.full(len(owner), UNKNOWN, np.int64)
    place = np.minimum(np.searchsorted(residents, owner), len(residents) - 1)
    return np.where(residents[place] == owner, place, UNKNOWN).astype(np.int64)


def _hours(at_ms: Ints, quarters: Ints) -> Floats:
    local_ms: Floats = ((at_ms + quarters * _QUARTER_MS) % _DAY_MS) / 3_600_000
    return local_ms


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> npt.NDArray[Any]:
    columns = np.empty((width, len(rows)), object)
    for index, column in enumerate(zip(*rows, strict=True)):
        columns[index] = column
    return columns


async def _rows(
    connection: AsyncConnection, query: str, parameters: dict[str, int]
) -> list[tuple[Any, ...]]:
    rows = await connection.execute(_QUERIES[query], parameters)
    return await rows.fetchall()


async def _of_sign(
    connection: AsyncConnection, query: str, sign: VitalSign, parameters: dict[str, Any]
) -> list[tuple[Any, ...]]:
    value = sql.Identifier(sign.quantities[0].name)
    rows = await connection.execute(_QUERIES[query].format(value=value), parameters)
    return await rows.fetchall()
