"""A sign that nobody has written code for, added to a copy of the checkout as its documentation says.

Its module, its line, its vectors are written; migration and tables are made by the commands. Nothing
else is touched, and the copy's own tests, which take the registry as their parameters, hold the sign.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.platform.settings import CHECKOUT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COPIED = ("gateway", "edge", "ingest", "api", "firmware_sim", "bench", "tests", "docs", "deploy")
RENAMED = (
    ("body_temperature", "skin_temperature"),
    ("BODY_TEMPERATURE", "SKIN_TEMPERATURE"),
    ("Body temperature", "Skin temperature"),
    ("0x1809", "0x18F9"),
    ("0x2A1C", "0x2AFC"),
    ('loinc="8310-5"', "loinc=None"),
    ("mdc=150364", "mdc=None"),
    ("code=2,", "code=199,"),
    ('"2a1c-', '"2afc-'),
)
"""Makes another sign of the body temperature's module and of its vectors."""
WHOLE = ("tests/unit/test_docs.py", "tests/unit/test_vectors.py")
BY_SIGN = (
    "tests/unit/test_signs.py",
    "tests/unit/test_simulated_device.py",
    "tests/unit/test_verdicts.py",
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the checkout to which the sign has been added."""
    for name in COPIED:
        shutil.copytree(
            CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path in [*CHECKOUT.glob("*.md"), CHECKOUT / "pyproject.toml"]:
        shutil.copy2(path, tmp_path)
    for original in ("gateway/vitals/body_temperature.py", "tests/vectors/body_temperature.json"):
        text = (tmp_path / original).read_text()
        for old, new in RENAMED:
            text = text.replace(old, new)
        (tmp_path / original.replace("body", "skin")).write_text(text)
    registry = tmp_path / "gateway" / "vitals" / "__init__.py"
    text = registry.read_text()
    text = text.replace("    pulse_oximetry,\n", "    pulse_oximetry,\n    skin_temperature,\n")
    text = text.replace(
        "    pulse_oximetry.SIGN,\n", "    pulse_oximetry.SIGN,\n    skin_temperature.SIGN,\n"
    )
    registry.write_text(text)
    return tmp_path


def run(copy: Path, *words: str) -> str:
    """Run a module in the copy and return what it prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_a_sign_is_its_module_its_line_a_generated_migration_and_its_vectors(copy: Path) -> None:
    migration = Path(run(copy, "gateway.cli.main", "db", "new-migration").strip())
    assert migration.is_relative_to(copy)
    assert "ADD COLUMN skin_temperature_celsius double precision" in migration.read_text()
    run(copy, "gateway.cli.main", "docs")
    assert re.search(r"Skin temperature \|.*0x18f9/0x2afc", (copy / "README.md").read_text())
    assert "| 199 | skin_temperature |" in (copy / "docs" / "wire.md").read_text()
    chosen = "skin or 2afc or up_to_date"
    told = run(copy, "pytest", "-q", "-p", "no:xdist", *WHOLE, *BY_SIGN, "-k", chosen)
    passed = re.search(r"(\d+) passed", told)
    assert passed
    assert int(passed[1]) > 15, told
