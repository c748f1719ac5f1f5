"""Programs that have to succeed one after the other: the checks and tests of a checkout."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import typer

from gateway.errors import UsageError
from gateway.platform.settings import CHECKOUT

TESTS_FAILED = 1
"""pytest's exit status when tests were run and some failed."""
TESTS_AT_ONCE = 2
"""pytest-xdist's workers; each has databases of its own in one server, and its own brokers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One program that has to succeed."""

    title: str
    """Chinese and English."""
    arguments: tuple[str, ...]
    """Of the Python that runs this."""
    again: tuple[str, ...] = ()
    """What decides when it fails: the tests that failed, once more, one after the other. A test that
    fails only beside others on a busy machine is told of, and does not stop the rest."""


_LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
CHECKS = (
    Stage(title="格式 / format", arguments=("-m", "ruff", "format", "--check", ".")),
    Stage(title="规则 / lint", arguments=("-m", "ruff", "check", ".")),
    Stage(title="类型 / types", arguments=("-m", "mypy")),
    Stage(title="导入方向 / import contracts", arguments=("-c", _LINT_IMPORTS)),
)
_PYTEST = ("-m", "pytest", "-n", str(TESTS_AT_ONCE))
_AGAIN = ("-m", "pytest", "--last-failed", "--last-failed-no-failures", "none")
TESTS = tuple(
    Stage(title=title, arguments=(*_PYTEST, folder), again=(*_AGAIN, folder))
    for title, folder in (
        ("单元测试 / unit tests", "tests/unit"),
        ("集成测试 / integration tests", "tests/integration"),
        ("验收测试 / acceptance tests", "tests/acceptance"),
    )
)


def require_checkout() -> None:
    """Refuse to go on in an installed distribution, which has no tests.

    Raises:
        UsageError: this is not a checkout.
    """
    if not (CHECKOUT / "tests").is_dir():
        raise UsageError("只能在源码目录中运行 / this runs in a checkout only, not when installed")


def run_stages(stages: Sequence[Stage], environment: Mapping[str, str]) -> int:
    """Run stages up to the first that fails; returns its exit status, or 0."""
    began_at = time.monotonic()
    for number, stage in enumerate(stages, 1):
        say(f"\n== {number}/{len(stages)} {stage.title}")
        stage_began_at = time.monotonic()
        status = _run(stage.arguments, environment)
        if status == TESTS_FAILED and stage.again:
            say(
                f"== {stage.title}: 失败的单独再试一次 / those that failed, once more by themselves"
            )
            status = _run(stage.again, environment)
        outcome = "通过 / passed" if status == 0 else f"失败 / failed ({status})"
        say(f"== {stage.title}: {outcome}, {time.monotonic() - stage_began_at:.1f} s")
        if status != 0:
            return status
    say(f"\n== 全部通过 / all passed, {time.monotonic() - began_at:.1f} s")
    return 0


def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    return subprocess.run(  # noqa: S603 - the stages' own, or what the person typed
        [sys.executable, *arguments], cwd=CHECKOUT, env=environment, check=False
    ).returncode


def say(text: str) -> None:
    """Tell a person what goes on: on standard error."""
    typer.echo(text, err=True)
