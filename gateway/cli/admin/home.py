"""`hearth admin home`: homes."""

from __future__ import annotations

from uuid import uuid4

import typer

from api import registry
from api.records import Registration
from gateway.cli.admin.options import AsJson, NewId, PublicId, open_archive, register
from gateway.cli.tables import show

app = typer.Typer(help="家庭 / homes.", no_args_is_help=True)


@app.command("add")
def add_home(*, home: NewId = None, as_json: AsJson = False) -> None:
    """登记一个家庭 / enter a home."""
    new = home or uuid4()
    register(Registration(homes=[new]))
    show([PublicId(id=new)], as_json=as_json)


@app.command("list")
def list_homes(*, as_json: AsJson = False) -> None:
    """列出家庭 / list homes."""
    with open_archive() as connection:
        show(registry.list_homes(connection), as_json=as_json)
