"""The processes of the demo: what `hearth` itself would be called with, each with its own log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from gateway.platform.embedded.services import Services
from gateway.platform.ports import free_port
from gateway.platform.process import Program
from gateway.platform.process_part import Process
from gateway.platform.settings import LOOPBACK, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """The simulated homes and the hubs that hear them: the homes' message bus ends with them."""

    homes: Process
    hubs: Process

    @property
    def name(self) -> str:
        """For logs and errors."""
        return f"{self.homes.name} and {self.hubs.name}"

    def needs_restart(self) -> bool:
        """Tell whether the homes have ended although nobody stopped them."""
        return self.homes.needs_restart()

    def restart(self) -> None:
        """Start the homes again, and the hubs on the new bus.

        Raises:
            UnavailableError: they do not start; the text quotes their log.
        """
        self.homes.restart()
        self.homes.wait_ready()
        self.hubs.restart()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that runs beside database and broker."""

    ingest: Process
    api: Process
    alerts: Process
    homes: Process
    hubs: Process

    @property
    def supervised(self) -> tuple[Process | Devices, ...]:
        """What is to be started again, a part after those that it needs."""
        devices = Devices(homes=self.homes, hubs=self.hubs)
        return (self.ingest, self.api, self.alerts, devices, self.hubs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the parts are started with."""

    settings: Settings
    services: Services
    configs: Sequence[Path]
    folder: Path
    homes: int
    seed: int
    readings_per_s: float
    api_port: int
    api_database_url: str

    @property
    def journal(self) -> Path:
        """The devices' ground truth of this run."""
        return self.folder / "journal.jsonl"

    @property
    def bus_file(self) -> Path:
        """Where the simulated devices say where their message bus is."""
        return self.folder / "bus"


@contextmanager
def running(plan: Plan) -> Iterator[Parts]:
    """Start all parts and wait until each is ready; end them afterwards, the devices first."""
    plan.journal.unlink(missing_ok=True)
    plan.journal.touch()
    ingest_port, alerts_port, hubs_port = free_port(), free_port(), free_port()
    started: list[Process] = []

    def start(program: Callable[[], Program], is_ready: Callable[[], bool]) -> Process:
        started.append(Process(program, is_ready))
        return started[-1]

    def homes_program() -> Program:
        plan.bus_file.unlink(missing_ok=True)  # it is the sign of readiness
        return _program(plan, "homes", _simulate(plan))

    def hubs_program() -> Program:
        bus = plan.bus_file.read_text(encoding="utf-8").strip()
        return _program(
            plan, "hubs", ("hub", "run", *_configs(plan)),
            HEARTH_METRICS_PORT=str(hubs_port), DBUS_SYSTEM_BUS_ADDRESS=bus,
        )  # fmt: skip

    try:
        ingest = start(
            lambda: _program(plan, "ingest", ("ingest",), HEARTH_METRICS_PORT=str(ingest_port)),
            lambda: _answers(ingest_port),
        )
        api = start(
            lambda: _program(
                plan, "api", ("api", "--port", str(plan.api_port), "--processes", "1")
            ),
            lambda: _answers(plan.api_port),
        )
        alerts = start(
            lambda: _program(
                plan, "alerts", ("alerts", "run"), HEARTH_METRICS_PORT=str(alerts_port)
            ),
            lambda: _answers(alerts_port),
        )
        homes = start(homes_program, plan.bus_file.exists)
        homes.wait_ready()
        hubs = start(hubs_program, lambda: _answers(hubs_port))
        for process in (ingest, api, alerts, hubs):
            process.wait_ready()
        yield Parts(ingest=ingest, api=api, alerts=alerts, homes=homes, hubs=hubs)
    finally:
        for process in reversed(started):
            process.stop()


def _simulate(plan: Plan) -> list[str]:
    return [
        "simulate", "homes", "--wait-for-hubs",
        "--homes", str(plan.homes),
        "--seed", str(plan.seed),
        "--readings-per-s", str(plan.readings_per_s),
        "--journal", str(plan.journal),
        "--bus-file", str(plan.bus_file),
    ]  # fmt: skip


def _configs(plan: Plan) -> list[str]:
    return [word for path in plan.configs for word in ("--config", str(path))]


def _program(plan: Plan, name: str, words: Sequence[str], **environment: str) -> Program:
    return Program(
        name=name,
        argv=(sys.executable, "-m", "gateway.cli.main", *words),
        log=plan.settings.home / "log" / f"{name}.log",
        environment=os.environ
        | {
            "HEARTH_HOME": str(plan.settings.home),
            "HEARTH_DATABASE_URL": plan.services.database_url,
            "HEARTH_API_DATABASE_URL": plan.api_database_url,
        }
        | plan.services.mqtt.environment()
        | environment,
    )


def _answers(port: int) -> bool:
    connection = HTTPConnection(LOOPBACK, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200  # noqa: PLR2004 - HTTP's OK
    except OSError:
        return False
    finally:
        connection.close()
