"""`hearth api`: the REST API."""

from __future__ import annotations

from typing import Annotated

import typer
import uvloop

from api.processes import processes_for, run_several
from api.server import ALONE, Share, config_of, run
from gateway.cli.database import api_database_url
from gateway.cli.office import office_of
from gateway.platform.settings import API_PROCESSES_MAX, load_settings

app = typer.Typer()

EXAMPLES = """\
例 / examples:

hearth api    监听本机 8420 端口 / on this machine's port 8420

hearth api --port 0    任意空闲端口 / on any free port; it stands in the log

hearth api --processes 1    只用一个进程 / by one process

curl -H "Authorization: Bearer $(hearth login)" http://127.0.0.1:8420/api/v1/residents
"""


@app.command("api", epilog=EXAMPLES)
def serve(
    host: Annotated[
        str | None, typer.Option(help="监听地址 / the address to listen on [HEARTH_API_HOST].")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="端口, 0 为任意空闲端口 / the port, 0 for any free one [HEARTH_API_PORT].",
            min=0,
            max=65535,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            help="进程数, 0 为每核一个, 至多 4 个 / how many processes, 0: one for each core, at most 4 "
            "[HEARTH_API_PROCESSES].",
            min=0,
            max=API_PROCESSES_MAX,
        ),
    ] = None,
    number: Annotated[int, typer.Option(hidden=True)] = 0,
    listener: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """居民档案的 REST 接口 / the REST API of the residents' archive, until Ctrl-C."""
    settings = load_settings()
    count = processes_for(settings.api_processes if processes is None else processes)
    share = Share(listener=listener, number=number, of=count) if number else ALONE
    dsn = api_database_url(settings)
    office = office_of(settings, dsn)
    config = config_of(settings, dsn, host=host, port=port, office=office, share=share)
    several = not number and count > 1
    uvloop.run(run_several(config.host, config.port, count) if several else run(config))
