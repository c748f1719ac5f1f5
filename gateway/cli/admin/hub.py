"""`hearth admin hub`: hubs."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from api import registry
from api.records import NewHub, Registration
from gateway.cli.admin.options import (
    TIME_HELP,
    AsJson,
    HubName,
    OfHome,
    OnlyHome,
    moment_of,
    open_archive,
    register,
)
from gateway.cli.admin.resend import ask_to_resend
from gateway.cli.tables import show
from gateway.errors import UsageError
from gateway.platform.audit import AuditEvent, command_actor, write_audit_blocking
from gateway.platform.embedded.services import find_services
from gateway.platform.settings import load_settings

OneHub = Annotated[
    str | None, typer.Argument(metavar="HUB", help="16 位十六进制编号 / 16 hexadecimal digits.")
]

app = typer.Typer(help="网关 / hubs.", no_args_is_help=True)


@app.command("add")
def add_hub(hub: HubName, *, home: OfHome, as_json: AsJson = False) -> None:
    """登记一个网关 / enter a hub."""
    new = NewHub(name=registry.canonical_hub(hub), home=home)
    register(Registration(hubs=[new]))
    show([new], as_json=as_json)


@app.command(
    "resend",
    epilog="例 / examples:\n\nhearth admin hub resend 00c0ffee00c0ffee --since 2026-11-20T02:00+08:00\n\n"
    "hearth admin hub resend --all --since 2026-11-20T02:00+08:00",
)
def resend(
    hub: OneHub = None,
    *,
    since: Annotated[
        str, typer.Option(metavar="TIME", help=f"从何时起 / from when on; {TIME_HELP}.")
    ],
    every: Annotated[bool, typer.Option("--all", help="全部网关 / every hub.")] = False,
    why: Annotated[
        str, typer.Option(help="理由, 记入审计 / why; kept for the audit.")
    ] = "the store was restored to an older state",
) -> None:
    """请网关重发某时以后已有回执的批次 / ask for batches that had their receipt since a time.

    For a store that was restored to an older state. What it still has is taken for a redelivery. A hub
    that is away is asked when it comes back; hubs keep such batches for [outbox] keep_receipted_days.
    """
    moment = moment_of(since)
    with open_archive() as connection:
        known = [entry.name for entry in registry.list_hubs(connection)]
        if (hub is None) != every:
            raise UsageError("请指定一个网关或 --all / name one hub, or --all")
        wanted = known if hub is None else [registry.canonical_hub(hub)]
        if missing := sorted(set(wanted) - set(known)):
            raise UsageError(f"没有这个网关 / there is no hub {missing[0]}")
        actor, origin = command_actor()
        event = AuditEvent(
            actor=actor,
            action="hub.resend",
            reason=why,
            origin=origin,
            detail={"hubs": wanted if hub else "all", "since": moment.isoformat()},
        )
        write_audit_blocking(connection, [event])
        # Inside the transaction: what was not asked for is not audited, and the other way round.
        asyncio.run(ask_to_resend(find_services(load_settings()).mqtt, wanted, moment))
    typer.echo(f"已请求 / asked: {len(wanted)}", err=True)


@app.command("list")
def list_hubs(*, home: OnlyHome = None, as_json: AsJson = False) -> None:
    """列出网关 / list hubs."""
    with open_archive() as connection:
        show(registry.list_hubs(connection, home=home), as_json=as_json)
