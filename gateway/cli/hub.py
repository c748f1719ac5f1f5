"""`hearth hub`: the agent on a real hub."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from edge.app import run as run_hubs
from edge.config import HubConfig, load_config
from edge.outbox import Tally
from edge.status import Status, read_status
from gateway.platform.settings import load_settings

app = typer.Typer(
    help="家庭网关 / the hub: reads the home's devices and sends what they say.",
    no_args_is_help=True,
)

_TALLIES = {
    Tally.KEPT: "累计测量",
    Tally.UNDECODED: "累计无法解码",
    Tally.REFUSED: "已满而拒收",
    Tally.DROPPED: "已满而丢弃",
    Tally.BATCHES_SEALED: "累计封批",
    Tally.BATCHES_RECEIPTED: "累计回执批次",
    Tally.STORED: "已入库",
    Tally.DUPLICATE: "重复",
    Tally.QUARANTINED: "已隔离",
    Tally.RECEIPTS_MISCOUNTED: "回执数目不符",
}

Configs = Annotated[
    list[Path],
    typer.Option(
        "--config",
        help="hub.toml, 可多次给出 / may be given several times, one hub each "
        "(deploy/hub.toml is an annotated example)",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="机器可读 / machine-readable, one object.")]


@app.command("run")
def run(config: Configs) -> None:
    """运行网关, 直到 SIGTERM 或 SIGINT / run until SIGTERM or SIGINT.

    例 / example: hearth hub run --config /etc/hearth/hub.toml
    """
    asyncio.run(run_hubs(_load(config), metrics_port=load_settings().metrics_port))


@app.command("status")
def status(config: Configs, *, as_json: AsJson = False) -> None:
    """查看发件箱, 网关可在运行 / show what the outbox holds; the hub may be running.

    例 / example: hearth hub status --config /etc/hearth/hub.toml
    """
    found = [read_status(c.hub_id, c.outbox_path) for c in _load(config)]
    if as_json:
        typer.echo(json.dumps({"hubs": [entry.as_json() for entry in found]}))
    else:
        typer.echo("\n\n".join(map(_in_words, found)))


def _load(paths: list[Path]) -> list[HubConfig]:
    return [load_config(path) for path in paths]


def _in_words(status: Status) -> str:
    rows = [
        ("网关", "hub", status.hub),
        ("编号期", "epoch", status.epoch),
        ("下一批次号", "next batch", status.next_sequence),
        ("待封批", "not yet in a batch", status.depth.entries),
        ("待回执批次", "batches without a receipt", status.depth.batches),
        ("待回执测量", "measurements in them", status.depth.records),
        ("等待网关对时", "wait until the hub knows the time", status.undated),
        ("隔离的损坏文件", "damaged files set aside", status.files_set_aside),
        *((_TALLIES[tally], tally.value, count) for tally, count in status.tallies.items()),
    ]
    return "\n".join(f"{zh} / {en}: {value}" for zh, en, value in rows)
