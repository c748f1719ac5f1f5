"""`hearth simulate`: simulated devices and homes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from firmware_sim.homes import Home, described_homes, generate_homes, load_home
from firmware_sim.journal import Journal
from firmware_sim.scenario import Pace, evenly
from firmware_sim.street import House, run_street
from gateway.errors import UsageError
from gateway.platform.embedded.dbus import dbus_daemon, private_bus
from gateway.platform.embedded.packages import find_packages
from gateway.platform.service import run_until_signalled
from gateway.platform.settings import load_settings

app = typer.Typer(
    help="模拟的设备与家庭 / simulated devices and homes.",
    no_args_is_help=True,
)

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
