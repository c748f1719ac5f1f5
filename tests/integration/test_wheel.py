"""The wheel, installed beside nothing but what an extra asks for: a hub needs no server's library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway import __version__
from gateway.platform.embedded.packages import Packages
from gateway.platform.ports import free_port
from gateway.platform.settings import CHECKOUT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SERVERS_ONLY = {"numpy", "psycopg", "fastapi", "uvicorn", "mqtt5", "bumble"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built by the back end that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("wheel")
    build = (
        "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])",
        str(folder),
    )
    subprocess.run([sys.executable, "-c", *build], cwd=CHECKOUT, check=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def hub_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what its extra [hub] asks for, and nothing else."""
    return installed(wheel, tmp_path_factory.mktemp("hub") / "venv", {"hub"})


@pytest.fixture
def whole_environment(wheel: Path, tmp_path: Path) -> Path:
    """One with all extras, as for the demo."""
    return installed(wheel, tmp_path / "venv", {"hub", "server", "simulation"})


def installed(wheel: Path, folder: Path, extras: set[str]) -> Path:
    """Install the wheel with extras into a virtual environment of its own, and return that.

    The libraries are those of this environment, linked: no index is needed.
    """
    venv.create(folder, with_pip=True, symlinks=True)
    python = str(folder / "bin" / "python")
    install = ("-m", "pip", "install", "--no-index", "--no-deps", "--quiet", str(wheel))
    subprocess.run([python, *install], check=True)
    packages = next(folder.glob("lib/python3.*/site-packages"))
    (ours,) = packages.glob("hearth_gateway-*.dist-info")
    for found in closure(Distribution.at(ours), extras):
        for file in found.files or ():
            source, target = Path(str(found.locate_file(file))), packages / file
            if ".." not in file.parts and source.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
    return folder


def closure(root: Distribution, extras: set[str]) -> Iterator[Distribution]:
    """Yield the distributions that `root` with these extras needs, each once."""
    waiting, seen = [(root, extras)], set()
    while waiting:
        asking, wanted = waiting.pop()
        for text in asking.requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in {"", *wanted}):
                continue
            key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if key not in seen:
                seen.add(key)
                found = distribution(requirement.name)
                yield found
                waiting.append((found, set(requirement.extras)))


def hearth(
    environment: Path, *words: str, home: Path, **settings: str
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [environment / "bin" / "hearth", *words],
        cwd=home,
        env=clean | {"HEARTH_HOME": str(home)} | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_is_named_apart_from_pypis_hearth_and_holds_what_is_not_python(
    wheel: Path,
) -> None:
    assert wheel.name == f"hearth_gateway-{__version__}-py3-none-any.whl"
    files = set(ZipFile(wheel).namelist())
    for package in ("gateway", "edge", "ingest", "api", "firmware_sim", "bench"):
        for path in (CHECKOUT / package).rglob("*"):
            if path.suffix in {".sql", ".toml", ".html", ".js", ".css"}:
                assert str(path.relative_to(CHECKOUT)) in files
    assert not any(name.startswith(("tests/", "docs/")) for name in files)


def test_a_hub_runs_without_any_library_of_the_servers(
    hub_environment: Path, tmp_path: Path
) -> None:
    packages = next(hub_environment.glob("lib/python3.*/site-packages"))
    assert not SERVERS_ONLY & {path.name for path in packages.iterdir()}
    told = hearth(hub_environment, "hub", "--help", home=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "run" in told.stdout
    status = hearth(hub_environment, "hub", "status", "--config", "absent.toml", home=tmp_path)
    assert status.returncode == 2
    assert "absent.toml" in status.stderr
    assert "Traceback" not in status.stderr


def test_a_command_whose_library_is_not_there_says_which_extra_has_it(
    hub_environment: Path, tmp_path: Path
) -> None:
    told = hearth(hub_environment, "ingest", home=tmp_path)
    assert told.returncode == 2
    assert "hearth-gateway[server]" in told.stderr
    assert "Traceback" not in told.stderr


def test_help_and_version_need_no_library_of_the_servers(
    hub_environment: Path, tmp_path: Path
) -> None:
    assert hearth(hub_environment, "--version", home=tmp_path).stdout == f"hearth {__version__}\n"
    told = hearth(hub_environment, "--help", home=tmp_path)
    assert "demo" in told.stdout


def test_the_demo_runs_from_an_installed_wheel(
    whole_environment: Path, home: Path, packages: Packages
) -> None:
    (home / "packages").symlink_to(packages.root.parent)
    told = hearth(
        whole_environment, "demo", "--homes", "1", "--for", "25s", "--json",
        home=home, HEARTH_API_PORT=str(free_port()),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-2000:]
    summary = json.loads(told.stdout)
    assert summary["balanced"]
    assert summary["stored"] > 0
    assert summary["visible"] > 0
