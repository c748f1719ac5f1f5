"""The command `hearth`. A command's module is imported only when that command is called.

So a hub without the server's libraries runs `hearth hub`, and help is quick. Exit status: 0 done, and
what was checked holds; 1 it does not hold, or something outside does not answer; 2 the person at
the keyboard must act.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli.examples import give_examples
from gateway.errors import HearthError, UnavailableError, UsageError
from gateway.platform.logs import configure_logs
from gateway.platform.settings import load_settings

EXIT_UNAVAILABLE = 1
EXIT_USAGE = 2

EXAMPLES = """\
例 / examples:

hearth demo --homes 3 --for 60s    整个系统, 模拟三户 / the whole system with three simulated homes

hearth hub run --config hub.toml    真实的家庭网关 / the agent on a real hub

hearth COMMAND --help    某个命令的用法 / how to use a command
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command or a group of commands; its module has a `typer.Typer` named `app`."""

    name: str
    extra: str
    """The optional dependencies of the distribution that the module needs."""
    help: str
    """One line, Chinese and English."""

    @property
    def module(self) -> str:
        """The module, imported when the command is called."""
        return f"gateway.cli.{self.name}"


COMMANDS = (
    Command(
        name="demo",
        extra="server,hub,simulation",
        help="整个系统, 模拟的家庭 / the whole system with simulated homes",
    ),
    Command(name="hub", extra="hub", help="家庭网关 / the agent on a real hub"),
    Command(name="ingest", extra="server", help="接收服务 / the ingest service"),
    Command(name="api", extra="server", help="居民档案的 REST 接口 / the REST API"),
    Command(name="alerts", extra="server", help="告警 / alerts: the service, the rules, the desk"),
    Command(
        name="admin",
        extra="server",
        help="登记与关联 / enter homes, hubs, devices, residents, links",
    ),
    Command(name="login", extra="server", help="登录, 取得令牌 / sign in and keep a token"),
    Command(
        name="audit",
        extra="server",
        help="审计: 谁看了谁的数据 / who did what to whose data, and its proof",
    ),
    Command(name="db", extra="server", help="数据库结构 / the schema and its migrations"),
    Command(
        name="ledger",
        extra="server",
        help="账本: 不丢不重的证明 / the proof that nothing is lost or doubled",
    ),
    Command(
        name="quarantine",
        extra="server",
        help="隔离区: 查看与重放 / what was kept apart: list and replay",
    ),
    Command(
        name="services",
        extra="server",
        help="自带的数据库与消息代理 / the embedded database and broker",
    ),
    Command(
        name="simulate",
        extra="simulation",
        help="模拟的设备与家庭 / simulated devices and homes",
    ),
    Command(
        name="chaos",
        extra="server,hub",
        help="随机故障下不丢不重 / everything dies at random, nothing is lost",
    ),
    Command(name="bench", extra="server", help="测量 / measurements against limits and peers"),
    Command(name="docs", extra="server", help="更新文档表格 / bring the docs' tables up to date"),
    Command(
        name="client",
        extra="server",
        help="由接口描述生成 Python 客户端 / write the Python client (in a checkout)",
    ),
    Command(
        name="test",
        extra="server",
        help="运行全部检查和测试 / run every check and test (in a checkout)",
    ),
    Command(name="lint", extra="server", help="只运行检查 / run the checks only (in a checkout)"),
)
"""In the order in which help lists them; each has a module of its name beside this one."""


def main() -> None:
    """Run the command of this process; the errors that a person can act on become one message."""
    try:
        configure_logs(load_settings())
        build_app(_words())(prog_name="hearth")
    except (HearthError, BaseExceptionGroup) as error:
        errors = list(_leaves(error))
        if not all(isinstance(leaf, UsageError | UnavailableError) for leaf in errors):
            raise
        for text in dict.fromkeys(str(leaf) for leaf in errors):
            typer.echo(f"错误 / error: {text}", err=True)
        must_act = any(isinstance(leaf, UsageError) for leaf in errors)
        sys.exit(EXIT_USAGE if must_act else EXIT_UNAVAILABLE)


def build_app(words: Iterable[str], commands: Iterable[Command] = COMMANDS) -> typer.Typer:
    """Return the application, with the real command of the first of `words` that names one.

    All others are there by name and help only.
    """
    app = typer.Typer(
        help="Hearth 家庭体征网关 / brings home vital signs into the resident's archive.",
        epilog=EXAMPLES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    known = {command.name: command for command in commands}
    called = next((word for word in words if word in known), None)
    for command in known.values():
        if command.name == called:
            _add(app, command)
        else:
            app.command(command.name, help=command.help)(_not_loaded)
    return app


def load(command: Command) -> typer.Typer:
    """Import the module of a command and return its application.

    Raises:
        UsageError: a library is not installed; the text says which extra has it.
    """
    try:
        app: typer.Typer = import_module(command.module).app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OURS:
            raise
        raise UsageError(
            f"缺少组件 / {error.name} is not installed: 请运行 / run "
            f"`pip install 'hearth-gateway[{command.extra}]'`"
        ) from error
    return app


_OURS = frozenset({"gateway", "edge", "ingest", "api", "firmware_sim", "bench"})


def _add(app: typer.Typer, command: Command) -> None:
    loaded = load(command)
    # A module whose one command bears the module's name is that command, not a group of it.
    names = [
        info.name or (info.callback.__name__ if info.callback else None)
        for info in loaded.registered_commands
    ]
    is_single = names == [command.name]
    give_examples(loaded, command.name)
    app.add_typer(loaded, name=None if is_single else command.name)


def _words() -> list[str]:
    """Return the words of the command line, or of the one that a shell wants completed."""
    completed = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
    return [*sys.argv[1:], *completed.split()]


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="显示版本 / show the version and exit.",
            is_eager=True,
            callback=lambda value: _show_version(wanted=value),
        ),
    ] = False,
) -> None:
    pass


def _show_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"hearth {__version__}")
        raise typer.Exit


def _not_loaded() -> None:
    raise AssertionError("a command that is called is loaded")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


if __name__ == "__main__":
    main()
