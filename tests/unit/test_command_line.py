"""The command line's frame: what is imported when, and what a person reads when it fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from gateway import __version__
from gateway.cli import main as frame
from gateway.cli.main import COMMANDS, Command, build_app, load
from gateway.errors import DataError, UnavailableError, UsageError

runner = CliRunner()

COMMANDS_BY_NAME = {command.name: command for command in COMMANDS}
EXAMPLE = Command(name="example", extra="server", help="例 / an example")


def test_help_lists_every_command_without_importing_any() -> None:
    code = (
        "import sys; sys.argv = ['hearth', '--help']\n"
        "from gateway.cli.main import COMMANDS, main\n"
        "try: main()\n"
        "except SystemExit: print(*(c.module for c in COMMANDS if c.module in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *help_text, imported = done.stdout.splitlines()
    assert imported == ""
    for command in COMMANDS:
        assert any(command.name in line for line in help_text)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_can_be_called_by_its_name(command: Command) -> None:
    done = runner.invoke(build_app([command.name]), [command.name, "--help"])
    assert done.exit_code == 0, done.output
    assert " / " in command.help


@pytest.fixture
def hearth_on_path(tmp_path: Path) -> Path:
    """A folder whose `hearth` is this checkout's, as an installed one would be found."""
    script = tmp_path / "hearth"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway.cli.main "$@"\n')
    script.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (("hearth", "ing"), "ingest"),
        (("hearth", "quar"), "quarantine"),
        (("hearth", "admin", "dev"), "device"),
        (("hearth", "admin", "device", "re"), "reassign retime"),
        (("hearth", "demo", "--ho"), "--homes"),
    ],
)
def test_bash_completes_commands_and_options(
    hearth_on_path: Path, words: tuple[str, ...], completed: str
) -> None:
    """The shell's own script, in the shell: what `hearth --install-completion` puts in place."""
    script = (
        'eval "$(_HEARTH_COMPLETE=source_bash hearth)"\n'
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        f"_hearth_completion hearth {words[-1]} {words[-2]}\n"
        'echo "$(printf "%s\\n" "${COMPREPLY[@]}" | sort | xargs)"\n'
        "complete -p hearth\n"
    )
    found = completion(hearth_on_path, "bash", "-c", script)
    assert found.splitlines() == [completed, "complete -o default -F _hearth_completion hearth"]


@pytest.mark.parametrize(
    ("shell", "more"),
    [("zsh", {}), ("fish", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"})],
)
def test_other_shells_are_told_the_same(
    hearth_on_path: Path, shell: str, more: dict[str, str]
) -> None:
    asked = {"_HEARTH_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "hearth admin dev"}
    assert "device" in completion(hearth_on_path, "hearth", **asked, **more)


def completion(folder: Path, *words: str, **environment: str) -> str:
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        words,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def helps(command: Command) -> Iterator[tuple[list[str], str]]:
    """Yield the help of each command of a group, or of the one that the command is."""
    waiting = [[command.name]]
    while waiting:
        words = waiting.pop()
        told = runner.invoke(build_app(words), [*words, "--help"], env={"COLUMNS": "200"}).output
        names = re.findall(r"^│ (\S+) ", told.partition("─ Commands ─")[2], re.MULTILINE)
        waiting += [[*words, name] for name in names]
        if not names:
            yield words, told


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_shows_an_example_of_itself(command: Command) -> None:
    for words, told in helps(command):
        assert "例 / example" in told, words
        assert re.search(rf"(^|/|\s)hearth {' '.join(words)}\b", told, re.MULTILINE), words


def test_an_example_has_what_the_command_cannot_do_without() -> None:
    told = {tuple(words): text for words, text in helps(COMMANDS_BY_NAME["admin"])}
    assert "hearth admin device add C0:26:DA:01:02:03 --home" in told["admin", "device", "add"]


def test_the_version_is_told() -> None:
    assert runner.invoke(build_app([]), ["--version"]).stdout == f"hearth {__version__}\n"


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    done = runner.invoke(build_app(["servces"]), ["servces"])
    assert done.exit_code == 2
    assert "'services'" in done.output


def test_a_module_with_one_command_of_its_name_is_that_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = typer.Typer()

    @app.command()
    def example(word: str) -> None:
        typer.echo(word)

    monkeypatch.setattr(frame, "import_module", lambda _: SimpleNamespace(app=app))
    done = runner.invoke(build_app(["example"], [EXAMPLE]), ["example", "hello"])
    assert done.stdout == "hello\n"


def test_a_module_with_other_commands_is_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()

    @app.command()
    def greet() -> None:
        typer.echo("hello")

    monkeypatch.setattr(frame, "import_module", lambda _: SimpleNamespace(app=app))
    done = runner.invoke(build_app(["example"], [EXAMPLE]), ["example", "greet"])
    assert done.stdout == "hello\n"


def test_a_library_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: str) -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr(frame, "import_module", fail)
    with pytest.raises(UsageError, match=r"numpy is not installed.*hearth-gateway\[server\]"):
        load(EXAMPLE)


def test_a_module_of_ours_that_is_missing_is_our_mistake() -> None:
    with pytest.raises(ModuleNotFoundError):
        load(EXAMPLE)


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UsageError("端口被占用 / port taken"), 2, ["端口被占用 / port taken"]),
        (UnavailableError("broker down"), 1, ["broker down"]),
        (
            ExceptionGroup("", [UnavailableError("one"), ExceptionGroup("", [UsageError("two")])]),
            2,
            ["one", "two"],
        ),
        (ExceptionGroup("", [UnavailableError("one"), UnavailableError("one")]), 1, ["one"]),
    ],
    ids=["usage", "unavailable", "several", "the same twice"],
)
def test_an_error_that_a_person_can_act_on_is_one_message(
    error: Exception,
    status: int,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_failing_with(error, monkeypatch) == status
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [f"错误 / error: {text}" for text in told]


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("ours"),
        DataError("uncaught"),
        ExceptionGroup("", [UsageError(""), OSError()]),
    ],
    ids=["assertion", "data error", "mixed group"],
)
def test_a_mistake_of_ours_keeps_its_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(type(error)):
        run_failing_with(error, monkeypatch)


def run_failing_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Run `hearth` with a command that raises `error`; returns the exit status."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(frame, "load_settings", fail)
    with pytest.raises(SystemExit) as raised:
        frame.main()
    return raised.value.code
