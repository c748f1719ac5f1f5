"""`hearth lint`: format, rules, types and import contracts, without the tests."""

from __future__ import annotations

import os
import sys

import typer

from gateway.cli.stages import CHECKS, require_checkout, run_stages

app = typer.Typer()


@app.command("lint")
def check_sources() -> None:
    """检查格式、规则、类型和导入方向 / check format, rules, types and the direction of imports."""
    require_checkout()
    sys.exit(run_stages(CHECKS, os.environ))
