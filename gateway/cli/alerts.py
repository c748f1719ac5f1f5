"""`hearth alerts`: the alerts service, the rules, and what people do with alerts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import typer

from gateway.cli.database import database_url
from gateway.cli.tables import show
from gateway.errors import UsageError
from gateway.platform.audit import audit_shown, command_actor
from gateway.platform.postgres import Connection, connect_blocking
from gateway.platform.secret_files import secret, secret_path
from gateway.platform.settings import load_settings
from gateway.platform.webhook_hosts import webhook_hosts
from ingest.alerts import desk
from ingest.alerts.app import AlertsConfig
from ingest.alerts.app import run as run_service
from ingest.alerts.reconcile import State
from ingest.alerts.rules import change_rule, rules_in_force

app = typer.Typer(
    help="告警 / alerts. Hearth supports clinicians; it is no diagnostic device.",
    no_args_is_help=True,
    epilog="例 / examples:\n\nhearth alerts run\n\nhearth alerts list\n\n"
    "hearth alerts acknowledge ALERT --note '已电话联系 / called'\n\n"
    "hearth alerts set-rule fever --parameter body_temperature_celsius=38.0\n\n"
    "hearth alerts mark RESIDENT weight-gain",
)
webhook_app = typer.Typer(help="网络回调 / webhooks that are told.", no_args_is_help=True)
app.add_typer(webhook_app, name="webhook")

AsJson = Annotated[
    bool, typer.Option("--json", help="每行一个 JSON 对象 / one JSON object a line.")
]
Alert = Annotated[UUID, typer.Argument(help="告警编号 / the alert's id.")]
Note = Annotated[str | None, typer.Option(help="备注 / a note.")]
Resident = Annotated[UUID, typer.Argument(help="居民编号 / the resident's id.")]
RuleName = Annotated[str, typer.Argument(help="规则名 / the rule's name.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRule:
    """A rule as a person sees it."""

    name: str
    enabled: bool
    parameters: str
    source: str
    version: str
    changed_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """What a receiver needs: the key with which deliveries are signed lies in a file."""

    webhook_id: int
    key_file: str


@app.command()
def run() -> None:
    """运行告警服务, 直到 SIGTERM; 可有备用 / run the service until SIGTERM; others stand by."""
    settings = load_settings()
    config = AlertsConfig(
        dsn=database_url(settings),
        home=settings.home,
        webhook_hosts=webhook_hosts(settings.webhook_hosts),
        metrics_port=settings.metrics_port,
    )
    asyncio.run(run_service(config))


@app.command("list")
def list_(
    *,
    state: Annotated[
        str,
        typer.Option(help="open, acknowledged, resolved, withdrawn, 或 / or all."),
    ] = "open",
    resident: Annotated[
        UUID | None, typer.Option(help="只列此居民 / only this resident's.")
    ] = None,
    rule: Annotated[str | None, typer.Option(help="只列此规则 / only of this rule.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=desk.LISTED_MAX)] = 50,
    as_json: AsJson = False,
) -> None:
    """列出告警, 新的在前 / list alerts, newest first."""
    if state != "all" and state not in set(State):
        raise typer.BadParameter(f"{state}: all, {', '.join(State)}")
    states = None if state == "all" else [state]
    with _database() as connection:
        found = desk.list_alerts(
            connection, states=states, resident=resident, rule=rule, limit=limit
        )
        audit_shown(connection, "alert.list", (alert.resident for alert in found))
    show(found, as_json=as_json)


@app.command()
def acknowledge(alert: Alert, *, note: Note = None) -> None:
    """确认已看到 / say that somebody has seen it."""
    with _database() as connection:
        desk.settle(connection, alert, State.ACKNOWLEDGED, note=note, by=command_actor())


@app.command()
def resolve(alert: Alert, *, note: Note = None) -> None:
    """结束 / say that nothing more is to be done."""
    with _database() as connection:
        desk.settle(connection, alert, State.RESOLVED, note=note, by=command_actor())


@app.command()
def rules(*, as_json: AsJson = False) -> None:
    """列出规则及来源 / list the rules with their sources."""
    with _database() as connection:
        found = rules_in_force(connection)
    show(
        [
            ListedRule(
                name=each.rule.name,
                enabled=each.enabled,
                parameters=json.dumps(dict(each.rule.parameters)),
                source=each.rule.source,
                version=each.rule.version,
                changed_by=each.changed_by,
            )
            for each in found
        ],
        as_json=as_json,
    )


@app.command("set-rule")
def set_rule(
    rule: RuleName,
    *,
    parameter: Annotated[
        list[str] | None, typer.Option(help="阈值 NAME=NUMBER, 可重复 / a threshold; may repeat.")
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="启用或停用 / whether it holds.")
    ] = None,
) -> None:
    """更改规则, 旧规则保留备查 / change a rule; what held before stays known."""
    with _database() as connection:
        change_rule(
            connection,
            rule,
            parameters=dict(map(_parameter, parameter or [])),
            enabled=enabled,
            by=command_actor(),
        )


@app.command()
def mark(
    resident: Resident,
    rule: RuleName,
    *,
    days: Annotated[
        int | None, typer.Option(min=1, max=365, help="no-readings: 几天 / after how many days.")
    ] = None,
) -> None:
    """为居民启用规则 / let a rule that is not for everybody hold for a resident."""
    with _database() as connection:
        desk.mark(connection, resident, rule, days, command_actor())


@app.command()
def unmark(resident: Resident, rule: RuleName) -> None:
    """取消 / let it no longer hold."""
    with _database() as connection:
        desk.unmark(connection, resident, rule, command_actor())


@app.command()
def revive(
    *,
    webhook: Annotated[int | None, typer.Option(help="只此回调 / only of this webhook.")] = None,
) -> None:
    """重发死信 / try dead letters again."""
    with _database() as connection:
        typer.echo(desk.revive(connection, webhook))


@webhook_app.command("add")
def add_webhook(
    url: Annotated[str, typer.Argument(help="https://…")], *, as_json: AsJson = False
) -> None:
    """登记回调; 打印签名密钥的位置 / tell an address; prints where the signing key lies."""
    settings = load_settings()
    hosts = webhook_hosts(settings.webhook_hosts)
    with _database() as connection:
        number = desk.add_webhook(connection, url, hosts, command_actor())
    name = f"webhook_{number}"
    secret(settings.home, name)
    new = NewWebhook(webhook_id=number, key_file=str(secret_path(settings.home, name)))
    show([new], as_json=as_json)


@webhook_app.command("list")
def list_webhooks(*, as_json: AsJson = False) -> None:
    """列出回调 / list webhooks and how delivery goes."""
    with _database() as connection:
        show(desk.list_webhooks(connection), as_json=as_json)


@webhook_app.command("end")
def end_webhook(webhook: Annotated[int, typer.Argument(help="编号 / its number.")]) -> None:
    """停用回调 / tell it no longer."""
    with _database() as connection:
        desk.end_webhook(connection, webhook, command_actor())


@contextmanager
def _database() -> Iterator[Connection]:
    dsn = database_url(load_settings())
    with connect_blocking(dsn, application="hearth-alerts") as connection:
        yield connection


def _parameter(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError as error:
        raise UsageError(f"参数有误 / {text!r}: NAME=NUMBER") from error
