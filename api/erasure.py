"""Erasure: a resident's key is destroyed, and with it what names the resident, in every copy.

Personal Information Protection Law, articles 28 and 47. Gone: the key, the identity and its hashes,
the profile, the measurements and whose they were thought to be, the alerts, the bytes kept apart of the resident's own slots and times;
the resident's account is disabled. Kept: the opaque id, the audit (Cybersecurity Law, article 21(3): at least six months), superseded links
(opaque), and how many rows of each batch there were, so that the ledger balances (docs/archive.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from api.resident_import import QUERIES
from gateway import wire
from gateway.errors import UsageError
from gateway.platform.audit import AuditEvent, command_actor, write_audit_blocking
from gateway.platform.postgres import Connection, translated

_STEPS = (
    "destroy_key",
    "forget_profile",
    "end_links",
    "end_shares",
    "forget_posteriors",
    "forget_attributions",
    "forget_kept_apart",
    "forget_merges",
    "forget_deliveries",
    "forget_alert_events",
    "forget_alerts",
    "forget_marks",
    "forget_subscriptions",
    "end_exports",
    "end_care",
    "disable_account",
    "mark_erased",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What an erasure removed. `entries`: the resident's, and those merged into it."""

    entries: int
    measurements: int


def erase(connection: Connection, resident: UUID, reason: str) -> Erased:
    """Erase a resident, and the double entries merged into it.

    Raises:
        UsageError: there is no such resident, or it leads to another entry.
    """
    with translated(), connection.transaction():
        row = connection.execute(QUERIES["key_of"], {"resident": resident}).fetchone()
        if row is None:
            raise UsageError(f"居民未登记 / resident {resident} is not entered")
        resident_id, merged_into, _erased_at = row
        if merged_into is not None:
            raise UsageError(
                f"已并入另一条目 / {resident} is merged into another entry: 请删除该条目 / erase that "
                f"one, or first undo the merge: `hearth admin resident unmerge {resident}`"
            )
        whole = {"resident_id": resident_id}
        entries = [key for (key,) in connection.execute(QUERIES["entries_of"], whole)]
        gone = sum(_erase_entry(connection, entry) for entry in entries)
        actor, origin = command_actor()
        write_audit_blocking(
            connection,
            [
                AuditEvent(
                    actor=actor,
                    action="resident.erase",
                    resident_id=entry,
                    reason=reason,
                    origin=origin,
                    detail={"measurements": gone},
                )
                for entry in entries
            ],
        )
    return Erased(entries=len(entries), measurements=gone)


def _erase_entry(connection: Connection, resident_id: int) -> int:
    parameters = {
        "resident_id": resident_id,
        "record_kind": int(wire.Kind.MEASUREMENTS),
        "slot_at": wire.USER_SLOT_AT,
    }
    for step in _STEPS:
        connection.execute(QUERIES[step], parameters)
    rows = connection.execute(QUERIES["forget_measurements"], parameters)
    return sum(count for (count,) in rows)
