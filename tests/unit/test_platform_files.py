"""Ports, locks and secrets: what a home remembers and who may have it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.errors import UsageError
from gateway.platform.file_lock import FileLock, exclusive
from gateway.platform.ports import free_port, is_free, remembered_port, require_free
from gateway.platform.secret_files import secret, secret_path, write_private
from tests.fixtures.servers import listening_on


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()
    assert is_free(port)
    with listening_on(port):
        assert not is_free(port)


def test_a_taken_port_that_a_person_chose_is_named_with_the_way_out() -> None:
    port = free_port()
    require_free(port, "HEARTH_API_PORT")
    with listening_on(port), pytest.raises(UsageError) as raised:
        require_free(port, "HEARTH_API_PORT")
    assert str(raised.value).startswith(f"端口被占用 / port {port} is taken")
    assert "HEARTH_API_PORT" in str(raised.value)


def test_any_free_port_is_always_free() -> None:
    require_free(0, "HEARTH_API_PORT")


def test_a_port_is_remembered_until_another_program_takes_it(tmp_path: Path) -> None:
    memory = tmp_path / "port"
    port = remembered_port(memory)
    assert remembered_port(memory) == port
    with listening_on(port):
        other = remembered_port(memory)
        assert other != port
    assert remembered_port(memory) == other


@pytest.mark.parametrize("damage", ["", "x", "0", "-1", "65536", "99999999"])
def test_a_damaged_memory_is_forgotten(tmp_path: Path, damage: str) -> None:
    memory = tmp_path / "port"
    memory.write_text(damage)
    assert 0 < remembered_port(memory) < 65536


def test_a_lock_has_one_holder_until_it_lets_go(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "a" / "lock"), FileLock(tmp_path / "a" / "lock")
    assert one.try_acquire()
    assert one.is_held
    assert not other.try_acquire()
    one.release()
    one.release()
    assert other.try_acquire()
    other.release()


def test_who_has_to_wait_for_a_lock_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    held = FileLock(tmp_path / "lock")
    held.try_acquire()

    def wait() -> None:
        told.append("waits")
        held.release()

    with exclusive(tmp_path / "lock", wait):
        assert told == ["waits"]
    with exclusive(tmp_path / "lock", wait):
        assert told == ["waits"]


def test_a_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    made = secret(tmp_path, "mqtt/ingest")
    assert secret(tmp_path, "mqtt/ingest") == made
    assert len(made) == 43
    assert secret(tmp_path, "mqtt/other") != made
    assert secret_path(tmp_path, "mqtt/ingest").stat().st_mode & 0o777 == 0o600
    for folder in ("secrets", "secrets/mqtt"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700


def test_of_many_that_make_a_secret_at_once_all_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(max_workers=8) as threads:
        made = set(threads.map(lambda _: secret(tmp_path, "shared"), range(64)))
    assert len(made) == 1
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["shared"]


def test_a_private_file_is_replaced_whole_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content in (b"first", b"second"):
        write_private(path, content)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["key"]
