"""Which database a command of the server works on: a person's own, or the embedded one."""

from __future__ import annotations

from gateway.errors import UsageError
from gateway.platform.embedded.database import Database
from gateway.platform.embedded.packages import find_packages
from gateway.platform.settings import Settings


def database_url(settings: Settings) -> str:
    """Return the DSN; it may hold a password.

    Raises:
        UsageError: the settings name none and no embedded one runs.
    """
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    packages = find_packages(settings.home)
    if packages is not None:
        database = Database(settings.home, packages)
        if database.pid is not None:
            return database.url()
    raise UsageError(
        "没有运行中的数据库 / no database runs: 请在另一终端运行 / run `hearth services run` in another "
        "terminal, or set HEARTH_DATABASE_URL"
    )
