"""The one door to the audit: who did what to whose data, in the transaction that does it.

An act that cannot be audited does not happen, because both commit together or not at all.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.platform.postgres import AsyncConnection, Connection, Jsonb, load_queries

_QUERIES = load_queries(Path(__file__).parent / "sql" / "audit.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One act. `actor`: user:ID, cli:LOGIN or service:NAME; `action`: noun.verb.

    `resident_id` is the store's key of the resident whose data it touches, None where it touches
    nobody's. `detail` holds opaque ids and counts, never a value, a name or a number of a person.
    """

    actor: str
    action: str
    resident_id: int | None = None
    reason: str | None = None
    origin: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


def command_actor() -> tuple[str, str]:
    """Return (actor, origin) of whoever runs this command: cli:LOGIN and the machine's name."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError):
        login = "unknown"  # no entry in the user database, no variable: a container
    return f"cli:{login}", socket.gethostname()


async def write_audit(connection: AsyncConnection, events: Sequence[AuditEvent]) -> None:
    """Write events in the connection's open transaction."""
    if events:
        await connection.execute(_QUERIES["write"], _columns(events))


def write_audit_blocking(connection: Connection, events: Sequence[AuditEvent]) -> None:
    """Write events in the connection's open transaction."""
    if events:
        connection.execute(_QUERIES["write"], _columns(events))


def _columns(events: Sequence[AuditEvent]) -> dict[str, list[Any]]:
    return {
        "actor": [event.actor for event in events],
        "action": [event.action for event in events],
        "resident_id": [event.resident_id for event in events],
        "reason": [event.reason for event in events],
        "origin": [event.origin for event in events],
        "detail": [Jsonb(dict(event.detail)) for event in events],
    }
