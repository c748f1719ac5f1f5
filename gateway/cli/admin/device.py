"""`hearth admin device`: devices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from api import corrections, registry
from api.corrections import Period
from api.records import NewDevice, Registration
from gateway.cli.admin.options import (
    TIME_HELP,
    Address,
    AsJson,
    Because,
    OfHome,
    OnlyHome,
    Slot,
    author,
    moment_of,
    open_archive,
    register,
)
from gateway.cli.tables import show
from gateway.vital_sign import NO_USER_SLOT

NOBODY = "nobody"
EXAMPLES = """\
例 / examples:

hearth admin device reassign C0:26:DA:01:02:03 --to RESIDENT --from 2026-05-01T08:00+08:00 --until 2026-05-08T08:00+08:00 --reason "lent to a neighbour"

hearth admin device reassign C0:26:DA:01:02:03 --to nobody --from 2026-05-01T08:00+08:00 --reason "not known whose"

hearth admin device undo 17 --reason "it was theirs after all"

hearth admin device history C0:26:DA:01:02:03 --as-of 2026-05-02T12:00+08:00
"""

From = Annotated[
    datetime | None, typer.Option("--from", parser=moment_of, help=f"起, 含 / from; {TIME_HELP}.")
]
Until = Annotated[
    datetime | None,
    typer.Option(
        "--until",
        parser=moment_of,
        help=f"止, 不含; 默认无限期 / up to before; default: open; {TIME_HELP}.",
    ),
]

app = typer.Typer(help="设备 / devices.", no_args_is_help=True, epilog=EXAMPLES)


@app.command("add")
def add_device(
    device: Address,
    *,
    home: OfHome,
    model: Annotated[str | None, typer.Option(help="型号 / the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """登记一台设备; 再次登记可更正型号 / enter a device; entering it again corrects the model."""
    new = NewDevice(address=registry.canonical_address(device), home=home, model=model)
    register(Registration(devices=[new]))
    show([new], as_json=as_json)


@app.command("list")
def list_devices(*, home: OnlyHome = None, as_json: AsJson = False) -> None:
    """列出设备 / list devices."""
    with open_archive() as connection:
        show(registry.list_devices(connection, home=home), as_json=as_json)


@app.command("move")
def move_device(device: Address, *, home: OfHome) -> None:
    """把设备迁到另一家庭, 须先结束其关联 / put a device into another home; its links end first."""
    with open_archive() as connection:
        registry.move_device(connection, device, home, datetime.now(UTC))


@app.command("reassign")
def reassign(
    device: Address,
    *,
    slot: Slot = NO_USER_SLOT,
    to: Annotated[
        str, typer.Option(help=f"新的居民编号, 或 {NOBODY} / the new owner's id, or {NOBODY}.")
    ],
    from_at: Annotated[
        datetime, typer.Option("--from", parser=moment_of, help=f"起, 含 / from; {TIME_HELP}.")
    ],
    until_at: Until = None,
    reason: Because,
    as_json: AsJson = False,
) -> None:
    """更正一段时间的归属, 已入库的测量一并更正, 时间不变 / make a period of a slot another resident's.

    The stored readings of the period move too; times and values stay, the old attribution is kept.
    """
    resident = _resident_or_nobody(to)
    period = Period(device=device, user_slot=slot, from_at=from_at, until_at=until_at)
    with open_archive() as connection:
        done = corrections.reassign(connection, period, resident, author(reason))
    show([done], as_json=as_json)


@app.command("undo")
def undo(
    correction: Annotated[int, typer.Argument(help="更正的编号 / the correction's number.")],
    *,
    reason: Because,
    as_json: AsJson = False,
) -> None:
    """撤销一次重新归属 / take a reassignment back: links and readings are whose they were."""
    with open_archive() as connection:
        done = corrections.undo(connection, correction, author(reason))
    show([done], as_json=as_json)


@app.command("corrections")
def list_corrections(
    device: Annotated[
        str | None, typer.Argument(help="只列此设备的 / only those of this device.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """列出更正, 新的在前 / list corrections, the newest first."""
    with open_archive() as connection:
        show(corrections.list_corrections(connection, device=device, limit=limit), as_json=as_json)


@app.command("history")
def history(
    device: Address,
    *,
    slot: Annotated[
        int | None,
        typer.Option(min=0, max=NO_USER_SLOT, help="默认所有槽位 / default: every slot."),
    ] = None,
    from_at: From = None,
    until_at: Until = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            parser=moment_of,
            help=f"当时认为属于谁; 默认列出全部 / as it was thought then; default: all; {TIME_HELP}.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """测量当时被认为属于谁 / whose the readings were thought to be, now and before."""
    period = Period(device=device, user_slot=slot or 0, from_at=from_at, until_at=until_at)
    with open_archive() as connection:
        beliefs = corrections.history(
            connection, period, any_slot=slot is None, as_of=as_of, author=author("")
        )
    show(beliefs, as_json=as_json)


def _resident_or_nobody(text: str) -> UUID | None:
    if text.lower() == NOBODY:
        return None
    try:
        return UUID(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"应为居民编号或 {NOBODY} / --to is a resident's id or {NOBODY}: {text}"
        ) from error
