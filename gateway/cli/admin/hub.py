"""`hearth admin hub`: hubs."""

from __future__ import annotations

import typer

from api import registry
from api.records import NewHub, Registration
from gateway.cli.admin.options import AsJson, HubName, OfHome, OnlyHome, open_archive, register
from gateway.cli.tables import show

app = typer.Typer(help="网关 / hubs.", no_args_is_help=True)


@app.command("add")
def add_hub(hub: HubName, *, home: OfHome, as_json: AsJson = False) -> None:
    """登记一个网关 / enter a hub."""
    new = NewHub(name=registry.canonical_hub(hub), home=home)
    register(Registration(hubs=[new]))
    show([new], as_json=as_json)


@app.command("list")
def list_hubs(*, home: OnlyHome = None, as_json: AsJson = False) -> None:
    """列出网关 / list hubs."""
    with open_archive() as connection:
        show(registry.list_hubs(connection, home=home), as_json=as_json)
