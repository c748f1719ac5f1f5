"""`hearth admin resident`: residents."""

from __future__ import annotations

from uuid import uuid4

import typer

from api import registry
from api.records import Registration
from gateway.cli.admin.options import AsJson, NewId, PublicId, open_archive, register
from gateway.cli.tables import show

app = typer.Typer(help="居民 / residents.", no_args_is_help=True)


@app.command("add")
def add_resident(*, resident: NewId = None, as_json: AsJson = False) -> None:
    """登记一位居民 / enter a resident."""
    new = resident or uuid4()
    register(Registration(residents=[new]))
    show([PublicId(id=new)], as_json=as_json)


@app.command("list")
def list_residents(*, as_json: AsJson = False) -> None:
    """列出居民 / list residents."""
    with open_archive() as connection:
        show(registry.list_residents(connection), as_json=as_json)
