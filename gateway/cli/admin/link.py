"""`hearth admin link`: who is measured by which slot of a device."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from api import registry
from api.records import Link, Registration, SharedLink
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
from gateway.platform.audit import audit_shown
from gateway.vital_sign import NO_USER_SLOT

app = typer.Typer(
    help="关联: 哪台设备的哪个用户槽位测量哪位居民 / links: who is measured by which slot of a device.",
    no_args_is_help=True,
    epilog="例 / examples:\n\n"
    "hearth admin link add --device C0:26:DA:01:02:03 --slot 1 --resident RESIDENT\n\n"
    "hearth admin link share --device C0:26:DA:04:05:06 --resident RESIDENT --usual 62",
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
        links = registry.list_links(connection, device=device, resident=resident)
        audit_shown(connection, "link.list", (link.resident for link in links))
    show(links, as_json=as_json)


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


@app.command("share")
def share(
    *,
    device: DeviceOption,
    slot: Slot = NO_USER_SLOT,
    resident: ResidentOption,
    usual: Annotated[
        float | None,
        typer.Option(
            help="本人所说的通常值 (如体重 kg), 供开始时归属 / what they say is usual for them (such as "
            "kg), to start from."
        ),
    ] = None,
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
    """登记共用者: 测量按各人历史归属, 不确定的进入待认领 / enter one of those who share a slot.

    Readings there are attributed by the household's own history; unsure ones go to the worklist.
    """
    new = SharedLink(
        device=device,
        user_slot=slot,
        resident=resident,
        starts_at=starts_at or datetime.now(UTC),
        ends_at=ends_at,
        usual=usual,
    )
    with open_archive() as connection:
        registry.register(connection, Registration(shared_links=[new]))
        links = registry.list_shared_links(connection, device=device, resident=resident)
    show([link for link in links if link.user_slot == slot], as_json=as_json)


@app.command("unshare")
def unshare(
    *,
    device: DeviceOption,
    slot: Slot = NO_USER_SLOT,
    resident: ResidentOption,
    at: Annotated[
        datetime | None,
        typer.Option(parser=moment_of, help=f"默认此刻 / default: now; {TIME_HELP}."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """某人不再共用 / a resident no longer shares a slot."""
    with open_archive() as connection:
        left = registry.end_shared_link(connection, device, slot, resident, at or datetime.now(UTC))
    show(left, as_json=as_json)


@app.command("shared")
def list_shared(
    *,
    device: Annotated[
        str | None, typer.Option(help="只列此设备的 / only those of this device.")
    ] = None,
    resident: Annotated[
        UUID | None, typer.Option(help="只列此居民的 / only those of this resident.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """列出谁共用哪台设备 / list who shares which slot."""
    with open_archive() as connection:
        links = registry.list_shared_links(connection, device=device, resident=resident)
        audit_shown(connection, "link.list", (link.resident for link in links))
    show(links, as_json=as_json)
