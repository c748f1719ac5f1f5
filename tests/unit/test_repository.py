"""The repository itself: what must hold for every file, lock and package in it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway.platform.settings import CHECKOUT

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
LOCKS = ("requirements.txt", "requirements-dev.txt")
TEXT = frozenset({"", ".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".sql", ".json", ".service"})
"""Endings of the files that are read here; the scripts have none."""
MADE = frozenset({"var", "dist", "build", "__pycache__"})
"""Folders that hold nothing of the repository's; so do those whose name begins with a dot."""
_PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)", re.MULTILINE)
_ADDRESS = re.compile(r"https?://(?P<host>[^\s/:\"'`)>]+)[^\s\"'`)>]*")
_INDEX = re.compile(r"/(simple|pypi|npm|debian|ubuntu|dists|pool)(/|$)")
"""How the path of a package index or a mirror looks, whatever its host."""
GENERATED = frozenset({CHECKOUT / "hearth_client" / "documents.py"})
"""What nobody reads at once, because it is made."""
NOBODYS = re.compile(r"(.*\.)?example(\.org)?|127\.0\.0\.1|localhost|…|\{.*")
"""Hosts that are no one's (RFC 2606), or this machine."""


def files() -> Iterator[Path]:
    for path in CHECKOUT.rglob("*"):
        folders = path.relative_to(CHECKOUT).parent.parts
        if (
            path.is_file()
            and path.suffix in TEXT
            and not any(name in MADE or name.startswith(".") for name in folders)
        ):
            yield path


def pins(lock: str) -> dict[str, set[str]]:
    """Return the versions that a lock has of each distribution, one for each kind of Python."""
    found: dict[str, set[str]] = {}
    for match in _PIN.finditer((CHECKOUT / lock).read_text()):
        found.setdefault(match["name"], set()).add(match["version"])
    return found


def requirements(*, dev: bool) -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in extra)]
    if dev:
        wanted += PROJECT["dependency-groups"]["dev"]
    return [Requirement(text) for text in wanted]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_address(lock: str) -> None:
    text = (CHECKOUT / lock).read_text()
    assert "://" not in text
    assert "index-url" not in text
    assert "find-links" not in text
    assert " @ " not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_in_a_lock_has_its_hashes(lock: str) -> None:
    text = (CHECKOUT / lock).read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert len(lines) == sum(len(versions) for versions in pins(lock).values())
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_every_dependency_in_a_version_that_is_asked_for(lock: str) -> None:
    locked = pins(lock)
    for requirement in requirements(dev="dev" in lock):
        versions = locked.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement.name}: make the locks anew (see pyproject.toml)"
        assert all(requirement.specifier.contains(v, prereleases=True) for v in versions)


def test_what_runs_is_what_is_tested() -> None:
    tested = pins("requirements-dev.txt")
    assert all(tested.get(name) == versions for name, versions in pins("requirements.txt").items())


def test_every_package_is_in_the_wheel() -> None:
    in_wheel = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    found = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")}
    assert found - {"tests"} <= in_wheel


def test_every_module_is_in_a_package() -> None:
    for path in files():
        if path.suffix == ".py":
            assert (path.parent / "__init__.py").exists(), path


def test_no_file_names_a_package_index_or_a_mirror() -> None:
    for path in files():
        for address in _ADDRESS.finditer(path.read_text(encoding="utf-8")):
            is_index = _INDEX.search(address[0]) and not NOBODYS.fullmatch(address["host"])
            assert not is_index, f"{path}: {address[0]}"


def test_no_module_is_too_long_to_read_at_once() -> None:
    for path in files():
        if path.suffix == ".py" and path not in GENERATED:
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 600, path


def test_a_pythons_module_opens_with_its_sentence() -> None:
    for path in files():
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py" and text:
            assert text.startswith('"""'), path
