"""Whose readings are is put right: a period of a device's slot, and the way back.

A correction is one transaction. It holds the links still (ingest's open flushes commit first, the
next ones wait and are judged again), says anew whose the slot was, moves the stored readings and
keeps whose they were thought to be. Times and values are not touched. Each owner, old and new, gets
an audit row. What is derived from the readings is derived from the rows, which have a new
`stored_at`; whoever follows along reads it in the feed of changes (gateway.platform.changes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from api.cursor import Place, decode_place, encode_place
from api.records import Belief, Candidate, Correction, Unassigned
from api.registry import QUERIES as REGISTRY
from api.registry import canonical_address
from gateway.errors import UsageError
from gateway.platform.audit import AuditEvent, write_audit_blocking
from gateway.platform.changes import Changed, record_change_blocking
from gateway.platform.corrections import FORGET_POSTERIORS, MAKE_DUE, due
from gateway.platform.postgres import (
    Connection,
    class_row,
    load_queries,
    sql,
    translated,
)
from gateway.stored import FLAG_CLAIMED, FLAG_INFERRED, FLAG_UNUSUAL
from gateway.vitals import BY_CODE, QUANTITIES
from gateway.wire import OFFSET_STEP_MIN

STATEMENT_S_MAX = 120
"""A correction whose statement takes longer is given up; ingest waits meanwhile."""
IDLE_S_MAX = 10
"""A correction whose client falls silent is given up after this."""
HISTORY_MAX = 10_000
WORKLIST_MAX = 1_000
CLAIMS_MAX = 1_000
"""So many readings are claimed at once."""
NOBODY = 0
"""The store's key of a resident who is none: the readings go to the worklist."""

