"""The rules in force, kept as data: a change supersedes a rule, with who made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from gateway.errors import UsageError
from gateway.guidelines.alerts import DEFAULT_RULES, KINDS, AlertRule
from gateway.guidelines.home_pressure import RULE_SETS
from gateway.guidelines.samples import DAY_MS
from gateway.platform.audit import AuditEvent, write_audit_blocking
from gateway.platform.postgres import Connection, Jsonb, dict_row, load_queries, translated
from gateway.quantity import Text
from gateway.vitals import BY_NAME

QUERIES = load_queries(Path(__file__).parents[1] / "sql" / "alerts.sql")
SILENCE, TROUBLE = "no-readings", "device-trouble"
"""Rules that no reading meets or breaks (ingest.alerts.silence)."""
LOOKED_FOR = (
    AlertRule(
        name=SILENCE,
        title=Text(zh="多日未测量", en="No readings for days"),
        kind="silence",
        sign="",
        source="Hearth; the days are the mark's",
        version="1",
        gap_ms=0,
        parameters={},
        marked_only=True,
    ),
    AlertRule(
        name=TROUBLE,
        title=Text(zh="设备故障", en="A device's readings do not get through"),
        kind="trouble",
        sign="",
        source="Hearth: 3 readings kept apart in 7 days, or its hub cannot pair with it or reach it",
        version="1",
        gap_ms=0,
        parameters={},
    ),
)
_KINDS = frozenset(KINDS) | {rule.kind for rule in LOOKED_FOR}


class Pace(StrEnum):
    """How soon a rule is evaluated after a reading has come; each has its own place in the feed."""

    PROMPT = "prompt"
    """At once: what single readings say."""
    OVER_DAYS = "over-days"
    """At most every `ingest.alerts.app.OVER_DAYS_S`, each resident once: what days say together, which
    costs the readings of those days and tells nobody to act within minutes."""


def pace_of(rule: AlertRule) -> Pace:
    """Return how soon a rule is evaluated."""
    return Pace.OVER_DAYS if rule.reach_ms > DAY_MS else Pace.PROMPT


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleInForce:
    """A rule with its key in the store."""

    rule_id: int
    rule: AlertRule
    enabled: bool
    changed_by: str


def seed_rules(connection: Connection) -> list[str]:
    """Enter those of the built-in rules that never stood there; return their names.

    Whoever does so at the same time waits until the connection's transaction ends.
    """
    entered = []
    connection.execute(QUERIES["lock_rules"])
    for rule in (*DEFAULT_RULES, *LOOKED_FOR):
        known = connection.execute(QUERIES["was_ever"], {"name": rule.name}).fetchone()
        if known is None:
            _enter(connection, rule, enabled=True, by="service:alerts")
            entered.append(rule.name)
    return entered


def rules_in_force(connection: Connection) -> list[RuleInForce]:
    """Return the rules, by name, disabled ones too."""
    with translated(), connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(QUERIES["rules"]).fetchall()
    return [rule_of_row(row) for row in rows]


def rule_of_row(row: Mapping[str, Any]) -> RuleInForce:
    """Return the rule in a row of the query `rules`."""
    return RuleInForce(
        rule_id=row["rule_id"],
        rule=_rule(row["name"], row["definition"]),
        enabled=row["enabled"],
        changed_by=row["changed_by"],
    )


def change_rule(
    connection: Connection,
    name: str,
    *,
    parameters: Mapping[str, float],
    enabled: bool | None,
    by: tuple[str, str],
) -> RuleInForce:
    """Change thresholds of a rule, or whether it holds at all; what was before stays known.

    The evaluation begins anew when it sees that there is one rule more (the query `progress`).

    Raises:
        UsageError: there is no such rule or it has no such parameter.
    """
    actor, origin = by
    with translated(), connection.transaction():
        before = {found.rule.name: found for found in rules_in_force(connection)}.get(name)
        if before is None:
            raise UsageError(f"没有此规则 / there is no rule {name!r}: `hearth alerts rules`")
        unknown = set(parameters) - set(before.rule.parameters)
        if unknown:
            raise UsageError(
                f"规则没有此参数 / {name} has no {', '.join(sorted(unknown))}: "
                f"{', '.join(before.rule.parameters)}"
            )
        definition = _definition(before.rule)
        definition["parameters"] = {**before.rule.parameters, **parameters}
        _enter(
            connection,
            _rule(name, definition),
            enabled=before.enabled if enabled is None else enabled,
            by=actor,
        )
        event = AuditEvent(
            actor=actor, action="alert_rule.change", origin=origin, detail={"rule": name}
        )
        write_audit_blocking(connection, [event])
        return {found.rule.name: found for found in rules_in_force(connection)}[name]


def _enter(connection: Connection, rule: AlertRule, *, enabled: bool, by: str) -> None:
    connection.execute(QUERIES["supersede"], {"name": rule.name})
    connection.execute(
        QUERIES["enter"],
        {
            "name": rule.name,
            "definition": Jsonb(_definition(rule)),
            "enabled": enabled,
            "by": by,
        },
    )


def _definition(rule: AlertRule) -> dict[str, Any]:
    return {
        "title": {"zh": rule.title.zh, "en": rule.title.en},
        "kind": rule.kind,
        "sign": rule.sign,
        "source": rule.source,
        "version": rule.version,
        "gap_ms": rule.gap_ms,
        "parameters": dict(rule.parameters),
        "rule_set": rule.rule_set,
        "marked_only": rule.marked_only,
    }


def _rule(name: str, definition: Mapping[str, Any]) -> AlertRule:
    rule = AlertRule(
        name=name,
        title=Text(**definition["title"]),
        kind=definition["kind"],
        sign=definition["sign"],
        source=definition["source"],
        version=definition["version"],
        gap_ms=definition["gap_ms"],
        parameters=definition["parameters"],
        rule_set=definition["rule_set"],
        marked_only=definition["marked_only"],
    )
    known = rule.kind in _KINDS and (rule.rule_set is None or rule.rule_set in RULE_SETS)
    if not known:
        raise UsageError(
            f"规则不受此版本支持 / rule {name}: this Hearth cannot evaluate {rule.kind}"
        )
    return rule


def is_evaluable(rule: AlertRule) -> bool:
    """Tell whether readings can meet the rule: the registry has its sign."""
    return rule.sign in BY_NAME
