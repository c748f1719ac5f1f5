"""`hearth test`: every check and test, as CI runs them; with arguments, only pytest with these."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.stages import CHECKS, TESTS, Stage, require_checkout, run_stages, say
from gateway.platform.embedded.database import Database
from gateway.platform.embedded.packages import ensure_packages
from gateway.platform.settings import load_settings

TEST_HOME = "HEARTH_TEST_HOME"
"""The variable by which the tests learn of the database server that runs for them."""

app = typer.Typer()


@app.command("test", context_settings={"ignore_unknown_options": True})
def check_everything(
    pytest_arguments: Annotated[
        list[str] | None,
        typer.Argument(help="只用这些参数运行 pytest / run only pytest, with these arguments."),
    ] = None,
) -> None:
    """运行全部检查和测试 / run every check and test.

    例 / examples: hearth test; hearth test tests/unit -k wire; hearth test --lf
    """
    require_checkout()
    stages: tuple[Stage, ...] = (*CHECKS, *TESTS)
    if pytest_arguments:
        stages = (Stage(title="pytest", arguments=("-m", "pytest", *pytest_arguments)),)
    with _test_home() as home:
        sys.exit(run_stages(stages, {**os.environ, TEST_HOME: str(home)}))


@contextmanager
def _test_home() -> Iterator[Path]:
    """Run a database server for all tests; its data goes with it."""
    settings = load_settings()
    packages = ensure_packages(settings.home, say, settings.debian_mirror)
    with tempfile.TemporaryDirectory(prefix="hearth-test-") as folder:
        home = Path(folder)
        home.chmod(0o711)  # where we are root, the server is another user
        with Database(home, packages, durable=False):
            yield home
