"""The simulated town: its homes entered into the archive, its hubs admitted and configured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from api.enrolment import Office, make_code
from api.records import Link, NewDevice, NewHub, Registration
from api.registry import register
from edge.enrolment import enrol
from edge.identity import FOLDER, read_identity
from firmware_sim.homes import Home, HomeDevice
from gateway.errors import UsageError
from gateway.platform import ca
from gateway.platform.embedded.services import Services
from gateway.platform.enrolment import CODE_LIFETIME
from gateway.platform.postgres import Connection, connect_blocking
from gateway.vital_sign import NO_USER_SLOT

_HUB_FILE = """\
[hub]
id = "{hub}"
timezone = "{zone}"
clock = "system"
data_dir = "{data_dir}"
adapters = ["{adapter}"]

[mqtt]
url = "{broker}"

[enrolment]
url = "{api}"
"""
_NO_API = "http://127.0.0.1"
"""Stands in the codes, and is not used: the hubs of the demo are enrolled before its API runs."""
_DEVICE = """
[[device]]
address = "{address}"
name = "{name}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Town:
    """The homes, with the public id of each person and the hub.toml of each hub."""

    homes: tuple[Home, ...]
    configs: tuple[Path, ...]

    @property
    def residents(self) -> tuple[UUID, ...]:
        """Everybody's public id."""
        return tuple(
            resident_id(home, resident.person) for home in self.homes for resident in home.residents
        )

    def residents_of(self, device: str) -> tuple[UUID, ...]:
        """Return who may be measured by a device: the residents its readings can belong to."""
        return self._residents_by_device[device]

    @property
    def _residents_by_device(self) -> dict[str, tuple[UUID, ...]]:
        return {
            described.address: tuple(resident_id(home, user.person) for user in described.users)
            for home in self.homes
            for described in home.devices
        }


def resident_id(home: Home, person: int) -> UUID:
    """Return the public id of a simulated person: the same at every start."""
    return uuid5(NAMESPACE_URL, f"hearth-demo:{home.seed}:{home.hub}:{person}")


def home_id(home: Home) -> UUID:
    """Return the public id of a simulated home."""
    return uuid5(NAMESPACE_URL, f"hearth-demo:{home.seed}:{home.hub}")


def settle(homes: Sequence[Home], services: Services, folder: Path, api_url: str) -> Town:
    """Enter the homes, enrol their hubs and write each a hub.toml. May be repeated."""
    broker = services.broker
    assert broker is not None  # noqa: S101 - the demo has refused a person's own before
    office = Office(dsn=services.database_url, home=broker.home, broker_url=lambda: broker.hubs_url)
    with connect_blocking(services.database_url, application="hearth-demo") as connection:
        register(connection, _registration(homes))
        connection.commit()
        for home in homes:
            _enrol(connection, office, home.hub, folder / home.hub)
    return Town(
        homes=tuple(homes),
        configs=tuple(
            _configure(home, number, broker.hubs_url, api_url, folder)
            for number, home in enumerate(homes)
        ),
    )


def _registration(homes: Sequence[Home]) -> Registration:
    devices = [(home, device) for home in homes for device in home.devices]
    return Registration(
        homes=[home_id(home) for home in homes],
        residents=[
            resident_id(home, resident.person) for home in homes for resident in home.residents
        ],
        hubs=[NewHub(name=home.hub, home=home_id(home)) for home in homes],
        devices=[
            NewDevice(address=device.address, home=home_id(home), model=device.model.name)
            for home, device in devices
        ],
        links=[link for home, device in devices for link in _links(home, device)],
    )


def _links(home: Home, device: HomeDevice) -> list[Link]:
    """Return who is measured by a device; nobody where several share it and it has no slots."""
    if len(device.users) > 1 and any(user.slot is None for user in device.users):
        return []
    return [
        Link(
            device=device.address,
            user_slot=NO_USER_SLOT if user.slot is None else user.slot,
            resident=resident_id(home, user.person),
            starts_at=None,
        )
        for user in device.users
    ]


def _enrol(connection: Connection, office: Office, hub: str, data_dir: Path) -> None:
    """Let a hub have its certificate as every hub does, but for the way over the network."""
    folder = data_dir / FOLDER
    if _is_enrolled(folder, office):
        return
    made = make_code(
        connection, office.home, hub, of_home=None, url=_NO_API, lifetime=CODE_LIFETIME
    )
    connection.commit()
    enrol(made.code, folder, lambda _path, body: office.enrol(body, None))


def _is_enrolled(folder: Path, office: Office) -> bool:
    try:
        certificate = read_identity(folder).hub.certificate
    except UsageError:
        return False
    root = ca.authority(office.home, ca.Role.HUBS)
    return root.has_issued(certificate) and not ca.is_due(certificate, datetime.now(UTC))


def _configure(home: Home, number: int, broker: str, api_url: str, folder: Path) -> Path:
    data_dir = folder / home.hub
    data_dir.mkdir(parents=True, exist_ok=True)
    text = _HUB_FILE.format(
        hub=home.hub,
        zone=home.zone,
        data_dir=data_dir,
        adapter=f"hci{number}",
        broker=broker,
        api=api_url,
    )
    text += "".join(
        _DEVICE.format(address=device.address, name=device.model.name) for device in home.devices
    )
    path = data_dir / "hub.toml"
    written = path.with_suffix(".new")
    written.write_text(text, encoding="utf-8")
    written.replace(path)
    return path
