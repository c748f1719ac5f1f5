"""`hearth bench NAME`: one measurement against a limit or a peer, in the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.alerts import bench_alerts
from bench.api import bench_api
from bench.attribution import bench_attribution
from bench.audit import bench_audit
from bench.backpressure import bench_backpressure
from bench.fhir import bench_fhir
from bench.flood import bench_flood
from bench.ingest import bench_ingest
from bench.links import bench_links
from bench.live import bench_live
from bench.reassign import bench_reassign
from bench.result import Result
from gateway.errors import UsageError
from gateway.platform.embedded.packages import ensure_packages
from gateway.platform.embedded.services import start_services
from gateway.platform.settings import load_settings

ON_DATABASE: dict[str, Callable[..., list[Result]]] = {
    "alerts": bench_alerts,
    "api": bench_api,
    "attribution": bench_attribution,
    "audit": bench_audit,
    "fhir": bench_fhir,
    "ingest": bench_ingest,
    "links": bench_links,
    "live": bench_live,
    "reassign": bench_reassign,
}
"""They measure in a database of their own on the server that they are given."""
ON_SERVICES: dict[str, Callable[..., list[Result]]] = {"flood": bench_flood}
"""They need database and broker."""
BY_THEMSELVES: dict[str, Callable[..., list[Result]]] = {"backpressure": bench_backpressure}
"""They bring all their parts themselves, to kill them."""
NAMES = ", ".join((*ON_DATABASE, *ON_SERVICES, *BY_THEMSELVES))

app = typer.Typer(help="测量 / measurements.")


@app.command(epilog="例 / example:\n\nhearth bench ingest --quick --json")
def bench(
    name: Annotated[str, typer.Argument(help=f"测量名 / one of: {NAMES}")],
    *,
    quick: Annotated[bool, typer.Option(help="少几轮 / fewer rounds.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="每行一个对象 / one object a line.")
    ] = False,
) -> None:
    """运行一项测量; 全部达标时退出码为 0 / run one; exit status 0 only if every goal is met."""
    console = Console(stderr=True)
    settings = load_settings()
    if run := BY_THEMSELVES.get(name):
        packages = ensure_packages(settings.home, console.print, settings.debian_mirror)
        results = run(settings.home, packages, quick=quick, progress=console.print)
    elif (run := ON_DATABASE.get(name)) or name in ON_SERVICES:
        with start_services(settings, console.print) as services:
            if run:
                results = run(services.maintenance_url, quick=quick, progress=console.print)
            else:
                results = ON_SERVICES[name](services, quick=quick, progress=console.print)
    else:
        raise UsageError(f"没有这项测量 / no bench {name!r}; known: {NAMES}")
    if as_json:
        for result in results:
            typer.echo(json.dumps(result.as_json()))
    else:
        Console().print(_table(results))
    raise typer.Exit(1 if any(result.met is False for result in results) else 0)


def _table(results: list[Result]) -> Table:
    table = Table()
    for heading in (
        "项目\nname",
        "数值\nvalue",
        "对照\nagainst",
        "比值\nratio",
        "目标\ngoal",
        "达标\nmet",
    ):
        table.add_column(heading)
    for result in results:
        table.add_row(
            result.name,
            f"{result.value:,} {result.unit}",
            f"{result.against}: {result.against_value:,}",
            f"{result.ratio} ± {result.spread / 2:.2f}",
            "" if result.goal is None else str(result.goal),
            {True: "[green]是 / yes[/]", False: "[red]否 / no[/]", None: ""}[result.met],
        )
    return table
