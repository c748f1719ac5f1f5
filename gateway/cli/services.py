"""`hearth services`: the embedded database and broker, on their own."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from gateway.cli.stages import say
from gateway.errors import UnavailableError
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.packages import ensure_packages, find_packages
from gateway.platform.embedded.server import Server
from gateway.platform.embedded.services import embedded_servers, start_services
from gateway.platform.logs import get_logger
from gateway.platform.settings import LOOPBACK, load_settings
from gateway.platform.supervisor import Supervisor

RENEWAL_CHECK_S = 6 * 3600.0
"""How often `run` looks whether a certificate of the broker or of ingest is due."""
CHECK_S = 1.0
"""How often `run` looks whether its servers still run."""

log = get_logger(__name__)
app = typer.Typer(
    help="自带的数据库与消息代理 / the embedded database and broker.", no_args_is_help=True
)


@app.command()
def prepare() -> None:
    """下载并解包数据库与消息代理 / fetch and unpack what the servers need; quick when it is there."""
    settings = load_settings()
    packages = ensure_packages(settings.home, say, settings.debian_mirror)
    say(f"已就绪 / ready: {packages.root}")


@app.command()
def run() -> None:
    """启动并保持运行, 直到 Ctrl-C / start them and keep them running until Ctrl-C."""
    with start_services(load_settings(), say) as services:
        servers = [server for server in (services.database, services.broker) if server]
        for server in servers:
            say(f"{server.title}: {LOOPBACK}:{server.port}")
        say("运行中, 按 Ctrl-C 停止 / running, Ctrl-C to stop")
        _wait_for_stop(servers, services.broker)


@app.command()
def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="机器可读 / machine-readable.")] = False,
) -> None:
    """显示是否运行; 全部运行时退出码为 0 / tell whether they run; exit status 0 only if all do."""
    settings = load_settings()
    packages = find_packages(settings.home)
    if packages is None:
        raise UnavailableError("尚未准备 / not prepared yet: `hearth services prepare`")
    servers = [server for server in embedded_servers(settings, lambda: packages) if server]
    for server in servers:
        pid = server.pid
        port = None if pid is None else server.port
        if as_json:
            typer.echo(json.dumps({"service": server.name, "pid": pid, "port": port}))
        else:
            state = "未运行 / stopped" if pid is None else f"运行中 / runs: {LOOPBACK}:{port}"
            typer.echo(f"{server.title}: {state}")
    raise typer.Exit(0 if all(server.pid for server in servers) else 1)


def _wait_for_stop(servers: Sequence[Server], broker: Broker | None) -> None:
    """Keep them running, and their certificates good; one that ends again and again ends the command."""
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    supervisor = Supervisor(servers)
    renew_at_s = time.monotonic() + RENEWAL_CHECK_S
    while signal.sigtimedwait(stop, CHECK_S) is None:
        now_s = time.monotonic()
        supervisor.look(now_s)
        if broker is not None and now_s >= renew_at_s:
            renew_at_s = now_s + RENEWAL_CHECK_S
            _renew(broker)


def _renew(broker: Broker) -> None:
    try:
        broker.renew()
    except UnavailableError as error:
        # It is starting again, say; four months are left when this begins.
        log.warning("broker_certificates_not_renewed", why=str(error))
