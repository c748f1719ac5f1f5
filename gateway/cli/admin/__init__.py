"""`hearth admin`: homes, hubs, devices, residents, who is measured by what, and who may see it.

Each group of commands is a module of its name beside this one.
"""

from __future__ import annotations

import typer

from gateway.cli.admin import (
    attribution,
    careteam,
    client,
    device,
    home,
    hub,
    link,
    resident,
    user,
    worklist,
)

EXAMPLES = """\
例 / examples:

hearth admin home add    登记一个家庭 / enter a home; prints its id

hearth admin hub add 00c0ffee00c0ffee --home HOME

hearth admin device add C0:26:DA:01:02:03 --home HOME --model "Cuff 3"

hearth admin resident add

hearth admin link add --device C0:26:DA:01:02:03 --slot 1 --resident RESIDENT

hearth admin user add wang.li --role clinician    打印密码和二维码 / prints a password and a QR code

hearth admin careteam join "Wuxing clinic 1" --user wang.li
"""

app = typer.Typer(
    help="登记, 关联, 账户与团队 / enter homes, hubs, devices, residents, links, accounts, care teams.",
    epilog=EXAMPLES,
    no_args_is_help=True,
)
for group in (home, hub, resident, device, link, user, careteam, client, worklist, attribution):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])
app.add_typer(resident.app, name="residents", hidden=True)