_QUERIES = load_queries(Path(__file__).parent / "sql" / "corrections.sql")
_WORKLIST = _QUERIES["worklist"].format(
    quantities=sql.SQL(", ").join(
        sql.SQL("m.{}").format(sql.Identifier(quantity.name)) for quantity in QUANTITIES
    )
)
_FIRST_COLUMN = 8
"""The quantities' columns come behind so many others."""
_COLUMN_OF = {quantity.name: _FIRST_COLUMN + i for i, quantity in enumerate(QUANTITIES)}
_DECIDED = FLAG_INFERRED | FLAG_CLAIMED
_KEPT_FLAGS = ~(_DECIDED | FLAG_UNUSUAL)
"""What stays of a reading's flags when it gets another owner by a link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A user slot of a device from `from_at` up to before `until_at`; None: from ever, for ever."""

    device: str
    user_slot: int
    from_at: datetime | None
    until_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who corrects, from where, and why."""

    actor: str
    origin: str | None
    reason: str


def reassign(
    connection: Connection, period: Period, resident: UUID | None, author: Author
) -> Correction:
    """Make a period of a slot a resident's (None: nobody's), the stored readings too.

    Raises:
        UsageError: the device or the resident is not entered, or the period is none.
        UnavailableError: the database is down, or the correction took too long.
    """
    if period.from_at and period.until_at and period.from_at >= period.until_at:
        raise UsageError(
            f"起止时间有误 / the period would end ({period.until_at.isoformat()}) before it began "
            f"({period.from_at.isoformat()})"
        )
    with translated(), connection.transaction():
        _begin(connection)
        where = _where(connection, period)
        new_owner = NOBODY if resident is None else _resident_id(connection, resident)
        correction_id = _add_correction(connection, "reassign", where, new_owner, author)
        place = where | {"correction_id": correction_id, "resident_id": new_owner}
        connection.execute(_QUERIES["cut_links"], place)
        connection.execute(_QUERIES["cut_shared_links"], place)
        if new_owner != NOBODY:
            connection.execute(_QUERIES["add_link"], place)
        rows = place | {"inferred": FLAG_INFERRED, "kept_flags": _KEPT_FLAGS}
        connection.execute(_QUERIES["remember_period"], rows)
        connection.execute(_QUERIES["move_period"], rows)
        former = connection.execute(_QUERIES["owners_before"], place).fetchall()
        _finish(connection, place, author, "device.reassign", {new_owner, *(o for (o,) in former)})
        return _correction(connection, correction_id)


def undo(connection: Connection, correction_id: int, author: Author) -> Correction:
    """Take a reassignment back: links and readings are whose they were before it.

    Readings that came since go with the links; what somebody has decided since stays.

    Raises:
        UsageError: there is no such reassignment, it was undone, or the slot was changed since.
    """
    with translated(), connection.transaction():
        _begin(connection)
        undone = _undoable(connection, correction_id)
        where = {
            "device_id": undone["device_id"],
            "user_slot": undone["user_slot"],
            "from_at": undone["from_at"],
            "until_at": undone["until_at"],
            "undoes": correction_id,
        }
        since = connection.execute(_QUERIES["changed_since"], where).fetchone()
        if since is not None:
            raise UsageError(_changed_since(correction_id, since[0], str(undone["device"])))
        new_id = _add_correction(connection, "undo", where, None, author)
        place = where | {"correction_id": new_id}
        for query in ("unmake_links", "unmake_shared_links"):
            connection.execute(_QUERIES[query], place)
        for query in ("restore_links", "restore_shared_links"):
            connection.execute(_QUERIES[query], place)
        connection.execute(
            _QUERIES["plan_undo"], place | {"kept_flags": _KEPT_FLAGS, "decided": _DECIDED}
        )
        connection.execute(_QUERIES["count_given"])
        connection.execute(_QUERIES["remember_given"], place)
        connection.execute(_QUERIES["move_given"], place)
        restored = connection.execute(
            _QUERIES["owners_before"], {"correction_id": correction_id}
        ).fetchall()
        owners = {undone["resident_id"], *(owner for (owner,) in restored)}
        _finish(connection, place, author, "device.undo", owners)
        return _correction(connection, new_id)


def list_worklist(
    connection: Connection,
    *,
    author: Author,
    device: str | None = None,
    home: UUID | None = None,
    limit: int = WORKLIST_MAX,
) -> list[Unassigned]:
    """Return readings that wait for a person to say whose they are, newest first. Audited.

    At most `WORKLIST_MAX`.
    """
    address = None if device is None else canonical_address(device)
    with translated(), connection.transaction():
        rows = connection.execute(
            _WORKLIST,
            {
                "claimed": FLAG_CLAIMED,
                "device": address,
                "home": home,
                "limit": min(limit, WORKLIST_MAX),
            },
        ).fetchall()
        event = AuditEvent(
            actor=author.actor,
            action="worklist.read",
            origin=author.origin,
            detail={"readings": len(rows)},
        )
        write_audit_blocking(connection, [event])
    return [_unassigned(row) for row in rows]


def claim(
    connection: Connection, readings: Sequence[str], resident: UUID | None, author: Author
) -> Correction:
    """Say whose readings are (their ids); None: a stranger's. The model learns from it.

    Raises:
        UsageError: an id is none of a stored reading, or the resident is not entered.
    """
    keys = keys_of(readings)
    with translated(), connection.transaction():
        _begin(connection)
        new_owner = NOBODY if resident is None else _resident_id(connection, resident)
        given = keys | {
            "actor": author.actor,
            "reason": author.reason,
            "resident_id": new_owner,
        }
        ((correction_id,),) = connection.execute(_QUERIES["claim"], given).fetchall()
        if correction_id is None:
            raise UsageError(
                "有的测量不存在 / not all of these readings are stored: 请查看 / see "
                "`hearth admin worklist list`"
            )
        _audit(connection, correction_id, author, "worklist.claim", {new_owner})
        return _correction(connection, correction_id)


def list_corrections(
    connection: Connection, *, device: str | None = None, limit: int | None = None
) -> list[Correction]:
    """Return corrections, all or one device's, the newest first."""
    address = None if device is None else canonical_address(device)
    with translated(), connection.cursor(row_factory=class_row(Correction)) as cursor:
        parameters = {"device": address, "limit": limit}
        return cursor.execute(_QUERIES["corrections"], parameters).fetchall()


def history(
    connection: Connection,
    period: Period,
    *,
    any_slot: bool,
    as_of: datetime | None,
    author: Author,
) -> list[Belief]:
    """Return whose the readings of a device were thought to be, all beliefs or those at a moment.

    At most `HISTORY_MAX`, the newest reading first. The look is audited.
    """
    with translated(), connection.transaction():
        rows = connection.execute(
            _QUERIES["history"],
            {
                "device": canonical_address(period.device),
                "user_slot": None if any_slot else period.user_slot,
                "from_at": period.from_at,
                "until_at": period.until_at,
                "as_of": as_of,
                "limit": HISTORY_MAX,
            },
        ).fetchall()
        event = AuditEvent(
            actor=author.actor,
            action="attribution.read",
            origin=author.origin,
            reason=author.reason or None,
            detail={"readings": len(rows)},
        )
        write_audit_blocking(connection, [event])
    return [_belief(row) for row in rows]


