"""`hearth admin`: homes, hubs, devices, residents, and who is measured by what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

import typer

from api import registry
from api.records import Link, NewDevice, NewHub, Registration
from gateway.cli.database import database_url
from gateway.cli.tables import show
from gateway.errors import UsageError
from gateway.platform.postgres import Connection, connect_blocking, translated
from gateway.platform.settings import load_settings
from gateway.vital_sign import NO_USER_SLOT

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
home_app = typer.Typer(help="家庭 / homes.", no_args_is_help=True)
hub_app = typer.Typer(help="网关 / hubs.", no_args_is_help=True)
resident_app = typer.Typer(help="居民 / residents.", no_args_is_help=True)
device_app = typer.Typer(help="设备 / devices.", no_args_is_help=True)
link_app = typer.Typer(
    help="关联: 哪台设备的哪个用户槽位测量哪位居民 / links: who is measured by which slot of a device.",
    no_args_is_help=True,
)
for name, group in (
    ("home", home_app),
    ("hub", hub_app),
    ("resident", resident_app),
    ("device", device_app),
    ("link", link_app),
):
    app.add_typer(group, name=name)


def _moment(text: str | datetime) -> datetime:
    """Read a time with its offset; typer hands a default over as it is."""
    if isinstance(text, datetime):
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise typer.BadParameter(
            f"时间需带时区 / a time needs its offset, such as 2026-05-01T08:00+08:00: {text}"
        )
    return moment


AsJson = Annotated[
    bool, typer.Option("--json", help="每行一个 JSON 对象 / one JSON object a line.")
]
NewId = Annotated[
    UUID | None,
    typer.Option("--id", help="公开编号, 默认新生成 / the public id; default: a new one."),
]
OfHome = Annotated[UUID, typer.Option("--home", help="所属家庭 / the home it is in.")]
OnlyHome = Annotated[
    UUID | None, typer.Option("--home", help="只列此家庭的 / only those of this home.")
]
HubName = Annotated[str, typer.Argument(help="16 位十六进制编号 / 16 hexadecimal digits.")]
Address = Annotated[str, typer.Argument(help="蓝牙地址 / the Bluetooth address.")]
DeviceOption = Annotated[str, typer.Option("--device", help="蓝牙地址 / the Bluetooth address.")]
Slot = Annotated[
    int,
    typer.Option(
        "--slot",
        min=0,
        max=NO_USER_SLOT,
        help="用户槽位; 255: 读数不区分用户 / the user slot; 255: readings that name none.",
    ),
]
ResidentOption = Annotated[UUID, typer.Option("--resident", help="居民编号 / the resident's id.")]
TIME_HELP = "时间须带时区, 如 2026-05-01T08:00+08:00 / with its offset"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicId:
    """What is known of a new home or resident."""

    id: UUID


@home_app.command("add")
def add_home(*, home: NewId = None, as_json: AsJson = False) -> None:
    """登记一个家庭 / enter a home."""
    new = home or uuid4()
    _register(Registration(homes=[new]))
    show([PublicId(id=new)], as_json=as_json)


@home_app.command("list")
def list_homes(*, as_json: AsJson = False) -> None:
    """列出家庭 / list homes."""
    with _archive() as connection:
        show(registry.list_homes(connection), as_json=as_json)


@resident_app.command("add")
def add_resident(*, resident: NewId = None, as_json: AsJson = False) -> None:
    """登记一位居民 / enter a resident."""
    new = resident or uuid4()
    _register(Registration(residents=[new]))
    show([PublicId(id=new)], as_json=as_json)


@resident_app.command("list")
def list_residents(*, as_json: AsJson = False) -> None:
    """列出居民 / list residents."""
    with _archive() as connection:
        show(registry.list_residents(connection), as_json=as_json)


@hub_app.command("add")
def add_hub(hub: HubName, *, home: OfHome, as_json: AsJson = False) -> None:
    """登记一个网关 / enter a hub."""
    new = NewHub(name=registry.canonical_hub(hub), home=home)
    _register(Registration(hubs=[new]))
    show([new], as_json=as_json)


@hub_app.command("list")
def list_hubs(*, home: OnlyHome = None, as_json: AsJson = False) -> None:
    """列出网关 / list hubs."""
    with _archive() as connection:
        show(registry.list_hubs(connection, home=home), as_json=as_json)


@device_app.command("add")
def add_device(
    device: Address,
    *,
    home: OfHome,
    model: Annotated[str | None, typer.Option(help="型号 / the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """登记一台设备; 再次登记可更正型号 / enter a device; entering it again corrects the model."""
    new = NewDevice(address=registry.canonical_address(device), home=home, model=model)
    _register(Registration(devices=[new]))
    show([new], as_json=as_json)


@device_app.command("list")
def list_devices(*, home: OnlyHome = None, as_json: AsJson = False) -> None:
    """列出设备 / list devices."""
    with _archive() as connection:
        show(registry.list_devices(connection, home=home), as_json=as_json)


@device_app.command("move")
def move_device(device: Address, *, home: OfHome) -> None:
    """把设备迁到另一家庭, 须先结束其关联 / put a device into another home; its links end first."""
    with _archive() as connection:
        registry.move_device(connection, device, home, datetime.now(UTC))


@link_app.command("add")
def add_link(
    *,
    device: DeviceOption,
    slot: Slot = NO_USER_SLOT,
    resident: ResidentOption,
    starts_at: Annotated[
        datetime | None,
        typer.Option("--from", parser=_moment, help=f"默认此刻 / default: now; {TIME_HELP}."),
    ] = None,
    ends_at: Annotated[
        datetime | None,
        typer.Option("--to", parser=_moment, help=f"默认无限期 / default: open; {TIME_HELP}."),
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
    with _archive() as connection:
        registry.register(connection, Registration(links=[new]))
        links = registry.list_links(connection, device=device, resident=resident)
    show([link for link in links if link.user_slot == slot], as_json=as_json)


@link_app.command("list")
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
    with _archive() as connection:
        show(registry.list_links(connection, device=device, resident=resident), as_json=as_json)


@link_app.command("end")
def end_link(
    *,
    device: DeviceOption,
    slot: Slot = NO_USER_SLOT,
    at: Annotated[
        datetime | None,
        typer.Option(parser=_moment, help=f"默认此刻 / default: now; {TIME_HELP}."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """结束关联; 已入库的测量不变 / end a link; measurements that are stored stay as they are."""
    with _archive() as connection:
        ended = registry.end_link(connection, device, slot, at or datetime.now(UTC))
    show([ended], as_json=as_json)


def _register(new: Registration) -> None:
    with _archive() as connection:
        registry.register(connection, new)


@contextmanager
def _archive() -> Iterator[Connection]:
    """Open the database for a command; what it does is committed when it ends well."""
    dsn = database_url(load_settings())
    with connect_blocking(dsn, application="hearth-admin") as connection, translated():
        row = connection.execute("SELECT to_regclass('link')").fetchone()
        if row is None or row[0] is None:
            raise UsageError(
                "数据库尚未初始化 / the database has no schema yet: 请运行 / run `hearth db migrate`"
            )
        yield connection
