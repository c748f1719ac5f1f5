"""`hearth admin client`: applications that people sign in to with the built-in issuer."""

from __future__ import annotations

from typing import Annotated

import typer

from api import accounts
from api.accounts import Client
from gateway.cli.admin.options import AsJson, open_archive
from gateway.cli.tables import show

app = typer.Typer(
    help="应用 / applications that people sign in to.",
    no_args_is_help=True,
    epilog="例 / example:\n\nhearth admin client add growth-chart --redirect https://app.example/done",
)


@app.command("add")
def add_client(
    client: Annotated[str, typer.Argument(help="应用编号 / the client's id.")],
    *,
    redirect: Annotated[
        list[str],
        typer.Option(help="返回地址, 精确匹配, 可重复 / where it may be sent back to; may repeat."),
    ],
    as_json: AsJson = False,
) -> None:
    """登记应用, 可更改返回地址 / enter a client, or change where it may be sent back to."""
    new = Client(client=client, redirect_uris=redirect)
    with open_archive() as connection:
        accounts.add_client(connection, new)
    show([new], as_json=as_json)


@app.command("list")
def list_clients(*, as_json: AsJson = False) -> None:
    """列出应用 / list clients."""
    with open_archive() as connection:
        show(accounts.list_clients(connection), as_json=as_json)
