"""`hearth simulate`: simulated devices and homes."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from firmware_sim.homes import Home, described_homes, generate_homes, load_home
from firmware_sim.journal import Journal
from firmware_sim.month import DAYS_MAX
from firmware_sim.scenario import Pace, evenly
from firmware_sim.street import House, run_street
from gateway.cli.month import Plan, run_month
from gateway.cli.month.archive import own_database
from gateway.cli.month.score import Score
from gateway.errors import UsageError
from gateway.platform.embedded.dbus import dbus_daemon, private_bus
from gateway.platform.embedded.packages import find_packages
from gateway.platform.embedded.services import start_services
from gateway.platform.service import run_until_signalled
from gateway.platform.settings import load_settings

app = typer.Typer(
    help="模拟的设备与家庭 / simulated devices and homes.",
    no_args_is_help=True,
)

MONTH_HOMES_MAX = 10_000
"""The truth of a month of so many homes fills about 1 GB."""
HOMES_MAX = 1000
"""One process serves no more homes behind one bus; it would be late with everything."""


@app.callback()
def _group() -> None:
    """模拟的设备与家庭 / simulated devices and homes."""


@app.command("homes")
def homes(
    *,
    count: Annotated[
        int,
        typer.Option("--homes", min=1, max=HOMES_MAX, help="生成几户 / how many homes to generate"),
    ] = 1,
    described: Annotated[
        list[str] | None,
        typer.Option(
            "--home",
            help=f"改用描述好的家庭 (名称或 TOML 文件), 可多次 / described homes instead, by name "
            f"({', '.join(described_homes())}) or TOML file; may be given several times",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="同样的种子, 同样的家庭 / same seed, same homes")
    ] = 1,
    readings_per_s: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1000,
            help="所有设备合计每秒读数; 不给则按真实节奏 / readings a second of all devices "
            "together; without it, the pace of real life",
        ),
    ] = None,
    wait_for_hubs: Annotated[
        bool,
        typer.Option(
            "--wait-for-hubs",
            help="网关开始监听后才开始生活 / a home comes to life only when its hub listens",
        ),
    ] = False,
    journal: Annotated[
        Path | None, typer.Option(help="真值日志 / write the ground truth here, as JSON lines")
    ] = None,
    bus_file: Annotated[
        Path | None, typer.Option(help="写入总线地址 / write the message bus's address here")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="机器可读 / machine-readable, one object when ready")
    ] = False,
) -> None:
    """家庭及其设备, 置于模拟的 BlueZ 之后, 直到 SIGTERM / homes behind a simulated BlueZ, until SIGTERM.

    例 / example: hearth simulate homes --homes 3 --readings-per-s 1
    """
    street = _street(count, described or [], seed)
    pace = Pace() if readings_per_s is None else evenly(street, readings_per_s)
    settings = load_settings()
    program = dbus_daemon(find_packages(settings.home))
    log = settings.home / "log" / "dbus.log"
    with private_bus(program, log) as address, Journal(journal) as truth:

        async def live() -> None:
            async with run_street(
                street, bus_address=address, journal=truth, pace=pace, wait_for_hubs=wait_for_hubs
            ) as houses:
                if bus_file is not None:
                    bus_file.write_text(f"{address}\n", encoding="utf-8")
                typer.echo(_ready_json(address, houses) if as_json else _ready(address, houses))
                await asyncio.Event().wait()  # until cancelled

        def start(tasks: asyncio.TaskGroup) -> None:
            tasks.create_task(live())

        asyncio.run(run_until_signalled(start))


@app.command("month")
def month(
    *,
    count: Annotated[
        int, typer.Option("--homes", min=1, max=MONTH_HOMES_MAX, help="几户 / how many homes")
    ] = 1000,
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="几天 / how many days")] = 30,
    seed: Annotated[
        int, typer.Option(min=0, help="同样的种子, 同样的一个月 / same seed, same month")
    ] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="机器可读 / machine-readable, one object")
    ] = False,
) -> None:
    """已知真相的一个月, 压缩时间: 时间与归属的评分 / a month of homes with known truth, compressed in time.

    退出码为 0 当且仅当全部达标 / exit status 0 only if every goal is met: nothing lost or doubled, no
    reading filed to a wrong resident (at most 0.5 % of shared scales'), times that claim to be right
    within 60 s (99 %).

    例 / example: hearth simulate month --homes 50 --days 7
    """
    console = Console(stderr=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    plan = Plan(homes=count, days=days, seed=seed)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        start_services(load_settings(), console.print) as services,
        own_database(services.maintenance_url) as dsn,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("户日 / home-days", total=count * days)
        done = asyncio.run(run_month(dsn, plan, lambda n: progress.update(task, completed=n)))
    if as_json:
        typer.echo(json.dumps(done.as_json()))
    else:
        Console().print(_score_table(done))
    raise typer.Exit(0 if done.met else 1)


def _score_table(done: Score) -> Table:
    """Return the score for a person: what, how much, and what it should be."""
    table = Table(title=f"{done.homes} 户 / homes, {done.days} 天 / days", title_justify="left")
    for heading in ("项目\nwhat", "结果\nresult", "目标\ngoal"):
        table.add_column(heading)
    claimed, shared, others = done.time_error_s, done.shared_scales, done.others
    rows = [
        ("读数 / readings taken", f"{done.taken:,}", ""),
        ("网关收到 / received by a hub", f"{done.received:,}", ""),
        ("入库 / stored", f"{done.stored:,}", ""),
        *((f"隔离 / held: {reason}", f"{n:,}", "") for reason, n in done.held.items()),
        ("丢失 / lost", f"{done.lost:,}", "0"),
        ("重复 / doubled", f"{done.doubled:,}", "0"),
        (
            "归属错误, 共用秤 / wrong, shared scales",
            f"{shared.wrong:,} / {shared.readings:,} (待认领 / unassigned {shared.unassigned:,})",
            "<= 0.5 %",
        ),
        ("归属错误, 其他 / wrong, others", f"{others.wrong:,} / {others.readings:,}", "0"),
        (
            "时间误差 / time error, p50 p99 max",
            f"{claimed.p50} s  {claimed.p99} s  {claimed.max} s",
            "p99 <= 60 s",
        ),
        ("用时 / took", f"{done.seconds} s", ""),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _street(count: int, described: list[str], seed: int) -> tuple[Home, ...]:
    if not described:
        return generate_homes(count, seed)
    if len(described) > HOMES_MAX:
        raise UsageError(f"家庭过多 / too many homes: {len(described)} > {HOMES_MAX}")
    return tuple(load_home(name, index, seed) for index, name in enumerate(described))


def _ready(address: str, houses: tuple[House, ...]) -> str:
    lines = [f"总线 / bus: DBUS_SYSTEM_BUS_ADDRESS={address}"]
    for house in houses:
        names = ", ".join(device.model.name for device in house.home.devices)
        lines.append(f"{house.adapter.name}: 网关 / hub {house.home.hub}: {names}")
    return "\n".join(lines)


def _ready_json(address: str, houses: tuple[House, ...]) -> str:
    described = [
        {
            "adapter": house.adapter.name,
            "hub": house.home.hub,
            "devices": [device.address for device in house.home.devices],
        }
        for house in houses
    ]
    return json.dumps({"bus": address, "homes": described})
