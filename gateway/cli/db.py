"""`hearth db`: the schema and its migrations."""

from __future__ import annotations

import typer

from gateway.cli.database import admit_api, database_url
from gateway.platform.settings import load_settings
from ingest import migrations

app = typer.Typer(
    help="数据库结构 / the schema and its migrations.",
    no_args_is_help=True,
    epilog="例 / example:\n\nhearth db migrate",
)


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


@app.command("new-migration")
def new_migration() -> None:
    """为登记表中新增的体征生成迁移文件 / write the migration that adds new signs' columns."""
    path = migrations.write_quantities()
    if path is None:
        typer.echo("没有新的量 / every quantity has its column", err=True)
    else:
        typer.echo(str(path))


def _dsn() -> str:
    return database_url(load_settings())
