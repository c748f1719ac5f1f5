"""`hearth db`: the schema and its migrations."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from gateway.cli.database import admit_api, database_url
from gateway.errors import UsageError
from gateway.platform.embedded.packages import find_packages
from gateway.platform.embedded.services import find_services
from gateway.platform.postgres import dsn_parts
from gateway.platform.secret_backup import back_up_secrets, restore_secrets
from gateway.platform.settings import Settings, load_settings
from ingest import backup as backups
from ingest import migrations

app = typer.Typer(
    help="数据库结构 / the schema and its migrations.",
    no_args_is_help=True,
    epilog="例 / examples:\n\nhearth db migrate\n\nhearth db backup /srv/backup/2026-11-25",
)

_PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help="口令所在文件的首行; 否则询问 / the first line of this file; else it is asked for."
    ),
]


@app.command()
def migrate() -> None:
    """把数据库升级到当前版本; 可重复运行 / bring the schema up to date; safe to run again."""
    applied = migrations.migrate(_dsn())
    for migration in applied:
        typer.echo(f"{migration.version:04d} {migration.title}", err=True)
    if not applied:
        typer.echo("已是最新 / up to date", err=True)


@app.command()
def status() -> None:
    """列出未应用的迁移; 没有时退出码为 0 / list what is not applied; exit status 0 when nothing is."""
    pending = migrations.pending(_dsn())
    for migration in pending:
        typer.echo(f"{migration.version:04d} {migration.title}")
    raise typer.Exit(1 if pending else 0)


@app.command()
def grant() -> None:
    """让接口以自己的角色登录数据库 / let the API's own role, hearth_api, log in; safe to run again."""
    admit_api(load_settings())
    typer.echo("完成 / done: `hearth api` 可用 / connects as hearth_api", err=True)


@app.command(epilog="例 / example:\n\nhearth db backup /srv/backup/2026-11-25")
def backup(folder: Annotated[Path, typer.Argument(help="新目录 / a new folder.")]) -> None:
    """备份整个数据库, 服务可继续运行 / back the whole store up; services may run meanwhile.

    The folder holds pg_dump's archive and backup.json. It contains residents' data: keep it as safe as
    the database itself. The residents' keys are not in it: `hearth db backup-keys`.
    """
    settings = load_settings()
    with _progress() as progress:
        facts = backups.backup(database_url(settings), folder, _tools(settings), progress)
    typer.echo(
        f"完成 / done: {folder}, {facts.stored:,} 条测量 / measurements; 不含居民密钥与服务密钥 / without "
        "the residents' keys and the secrets: hearth db backup-keys, hearth db backup-secrets",
        err=True,
    )


@app.command(
    "backup-secrets", epilog="例 / example:\n\nhearth db backup-secrets /safe/hearth-secrets"
)
def backup_secrets(
    file: Annotated[Path, typer.Argument(help="新文件 / a new file.")],
    *,
    passphrase_file: _PassphraseFile = None,
) -> None:
    """用口令加密备份密钥: 证书根, 档案, 登录, 审计 / back the secrets up, sealed by a passphrase.

    The roots of hubs and services, the keys of the archive, the issuer, the audit and webhooks. Without
    them a backup of the store cannot be read; keep the file apart from it, and the passphrase apart from
    both.
    """
    home = load_settings().home
    kept = back_up_secrets(home, file, _passphrase(passphrase_file, confirm=True))
    typer.echo(f"完成 / done: {file}: {', '.join(kept)}", err=True)


@app.command(
    "restore-secrets", epilog="例 / example:\n\nhearth db restore-secrets /safe/hearth-secrets"
)
def restore_secrets_(
    file: Annotated[Path, typer.Argument(help="密钥备份 / a backup of secrets.")],
    *,
    passphrase_file: _PassphraseFile = None,
) -> None:
    """把密钥放回, 须在服务首次启动前; 不覆盖不同的密钥 / put secrets back, before services first start.

    A secret that is there and differs is never overwritten: then nothing is changed.
    """
    home = load_settings().home
    put_back = restore_secrets(home, file, _passphrase(passphrase_file, confirm=False))
    typer.echo(f"完成 / done: {', '.join(put_back) or '已全部存在 / all there already'}", err=True)


@app.command("backup-keys", epilog="例 / example:\n\nhearth db backup-keys /srv/keys")
def backup_keys(folder: Annotated[Path, typer.Argument(help="目录 / a folder.")]) -> None:
    """备份居民密钥, 30 天前的备份随即删除 / back up the residents' keys; what is older than 30 days goes.

    Keep it apart from the backups of the store, and copy it nowhere where it stays for longer: an
    erasure holds for the backups once no copy of the key is left.
    """
    file = backups.backup_keys(_dsn(), folder, datetime.now(UTC))
    typer.echo(f"完成 / done: {file}", err=True)


@app.command(epilog="例 / example:\n\nhearth db restore /srv/backup/2026-11-25 --yes")
def restore(
    folder: Annotated[Path, typer.Argument(help="备份目录 / a backup's folder.")],
    *,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="居民密钥的备份, 缺少则姓名等不可读 / the keys; without, names stay sealed."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="不再询问 / do not ask.")] = False,
) -> None:
    """用备份替换当前数据库, 原库改名保留 / put a backup in the store's place; the old one is kept.

    What came after the backup is asked back from the hubs with `hearth admin hub resend`.
    """
    settings = load_settings()
    facts = backups.read_facts(folder)
    if not yes:
        typer.confirm(
            f"恢复到 {facts.taken_at}? / restore the state of {facts.taken_at}?",
            abort=True,
            err=True,
        )
    services = find_services(settings)
    parts = dsn_parts(services.database_url)
    with _progress() as progress:
        done = backups.restore(
            services.maintenance_url,
            parts["PGDATABASE"],
            parts["PGUSER"],
            folder,
            _tools(settings),
            progress,
            keys=keys,
        )
    typer.echo(
        f"已恢复 / restored: {done.stored:,} 条测量 / measurements, {done.keys:,} 把密钥 / keys; 原库 / the former database: "
        f"{done.kept_as}\n下一步 / next: hearth admin hub resend --all --since {facts.taken_at}",
        err=True,
    )


@app.command("new-migration")
def new_migration() -> None:
    """为登记表中新增的体征生成迁移文件 / write the migration that adds new signs' columns."""
    path = migrations.write_quantities()
    if path is None:
        typer.echo("没有新的量 / every quantity has its column", err=True)
    else:
        typer.echo(str(path))


def _passphrase(file: Path | None, *, confirm: bool) -> str:
    if file is None:
        return str(
            typer.prompt(
                "口令 / passphrase", hide_input=True, confirmation_prompt=confirm, err=True
            )
        )
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0]
    except OSError as error:
        raise UsageError(f"无法读取 / cannot read {file}: {error.strerror}") from error


@contextmanager
def _progress() -> Iterator[Callable[[float], None]]:
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda part: bar.update(task, completed=part)


def _tools(settings: Settings) -> backups.Tools:
    """Return PostgreSQL's programs: those that were unpacked, else the machine's own."""
    packages = find_packages(settings.home)

    def find(name: str) -> Path:
        found = shutil.which(name) if packages is None else str(packages.program(name))
        if found is None:
            raise UsageError(f"缺少 / this machine has no {name}: `hearth services prepare`")
        return Path(found)

    return backups.Tools(
        pg_dump=find("pg_dump"),
        pg_restore=find("pg_restore"),
        log=settings.home / "log" / "backup.log",
    )


def _dsn() -> str:
    return database_url(load_settings())
