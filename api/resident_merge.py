"""Double entries: two entries of one resident become one, and two again if that was a mistake.

The double entry stays, with its own identity, and leads to the other; its links and readings become
the other's, the readings' times untouched, and what either does not consent to holds for them still. What moved is kept, so that `unmerge` restores it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from api.resident_import import QUERIES as RESIDENTS
from gateway.errors import UsageError
from gateway.platform.audit import AuditEvent, command_actor, write_audit_blocking
from gateway.platform.postgres import Connection, load_queries, translated

_QUERIES = load_queries(Path(__file__).parent / "sql" / "merges.sql")
_ALWAYS = datetime(1, 1, 1, tzinfo=UTC)
_LOCK_LINKS = load_queries(Path(__file__).parent / "sql" / "registry.sql")["lock_links"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a merge or its undoing moved."""

    resident: UUID
    """Whose the readings are now."""
    links: int
    measurements: int


def merge(connection: Connection, kept: UUID, gone: UUID, reason: str) -> Moved:
    """Make everything of `gone` the resident's `kept`.

    Raises:
        UsageError: one of them is not entered, erased, or merged already; both are the same; or the
            double entry shares a device.
    """
    if kept == gone:
        raise UsageError("同一位居民 / these are the same entry")
    with translated(), connection.transaction():
        connection.execute(_LOCK_LINKS)
        # In one order, so that two who merge the same pair take turns.
        keys = {resident: _key(connection, resident) for resident in sorted((kept, gone))}
        pair = {"kept": keys[kept], "gone": keys[gone]}
        shares = connection.execute(_QUERIES["shares"], pair).fetchone()
        if shares is not None:
            raise UsageError(
                f"{gone} 是设备 {shares[0]} 的共用者 / shares device {shares[0]}: 请先改为保留的条目 / "
                f"first let the entry that stays share it: `hearth admin link unshare --device "
                f"{shares[0]} --resident {gone}`, `hearth admin link share`"
            )
        merge_id = _first(connection, "note_merge", **pair)
        connection.execute(_QUERIES["point_to"], pair)
        links = [link for (link,) in connection.execute(_QUERIES["supersede_links"], pair)]
        places = pair | {"merge_id": merge_id}
        connection.execute(_QUERIES["copy_links"], places | {"links": links})
        carried = {"from": pair["gone"], "to": pair["kept"], "merge_id": merge_id}
        connection.execute(_QUERIES["carry_objections"], carried | {"since": _ALWAYS})
        connection.execute(_QUERIES["note_what_stays"], places | {"links": links})
        moved = _first(connection, "move_measurements", **places)
        _audit(connection, "resident.merge", pair, reason, moved)
    return Moved(resident=kept, links=len(links), measurements=moved)


def unmerge(connection: Connection, gone: UUID, reason: str) -> Moved:
    """Undo the merge of a double entry.

    Raises:
        UsageError: it was not merged, or what it was merged into was itself merged since.
    """
    with translated(), connection.transaction():
        connection.execute(_LOCK_LINKS)
        found = connection.execute(_QUERIES["merge_in_force"], {"resident": gone}).fetchone()
        if found is None:
            raise UsageError(f"没有合并过 / {gone} was not merged into another entry")
        merge_id, kept_id, gone_id, merged_at, kept, merged_again = found
        if merged_again:
            raise UsageError(
                f"请先撤销后来的合并 / undo the later merge first: `hearth admin resident unmerge {kept}`"
            )
        pair = {"kept": kept_id, "gone": gone_id}
        places = pair | {"merge_id": merge_id, "merged_at": merged_at}
        links = [link for (link,) in connection.execute(_QUERIES["supersede_copies"], places)]
        connection.execute(_QUERIES["restore_links"], {"links": links})
        carried = {"from": kept_id, "to": gone_id, "merge_id": merge_id}
        connection.execute(_QUERIES["carry_objections"], carried | {"since": merged_at})
        connection.execute(_QUERIES["end_carried_objections"], places)
        moved = _first(connection, "move_back", **places)
        connection.execute(_QUERIES["point_to"], pair | {"kept": None})
        connection.execute(_QUERIES["close_merge"], places)
        connection.execute(_QUERIES["forget_places"], places)
        _audit(connection, "resident.unmerge", pair, reason, moved)
    return Moved(resident=gone, links=len(links), measurements=moved)


def _key(connection: Connection, resident: UUID) -> int:
    row = connection.execute(RESIDENTS["key_of"], {"resident": resident}).fetchone()
    if row is None:
        raise UsageError(f"居民未登记 / resident {resident} is not entered")
    resident_id, merged_into, erased_at = row
    if merged_into is not None:
        raise UsageError(
            f"已合并 / {resident} is merged already: 可撤销 / undo with "
            f"`hearth admin resident unmerge {resident}`"
        )
    if erased_at is not None:
        raise UsageError(f"已删除 / {resident} was erased")
    return int(resident_id)


def _first(connection: Connection, query: str, **parameters: object) -> int:
    row = connection.execute(_QUERIES[query], parameters).fetchone()
    assert row is not None  # noqa: S101 - the statement gives one row
    return int(row[0])


def _audit(
    connection: Connection, action: str, pair: dict[str, int], reason: str, moved: int
) -> None:
    actor, origin = command_actor()
    write_audit_blocking(
        connection,
        [
            AuditEvent(
                actor=actor,
                action=action,
                resident_id=resident_id,
                reason=reason,
                origin=origin,
                detail={"measurements": moved},
            )
            for resident_id in pair.values()
        ],
    )
