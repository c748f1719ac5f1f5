"""`hearth quarantine`: what was kept apart, to look at, replay or discard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.admin.options import TIME_HELP, moment_of
from gateway.cli.database import database_url
from gateway.errors import UsageError
from gateway.measurement import device_address, device_id
from gateway.platform.audit import command_actor
from gateway.platform.postgres import AsyncConnection, connect
from gateway.platform.settings import load_settings
from gateway.vitals import BY_CODE
from ingest import quarantine
from ingest.quarantine import ActedBy, Filter
from ingest.registry import load_registry
from ingest.verdicts import REASONS, Verdict

T = TypeVar("T")

app = typer.Typer(
    help="隔离区 / what was kept apart.",
    no_args_is_help=True,
    epilog="例 / examples:\n\nhearth quarantine list --reason unlinked\n\n"
    "hearth quarantine replay --device C0:26:DA:01:02:03\n\n"
    "hearth quarantine discard --reason implausible --until 2026-11-01T00:00+08:00 --why 'broken cuff'",
)

Reason = Annotated[
    list[str] | None, typer.Option("--reason", help="原因, 可重复 / reason; may repeat.")
]
Device = Annotated[str | None, typer.Option(help="设备地址 / the device's address.")]
Hub = Annotated[str | None, typer.Option(help="网关编号 / the hub's id.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help=f"不早于此时隔离 / kept apart then or later; {TIME_HELP}."),
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="早于此时隔离 / kept apart before then.")
]
Why = Annotated[str | None, typer.Option(help="理由, 记入审计 / why; kept for the audit.")]
Ids = Annotated[list[int] | None, typer.Argument(metavar="ID...", help="编号 / their ids.")]
AsJson = Annotated[bool, typer.Option("--json", help="机器可读 / machine-readable.")]


@app.command("list")
def list_(
    *,
    reason: Reason = None,
    device: Device = None,
    hub: Hub = None,
    since: Since = None,
    until: Until = None,
    state: Annotated[
        str, typer.Option(help="waiting, replayed, discarded 或 / or all.")
    ] = "waiting",
    limit: Annotated[int, typer.Option(min=1, max=quarantine.LIST_ENTRIES_MAX)] = 50,
    as_json: AsJson = False,
) -> None:
    """列出隔离的测量, 新的在前 / list what was kept apart, newest first."""
    which = _filter(reason, device, hub, since, until)
    wanted = None if state == "all" else state
    entries = _run(
        lambda connection: quarantine.list_entries(
            connection, which, _by(None), state=wanted, limit=limit
        )
    )
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(_readable(entry)))
        return
    table = Table(title="隔离区 / quarantine", title_justify="left")
    for heading in ("编号 / id", "时间 / since", "原因 / reason", "设备 / device", "状态 / state"):
        table.add_column(heading)
    for entry in entries:
        readable = _readable(entry)
        words = REASONS[Verdict(entry["reason"])]
        table.add_row(
            str(readable["id"]),
            str(readable["quarantined_at"]),
            f"{words.zh} / {words.en}{readable['detail'] and ': '}{readable['detail'] or ''}",
            str(readable["device"] or ""),
            str(readable["state"]),
        )
    Console().print(table)


@app.command()
def show(quarantine_id: int, *, as_json: AsJson = False) -> None:
    """显示一条及其原始字节 / show one entry with its bytes."""
    entry = _run(lambda connection: quarantine.show_entry(connection, quarantine_id, _by(None)))
    if entry is None:
        raise UsageError(f"没有这一条 / there is no entry {quarantine_id}")
    readable = _readable(entry) | {"content": bytes(entry["content"]).hex()}
    if as_json:
        typer.echo(json.dumps(readable))
        return
    for name, value in readable.items():
        typer.echo(f"{name}: {'' if value is None else value}")


@app.command()
def replay(
    quarantine_ids: Ids = None,
    *,
    reason: Reason = None,
    device: Device = None,
    hub: Hub = None,
    since: Since = None,
    until: Until = None,
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """用现在的登记和解码器重新判断 / judge entries again with the registry and decoders of now.

    What can be stored now is stored at its own time; the rest keeps waiting.
    """
    which = _filter(reason, device, hub, since, until, quarantine_ids)

    async def act(connection: AsyncConnection) -> quarantine.Replayed:
        registry = await load_registry(connection)
        return await quarantine.replay(connection, registry, which, _by(why))

    done = _run(act)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "looked_at": done.looked_at,
                    "stored": done.stored,
                    "duplicate": done.duplicate,
                    "still_waiting": done.still_waiting,
                }
            )
        )
    else:
        typer.echo(
            f"入库 / stored {done.stored}, 重复 / duplicate {done.duplicate}, "
            f"仍隔离 / still waiting {done.still_waiting}"
        )


@app.command()
def discard(
    quarantine_ids: Ids = None,
    *,
    why: Annotated[str, typer.Option(help="理由, 记入审计 / why; kept for the audit.")],
    reason: Reason = None,
    device: Device = None,
    hub: Hub = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """放弃若干条; 字节和账目保留 / give entries up; their bytes and their account stay.

    By their ids or by filters; one act gives up at most a thousand, the oldest first.
    """
    if not any((quarantine_ids, reason, device, hub, since, until)):
        raise UsageError(
            "请给出编号或筛选条件 / name entries or filter them; not everything at once"
        )
    which = _filter(reason, device, hub, since, until, quarantine_ids)
    gone = _run(lambda connection: quarantine.discard(connection, which, _by(why)))
    typer.echo(f"已放弃 / discarded: {len(gone)}", err=True)
    if missing := sorted(set(quarantine_ids or []) - set(gone)):
        raise UsageError(f"不在等待中 / not waiting: {' '.join(map(str, missing))}")


def _by(why: str | None) -> ActedBy:
    actor, origin = command_actor()
    return ActedBy(actor=actor, origin=origin, why=why)


def _filter(
    reason: list[str] | None,
    device: str | None,
    hub: str | None,
    since: str | None,
    until: str | None,
    ids: list[int] | None = None,
) -> Filter:
    try:
        reasons = tuple(Verdict[name.upper()] for name in reason) if reason else None
    except KeyError as error:
        known = ", ".join(verdict.name.lower() for verdict in REASONS)
        raise UsageError(f"未知原因 / unknown reason {error}; known: {known}") from error
    try:
        address = None if device is None else device_id(device)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return Filter(
        reasons=reasons,
        device=address,
        hub=hub,
        ids=tuple(ids) if ids else None,
        since=None if since is None else moment_of(since),
        until=None if until is None else moment_of(until),
    )


def _readable(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with names for its numbers."""
    sign = BY_CODE.get(entry["sign"] or 0)
    verdict = Verdict(entry["reason"])
    place = entry["detail"]
    detail = entry["message"]
    if sign is not None and place is not None and verdict is Verdict.IMPLAUSIBLE:
        detail = sign.quantities[place].name
    elif sign is not None and place is not None and verdict is Verdict.CROSS_FIELD:
        detail = sign.rules[place].name
    device = entry["device"]
    return {
        "id": entry["quarantine_id"],
        "state": entry["state"],
        "reason": verdict.name.lower(),
        "detail": detail,
        "sign": None if sign is None else sign.name,
        "device": None if device is None else device_address(quarantine.unsigned(device)),
        "hub": entry["hub"],
        "measured_at": _iso(entry["measured_at"]),
        "received_at": _iso(entry["received_at"]),
        "quarantined_at": _iso(entry["quarantined_at"]),
        "decoder": entry["decoder"],
        "seen": entry["seen"],
        "bytes": entry["content_bytes"],
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


def _run(act: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    async def run() -> T:
        dsn = database_url(load_settings())
        async with await connect(dsn, application="hearth-quarantine", autocommit=True) as session:
            return await act(session)

    return asyncio.run(run())
