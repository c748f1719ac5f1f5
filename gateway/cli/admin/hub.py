"""`hearth admin hub`: hubs, how they come to be trusted, and how they cease to be."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

import segno
import typer

from api import gateways, registry
from api.enrolment import make_code, revoke_hub
from api.records import NewHub, Registration
from gateway.cli.admin.options import (
    TIME_HELP,
    AsJson,
    HubName,
    OfHome,
    OnlyHome,
    moment_of,
    open_archive,
    register,
)
from gateway.cli.admin.resend import ask_to_resend
from gateway.cli.office import hub_api_url
from gateway.cli.stages import say
from gateway.cli.tables import show
from gateway.errors import UsageError
from gateway.platform import ca
from gateway.platform.audit import audit_command
from gateway.platform.embedded.packages import find_packages
from gateway.platform.embedded.services import embedded_broker, find_services
from gateway.platform.enrolment import CODE_LIFETIME
from gateway.platform.secret_files import secret_path
from gateway.platform.settings import Settings, load_settings

OneHub = Annotated[
    str | None, typer.Argument(metavar="HUB", help="16 位十六进制编号 / 16 hexadecimal digits.")
]

app = typer.Typer(help="网关 / hubs.", no_args_is_help=True)

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_DURATION = re.compile(r"(?P<count>[0-9]{1,4})(?P<unit>[mhd])")
_PNG_SCALE = 4


@app.command("add")
def add_hub(hub: HubName, *, home: OfHome, as_json: AsJson = False) -> None:
    """登记一个网关 / enter a hub."""
    new = NewHub(name=registry.canonical_hub(hub), home=home)
    register(Registration(hubs=[new]))
    show([new], as_json=as_json)


@app.command(
    "stand-in",
    epilog="例 / example:\n\nhearth admin hub add 00000000000000f1 --home HOME\n\n"
    "hearth admin hub stand-in 00000000000000f1 --for hospital",
)
def stand_in(
    hub: HubName,
    *,
    service: Annotated[
        str, typer.Option("--for", help="服务账户的用户名 / the login of a service's account.")
    ],
) -> None:
    """让网关代表一个服务: 它经 FHIR 写入的观察归此家庭 / let a hub stand for a service.

    What the service creates through FHIR of devices in the hub's home comes in as this hub's batches.
    The hub is a new one that no box has (hearth admin hub add); one for each home.
    """
    with open_archive() as connection:
        gateways.stand_in(connection, hub, service)


@app.command(
    "resend",
    epilog="例 / examples:\n\nhearth admin hub resend 00c0ffee00c0ffee --since 2026-11-20T02:00+08:00\n\n"
    "hearth admin hub resend --all --since 2026-11-20T02:00+08:00",
)
def resend(
    hub: OneHub = None,
    *,
    since: Annotated[
        str, typer.Option(metavar="TIME", help=f"从何时起 / from when on; {TIME_HELP}.")
    ],
    every: Annotated[bool, typer.Option("--all", help="全部网关 / every hub.")] = False,
    why: Annotated[
        str, typer.Option(help="理由, 记入审计 / why; kept for the audit.")
    ] = "the store was restored to an older state",
) -> None:
    """请网关重发某时以后已有回执的批次 / ask for batches that had their receipt since a time.

    For a store that was restored to an older state. What it still has is taken for a redelivery. A hub
    that is away is asked when it comes back; hubs keep such batches for [outbox] keep_receipted_days.
    """
    moment = moment_of(since)
    with open_archive() as connection:
        known = [entry.name for entry in registry.list_hubs(connection)]
        if (hub is None) != every:
            raise UsageError("请指定一个网关或 --all / name one hub, or --all")
        wanted = known if hub is None else [registry.canonical_hub(hub)]
        if missing := sorted(set(wanted) - set(known)):
            raise UsageError(f"没有这个网关 / there is no hub {missing[0]}")
        audit_command(
            connection,
            "hub.resend",
            reason=why,
            detail={"hubs": wanted if hub else "all", "since": moment.isoformat()},
        )
        # Inside the transaction: what was not asked for is not audited, and the other way round.
        asyncio.run(ask_to_resend(find_services(load_settings()).mqtt, wanted, moment))
    typer.echo(f"已请求 / asked: {len(wanted)}", err=True)


@app.command("list")
def list_hubs(*, home: OnlyHome = None, as_json: AsJson = False) -> None:
    """列出网关 / list hubs."""
    with open_archive() as connection:
        show(registry.list_hubs(connection, home=home), as_json=as_json)


@app.command(
    "enrol",
    epilog="例 / examples:\n\nhearth admin hub enrol 00c0ffee00c0ffee --home HOME\n\n"
    "hearth admin hub enrol 00c0ffee00c0ffee --png code.png --valid 2h",
)
def enrol_hub(
    hub: HubName,
    *,
    home: Annotated[
        UUID | None,
        typer.Option(help="所属家庭, 新网关必填 / the home it is in; a new hub needs it."),
    ] = None,
    valid: Annotated[
        str, typer.Option(help="登记码有效期 / how long the code is good: 30m, 24h, 7d.")
    ] = f"{CODE_LIFETIME // timedelta(hours=1)}h",
    png: Annotated[
        Path | None, typer.Option(help="另存二维码图片 / write the QR code to this PNG too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """生成一次性登记码 / make a one-time code by which a hub gets its certificate.

    On the hub: `hearth hub enrol CODE`. A newer code replaces an older one; a revoked hub that uses a
    new code is admitted again.
    """
    settings = load_settings()
    with open_archive() as connection:
        made = make_code(
            connection,
            settings.home,
            hub,
            of_home=home,
            url=hub_api_url(settings),
            lifetime=_duration(valid),
        )
    qr = segno.make(made.code.text, error="m")
    if png is not None:
        qr.save(str(png), scale=_PNG_SCALE)
    expires_at = made.expires_at.isoformat(timespec="seconds")
    if as_json:
        document = {
            "hub": registry.canonical_hub(hub),
            "code": made.code.text,
            "expires_at": expires_at,
        }
        typer.echo(json.dumps(document))
        return
    qr.terminal(compact=True)
    typer.echo(made.code.text)
    say(
        f"一次性登记码, 有效至 / a one-time code, good until {expires_at}\n"
        "在网关上运行 / on the hub run: hearth hub enrol CODE"
    )


@app.command("revoke", epilog="例 / example:\n\nhearth admin hub revoke 00c0ffee00c0ffee")
def revoke(hub: HubName) -> None:
    """吊销网关: 立即断开并拒绝 / revoke a hub: it is cut off at once and kept out.

    What it sends is kept apart from now on, and it gets no further certificate. May be repeated.
    """
    settings = load_settings()
    name = registry.canonical_hub(hub)
    with open_archive() as connection:
        serials = revoke_hub(connection, name)
    _keep_out(settings, name, serials)


def _keep_out(settings: Settings, hub: str, serials: set[int]) -> None:
    packages = find_packages(settings.home)
    if settings.mqtt_url is not None or packages is None:
        ca.revoke(settings.home, serials)
        say(
            f"已吊销, 请让自备的消息代理采用吊销列表并断开该客户端 / revoked; let your own broker take "
            f"{secret_path(settings.home, 'ca/revoked.pem')} and disconnect client {hub} "
            "(docs/hub-identity.md)"
        )
        return
    broker = embedded_broker(settings, packages)
    broker.revoke(hub, serials=serials)
    say(
        f"已吊销 / revoked: {hub}"
        if broker.pid
        else f"已吊销 / revoked: {hub}; 消息代理未运行, 启动时生效 / the broker does not run and will "
        "know when it starts"
    )


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(
            f"有效期有误 / --valid takes a number and m, h or d, such as 24h: {text!r}"
        )
    return int(match["count"]) * _UNITS[match["unit"]]
