"""Power fails in the middle of a write: the file is read again, up to its last whole commit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.hub_file import Beginning, set_aside
from tests.outboxes import (
    close_all,
    items_of,
    measurement,
    number_of,
    open_file,
    open_outbox,
)

COMMITS, ITEMS_A_COMMIT = 12, 5
NAME = "outbox.sqlite"


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file and its journal as a machine leaves them that loses power: nothing checkpointed."""
    folder = tmp_path_factory.mktemp("running")
    outbox = open_outbox(folder)
    outbox._file._connection.execute("PRAGMA wal_autocheckpoint = 0")
    for first in range(0, COMMITS * ITEMS_A_COMMIT, ITEMS_A_COMMIT):
        outbox.append([measurement(n) for n in range(first, first + ITEMS_A_COMMIT)])
    frozen = tmp_path_factory.mktemp("frozen")
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"{NAME}{suffix}", frozen / f"{NAME}{suffix}")
    close_all()
    return frozen


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    close_all()


def numbers_after(folder: Path) -> list[int]:
    """Open the file after the power came back and return what it holds."""
    outbox = open_outbox(folder, boot="after power came back")
    outbox.seal()
    return [number_of(item) for batch in outbox.batches(limit=1000) for item in items_of(batch)]


@given(kept=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_a_journal_cut_anywhere_leaves_all_whole_commits_before_the_cut(
    cut_off: Path, kept: float
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(cut_off, folder, dirs_exist_ok=True)
        journal = folder / f"{NAME}-wal"
        with journal.open("r+b") as file:
            file.truncate(int(journal.stat().st_size * kept))
        numbers = numbers_after(folder)
        assert numbers == list(range(len(numbers)))
        assert len(numbers) % ITEMS_A_COMMIT == 0
        assert set_aside(folder / NAME) == []
        close_all()


@given(where=st.floats(0, 0.999), torn=st.binary(min_size=1, max_size=600))
@settings(max_examples=40, deadline=None)
def test_a_torn_write_in_the_journal_costs_no_commit_before_it(
    cut_off: Path, where: float, torn: bytes
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(cut_off, folder, dirs_exist_ok=True)
        journal = folder / f"{NAME}-wal"
        with journal.open("r+b") as file:
            file.seek(int(journal.stat().st_size * where))
            file.write(torn)
        numbers = numbers_after(folder)
        assert numbers == list(range(len(numbers)))
        assert len(numbers) % ITEMS_A_COMMIT == 0
        close_all()


@given(where=st.floats(0, 0.999), rubbish=st.binary(min_size=8, max_size=4096))
@settings(max_examples=40, deadline=None)
def test_rubbish_in_the_file_itself_is_read_past_or_set_aside_and_never_lost(
    cut_off: Path, where: float, rubbish: bytes
) -> None:
    """A failing card: the hub runs on in any case, with the file or with a new one beside it."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(cut_off, folder, dirs_exist_ok=True)
        with (folder / NAME).open("r+b") as file:
            file.seek(int((folder / NAME).stat().st_size * where))
            file.write(rubbish)
        opened = open_file(folder, boot="after power came back")
        if opened.numbering.beginning is Beginning.DAMAGED:
            assert len(set_aside(folder / NAME)) == 1
        outbox = open_outbox(folder, boot="after power came back")
        assert outbox.append([measurement(999)]) == 1
        close_all()