def _begin(connection: Connection) -> None:
    connection.execute(
        _QUERIES["bound"], {"statement_ms": STATEMENT_S_MAX * 1000, "idle_ms": IDLE_S_MAX * 1000}
    )
    connection.execute(REGISTRY["lock_links"])  # before the other lock: the triggers' order
    connection.execute(_QUERIES["hold"])


def _where(connection: Connection, period: Period) -> dict[str, Any]:
    address = canonical_address(period.device)
    row = connection.execute(_QUERIES["device"], {"device": address}).fetchone()
    if row is None:
        raise UsageError(
            f"设备未登记 / device {address} is not entered: 请查看 / see `hearth admin device list`"
        )
    return {
        "device_id": row[0],
        "user_slot": period.user_slot,
        "from_at": period.from_at,
        "until_at": period.until_at,
    }


def _resident_id(connection: Connection, resident: UUID) -> int:
    row = connection.execute(_QUERIES["resident"], {"resident": resident}).fetchone()
    if row is None:
        raise UsageError(
            f"居民未登记 / resident {resident} is not entered: 请先登记 / enter it first: "
            "`hearth admin resident add`"
        )
    resident_id: int = row[0]
    return resident_id


def _add_correction(
    connection: Connection,
    kind: str,
    where: Mapping[str, Any],
    resident_id: int | None,
    author: Author,
) -> int:
    row = connection.execute(
        _QUERIES["add_correction"],
        {"undoes": None}
        | dict(where)
        | {
            "kind": kind,
            "actor": author.actor,
            "reason": author.reason,
            "resident_id": resident_id,
        },
    ).fetchone()
    assert row is not None  # noqa: S101 - RETURNING
    correction_id: int = row[0]
    return correction_id


def _finish(
    connection: Connection,
    place: Mapping[str, Any],
    author: Author,
    action: str,
    owners: set[int],
) -> None:
    """Count, audit each owner, and tell who holds something in memory."""
    connection.execute(FORGET_POSTERIORS, place)
    readings = _audit(connection, place["correction_id"], author, action, owners)
    connection.execute(_QUERIES["count_readings"], {**place, "readings": readings})
    _tell(connection, place)


def _audit(
    connection: Connection, correction_id: int, author: Author, action: str, owners: set[int]
) -> int:
    """Audit each owner of a correction, old and new; return how many readings it moved."""
    moved = connection.execute(_QUERIES["moved"], {"correction_id": correction_id}).fetchall()
    lost: dict[int, int] = {}
    gained: dict[int, int] = {}
    for old, new, count in moved:
        lost[old] = lost.get(old, 0) + count
        gained[new] = gained.get(new, 0) + count
    concerned = ({*owners, *lost, *gained}) - {NOBODY}
    events = [
        AuditEvent(
            actor=author.actor,
            action=action,
            resident_id=owner or None,
            reason=author.reason,
            origin=author.origin,
            detail={
                "correction": correction_id,
                "lost": lost.get(owner, 0),
                "gained": gained.get(owner, 0),
            },
        )
        for owner in sorted(concerned) or [NOBODY]
    ]
    write_audit_blocking(connection, events)
    return sum(count for _old, _new, count in moved)


def _tell(connection: Connection, place: Mapping[str, Any]) -> None:
    rows = connection.execute(_QUERIES["spans"], place).fetchall()
    columns = np.array(rows, np.int64).reshape(-1, 5).T
    changed = Changed(
        resident=columns[0], sign=columns[1], oldest_ms=columns[2], newest_ms=columns[3]
    )
    if rows:
        record_change_blocking(connection, changed, rows[0][4])
    connection.execute(MAKE_DUE, due(changed, place["device_id"], place["user_slot"]))


