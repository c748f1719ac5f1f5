"""A device's GATT database, as it is discovered. Bluetooth Core 5.4, Vol 3 Part G, 4.4 to 4.7."""

from __future__ import annotations

from dataclasses import dataclass

from bumble.core import UUID
from bumble.device import Connection, Peer
from bumble.gatt import Characteristic

from gateway.gatt.uuids import uuid128

ATT_MTU = 517
"""What BlueZ offers (main.conf, ExchangeMTU); the device has its own limit."""

_SHORT_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteDescriptor:
    """A descriptor that was discovered."""

    handle: int
    uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCharacteristic:
    """A characteristic that was discovered; `handle` is its value's."""

    handle: int
    uuid: str
    properties: Characteristic.Properties
    descriptors: tuple[RemoteDescriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteService:
    """A service that was discovered."""

    handle: int
    end_handle: int
    uuid: str
    characteristics: tuple[RemoteCharacteristic, ...]


async def discover(
    connection: Connection, known: tuple[RemoteService, ...]
) -> tuple[RemoteService, ...]:
    """Return the device's services; where they are still `known`, without asking for the rest."""
    peer = Peer(connection)
    await peer.request_mtu(ATT_MTU)
    await peer.discover_services()
    found = [(s.handle, s.end_group_handle, _uuid(s.uuid)) for s in peer.services]
    if found == [(s.handle, s.end_handle, s.uuid) for s in known]:
        return known
    for service in peer.services:
        await service.discover_characteristics()
        for characteristic in service.characteristics:
            await characteristic.discover_descriptors()
    return tuple(
        RemoteService(
            handle=service.handle,
            end_handle=service.end_group_handle,
            uuid=_uuid(service.uuid),
            characteristics=tuple(
                RemoteCharacteristic(
                    handle=characteristic.handle,
                    uuid=_uuid(characteristic.uuid),
                    properties=characteristic.properties,
                    descriptors=tuple(
                        RemoteDescriptor(handle=d.handle, uuid=_uuid(d.type))
                        for d in characteristic.descriptors
                    ),
                )
                for characteristic in service.characteristics
            ),
        )
        for service in peer.services
    )


def _uuid(uuid: UUID) -> str:
    if len(uuid.uuid_bytes) == _SHORT_BYTES:
        return uuid128(int.from_bytes(uuid.uuid_bytes, "little"))
    return uuid.to_hex_str("-").lower()
