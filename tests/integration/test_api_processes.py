"""The API as several processes: one port, one set of numbers, and one that dies is replaced."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from api.issuer.keys import KeyRing
from api.issuer.tokens import AUDIENCE, Signer
from api.metrics import FOLDER
from api.processes import PROCESSES_MAX_UNASKED, processes_for
from tests.archives import API, SERVICE, public_id
from tests.fixtures.database import as_api
from tests.fixtures.servers import eventually, is_gone
from tests.worlds import enter_registry

pytestmark = pytest.mark.integration

HOST = "127.0.0.2"
PROCESSES = 2
BURST = 30
ASKED = 'hearth_api_requests_total{method="GET",route="/healthz",status="200"}'
SCRAPE_TOKEN = "0123456789abcdef" * 3
WITHIN_S = 60


@dataclass
class Service:
    """`hearth api` with its processes, and what they log."""

    parent: subprocess.Popen[str]
    home: Path
    port: int = 0
    events: Queue[dict[str, Any]] = field(default_factory=Queue)

    def read_log(self) -> None:
        """Read to the end."""
        assert self.parent.stderr is not None
        for line in self.parent.stderr:
            self.events.put(json.loads(line))

    def next_event(self, name: str) -> dict[str, Any]:
        """Wait for an event."""
        while (event := self.events.get(timeout=WITHIN_S))["event"] != name:
            pass
        return event

    def children(self) -> set[int]:
        """The processes that serve."""
        path = Path(f"/proc/{self.parent.pid}/task")
        threads = [task / "children" for task in path.iterdir()]
        return {int(pid) for thread in threads for pid in thread.read_text().split()}

    def connection(self) -> HTTPConnection:
        """A connection of its own."""
        return HTTPConnection(HOST, self.port, timeout=WITHIN_S)

    def get(self, path: str, token: str = "") -> int:
        """Ask on a connection of its own; returns the status."""
        connection = self.connection()
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        status = connection.getresponse().status
        connection.close()
        return status

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels, as Prometheus would scrape it."""
        request = urllib.request.Request(
            f"http://{HOST}:{self.port}/metrics",
            headers={"Authorization": f"Bearer {SCRAPE_TOKEN}"},
        )
        with urllib.request.urlopen(request, timeout=WITHIN_S) as response:  # noqa: S310 - our own
            lines = response.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.fixture
def service(database: str, tmp_path: Path) -> Iterator[Service]:
    """The API by its processes; each has said that it serves."""
    enter_registry(database)
    token = tmp_path / "metrics-token"
    token.touch(mode=0o600)
    token.write_text(SCRAPE_TOKEN)
    environment = os.environ | {
        "HEARTH_API_DATABASE_URL": as_api(database),
        "HEARTH_API_RATE_PER_S": "0",
        "HEARTH_HOME": str(tmp_path),
        "HEARTH_LOG_FORMAT": "json",
        "HEARTH_METRICS_TOKEN_FILE": str(token),
    }
    words = ("api", "--host", HOST, "--port", "0", "--processes", str(PROCESSES))
    with subprocess.Popen(
        [sys.executable, "-m", "gateway.cli.main", *words],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        running = Service(parent, tmp_path)
        reader = threading.Thread(target=running.read_log)
        reader.start()
        try:
            running.port = running.next_event("api_processes_start")["port"]
            started = [running.next_event("api_started") for _ in range(PROCESSES)]
            assert {one["process"] for one in started} == set(range(1, PROCESSES + 1))
            assert {(one["host"], one["port"]) for one in started} == {(HOST, running.port)}
            yield running
        finally:
            parent.terminate()
            parent.wait(WITHIN_S)
            reader.join(WITHIN_S)


def test_a_burst_of_connections_is_shared_and_their_numbers_are_sums(service: Service) -> None:
    bursts = 0

    def is_shared() -> bool:
        nonlocal bursts
        bursts += 1
        before = {child: _sockets(child) for child in service.children()}
        with ExitStack() as stack:
            connections = [service.connection() for _ in range(BURST)]
            for connection in connections:
                stack.callback(connection.close)
                connection.connect()
            for connection in connections:
                connection.request("GET", "/healthz")
            statuses = [connection.getresponse().status for connection in connections]
            assert statuses == [200] * BURST
            return all(_sockets(child) >= had + BURST // 5 for child, had in before.items())

    assert eventually(is_shared, WITHIN_S)  # on a busy machine one of them may sleep through it
    assert service.metric(ASKED) == bursts * BURST
    assert service.metric("hearth_api_live_clients") == 0


def test_a_process_that_is_killed_is_started_again_and_the_others_serve_meanwhile(
    service: Service, database: str
) -> None:
    before = service.children()
    assert len(before) == PROCESSES
    os.kill(before.pop(), signal.SIGKILL)
    assert [service.get("/healthz") for _ in range(10)] == [200] * 10
    service.next_event("part_restarted")
    service.next_event("api_started")
    assert len(service.children()) == PROCESSES
    assert before < service.children()
    assert service.metric(ASKED) == 10

    signer = Signer(
        key=KeyRing(service.home), issuer=f"http://{HOST}:{service.port}", audience=AUDIENCE
    )
    token = signer.access_token(
        SERVICE, datetime.now(UTC), session=None, client="tests", scope="system/*.rs"
    )
    path = f"{API}/residents/{public_id(database)}/latest"
    assert [service.get(path, token) for _ in range(4 * PROCESSES)] == [200] * 4 * PROCESSES

    children = service.children()
    service.parent.send_signal(signal.SIGTERM)
    assert service.parent.wait(WITHIN_S) == 0
    assert all(is_gone(child) for child in children)


def test_all_processes_end_when_the_one_that_keeps_them_is_killed(service: Service) -> None:
    children = service.children()
    (folder,) = {_variable(child, FOLDER) for child in children}
    service.parent.kill()
    assert eventually(lambda: all(is_gone(child) for child in children))
    shutil.rmtree(folder)  # which the next service would do after a while


def test_there_are_as_many_processes_as_cores_unless_somebody_says() -> None:
    assert processes_for(0) == min(len(os.sched_getaffinity(0)), PROCESSES_MAX_UNASKED)
    assert processes_for(7) == 7


def _variable(pid: int, name: str) -> str:
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(variable.partition("=")[::2] for variable in variables)[name]


def _sockets(pid: int) -> int:
    files = Path(f"/proc/{pid}/fd").iterdir()
    return sum(str(file.readlink()).startswith("socket:") for file in files)
