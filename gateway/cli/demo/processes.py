"""The processes of the demo: what `hearth` itself would be called with, each with its own log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from gateway.platform.embedded.services import Services
from gateway.platform.ports import free_port
from gateway.platform.process import Child, Program
from gateway.platform.settings import LOOPBACK, Settings

READY_S_MAX = 60.0
"""A part that is not ready by then stops the demo, with the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that runs beside database and broker."""

    ingest: Child
    api: Child
    homes: Child
    hubs: Child

    def all_alive(self) -> bool:
        """Whether every part still runs."""
        return all(child.is_alive() for child in (self.ingest, self.api, self.homes, self.hubs))


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
    for leftover in (plan.journal, plan.bus_file):
        leftover.unlink(missing_ok=True)
    plan.journal.touch()
    ingest_port, hubs_port = free_port(), free_port()
    started: list[Child] = []

    def start(name: str, *words: str, **environment: str) -> Child:
        child = Child(_program(plan, name, words, environment))
        started.append(child)
        return child

    try:
        ingest = start("ingest", "ingest", HEARTH_METRICS_PORT=str(ingest_port))
        api = start("api", "api", "--port", str(plan.api_port))
        homes = start("homes", *_simulate(plan))
        homes.wait_ready(plan.bus_file.exists, READY_S_MAX)
        hubs = start(
            "hubs", "hub", "run", *_configs(plan),
            HEARTH_METRICS_PORT=str(hubs_port),
            DBUS_SYSTEM_BUS_ADDRESS=plan.bus_file.read_text(encoding="utf-8").strip(),
        )  # fmt: skip
        for child, port in ((ingest, ingest_port), (api, plan.api_port), (hubs, hubs_port)):
            child.wait_ready(lambda port=port: _is_ready(port), READY_S_MAX)  # type: ignore[misc]
        yield Parts(ingest=ingest, api=api, homes=homes, hubs=hubs)
    finally:
        for child in reversed(started):
            child.stop()


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


def _program(plan: Plan, name: str, words: Sequence[str], environment: dict[str, str]) -> Program:
    return Program(
        name=name,
        argv=(sys.executable, "-m", "gateway.cli.main", *words),
        log=plan.settings.home / "log" / f"{name}.log",
        environment=os.environ
        | {
            "HEARTH_HOME": str(plan.settings.home),
            "HEARTH_DATABASE_URL": plan.services.database_url,
            "HEARTH_API_DATABASE_URL": plan.api_database_url,
            "HEARTH_MQTT_URL": plan.services.mqtt_url,
        }
        | environment,
    )


def _is_ready(port: int) -> bool:
    connection = HTTPConnection(LOOPBACK, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200  # noqa: PLR2004 - HTTP's OK
    except OSError:
        return False
    finally:
        connection.close()
