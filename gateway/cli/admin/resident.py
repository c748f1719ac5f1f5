"""`hearth admin resident`: residents, one or millions."""

from __future__ import annotations

import asyncio
import csv
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid4

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from api import registry
from api.erasure import erase
from api.records import Registration
from api.resident_file import export_resident
from api.resident_import import Counts, Rejected, import_residents
from api.resident_keys import rewrap_keys
from api.resident_merge import Moved, merge, unmerge
from api.vault import IdentityVault, add_master_key, open_vault
from gateway.cli.admin.options import AsJson, NewId, PublicId, open_archive, register
from gateway.cli.database import database_url
from gateway.cli.tables import show
from gateway.platform.audit import audit_command, audit_shown
from gateway.platform.postgres import Connection, connect
from gateway.platform.settings import load_settings

EXAMPLES = """\
例 / examples:

hearth admin resident import residents.csv --rejected rejected.csv

hearth admin resident merge KEPT DOUBLE --reason "entered twice"

hearth admin resident export RESIDENT copy.zip

hearth admin resident erase RESIDENT --reason "asked for on 2026-11-25"
"""

app = typer.Typer(help="居民 / residents.", epilog=EXAMPLES, no_args_is_help=True)

_PRIVATE = 0o600
"""What is written of a resident, only its owner can read."""

Reason = Annotated[
    str,
    typer.Option(help="原因, 记入审计; 勿写姓名或号码 / why, for the audit; no names or numbers."),
]
Yes = Annotated[bool, typer.Option("--yes", help="不再询问 / do not ask.")]


@app.command("add")
def add_resident(*, resident: NewId = None, as_json: AsJson = False) -> None:
    """登记一位居民 / enter a resident."""
    new = resident or uuid4()
    register(Registration(residents=[new]))
    show([PublicId(id=new)], as_json=as_json)


@app.command("list")
def list_residents(*, as_json: AsJson = False) -> None:
    """列出居民 / list residents."""
    with open_archive() as connection:
        residents = registry.list_residents(connection)
        audit_shown(connection, "resident.list")
    show(residents, as_json=as_json)


