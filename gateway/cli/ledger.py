"""`hearth ledger`: the proof that nothing is lost and nothing doubled."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from gateway.cli.admin.options import TIME_HELP, moment_of
from gateway.cli.database import database_url
from gateway.platform.settings import load_settings
from ingest.ledger import Ledger, read_ledger

WATCH_S = 1.0
"""How often --watch reads the ledger."""
HUBS_SHOWN_MAX = 40
"""Of more hubs only the sums are shown; --json has them all."""

GAPS_SHOWN_MAX = 20
"""Further gaps are told by --json only."""

app = typer.Typer(help="账本 / the ledger.")


@app.command(epilog="例 / example:\n\nhearth ledger --hub 00c0ffee00c0ffee --json")
def ledger(
    *,
    hub: Annotated[str | None, typer.Option(help="只看一个网关 / one hub only.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help=f"只与表核对此后提交的批次 / compare with the tables only what was committed since; {TIME_HELP}.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option(help="持续刷新 / show it live.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="机器可读 / machine-readable.")] = False,
) -> None:
    """核对账本: 发布 = 入库 + 重复 + 隔离; 成立时退出码为 0.

    Prove the ledger: published = stored + duplicate + quarantined, for each batch and against the
    tables, with no gap in a hub's sequence. Exit status 0 only if it holds.
    """
    dsn = database_url(load_settings())
    if watch:
        _watch(dsn, hub)
        return
    found = read_ledger(dsn, hub=hub, since=None if since is None else moment_of(since))
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        Console().print(table_of(found))
        for gap in found.gaps[:GAPS_SHOWN_MAX]:
            typer.echo(
                f"缺批 / missing: {gap.hub} epoch {gap.epoch} sequence {gap.first}-{gap.last}",
                err=True,
            )
    raise typer.Exit(0 if found.balanced else 1)


def table_of(found: Ledger) -> Table:
    """Return the ledger as a person reads it."""
    verdict = "[green]平 / balanced[/]" if found.balanced else "[red]不平 / NOT balanced[/]"
    table = Table(title=f"账本 / ledger: {verdict}", title_justify="left")
    for heading in ("网关\nhub", "批次\nbatches", "缺批\nmissing", "发布\npublished"):
        table.add_column(heading, justify="right")
    for heading in ("入库\nstored", "重复\nduplicate", "隔离\nquarantined"):
        table.add_column(heading, justify="right")
    terms = ("batches", "missing", "published", "stored", "duplicate", "quarantined")
    if len(found.hubs) <= HUBS_SHOWN_MAX:
        for line in found.hubs:
            table.add_row(line.hub, *(str(getattr(line, term)) for term in terms))
        table.add_section()
    table.add_row("总计 / total", *(str(found.total(term)) for term in terms), style="bold")
    if found.rejected:
        table.caption = f"非批次消息 / messages that were no batch: {found.rejected}"
    return table


def _watch(dsn: str, hub: str | None) -> None:
    with Live(table_of(read_ledger(dsn, hub=hub, prove=False)), auto_refresh=False) as live:
        while True:
            live.update(table_of(read_ledger(dsn, hub=hub, prove=False)), refresh=True)
            time.sleep(WATCH_S)
