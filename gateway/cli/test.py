"""`hearth test`: every check and test, as CI runs them; with arguments, only pytest with these."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.stages import CHECKS, TESTS, Stage, require_checkout, run_stages, say
from gateway.platform.embedded.database import Database
from gateway.platform.embedded.packages import Packages, ensure_packages
from gateway.platform.memory_folder import memory_folder
from gateway.platform.settings import load_settings

TEST_HOME = "HEARTH_TEST_HOME"
"""The variable by which the tests learn of the database server that runs for them."""
MEMORY_BYTES_MIN = 4 << 30
"""Less free memory than this, and the server's data goes to the disk."""

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
    settings = load_settings()
    packages = ensure_packages(settings.home, say, settings.debian_mirror)
    with database_for_tests(packages) as database:
        sys.exit(run_stages(stages, environment_for(database.home)))


@contextmanager
def database_for_tests(packages: Packages) -> Iterator[Database]:
    """Run a database server for the block; its data goes with it.

    The data is in memory where there is room: each test's database is some 340 new files, and a disk
    can take six times as long over them as over all else of a clone.
    """
    with memory_folder("hearth-test-", bytes_min=MEMORY_BYTES_MIN) as home:
        home.chmod(0o711)  # where we are root, the server is another user
        with Database(home, packages, durable=False) as running:
            yield running


def environment_for(home: Path) -> Mapping[str, str]:
    """Return the stages' environment: where the server is, and what Python has compiled already."""
    environment = {**os.environ, TEST_HOME: str(home)}
    if sys.dont_write_bytecode:  # each of many processes would compile all that it imports
        compiled = home / "compiled"
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(compiled)}
    return environment
