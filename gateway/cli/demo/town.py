"""The simulated town: its homes entered into the archive, its hubs admitted and configured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from api.records import Link, NewDevice, NewHub, Registration
from api.registry import register
from edge.identity import FOLDER, Identity, keep_identity
from firmware_sim.homes import Home, HomeDevice
from gateway.platform import ca
from gateway.platform.embedded.broker import Broker
from gateway.platform.embedded.services import Services
from gateway.platform.postgres import connect_blocking
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
"""
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


def settle(homes: Sequence[Home], services: Services, folder: Path) -> Town:
    """Enter the homes, admit their hubs at the broker and write each a hub.toml. May be repeated."""
    with connect_blocking(services.database_url, application="hearth-demo") as connection:
        register(connection, _registration(homes))
    broker = services.broker
    assert broker is not None  # noqa: S101 - the demo has refused a person's own before
    broker.admit(*(home.hub for home in homes))
    return Town(
        homes=tuple(homes),
        configs=tuple(
            _configure(home, number, broker, folder) for number, home in enumerate(homes)
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


def _identity(broker: Broker, hub: str) -> Identity:
    access = broker.access(hub)
    assert access.cert_file is not None  # noqa: S101 - our own broker asks for one
    return Identity(
        hub=ca.Bundle.from_pem(access.cert_file.read_bytes()),
        hubs_root=ca.authority(broker.home, ca.Role.HUBS).pem(),
        services_root=ca.authority(broker.home, ca.Role.SERVICES).pem(),
    )


def _configure(home: Home, number: int, broker: Broker, folder: Path) -> Path:
    data_dir = folder / home.hub
    data_dir.mkdir(parents=True, exist_ok=True)
    keep_identity(data_dir / FOLDER, _identity(broker, home.hub))
    text = _HUB_FILE.format(
        hub=home.hub,
        zone=home.zone,
        data_dir=data_dir,
        adapter=f"hci{number}",
        broker=broker.access(home.hub).url,
    )
    text += "".join(
        _DEVICE.format(address=device.address, name=device.model.name) for device in home.devices
    )
    path = data_dir / "hub.toml"
    written = path.with_suffix(".new")
    written.write_text(text, encoding="utf-8")
    written.replace(path)
    return path
