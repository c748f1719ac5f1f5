"""What the groups of `hearth admin` share: options, times, the open database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer

from api import registry
from api.corrections import Author
from api.records import Registration
from gateway.cli.database import database_url
from gateway.errors import UsageError
from gateway.platform.audit import command_actor
from gateway.platform.postgres import Connection, connect_blocking, translated
from gateway.platform.settings import load_settings
from gateway.vital_sign import NO_USER_SLOT

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
Because = Annotated[str, typer.Option("--reason", help="理由, 记入审计 / why; kept in the audit.")]
TIME_HELP = "时间须带时区, 如 2026-05-01T08:00+08:00 / with its offset"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicId:
    """What is known of a new home or resident."""

    id: UUID


def moment_of(text: str | datetime) -> datetime:
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


NOBODY = "nobody"
"""What stands for no resident."""


def resident_or_nobody(text: str) -> UUID | None:
    """Read a resident's id, or `NOBODY`."""
    if text.lower() == NOBODY:
        return None
    try:
        return UUID(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"应为居民编号或 {NOBODY} / a resident's id or {NOBODY}: {text}"
        ) from error


def author(reason: str) -> Author:
    """Return who runs this command, as the audit has them."""
    actor, origin = command_actor()
    return Author(actor=actor, origin=origin, reason=reason)


def register(new: Registration) -> None:
    """Enter all of it or nothing."""
    with open_archive() as connection:
        registry.register(connection, new)


@contextmanager
def open_archive() -> Iterator[Connection]:
    """Open the database for a command; what it does is committed when it ends well."""
    dsn = database_url(load_settings())
    with connect_blocking(dsn, application="hearth-admin") as connection, translated():
        row = connection.execute("SELECT to_regclass('link')").fetchone()
        if row is None or row[0] is None:
            raise UsageError(
                "数据库尚未初始化 / the database has no schema yet: 请运行 / run `hearth db migrate`"
            )
        yield connection
