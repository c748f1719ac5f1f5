"""The parts on their stage: started, killed, started again; each behind its network. Blocking.

All state lies in one folder, which is there only for a run; database and hubs have disks of their own.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from api.records import Link, NewDevice, NewHub, Registration
from api.registry import register
from bench.chaos.disks import Disk, make_disk
from bench.chaos.hubs import HomePlan, Plan
from bench.chaos.load import SimulatedHome
from bench.chaos.orders import Orders, give
from edge.identity import FOLDER, Identity, keep_identity
from gateway.errors import UnavailableError
from gateway.measurement import device_address
from gateway.platform import ca
from gateway.platform.broker_address import BrokerAccess
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.database import SUPERUSER, Database
from gateway.platform.embedded.packages import Packages
from gateway.platform.postgres import connect_blocking
from gateway.platform.process import Child, Program
from gateway.platform.settings import LOOPBACK
from gateway.vital_sign import NO_USER_SLOT
from gateway.wire import hub_name
from ingest.migrations import migrate

DATABASE_DISK_BYTES = 768 << 20
WAL_BYTES = 128 << 20
"""The database's own bound is 2 GiB; its disk here is smaller."""
HUBS_DISK_BYTES = 256 << 20
WORKERS = 2
"""Ingest workers; they share the lanes."""
START_S_MAX = 120.0
"""A part that does not start by then, however often it is tried, ends the run."""
START_PAUSE_S = 0.5

_HUB_FILE = """\
[hub]
id = "{hub}"
data_dir = "{data_dir}"

[mqtt]
url = "{url}"

[enrolment]
url = "http://127.0.0.1:1"
"""
"""No certificate runs out in a run, so nobody listens there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the networks between the parts listen."""

    hubs_broker: int
    ingest_broker: int
    ingest_database: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """The modules that play; tests put others in, which lack a safety."""

    hubs: str = "bench.chaos.hubs"
    ingest: str = "bench.chaos.ingest"


@dataclass(slots=True, kw_only=True)
class Stage:
    """All parts of a run."""

    folder: Path
    homes: list[SimulatedHome]
    seed: int
    readings_per_s: float
    database: Database
    broker: Broker
    database_disk: Disk
    hubs_disk: Disk
    cast: Cast
    ended_by_themselves: list[str] = field(default_factory=list)
    _ingest: list[Child | None] = field(default_factory=lambda: [None] * WORKERS)
    _hubs: Child | None = None
    _ports: Ports | None = None

    @property
    def configs(self) -> list[Path]:
        """The hubs' hub.toml."""
        return [self._config(hub) for home in self.homes for hub in home.hubs]

    @property
    def journals(self) -> list[Path]:
        """The hubs' journals."""
        return [self._journal(hub) for home in self.homes for hub in home.hubs]

    @property
    def hub_orders(self) -> Path:
        """What the hubs are to do."""
        return self.folder / "hubs.orders"

    @property
    def hub_events(self) -> Path:
        """What they did."""
        return self.folder / "hubs.events"

    @property
    def ingest_orders(self) -> Path:
        """What ingest is to do."""
        return self.folder / "ingest.orders"

    @property
    def ingest_events(self) -> Path:
        """What it did."""
        return self.folder / "ingest.events"

    def raise_curtain(self, ports: Ports) -> None:
        """Start everything, with an empty database that knows the homes."""
        self._ports = ports
        self.broker.start()
        self.database.start()
        bounds = f"ALTER SYSTEM SET max_wal_size = '{WAL_BYTES >> 20}MB'"
        with connect_blocking(
            self.superuser_url, application="hearth-chaos", autocommit=True
        ) as connection:
            connection.execute(bounds)
            connection.execute("SELECT pg_reload_conf()")
        migrate(self.database.url())
        with connect_blocking(self.database.url(), application="hearth-chaos") as connection:
            register(connection, _registration(self.homes))
        self.broker.admit(*(hub_name(hub) for home in self.homes for hub in home.hubs))
        for home in self.homes:
            for hub in home.hubs:
                self._configure(hub, ports.hubs_broker)
        give(self.hub_orders, Orders())
        give(self.ingest_orders, Orders())
        self._plan().write(self.folder / "plan.json")
        for worker in range(WORKERS):
            self.start_ingest(worker)
        self.start_hubs()

    def lower_curtain(self) -> None:
        """End everything and leave nothing."""
        for child in (self._hubs, *self._ingest):
            if child is not None:
                child.stop()
        self.broker.stop()
        self.database.stop()
        for disk in (self.hubs_disk, self.database_disk):
            disk.unmount()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_ingest(self, worker: int) -> None:
        """Start one worker."""
        assert self._ports is not None  # noqa: S101 - the curtain is up
        url = self.database.url().replace(
            f":{self.database.port}/", f":{self._ports.ingest_database}/"
        )
        broker = _through(self.broker.access(), self._ports.ingest_broker)
        self._ingest[worker] = self._start(
            f"ingest-{worker}",
            self.cast.ingest, str(self.ingest_orders), str(self.ingest_events),
            HEARTH_DATABASE_URL=url,
            HEARTH_INGEST_FLUSH_MS="50",
            **broker.environment(),
        )  # fmt: skip

    def kill_ingest(self, worker: int) -> bool:
        """Kill one worker; tell whether it lived."""
        return _kill(self._ingest[worker])

    def start_hubs(self) -> None:
        """Start the hubs."""
        self._hubs = self._start("hubs", self.cast.hubs, str(self.folder / "plan.json"))

    def kill_hubs(self) -> bool:
        """Kill the hubs; tell whether they lived."""
        return _kill(self._hubs)

    def stop_hubs(self) -> None:
        """End the hubs in good order."""
        if self._hubs is not None:
            self._hubs.stop()

    def start_server(self, server: Database | Broker) -> None:
        """Start a server that was killed or died; its disk may be full for a while yet.

        Raises:
            UnavailableError: it does not come back.
        """
        deadline = time.monotonic() + START_S_MAX
        while server.pid is None:
            try:
                server.start()
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(START_PAUSE_S)

    def start_what_ended(self) -> None:
        """Start again, as systemd would, what ended by itself, and note it."""
        for worker, child in enumerate(self._ingest):
            if child is not None and not child.is_alive():
                self.ended_by_themselves.append("ingest")
                self.start_ingest(worker)
        if self._hubs is not None and not self._hubs.is_alive():
            self.ended_by_themselves.append("hubs")
            self.start_hubs()

    def pids(self) -> dict[str, int]:
        """Return the processes of ours that run now, by name; the database's are many and its own."""
        children = {"hubs": self._hubs} | {
            f"ingest-{worker}": child for worker, child in enumerate(self._ingest)
        }
        found = {name: child.pid for name, child in children.items() if child is not None}
        broker = self.broker.pid
        return found if broker is None else found | {self.broker.name: broker}

    @property
    def superuser_url(self) -> str:
        """The way to the database past the networks, as its superuser."""
        return self.database.url(SUPERUSER)

    def _start(self, name: str, module: str, *arguments: str, **environment: str) -> Child:
        return Child(
            Program(
                name=name,
                argv=(sys.executable, "-m", module, *arguments),
                log=self.folder / "log" / f"{name}.log",
                environment=os.environ
                | {"HEARTH_HOME": str(self.folder), "HEARTH_LOG_LEVEL": "warning"}
                | environment,
            )
        )

    def _plan(self) -> Plan:
        return Plan(
            homes=tuple(
                HomePlan(
                    configs=tuple(str(self._config(hub)) for hub in home.hubs),
                    journals=tuple(str(self._journal(hub)) for hub in home.hubs),
                    devices=home.devices,
                )
                for home in self.homes
            ),
            orders=str(self.hub_orders),
            events=str(self.hub_events),
            seed=self.seed,
            readings_per_s=self.readings_per_s,
        )

    def _config(self, hub: int) -> Path:
        return self.folder / "configs" / f"{hub_name(hub)}.toml"

    def _journal(self, hub: int) -> Path:
        return self.folder / "journals" / f"{hub_name(hub)}.journal"

    def _configure(self, hub: int, port: int) -> None:
        self._config(hub).parent.mkdir(exist_ok=True)
        self._journal(hub).parent.mkdir(exist_ok=True)
        name = hub_name(hub)
        text = _HUB_FILE.format(
            hub=name,
            data_dir=self.hubs_disk.folder / name,
            url=_through(self.broker.access(name), port).url,
        )
        keep_identity(self.hubs_disk.folder / name / FOLDER, _identity(self.broker, name))
        self._config(hub).write_text(text, encoding="utf-8")


