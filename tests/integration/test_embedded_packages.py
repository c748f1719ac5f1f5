"""The unpacked programs: whole, movable, fetched once, and a clear word where they cannot be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gateway.errors import UnavailableError, UsageError
from gateway.platform.embedded import apt
from gateway.platform.embedded import packages as packages_module
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.packages import (
    PROGRAMS,
    Packages,
    ensure_packages,
    find_packages,
    machine,
)
from tests.fixtures.servers import linked_copy, reachable_folder

pytestmark = pytest.mark.integration

NOWHERE = "http://127.0.0.1:9/debian/"
"""Nobody listens on the port of the discard protocol."""


def quiet(_: str) -> None:
    pass


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_runs(packages: Packages, name: str) -> None:
    flag, says = {
        "mosquitto": ("-h", "mosquitto version 2."),
        "mosquitto_passwd": ("-h", "mosquitto_passwd is a tool"),
        "haproxy": ("-v", "HAProxy version 3."),
        "dbus-daemon": ("--version", "D-Bus Message Bus Daemon 1."),
    }.get(name, ("--version", f"{name} (PostgreSQL) 17."))
    program = packages.program(name)
    done = subprocess.run([program, flag], capture_output=True, text=True, check=False)
    assert done.stdout.startswith(says)
    assert done.stderr == ""


def test_everything_that_is_linked_to_lies_in_the_folder(packages: Packages) -> None:
    """On a machine that has a library itself, a missing one would go unnoticed otherwise."""
    lib = packages.root / "usr/lib" / machine().triplet
    modules = (packages.root / "usr/lib/postgresql/17/lib").glob("*.so")
    for binary in [*packages.root.glob("usr/**/*.real/*"), *modules, *lib.glob("*.so.*")]:
        loader = (lib / machine().loader, "--library-path", lib, "--inhibit-cache", "--list")
        said = subprocess.run([*loader, binary], capture_output=True, text=True, check=False)
        assert "not found" not in said.stdout + said.stderr, binary
        for line in said.stdout.splitlines():
            _name, arrow, place = line.partition("=>")
            assert not arrow or place.strip().startswith(str(packages.root)), (binary, line)


def test_they_are_there_at_once_the_second_time(packages: Packages) -> None:
    told: list[str] = []
    home = packages.root.parents[1]
    assert ensure_packages(home, told.append, NOWHERE) == packages == find_packages(home)
    assert told == []


def test_a_folder_that_was_moved_still_works(packages: Packages) -> None:
    with reachable_folder() as folder:
        moved = linked_copy(packages, folder / "moved")
        with Broker(folder / "home", moved) as broker:
            arguments = Path(f"/proc/{broker.pid}/cmdline").read_text()
    assert str(packages.root) not in arguments


def test_half_a_folder_is_not_used(packages: Packages, tmp_path: Path) -> None:
    home = tmp_path
    half = home / "packages" / packages.root.name
    half.mkdir(parents=True)
    assert find_packages(home) is None


def test_without_network_the_other_ways_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="HEARTH_DATABASE_URL") as raised:
        ensure_packages(tmp_path, quiet, NOWHERE)
    assert "HEARTH_DEBIAN_MIRROR" in str(raised.value)
    assert find_packages(tmp_path) is None


def test_what_is_not_signed_by_debian_is_refused(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror" / "dists" / apt.SUITE
    mirror.mkdir(parents=True)
    (mirror / "Release").write_text("Suite: trixie\nComponents: main\nArchitectures: amd64 arm64\n")
    with pytest.raises(UnavailableError, match="not signed"):
        ensure_packages(tmp_path / "home", quiet, f"file:{tmp_path}/mirror/")


def test_without_apt_the_other_ways_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"apt-get is not here.*deploy/compose.yaml"):
        ensure_packages(tmp_path, quiet)


def test_without_debians_key_ring_its_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "KEY_RINGS", (tmp_path / "none.gpg",))
    with pytest.raises(UsageError, match="apt-get install debian-archive-keyring"):
        ensure_packages(tmp_path, quiet)


def test_a_home_that_cannot_be_written_is_named() -> None:
    with pytest.raises(UsageError, match="目录不可写"):
        ensure_packages(Path("/dev/null/home"), quiet)


def test_a_full_disk_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages_module, "SPACE_BYTES_MIN", 1 << 60)
    with pytest.raises(UsageError, match="磁盘空间不足"):
        ensure_packages(tmp_path, quiet)
