"""`hearth admin`: homes, hubs, devices, residents, and who is measured by what.

Each group of commands is a module of its name beside this one.
"""

from __future__ import annotations

import typer

from gateway.cli.admin import attribution, device, home, hub, link, resident, worklist

EXAMPLES = """\
例 / examples:

hearth admin home add    登记一个家庭 / enter a home; prints its id

hearth admin hub add 00c0ffee00c0ffee --home HOME

hearth admin device add C0:26:DA:01:02:03 --home HOME --model "Cuff 3"

hearth admin resident add

hearth admin link add --device C0:26:DA:01:02:03 --slot 1 --resident RESIDENT
"""

app = typer.Typer(
    help="登记与关联 / enter homes, hubs, devices, residents, links.",
    epilog=EXAMPLES,
    no_args_is_help=True,
)
for group in (home, hub, resident, device, link, worklist, attribution):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])