def build_stage(
    folder: Path,
    packages: Packages,
    homes: list[SimulatedHome],
    cast: Cast,
    *,
    seed: int,
    readings_per_s: float,
) -> Stage:
    """Describe the parts and make their disks; nothing is started."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o711)
    database_disk = make_disk(folder / Database.name, DATABASE_DISK_BYTES)
    hubs_disk = make_disk(folder / "hubs", HUBS_DISK_BYTES)
    return Stage(
        folder=folder,
        homes=homes,
        seed=seed,
        readings_per_s=readings_per_s,
        database=Database(folder, packages),
        broker=Broker(folder, packages),
        database_disk=database_disk,
        hubs_disk=hubs_disk,
        cast=cast,
    )


def _through(access: BrokerAccess, port: int) -> BrokerAccess:
    """Return the same access by another port."""
    return replace(access, url=f"mqtts://{LOOPBACK}:{port}")


def _identity(broker: Broker, hub: str) -> Identity:
    """Return what an enrolment would have given a hub that was admitted."""
    access = broker.access(hub)
    assert access.cert_file is not None  # noqa: S101 - our own broker asks for one
    return Identity(
        hub=ca.Bundle.from_pem(access.cert_file.read_bytes()),
        hubs_root=ca.authority(broker.home, ca.Role.HUBS).pem(),
        services_root=ca.authority(broker.home, ca.Role.SERVICES).pem(),
    )


def _kill(child: Child | None) -> bool:
    if child is None or not child.is_alive():
        return False
    child.kill()
    return True


def _registration(homes: list[SimulatedHome]) -> Registration:
    return Registration(
        homes=[_id("home", home.devices[0]) for home in homes],
        residents=[_id("resident", device) for home in homes for device in home.devices],
        hubs=[
            NewHub(name=hub_name(hub), home=_id("home", home.devices[0]))
            for home in homes
            for hub in home.hubs
        ],
        devices=[
            NewDevice(address=device_address(device), home=_id("home", home.devices[0]))
            for home in homes
            for device in home.devices
        ],
        links=[
            Link(
                device=device_address(device),
                user_slot=NO_USER_SLOT,
                resident=_id("resident", device),
                starts_at=None,
            )
            for home in homes
            for device in home.devices
        ],
    )


def _id(what: str, number: int) -> UUID:
    return uuid5(NAMESPACE_URL, f"hearth-chaos:{what}:{number}")
