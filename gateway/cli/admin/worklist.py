"""`hearth admin worklist`: readings that nobody is known to be the owner of."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from api import corrections
from gateway.cli.admin.options import (
    AsJson,
    Because,
    OnlyHome,
    author,
    open_archive,
    resident_or_nobody,
)
from gateway.cli.tables import show

EXAMPLES = """\
例 / examples:

hearth admin worklist list --device C0:26:DA:04:05:06

hearth admin worklist claim READING READING --to RESIDENT --reason "asked them"

hearth admin worklist claim READING --to nobody --reason "a visitor"
"""

app = typer.Typer(
    help="待认领 / readings that wait for somebody to say whose they are.",
    no_args_is_help=True,
    epilog=EXAMPLES,
)


@app.command("list")
def list_worklist(
    *,
    device: Annotated[
        str | None, typer.Option(help="只列此设备的 / only those of this device.")
    ] = None,
    home: OnlyHome = None,
    limit: Annotated[int, typer.Option(min=1, max=corrections.WORKLIST_MAX)] = 50,
    as_json: AsJson = False,
) -> None:
    """列出无主的测量, 新的在前, 附各人的可能性 / list them, newest first, with who is how likely."""
    with open_archive() as connection:
        waiting = corrections.list_worklist(
            connection, author=author(""), device=device, home=home, limit=limit
        )
    show(waiting, as_json=as_json)


@app.command("claim")
def claim(
    readings: Annotated[list[str], typer.Argument(help="测量编号 / the readings' ids.")],
    *,
    to: Annotated[
        str,
        typer.Option(help="居民编号, 或 nobody (外人) / a resident's id, or nobody: a stranger."),
    ],
    reason: Because,
    as_json: AsJson = False,
) -> None:
    """认领或改判若干条测量, 模型随之学习 / say whose readings are; the history learns from it.

    Readings that have an owner already can be given to another in the same way.
    """
    resident: UUID | None = resident_or_nobody(to)
    with open_archive() as connection:
        done = corrections.claim(connection, readings, resident, author(reason))
    show([done], as_json=as_json)
