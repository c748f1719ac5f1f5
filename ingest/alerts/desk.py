"""What people do with alerts: look, acknowledge, resolve, mark residents, name webhooks. Audited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit
from uuid import UUID

import numpy as np

from gateway.errors import UsageError
from gateway.guidelines.alerts import DEFAULT_RULES
from gateway.platform.audit import AuditEvent, write_audit_blocking
from gateway.platform.changes import Changed, record_change_blocking
from gateway.platform.postgres import Connection, class_row, translated
from gateway.platform.webhook_hosts import WebhookHosts
from gateway.vitals import BY_NAME
from ingest.alerts.reconcile import State, What
from ingest.alerts.rules import LOOKED_FOR, QUERIES

LISTED_MAX = 1_000
NOTE_CHARS_MAX = 500

By = tuple[str, str]
"""Who does it and from where (gateway.platform.audit.command_actor)."""
_FROM = {
    State.ACKNOWLEDGED: ("open",),
    State.RESOLVED: ("open", "acknowledged"),
}
_TOLD = {State.ACKNOWLEDGED: What.ACKNOWLEDGED, State.RESOLVED: What.RESOLVED}
_RULES = {rule.name: rule for rule in (*DEFAULT_RULES, *LOOKED_FOR)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAlert:
    """An alert as a person sees it; no value, which the archive shows to those who may see it."""

    public_id: UUID
    resident: UUID
    rule: str
    device: str | None
    stage: int
    state: str
    is_note: bool
    started_at: datetime
    last_at: datetime
    cleared_at: datetime | None
    readings: int
    raised_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Whom to tell, and how that goes."""

    webhook_id: int
    url: str
    created_at: datetime
    ended_at: datetime | None
    waiting: int
    delivered: int
    dead: int


def list_alerts(
    connection: Connection,
    *,
    states: Sequence[str] | None,
    resident: UUID | None,
    rule: str | None,
    limit: int,
) -> list[ListedAlert]:
    """Return alerts, newest first."""
    parameters = {
        "states": None if states is None else list(states),
        "resident": resident,
        "rule": rule,
        "limit": min(limit, LISTED_MAX),
    }
    with translated(), connection.cursor(row_factory=class_row(ListedAlert)) as cursor:
        return cursor.execute(QUERIES["list"], parameters).fetchall()


def settle(connection: Connection, alert: UUID, state: State, *, note: str | None, by: By) -> None:
    """Acknowledge or resolve an alert, with who and why.

    Raises:
        UsageError: there is no such alert, or it stands elsewhere already.
    """
    with translated(), connection.transaction():
        row = connection.execute(
            QUERIES["settle"],
            {"alert": alert, "state": str(state), "from_states": list(_FROM[state])},
        ).fetchone()
        if row is None:
            raise UsageError(
                f"没有可处理的告警 / alert {alert} is not there or is {state} already: "
                "`hearth alerts list --state all`"
            )
        alert_id, resident_id = row
        told = connection.execute(
            QUERIES["add_event"],
            {
                "alert_id": alert_id,
                "actor": by[0],
                "what": str(_TOLD[state]),
                "note": note and note[:NOTE_CHARS_MAX],
            },
        ).fetchone()
        assert told is not None  # noqa: S101 - RETURNING
        connection.execute(QUERIES["tell_webhooks"], {"event_id": told[0]})
        _audit(connection, by, f"alert.{_TOLD[state]}", resident_id, alert=str(alert))


def mark(connection: Connection, resident: UUID, rule: str, days: int | None, by: By) -> None:
    """Let a rule hold for a resident from now on; what the last month says is looked at too.

    Raises:
        UsageError: no such resident, or the rule holds for everybody.
    """
    chosen = _RULES.get(rule)
    if chosen is None or not chosen.marked_only:
        names = ", ".join(name for name, known in _RULES.items() if known.marked_only)
        raise UsageError(f"此规则不需标记 / {rule} needs no mark; those that do: {names}")
    parameters: dict[str, object] = {"rule": rule, "days": days, "by": by[0], "resident": resident}
    with translated(), connection.transaction():
        resident_id = _of_resident(connection, "mark", parameters)
        sign = BY_NAME.get(chosen.sign)
        if sign is not None:
            _let_look(connection, resident_id, sign.code)
        _audit(connection, by, "alert_mark.set", resident_id, rule=rule)


def unmark(connection: Connection, resident: UUID, rule: str, by: By) -> None:
    """Let a rule no longer hold for a resident.

    Raises:
        UsageError: the resident is not marked for it.
    """
    with translated(), connection.transaction():
        resident_id = _of_resident(connection, "unmark", {"rule": rule, "resident": resident})
        _audit(connection, by, "alert_mark.end", resident_id, rule=rule)


def add_webhook(connection: Connection, url: str, hosts: WebhookHosts, by: By) -> int:
    """Tell this address of every event from now on; return its number.

    Raises:
        UsageError: the URL is none that may be told.
    """
    if not hosts.may_be_told(url) or urlsplit(url).query:
        raise UsageError(
            "网址须为公网 https, 不含用户名、密码、参数 / a webhook is an https:// URL of a public host, or "
            "of one that HEARTH_WEBHOOK_HOSTS names, without user, password and query"
        )
    with translated(), connection.transaction():
        row = connection.execute(QUERIES["add_webhook"], {"url": url, "by": by[0]}).fetchone()
        assert row is not None  # noqa: S101 - RETURNING
        _audit(connection, by, "webhook.add", None, webhook=row[0])
    return int(row[0])


def end_webhook(connection: Connection, webhook: int, by: By) -> None:
    """Tell it no longer."""
    with translated(), connection.transaction():
        connection.execute(QUERIES["end_webhook"], {"webhook": webhook})
        _audit(connection, by, "webhook.end", None, webhook=webhook)


def list_webhooks(connection: Connection) -> list[Webhook]:
    """Return all webhooks, ended ones too."""
    with translated(), connection.cursor(row_factory=class_row(Webhook)) as cursor:
        return cursor.execute(QUERIES["webhooks"]).fetchall()


def revive(connection: Connection, webhook: int | None) -> int:
    """Try dead letters again; return how many."""
    with translated():
        return connection.execute(QUERIES["revive"], {"webhook": webhook}).rowcount


def _of_resident(connection: Connection, query: str, parameters: dict[str, object]) -> int:
    row = connection.execute(QUERIES[query], parameters).fetchone()
    if row is None:
        raise UsageError(
            f"没有这位居民 / no such resident, or no such mark: {parameters['resident']}"
        )
    return int(row[0])


def _let_look(connection: Connection, resident_id: int, sign: int) -> None:
    """Put the resident's last month into the feed of changes, so that the rule is evaluated."""
    row = connection.execute(QUERIES["last_month_ms"]).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM
    now_ms, month_ago_ms = row
    one = np.ones(1, np.int64)
    record_change_blocking(
        connection,
        Changed(
            resident=one * resident_id,
            sign=one * sign,
            oldest_ms=one * month_ago_ms,
            newest_ms=one * now_ms,
        ),
        now_ms,
    )


def _audit(
    connection: Connection, by: By, action: str, resident_id: int | None, **detail: str | int
) -> None:
    actor, origin = by
    event = AuditEvent(
        actor=actor, action=action, origin=origin, resident_id=resident_id, detail=detail
    )
    write_audit_blocking(connection, [event])
