"""`hearth bench NAME`: one measurement against a limit or a peer, in the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.attribution import bench_attribution
from bench.ingest import bench_ingest
from bench.links import bench_links
from bench.reassign import bench_reassign
from bench.result import Result
from gateway.errors import UsageError
from gateway.platform.embedded.services import start_services
from gateway.platform.settings import load_settings

BENCHES: dict[str, Callable[..., list[Result]]] = {
    "attribution": bench_attribution,
    "ingest": bench_ingest,
    "links": bench_links,
    "reassign": bench_reassign,
}

app = typer.Typer(help="测量 / measurements.")


@app.command(epilog="例 / example:\n\nhearth bench ingest --quick --json")
def bench(
    name: Annotated[str, typer.Argument(help=f"测量名 / one of: {', '.join(BENCHES)}")],
    *,
    quick: Annotated[bool, typer.Option(help="少几轮 / fewer rounds.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="每行一个对象 / one object a line.")
    ] = False,
) -> None:
    """运行一项测量; 全部达标时退出码为 0 / run one; exit status 0 only if every goal is met."""
    run = BENCHES.get(name)
    if run is None:
        raise UsageError(f"没有这项测量 / no bench {name!r}; known: {', '.join(BENCHES)}")
    console = Console(stderr=True)
    with start_services(load_settings(), console.print) as services:
        results = run(services.maintenance_url, quick=quick, progress=console.print)
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
