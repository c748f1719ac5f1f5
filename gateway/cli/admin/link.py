"""`hearth admin link`: who is measured by which slot of a device."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from api import registry
from api.records import Link, Registration
from gateway.cli.admin.options import (
    TIME_HELP,
    AsJson,
    DeviceOption,
    ResidentOption,
    Slot,
    moment_of,
    open_archive,
)
from gateway.cli.tables import show
from gateway.vital_sign import NO_USER_SLOT

app = typer.Typer(
    help="关联: 哪台设备的哪个用户槽位测量哪位居民 / links: who is measured by which slot of a device.",
    no_args_is_help=True,
)


@app.command("add")
def add_link(
    *,
    device: DeviceOption,
    slot: Slot = NO_USER_SLOT,
    resident: ResidentOption,
    starts_at: Annotated[
        datetime | None,
        typer.Option("--from", parser=moment_of, help=f"默认此刻 / default: now; {TIME_HELP}."),
    ] = None,
    ends_at: Annotated[
        datetime | None,
        typer.Option("--to", parser=moment_of, help=f"默认无限期 / default: open; {TIME_HELP}."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """关联一位居民 / link a resident to a slot of a device."""
    new = Link(
        device=device,
        user_slot=slot,
        resident=resident,
        starts_at=starts_at or datetime.now(UTC),
        ends_at=ends_at,
    )
    with open_archive() as connection:
        registry.register(connection, Registration(links=[new]))
        links = registry.list_links(connection, device=device, resident=resident)
    show([link for link in links if link.user_slot == slot], as_json=as_json)


@app.command("list")
def list_links(
    *,
    device: Annotated[
        str | None, typer.Option(help="只列此设备的 / only those of this device.")
    ] = None,
    resident: Annotated[
        UUID | None, typer.Option(help="只列此居民的 / only those of this resident.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """列出关联, 含已结束的 / list links, past ones too."""
    with open_archive() as connection:
        show(registry.list_links(connection, device=device, resident=resident), as_json=as_json)


@app.command("end")
def end_link(
    *,
    device: DeviceOption,
    slot: Slot = NO_USER_SLOT,
    at: Annotated[
        datetime | None,
        typer.Option(parser=moment_of, help=f"默认此刻 / default: now; {TIME_HELP}."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """结束关联; 已入库的测量不变 / end a link; measurements that are stored stay as they are."""
    with open_archive() as connection:
        ended = registry.end_link(connection, device, slot, at or datetime.now(UTC))
    show([ended], as_json=as_json)
