"""Folders in memory: where there is room, gone with their maker, also with one who was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gateway.platform.memory_folder import YOUNG_S, memory_folder

PREFIX = "hearth-example-"
MAKER = """
import sys, pathlib
from gateway.platform.memory_folder import memory_folder
with memory_folder(sys.argv[1], memory=pathlib.Path(sys.argv[2])) as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_in_memory_where_there_is_room_and_goes_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    with memory_folder(PREFIX, memory=memory) as folder:
        assert folder.parent == disk
    memory.mkdir()
    with memory_folder(PREFIX, memory=memory) as folder:
        assert folder.parent == memory
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    with memory_folder(PREFIX, bytes_min=1 << 60, memory=memory) as folder:
        assert folder.parent == disk


@pytest.mark.parametrize("number", [signal.SIGKILL, None])
def test_what_one_left_behind_who_was_killed_goes_and_what_is_in_use_stays(
    tmp_path: Path, number: signal.Signals | None
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAKER, PREFIX, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as maker:
        assert maker.stdout is not None
        made = Path(maker.stdout.readline().strip())
        if number is not None:
            maker.send_signal(number)
            maker.wait()
        foreign = tmp_path / "hearth-other-1"
        foreign.mkdir()
        for folder in (made, foreign):
            os.utime(folder, (0, made.stat().st_mtime - 2 * YOUNG_S))
        with memory_folder(PREFIX, memory=tmp_path):
            assert made.exists() == (number is None)
            assert foreign.exists()
        maker.terminate()


def test_a_young_folder_stays_as_its_maker_may_not_have_locked_it_yet(tmp_path: Path) -> None:
    young = tmp_path / f"{PREFIX}1"
    young.mkdir()
    with memory_folder(PREFIX, memory=tmp_path):
        assert young.exists()
