"""`./hearth`: what it makes, and what it says where it cannot."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.platform import environment
from gateway.platform.environment import become_python, make_environment, refuse_platform
from gateway.platform.settings import CHECKOUT

pytestmark = pytest.mark.integration

CLOSED = "http://127.0.0.1:9/simple"
"""An index that nobody serves: the port of the discard protocol."""


def is_ready(folder: Path) -> bool:
    return (folder / "complete").exists()


def message_of(act: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Return the exit status and what a person reads."""
    with pytest.raises(SystemExit) as raised:
        act()
    return raised.value.code, capsys.readouterr().err


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose lock asks for nothing, so that its environment is made quickly."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "requirements.txt").write_text("# nothing\n")
    (folder / "proof.py").write_text("print('found')\n")
    return folder


def make(checkout: Path) -> Path:
    folder = checkout / "var" / "venv" / "run"
    make_environment(checkout / "var", folder, checkout / "requirements.txt", checkout, is_ready)
    return folder


def test_an_old_python_gives_way_to_a_newer_one_that_is_really_there(tmp_path: Path) -> None:
    for name, script in (
        ("python3.92", "exit 127"),  # a version manager's stand-in
        ("python3.91", '[ $# = 2 ] || echo "chosen: $*"'),
        ("python3.90", "echo too late"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    code = "from gateway.platform.environment import become_python; become_python((3, 90), (3, 93))"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--homes", "3"],
        cwd=CHECKOUT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "chosen: -c demo --homes 3\n"


def test_where_there_is_no_newer_python_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    status, text = message_of(lambda: become_python((3, 90), (3, 92)), capsys)
    assert status == 2
    assert "Hearth needs Python 3.90 to 3.91" in text
    assert "python3.11-venv" in text


def test_another_platform_is_sent_to_the_compose_file(capsys: pytest.CaptureFixture[str]) -> None:
    status, text = message_of(lambda: refuse_platform(("x86_64", "aarch64")), capsys)
    assert status == 2
    assert "deploy/compose.yaml" in text


def test_a_home_that_cannot_be_written_is_named(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "var").write_text("a file is in the way")
    status, text = message_of(lambda: make(checkout), capsys)
    assert status == 2
    assert "HEARTH_HOME" in text


def test_a_full_disk_is_told_before_anything_is_made(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "SPACE_BYTES_MIN", 1 << 60)
    status, text = message_of(lambda: make(checkout), capsys)
    assert status == 2
    assert "磁盘空间不足" in text


def test_a_python_without_venv_names_its_package(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(name: str) -> object:
        return None if name == "ensurepip" else object()

    monkeypatch.setattr(importlib.util, "find_spec", without)
    status, text = message_of(lambda: make(checkout), capsys)
    assert status == 2
    assert f"python3.{sys.version_info[1]}-venv" in text


def test_without_network_it_says_so_and_leaves_nothing_to_be_used(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "requirements.txt").write_text(f"absent==1 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", CLOSED)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setattr(environment, "RETRIES", 1)
    status, text = message_of(lambda: make(checkout), capsys)
    assert status == 1
    assert "网络不通" in text
    assert not is_ready(checkout / "var" / "venv" / "run")


def test_half_an_environment_is_made_anew_and_moves_with_its_checkout(checkout: Path) -> None:
    half = checkout / "var" / "venv" / "run"
    half.mkdir(parents=True)
    (half / "rest").touch()
    made = make(checkout)
    assert is_ready(made)
    assert not (made / "rest").exists()
    moved = checkout.rename(checkout.with_name("moved"))
    python = moved / "var" / "venv" / "run" / "bin" / "python"
    done = subprocess.run(
        [python, "-P", "-m", "proof"], cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout == "found\n"


def test_of_two_that_start_at_once_one_makes_it_and_the_other_waits(checkout: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.integration.test_start_script import make"
        "; make(Path(sys.argv[1]))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(checkout)],
            cwd=CHECKOUT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("making the Python environment" in text for text in said) == 1


def test_the_script_is_executable_and_needs_no_library() -> None:
    script = CHECKOUT / "hearth"
    assert os.access(script, os.X_OK)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script), "--version"],
        env={**os.environ, "HEARTH_HOME": "/dev/null/home"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "HEARTH_HOME" in done.stderr
    assert "Traceback" not in done.stderr
