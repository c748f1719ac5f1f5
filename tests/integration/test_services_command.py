"""`hearth services`, as a person runs it: one owner, others find it, nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.errors import UsageError
from gateway.platform.embedded.packages import Packages, find_packages
from gateway.platform.embedded.services import find_services, running_services
from gateway.platform.postgres import connect
from gateway.platform.settings import Settings
from tests.fixtures.servers import eventually, is_gone

pytestmark = pytest.mark.integration

HEARTH = (sys.executable, "-m", "gateway.cli.main", "services")


@pytest.fixture
def services_home(home: Path, packages: Packages) -> Path:
    """A home in which the programs lie ready."""
    (home / "packages").symlink_to(packages.root.parent)
    return home


@contextmanager
def running(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `hearth services run` until the block ends, at the latest."""
    with subprocess.Popen(
        [*HEARTH, "run"], env=environment(home), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            # To the line that says so; the pipe is read on by nobody, which is little enough.
            while "Ctrl-C" not in (line := process.stderr.readline()):
                assert line, "it ended"
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HEARTH_HOME": str(home)}


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HEARTH, *arguments], env=environment(home), capture_output=True, text=True, check=False
    )


def pids(home: Path) -> list[int]:
    servers = find_services(Settings(home=home))
    found = [server.pid for server in (servers.database, servers.broker) if server]
    return [pid for pid in found if pid]


def urls(home: Path) -> tuple[str, str]:
    servers = find_services(Settings(home=home))
    return servers.database_url, servers.mqtt.url


def all_run(home: Path) -> bool:
    return command(home, "status").returncode == 0


def test_it_runs_until_asked_to_stop_and_leaves_nothing(services_home: Path) -> None:
    with running(services_home) as process:
        servers = pids(services_home)
        status = command(services_home, "status", "--json")
        assert status.returncode == 0, status.stderr
        assert [json.loads(line)["pid"] for line in status.stdout.splitlines()] == servers
        second = command(services_home, "run")
        assert second.returncode == 2
        assert "已在运行" in second.stderr
        assert "Traceback" not in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert all(map(is_gone, servers))
    stopped = command(services_home, "status")
    assert stopped.returncode == 1
    assert "未运行" in stopped.stdout


def test_nothing_is_left_when_it_is_killed_and_it_starts_again(services_home: Path) -> None:
    with running(services_home) as process:
        servers = pids(services_home)
        process.kill()
    assert eventually(lambda: all(map(is_gone, servers)))
    with running(services_home):
        assert len(pids(services_home)) == 2


def test_a_server_that_ends_by_itself_is_started_again_where_it_was(services_home: Path) -> None:
    with running(services_home):
        before, killed = urls(services_home), pids(services_home)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: all(map(is_gone, killed)), within_s=60)
        assert eventually(lambda: all_run(services_home), within_s=60)
        assert urls(services_home) == before


async def test_a_program_can_have_them_for_a_while(services_home: Path) -> None:
    settings = Settings(home=services_home)
    told: list[str] = []
    async with running_services(settings, told.append) as services:
        found = find_services(settings)
        assert (found.database_url, found.mqtt) == (services.database_url, services.mqtt)
        async with await connect(services.database_url, application="test") as connection:
            cursor = await connection.execute("SELECT 1")
            assert await cursor.fetchone() == (1,)
    assert len(told) == 2
    with pytest.raises(UsageError, match="未运行 / does not run"):
        find_services(settings)


async def test_ones_own_servers_are_used_and_not_touched(home: Path) -> None:
    settings = Settings(
        home=home,
        database_url=SecretStr("postgresql://db.example.org/hearth"),
        mqtt_url=SecretStr("mqtts://mqtt.example.org"),
    )
    async with running_services(settings, pytest.fail) as services:
        assert services.database is None
        assert services.broker is None
        assert services.database_url == "postgresql://db.example.org/hearth"
        assert services == find_services(settings)
    assert find_packages(home) is None


def test_before_they_were_ever_prepared_the_way_to_them_is_named(home: Path) -> None:
    with pytest.raises(UsageError, match="hearth services run"):
        find_services(Settings(home=home))
