"""A private message bus: its own, reachable by its address, gone afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from dbus_fast.aio import MessageBus

from gateway.errors import UsageError
from gateway.platform.embedded.dbus import dbus_daemon, private_bus
from gateway.platform.embedded.packages import Packages

pytestmark = pytest.mark.integration


@pytest.fixture(params=["this machine's or the packages'", "the packages'"])
def program(
    request: pytest.FixtureRequest, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> Path:
    if request.param == "the packages'":
        monkeypatch.setenv("PATH", "/nowhere")
    path = dbus_daemon(packages)
    monkeypatch.undo()
    return path


async def test_a_service_can_take_the_name_of_bluez(program: Path, tmp_path: Path) -> None:
    with private_bus(program, tmp_path / "bus.log") as address:
        bus = await MessageBus(bus_address=address).connect()
        assert (await bus.request_name("org.bluez")).name == "PRIMARY_OWNER"
        bus.disconnect()
        await bus.wait_for_disconnect()
    assert not Path(address.removeprefix("unix:path=")).parent.exists()


def test_two_buses_know_nothing_of_each_other(program: Path, tmp_path: Path) -> None:
    with private_bus(program, tmp_path / "1") as one, private_bus(program, tmp_path / "2") as other:
        assert one != other


def test_too_long_a_folder_for_temporary_files_is_named(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(UsageError, match="TMPDIR"), private_bus(program, tmp_path / "log"):
        pass


def test_where_there_is_no_program_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="hearth services prepare"):
        dbus_daemon(None)