def _undoable(connection: Connection, correction_id: int) -> dict[str, Any]:
    cursor = connection.execute(_QUERIES["correction"], {"correction_id": correction_id})
    row = cursor.fetchone()
    if row is None:
        raise UsageError(
            f"没有这次更正 / there is no correction {correction_id}: 请查看 / see "
            "`hearth admin device corrections`"
        )
    names = [column.name for column in cursor.description or ()]
    undone = dict(zip(names, row, strict=True))
    if undone["kind"] != "reassign":
        raise UsageError(
            f"只能撤销重新归属 / correction {correction_id} is no reassignment: "
            "请用 / use `hearth admin device reassign`, `hearth admin worklist claim`"
        )
    if undone["undone_by"] is not None:
        raise UsageError(
            f"已经撤销 / correction {correction_id} was undone by {undone['undone_by']}"
        )
    return undone


def _changed_since(correction_id: int, later: int | None, device: str) -> str:
    if later is not None:
        return (
            f"之后又有更正 / correction {later} came after {correction_id}: 请先撤销它 / undo that "
            f"first: `hearth admin device undo {later} --reason TEXT`"
        )
    return (
        f"之后又登记了关联 / a link was entered after correction {correction_id}: 请查看 / see "
        f"`hearth admin link list --device {device}`, 或重新归属 / or use "
        "`hearth admin device reassign`"
    )


def _correction(connection: Connection, correction_id: int) -> Correction:
    cursor = connection.execute(_QUERIES["correction"], {"correction_id": correction_id})
    row = cursor.fetchone()
    assert row is not None  # noqa: S101 - it was added in this transaction
    names = [column.name for column in cursor.description or ()]
    fields = dict(zip(names, row, strict=True))
    for key in ("device_id", "resident_id"):
        del fields[key]
    return Correction(**fields)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def keys_of(readings: Sequence[str]) -> dict[str, list[int]]:
    """Return the keys of readings (their ids) as columns, as `claim_readings` takes them.

    Raises:
        UsageError: an id is none of a reading, or they are too many.
    """
    if not 1 <= len(set(readings)) <= CLAIMS_MAX:
        raise UsageError(f"一次 1 至 {CLAIMS_MAX} 条 / 1 to {CLAIMS_MAX} readings at a time")
    try:
        places = [decode_place(reading) for reading in dict.fromkeys(readings)]
    except ValueError as error:
        raise UsageError(
            f"测量编号有误 / {error}: 请查看 / see `hearth admin worklist list`"
        ) from error
    return {
        "measured_us": [(place.measured_at - _EPOCH) // _MICROSECOND for place in places],
        "devices": [place.device_id for place in places],
        "user_slots": [place.user_slot for place in places],
        "signs": [place.sign for place in places],
        "identity_us": [place.identity_us for place in places],
    }


def _unassigned(row: tuple[Any, ...]) -> Unassigned:
    measured_at, device_id, user_slot, sign, identity_us, device, utc_offset, candidates = row[
        :_FIRST_COLUMN
    ]
    place = Place(
        measured_at=measured_at,
        device_id=device_id,
        user_slot=user_slot,
        sign=sign,
        identity_us=identity_us,
    )
    zone = UTC if utc_offset is None else timezone(timedelta(minutes=OFFSET_STEP_MIN * utc_offset))
    values = {
        quantity.name: row[_COLUMN_OF[quantity.name]] for quantity in BY_CODE[sign].quantities
    }
    return Unassigned(
        reading=encode_place(place),
        measured_at=measured_at.astimezone(zone),
        device=device,
        user_slot=user_slot,
        sign=BY_CODE[sign].name,
        values={name: value for name, value in values.items() if value is not None},
        candidates=[Candidate(resident=who, probability=chance) for who, chance in candidates],
    )


def _belief(row: tuple[Any, ...]) -> Belief:
    (measured_at, device, device_id, user_slot, sign, identity_us, resident, believed_from,
     believed_until, corrected_by) = row  # fmt: skip
    place = Place(
        measured_at=measured_at,
        device_id=device_id,
        user_slot=user_slot,
        sign=sign,
        identity_us=identity_us,
    )
    return Belief(
        reading=encode_place(place),
        measured_at=measured_at,
        device=device,
        user_slot=user_slot,
        sign=BY_CODE[sign].name,
        resident=resident,
        believed_from=believed_from,
        believed_until=believed_until,
        corrected_by=corrected_by,
    )
