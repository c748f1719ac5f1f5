"""`hearth chaos`: everything is killed at random under load; exit 0 only if nothing is lost."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from dataclasses import asdict
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.chaos.conductor import Summary, Wish, conduct
from bench.chaos.disks import enter_namespace
from bench.chaos.faults import Kind
from bench.fuzz import fuzz_store
from gateway.errors import UsageError
from gateway.platform.embedded.packages import ensure_packages
from gateway.platform.embedded.services import start_services
from gateway.platform.file_lock import FileLock
from gateway.platform.settings import load_settings

SEED_MAX = 1 << 31

app = typer.Typer(help="混沌试验 / everything dies at random, nothing is lost.")


@app.command(
    epilog="例 / examples:\n\nhearth chaos --rounds 3\n\nhearth chaos --rounds 100 --seed 7 --json\n\n"
    "hearth chaos --payloads 10000000 --json\n\n"
    "hearth chaos --rounds 5 --only broker_killed --only hubs_disk_full",
)
def chaos(
    *,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="几轮 / how many rounds.")] = 10,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=SEED_MAX, help="同样的种子, 同样的故障 / same seed, same faults."),
    ] = None,
    hubs: Annotated[int, typer.Option(min=1, max=200, help="模拟网关数 / simulated hubs.")] = 12,
    readings_per_s: Annotated[
        float, typer.Option(min=1, max=5_000, help="每秒读数 / readings a second, all hubs.")
    ] = 250.0,
    only: Annotated[
        list[Kind] | None,
        typer.Option(help="只要这些故障, 可重复 / only these faults; may repeat."),
    ] = None,
    payloads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="改为把这么多变异报文送过接收路径 / send so many mutated payloads through the ingest path "
            "instead.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="机器可读: 结束时一个对象 / one object at the end.")
    ] = False,
) -> None:
    """在负载下随机杀死每个部分, 断网, 填满磁盘, 拨回时钟; 不丢不重时退出码为 0.

    Under load, at random: kill -9 and restart every part, cut, delay and throttle the networks, fill
    disks, set clocks back, duplicate and reorder messages. At the end every reading that a hub took
    is looked for. Exit status 0 only if none is lost, doubled or altered. About 8 seconds a round.
    """
    if payloads is not None:
        _fuzz(payloads, secrets.randbelow(SEED_MAX) if seed is None else seed, as_json=as_json)
    # Before any thread begins: a mount namespace of our own, for disks that can be filled.
    enter_namespace([sys.executable, "-m", "gateway.cli.main", *sys.argv[1:]])
    settings = load_settings()
    console = Console(stderr=True)
    packages = ensure_packages(settings.home, console.print, settings.debian_mirror)
    lock = FileLock(settings.home / "chaos.lock")
    if not lock.try_acquire():
        raise UsageError("已有一次混沌试验在运行 / another `hearth chaos` runs in this HEARTH_HOME")
    wish = Wish(
        rounds=rounds,
        seed=secrets.randbelow(SEED_MAX) if seed is None else seed,
        hubs=hubs,
        readings_per_s=readings_per_s,
        kinds=tuple(only) if only else tuple(Kind),
    )
    logs = settings.home / "log" / "chaos"
    with Progress(
        TextColumn("混沌 / chaos"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
    ) as bar:
        task = bar.add_task("", total=rounds)
        summary = asyncio.run(
            conduct(
                wish,
                settings.home / "chaos",
                packages,
                lambda done, what: bar.update(task, completed=done, description=what),
                logs,
            )
        )
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        Console().print(_table(summary))
    if not summary.holds:
        console.print(f"日志 / logs: {logs}; --seed {summary.seed}", highlight=False)
    raise typer.Exit(0 if summary.holds else 1)


def _fuzz(payloads: int, seed: int, *, as_json: bool) -> NoReturn:
    """Run the mutated payloads and leave with the verdict."""
    console = Console(stderr=True)
    with (
        start_services(load_settings(), console.print) as services,
        Progress(console=console) as bar,
    ):
        task = bar.add_task("变异报文 / mutated payloads", total=payloads)
        outcome = fuzz_store(
            services.maintenance_url, payloads, seed, lambda done: bar.update(task, completed=done)
        )
    if as_json:
        typer.echo(json.dumps({"seed": seed} | outcome.as_json()))
    else:
        Console().print({"seed": seed} | outcome.as_json())
    raise typer.Exit(0 if outcome.holds else 1)


def _table(summary: Summary) -> Table:
    verdict = "[green]成立 / holds[/]" if summary.holds else "[red]不成立 / does NOT hold[/]"
    table = Table(title=f"混沌 / chaos, --seed {summary.seed}: {verdict}", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for zh, en, value in (
        ("网关已收", "kept by hubs", summary.kept),
        ("丢失", "lost", summary.lost),
        ("重复入库", "doubled", summary.doubled),
        ("改动", "altered", summary.altered),
        ("凭空出现", "invented", summary.invented),
        ("账目不符", "disagreements", len(summary.disagreements)),
        ("重复送达", "duplicates refused", summary.duplicates),
        ("重放", "replayed", summary.replayed),
        ("仍隔离", "in quarantine", summary.quarantined),
    ):
        table.add_row(f"{zh} / {en}", f"{value:,}")
    drained = "否 / no" if summary.drained_s is None else f"{summary.drained_s} s"
    table.add_row("排空 / drained", drained)
    table.add_section()
    for kind, count in summary.faults.items():
        table.add_row(kind, str(count))
    return table
