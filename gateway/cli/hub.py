"""`hearth hub`: the agent on a real hub."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from edge.app import run as run_hubs
from edge.config import HubConfig, load_config, place_of, write_config
from edge.enrolment import Enrolled, EnrolmentRefusedError, enrol, post_to
from edge.outbox import Tally
from edge.status import Status, read_status
from gateway import wire
from gateway.errors import DataError, UsageError
from gateway.platform.enrolment import Code
from gateway.platform.settings import load_settings

CLOCK_DISAGREEMENT_MAX = timedelta(minutes=1)
"""A clock that is further from the server's is told to the person."""

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
    Tally.BATCHES_RESENT: "按请求重发批次",
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


@app.command(
    "enrol",
    epilog="例 / examples:\n\nhearth hub enrol CODE --config hub.toml\n\n"
    "hearth hub enrol CODE --config /etc/hearth/hub.toml --data-dir /var/lib/hearth",
)
def enrol_hub(
    code: Annotated[
        str,
        typer.Argument(
            help="`hearth admin hub enrol` 给出的登记码 / the code of `hearth admin hub enrol`."
        ),
    ],
    *,
    config: Annotated[
        Path, typer.Option(help="hub.toml, 没有则新建 / hub.toml; made if it is not there.")
    ] = Path("hub.toml"),
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="密钥和发件箱的目录 / the folder of key and outbox; default: that of hub.toml, "
            "else HEARTH_HOME/hub."
        ),
    ] = None,
    timezone: Annotated[
        str, typer.Option(help="家庭所在时区 / the home's time zone, for a new hub.toml.")
    ] = "Asia/Shanghai",
) -> None:
    """用一次性登记码领取证书 / get this hub's certificate with a one-time code.

    The key is made here and never leaves. The certificate renews itself. May be repeated with a new
    code.
    """
    try:
        read = Code.from_text(code)
    except DataError as error:
        raise UsageError(
            f"登记码有误 / this is no code: {error}: 请完整复制 / copy the whole of it"
        ) from error
    place = place_of(config, data_dir or load_settings().home / "hub", wire.hub_name(read.hub))
    try:
        enrolled = enrol(read, place.identity, post_to(read.url))
    except EnrolmentRefusedError as error:
        raise UsageError(
            "登记码未被接受: 无效、已使用、已过期或尝试过多 / the code is not accepted: it is unknown, was "
            "used, has expired or was tried too often: 请重新生成 / make a new one: "
            f"`hearth admin hub enrol {wire.hub_name(read.hub)}`"
        ) from error
    if place.is_new:
        write_config(
            config,
            hub=wire.hub_name(read.hub),
            timezone=timezone,
            data_dir=place.data_dir,
            broker=enrolled.broker,
            api=read.url,
        )
    until = enrolled.identity.hub.certificate.not_valid_after_utc
    typer.echo(
        f"已登记 / enrolled: {wire.hub_name(read.hub)}, 证书自动续期 / its certificate, which renews "
        f"itself, is good until {until.isoformat(timespec='seconds')}\n"
        f"启动 / to start: hearth hub run --config {config}"
    )
    _tell_of_clock(enrolled)


@app.command("status")
def status(config: Configs, *, as_json: AsJson = False) -> None:
    """查看发件箱, 网关可在运行 / show what the outbox holds; the hub may be running.

    例 / example: hearth hub status --config /etc/hearth/hub.toml
    """
    found = [read_status(c.hub_id, c.outbox_path, c.identity) for c in _load(config)]
    if as_json:
        typer.echo(json.dumps({"hubs": [entry.as_json() for entry in found]}))
    else:
        typer.echo("\n\n".join(map(_in_words, found)))


def _tell_of_clock(enrolled: Enrolled) -> None:
    behind = enrolled.at - datetime.now(UTC)
    if abs(behind) > CLOCK_DISAGREEMENT_MAX:
        typer.echo(
            f"本机时钟不准 / this machine's clock is wrong: 服务器时间 / the server says "
            f"{enrolled.at.isoformat(timespec='seconds')}: 请同步时钟, 测量时间依赖于它 / set it, since "
            "times of measurement depend on it (timedatectl set-ntp true)",
            err=True,
        )


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
        ("证书有效至", "certificate good until", status.certificate_until or "-"),
        ("上次续期失败", "last failed renewal", status.renewal_failure or "-"),
        *((_TALLIES[tally], tally.value, count) for tally, count in status.tallies.items()),
    ]
    return "\n".join(f"{zh} / {en}: {value}" for zh, en, value in rows)
