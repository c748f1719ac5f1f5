"""`hearth admin device`: devices."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from api import corrections, registry
from api.corrections import Period
from api.records import NewDevice, Registration
from gateway.cli.admin.options import (
    NOBODY,
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
    resident_or_nobody,
)
from gateway.cli.database import database_url
from gateway.cli.tables import show
from gateway.errors import UsageError
from gateway.measurement import device_id
from gateway.platform.audit import AuditEvent, command_actor
from gateway.platform.postgres import connect
from gateway.platform.settings import load_settings
from gateway.vital_sign import NO_USER_SLOT
from ingest.registry import load_registry
from ingest.retime import Anchor, By, Choice, LaterFacts, Retimed, Slow, retime

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
    resident = resident_or_nobody(to)
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


@app.command("retime")
def retime_device(  # noqa: PLR0913 - an option each
    device: Address,
    *,
    slow_by_s: Annotated[
        float | None,
        typer.Option(
            "--slow-by",
            help="设备时钟慢了多少秒, 快则为负 / the device's clock was slow by so many seconds; "
            "negative: fast",
        ),
    ] = None,
    record: Annotated[
        int | None,
        typer.Option(
            help="隔离编号: 已知其测量时间的一条 / a record's number in the quarantine, with --measured-at"
        ),
    ] = None,
    measured_at: Annotated[
        str | None, typer.Option(help=f"该记录的测量时间 / when it was measured; {TIME_HELP}")
    ] = None,
    later_facts: Annotated[
        bool,
        typer.Option(
            "--by-later-readings",
            help="由之后的读数推定 / by what later readings told of the device's clock",
        ),
    ] = False,
    from_time: Annotated[
        datetime | None,
        typer.Option("--from", help="设备自己的时间, 起 / from, in the device's own time"),
    ] = None,
    to_time: Annotated[
        datetime | None,
        typer.Option("--to", help="设备自己的时间, 止 (不含) / to, exclusive, in its own time"),
    ] = None,
    zone: Annotated[
        str, typer.Option(help="设备所示当地时间的时区 / the zone whose time its clock was to show")
    ] = "Asia/Shanghai",
    why: Annotated[str | None, typer.Option(help="理由, 记入审计 / why; for the audit")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="只看结果, 不改动 / only tell what it would do")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """为无法定时的记录补定时间 / give records that wait in quarantine for a time their time.

    例 / examples:

    hearth admin device retime C0:26:DA:01:02:03 --by-later-readings

    hearth admin device retime C0:26:DA:01:02:03 --record 17 --measured-at 2026-05-01T08:00+08:00

    hearth admin device retime C0:26:DA:01:02:03 --slow-by 3600 --from 2026-05-01 --to 2026-05-08
    """
    by = _by(slow_by_s, record, measured_at, zone, later_facts=later_facts)
    address = device_id(registry.canonical_address(device))
    choice = Choice(device=address, from_time=from_time, to_time=to_time)
    actor, origin = command_actor()
    event = AuditEvent(actor=actor, action="device.retime", reason=why, origin=origin)
    done = asyncio.run(_retime(choice, by, event, dry_run=dry_run))
    if as_json:
        typer.echo(json.dumps(asdict(done) | {"dry_run": dry_run}))
        return
    words = "将会 / would be: " if dry_run else ""
    typer.echo(
        f"{words}选中 / chosen {done.chosen}, 入库 / stored {done.replayed.stored}, "
        f"重复 / duplicate {done.replayed.duplicate}, "
        f"仍隔离 / still waiting {done.replayed.still_waiting}, "
        f"仍无时间 / still without a time {done.unplaced}"
    )


def _by(
    slow_by_s: float | None,
    record: int | None,
    measured_at: str | None,
    zone: str,
    *,
    later_facts: bool,
) -> By:
    """Return what tells the time; exactly one way must be given."""
    ways: list[By] = []
    if slow_by_s is not None:
        try:
            ways.append(Slow(by=timedelta(seconds=slow_by_s), zone=ZoneInfo(zone)))
        except (ZoneInfoNotFoundError, ValueError, OverflowError) as error:
            raise UsageError(f"时区或秒数有误 / no time zone, or too long: {error}") from error
    if record is not None and measured_at is not None:
        ways.append(Anchor(quarantine_id=record, measured_at=moment_of(measured_at)))
    elif record is not None or measured_at is not None:
        raise UsageError("--record 与 --measured-at 须同时给出 / go together")
    if later_facts:
        ways.append(LaterFacts())
    if len(ways) != 1:
        raise UsageError(
            "请给出一种定时方式 / give one way to tell the time: --slow-by, --record with "
            "--measured-at, or --by-later-readings"
        )
    return ways[0]


async def _retime(choice: Choice, by: By, event: AuditEvent, *, dry_run: bool) -> Retimed:
    dsn = database_url(load_settings())
    async with await connect(dsn, application="hearth-admin", autocommit=True) as connection:
        now_linked = await load_registry(connection)
        return await retime(connection, now_linked, choice, by, event=event, dry_run=dry_run)