@app.command(
    "import",
    epilog="例 / example:\n\nhearth admin resident import residents.csv --rejected rejected.csv\n\n"
    "首行 / first line: 姓名,身份证号,健康卡号,出生日期,性别,机构,团队,身高,目标:systolic_mmhg",
)
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, readable=True, help="CSV (UTF-8, GB 18030), 首行为列名."
        ),
    ],
    *,
    rejected: Annotated[
        Path | None,
        typer.Option(
            help="被拒行的报告: 行号与原因, 不含内容 / the report of rejected lines; default: FILE.rejected.csv."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """导入居民, 可重复运行; 有被拒行时退出码为 1 / enter residents; the same file again changes nothing."""
    vault = open_vault(load_settings().home)
    report = rejected or file.with_name(f"{file.name}.rejected.csv")
    with open_archive() as connection, file.open("rb") as source:
        _autocommit(connection)
        with report.open("w", encoding="utf-8", newline="") as sink, _progress() as progress:
            lines = csv.writer(sink)
            lines.writerow(("line", "column", "why"))
            task = progress.add_task("导入 / importing", total=file.stat().st_size, lines=0)

            def reject(fault: Rejected) -> None:
                lines.writerow((fault.line, fault.column, fault.why))

            def advance(counts: Counts, bytes_read: int) -> None:
                progress.update(task, completed=bytes_read, lines=counts.lines)

            today = datetime.now(UTC).date()
            counts = import_residents(connection, vault, source, today, reject, advance)
    if as_json:
        typer.echo(json.dumps(asdict(counts)))
    else:
        typer.echo(
            f"共 / lines {counts.lines}: 新增 / entered {counts.entered}, 更新 / changed "
            f"{counts.changed}, 未变 / unchanged {counts.unchanged}, 被拒 / rejected {counts.rejected}"
        )
    if counts.rejected:
        typer.echo(f"被拒的行见 / the rejected lines are in {report}", err=True)
        raise typer.Exit(1)
    report.unlink()


@app.command("merge")
def merge_entries(
    kept: Annotated[UUID, typer.Argument(help="保留的条目 / the entry that stays.")],
    double: Annotated[UUID, typer.Argument(help="重复的条目 / the double entry.")],
    *,
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """合并重复条目, 可撤销 / make a double entry's links and readings the other's; can be undone."""
    with open_archive() as connection:
        _tell(merge(connection, kept, double, reason), as_json=as_json)


@app.command("unmerge")
def unmerge_entries(
    double: Annotated[UUID, typer.Argument(help="重复的条目 / the entry that was merged.")],
    *,
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """撤销合并, 恢复原状 / undo a merge; links and readings are as they were."""
    with open_archive() as connection:
        _tell(unmerge(connection, double, reason), as_json=as_json)


@app.command("export")
def export_file(
    resident: Annotated[UUID, typer.Argument(help="居民编号 / the resident's id.")],
    file: Annotated[
        Path, typer.Argument(dir_okay=False, help="输出文件 / where to write: FILE.zip.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """导出居民的全部数据 (JSON, CSV) / write all that is kept of a resident into one archive file."""
    settings = load_settings()
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        count = asyncio.run(
            _export(database_url(settings), open_vault(settings.home), resident, unfinished)
        )
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    if as_json:
        typer.echo(json.dumps({"file": str(file), "measurements": count}))
    else:
        typer.echo(f"{file}: {count} 条测量 / measurements")


async def _export(dsn: str, vault: IdentityVault, resident: UUID, file: Path) -> int:
    async with await connect(dsn, application="hearth-admin", autocommit=True) as connection:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
        with os.fdopen(descriptor, "wb") as sink:
            return await export_resident(connection, vault, resident, sink)


@app.command("erase")
def erase_resident(
    resident: Annotated[UUID, typer.Argument(help="居民编号 / the resident's id.")],
    *,
    reason: Reason,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """销毁密钥并删除数据, 不可恢复 / destroy the resident's key and data; cannot be undone."""
    if not yes:
        typer.confirm("不可恢复, 继续? / this cannot be undone. Go on?", abort=True, err=True)
    with open_archive() as connection:
        erased = erase(connection, resident, reason)
    if as_json:
        typer.echo(json.dumps(asdict(erased)))
    else:
        typer.echo(
            f"已删除 / erased: {erased.entries} 个条目 / entries, {erased.measurements} 条测量 / "
            "measurements; 备份中的密钥见 / keys in backups: docs/archive.md"
        )


@app.command("rotate-key")
def rotate_key(*, as_json: AsJson = False) -> None:
    """换用新的主密钥 / make a new master key and wrap every resident's key with it."""
    vault = add_master_key(load_settings().home)
    with open_archive() as connection, _progress() as progress:
        _autocommit(connection)
        task = progress.add_task("重新封装 / wrapping", total=None, lines=0)
        wrapped = rewrap_keys(
            connection, vault, lambda done: progress.update(task, completed=done, lines=done)
        )
        told = {"key_id": vault.key_id, "wrapped": wrapped}
        audit_command(connection, "archive_key.rotate", detail=told)
    if as_json:
        typer.echo(json.dumps(told))
    else:
        typer.echo(
            f"主密钥 / master key {vault.key_id}: {wrapped}; 请备份 / back up HEARTH_HOME/secrets"
        )


def _tell(moved: Moved, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(moved), default=str))
    else:
        typer.echo(
            f"关联 / links {moved.links}, 测量 / measurements {moved.measurements} -> {moved.resident}"
        )


def _autocommit(connection: Connection) -> None:
    connection.commit()
    connection.autocommit = True


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[lines]:,}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
