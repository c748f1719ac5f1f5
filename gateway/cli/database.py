"""Which database a command of the server works on: a person's own, or the embedded one."""

from __future__ import annotations

from gateway.errors import UsageError
from gateway.platform.embedded.database import Database
from gateway.platform.embedded.packages import find_packages
from gateway.platform.postgres import connect_blocking, dsn_with, sql, translated
from gateway.platform.secret_files import secret, secret_path
from gateway.platform.settings import Settings

API_ROLE = "hearth_api"
"""The role as which the API connects; the schema makes it and says what it may see."""


def database_url(settings: Settings) -> str:
    """Return the DSN of the schema's owner; it may hold a password.

    Raises:
        UsageError: the settings name none and no embedded one runs.
    """
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return _embedded(settings).url()


def api_database_url(settings: Settings) -> str:
    """Return the DSN as which the API connects: never the schema's owner.

    Raises:
        UsageError: there is none yet; the text says how to have it.
    """
    if settings.api_database_url is not None:
        return settings.api_database_url.get_secret_value()
    if settings.database_url is None:
        return _embedded(settings).admit(API_ROLE)
    if not secret_path(settings.home, _password_name()).exists():
        raise UsageError(
            "接口没有自己的数据库角色 / the API has no role of its own in this database: 请运行 / run "
            "`hearth db migrate` and `hearth db grant`, or set HEARTH_API_DATABASE_URL"
        )
    return _as_api(settings, settings.database_url.get_secret_value())


def admit_api(settings: Settings) -> None:
    """Let the API's role log in, by a password that is kept under HEARTH_HOME/secrets.

    Raises:
        UsageError: no database is there.
        UnavailableError: the database is down.
    """
    if settings.database_url is None:
        _embedded(settings).admit(API_ROLE)
        return
    change = sql.SQL("ALTER ROLE {role} LOGIN PASSWORD {password}").format(
        role=sql.Identifier(API_ROLE), password=secret(settings.home, _password_name())
    )
    owner = settings.database_url.get_secret_value()
    with translated(), connect_blocking(owner, application="hearth-grant") as connection:
        connection.execute(change)


def _embedded(settings: Settings) -> Database:
    packages = find_packages(settings.home)
    if packages is not None:
        database = Database(settings.home, packages)
        if database.pid is not None:
            return database
    raise UsageError(
        "没有运行中的数据库 / no database runs: 请在另一终端运行 / run `hearth services run` in another "
        "terminal, or set HEARTH_DATABASE_URL"
    )


def _as_api(settings: Settings, dsn: str) -> str:
    return dsn_with(dsn, user=API_ROLE, password=secret(settings.home, _password_name()))


def _password_name() -> str:
    return f"database_{API_ROLE}"
