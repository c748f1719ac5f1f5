"""`hearth audit`: who did what to whose data, and the proof that nothing of it was changed."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from gateway.cli.admin.options import TIME_HELP, AsJson, moment_of, open_archive
from gateway.cli.tables import show
from gateway.errors import UsageError
from gateway.platform.audit import KEPT_DAYS_MIN, Notary, audit_command, audit_shown, list_audit
from gateway.platform.settings import load_settings

LIMIT_DEFAULT = 100
EXAMPLES = """\
例 / examples:

hearth audit verify    有改动或删除时退出码为 1 / exit status 1 where a row was changed or removed

hearth audit list --resident RESIDENT

hearth audit anchor    由定时任务运行 / for a timer; `hearth api` does it every 5 minutes, too
"""

app = typer.Typer(help="审计 / who did what to whose data.", no_args_is_help=True, epilog=EXAMPLES)


@app.command("verify", epilog=EXAMPLES)
def verify(*, as_json: AsJson = False) -> None:
    """验证全部审计记录; 指出第一条被改动或删除的 / verify all; names the first row changed or removed."""
    with open_archive() as connection:
        verified = Notary(load_settings().home).verify(connection)
    if as_json:
        typer.echo(json.dumps(asdict(verified)))
    elif verified.damage:
        for damage in verified.damage:
            typer.echo(f"已损坏 / damaged: {damage}", err=True)
    else:
        typer.echo(
            f"完好 / whole: {verified.rows:,} 条记录 / rows, {verified.anchors:,} 个锚 / anchors, "
            f"{verified.unwitnessed:,} 条尚无见证 / rows not witnessed yet",
            err=True,
        )
    raise typer.Exit(1 if verified.damage else 0)


@app.command("list")
def list_entries(
    *,
    resident: Annotated[
        UUID | None, typer.Option(help="只列涉及此居民的 / only those on this resident's data.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="最多条数 / at most so many.")] = LIMIT_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """列出谁做了什么, 最新在前 / list who did what, the latest first."""
    with open_archive() as connection:
        entries = list_audit(
            connection, resident=None if resident is None else str(resident), limit=limit
        )
        audit_shown(connection, "audit.list", None if resident is None else [resident])
    show(entries, as_json=as_json)


@app.command("anchor")
def anchor() -> None:
    """锚定各链的末端 / anchor the chains' heads, in the database and in HEARTH_HOME/audit."""
    with open_archive() as connection:
        moved = Notary(load_settings().home).anchor(connection)
    typer.echo(f"已锚定的链 / chains anchored: {moved}", err=True)


@app.command("prune")
def prune(
    *,
    before: Annotated[
        datetime | None,
        typer.Option(
            parser=moment_of, help=f"默认六个月前 / default: six months ago; {TIME_HELP}."
        ),
    ] = None,
) -> None:
    """删除已锚定的旧记录; 至少保留六个月 / remove old, anchored segments; six months stay."""
    latest = datetime.now(UTC) - timedelta(days=KEPT_DAYS_MIN)
    if before is not None and before > latest:
        raise UsageError(
            f"至少保留六个月 / six months are kept: nothing after {latest.isoformat()} may go"
        )
    with open_archive() as connection:
        removed = Notary(load_settings().home).prune(connection, before or latest)
        audit_command(connection, "audit.prune", detail={"rows": removed})
    typer.echo(f"已删除 / removed: {removed:,}", err=True)
