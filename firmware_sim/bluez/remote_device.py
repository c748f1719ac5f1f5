"""Device1: one device as its adapter knows it. BlueZ 5.87, src/device.c."""

from __future__ import annotations

import asyncio
from asyncio import TaskGroup
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from bumble import core, hci
from bumble.device import Connection
from dbus_fast import Variant

from firmware_sim.bluez import names
from firmware_sim.bluez.agents import Agents
from firmware_sim.bluez.behaviour import Behaviour, Faults
from firmware_sim.bluez.database import discover
from firmware_sim.bluez.gatt import GattObjects
from firmware_sim.bluez.links import LinkCanceledError, Links
from firmware_sim.bluez.objects import BusError, Call, Interface, Method, ObjectTree
from firmware_sim.lost_link import on_lost_link

SECURITY_S_MAX = 30.0
"""Pairing or encryption that takes longer has failed (Core 5.4, Vol 3 Part H, 3.4)."""
OBJECTS_LATE_S = 0.05
"""How long after ServicesResolved the objects come, where that fault is ordered."""


_SECURITY_ERRORS = (hci.HCI_Error, core.ProtocolError, core.InvalidOperationError)


class LinkLostError(Exception):
    """The link ended while something waited for an answer over it."""


class Host(Protocol):
    """What a device needs of its adapter."""

    path: str
    links: Links
    agents: Agents
    behaviour: Behaviour
    faults: Faults

    @property
    def powered(self) -> bool:
        """Whether the radio is on."""
        ...


class RemoteDevice:
    """A device object. Once connected or paired it is no longer `temporary`: it stays when silent."""

    def __init__(
        self, host: Host, tree: ObjectTree, tasks: TaskGroup, address: hci.Address
    ) -> None:
        self._host = host
        self._tree = tree
        self._tasks = tasks
        self._connecting = False
        self._connection: Connection | None = None
        self._disconnecting = False
        self._unanswered: asyncio.Event | None = None
        self._lost = asyncio.Event()
        self._securing = asyncio.Lock()
        self.address = address
        self.temporary = True
        self.connectable = True
        self.heard_at = 0.0
        self.path = f"{host.path}/dev_{str(address)[:17].replace(':', '_')}"
        self.pairing_client: str | None = None
        """Who called Pair, while that runs."""
        self.gatt = GattObjects(tree, self.path, self._elevate)
        self.interface = Interface(
            name=names.DEVICE,
            properties=self._first_properties(),
            methods={
                "Connect": Method(handler=self._connect),
                "Disconnect": Method(handler=self._disconnect),
                "Pair": Method(handler=self._pair),
                "CancelPairing": Method(handler=self._cancel_pairing),
            },
            setters={"Trusted": self._set_trusted, "Alias": self._set_alias},
        )

    @property
    def connected(self) -> bool:
        """Whether there is a link."""
        return self._connection is not None

    @property
    def paired(self) -> bool:
        """Whether there is a bond."""
        return bool(self.interface.properties["Paired"].value)

    def change(self, changed: Mapping[str, Variant | None]) -> None:
        """Set properties and tell of them."""
        self._tree.change(self.path, self.interface, changed)

    async def drop(self) -> None:
        """End the link and every wait at once."""
        self._give_up()
        if self._connection is not None:
            await self._hang_up(self._connection)

    def _first_properties(self) -> dict[str, Variant]:
        address = str(self.address)[:17]
        kind = "public" if self.address.is_public else "random"
        return {
            "Address": Variant("s", address),
            "AddressType": Variant("s", kind),
            "Alias": Variant("s", address.replace(":", "-")),
            "Adapter": Variant("o", self._host.path),
            "Paired": names.NO,
            "Bonded": names.NO,
            "Trusted": names.NO,
            "Blocked": names.NO,
            "LegacyPairing": names.NO,
            "Connected": names.NO,
            "ServicesResolved": names.NO,
            "UUIDs": Variant("as", []),
        }

    async def _set_trusted(self, value: Any) -> None:  # noqa: ANN401 - whatever the client sent
        self.change({"Trusted": Variant("b", bool(value))})

    async def _set_alias(self, value: Any) -> None:  # noqa: ANN401 - whatever the client sent
        self.change({"Alias": Variant("s", str(value))})

    async def _connect(self, _call: Call) -> None:
        if self._connecting or self.pairing_client is not None:
            raise names.in_progress()
        if self._connection is not None:
            return
        if not self._host.powered:
            raise names.not_ready()
        self._connecting = True
        self.temporary = False
        try:
            await self._establish()
        finally:
            self._connecting = False

    async def _establish(self) -> Connection:
        faults = self._host.faults
        if faults.connects_unanswered:
            faults.connects_unanswered -= 1
            await self._never_answer()
        try:
            connection = await self._host.links.connect(self.address)
        except LinkCanceledError:
            raise names.failed(names.CONNECTION_CANCELED) from None
        self._connection = connection
        self._lost.clear()
        connection.on(connection.EVENT_DISCONNECTION, self._on_link_lost)
        connection.on(connection.EVENT_SECURITY_REQUEST, self._on_security_request)
        self.change({"Connected": names.YES})
        if faults.connect_errors:
            text = faults.connect_errors.popleft()
            await self._hang_up(connection)
            raise names.failed(text)
        if self.paired and not await self._elevate():
            # The device has lost the bond. BlueZ 5.82 was seen to drop the link and to leave the
            # caller without an answer.
            await self._hang_up(connection)
            await self._never_answer()
        if self._connection is None:
            raise names.failed(names.CONNECTION_CANCELED)
        self._tasks.create_task(self._resolve_services(connection))
        return connection

    async def _never_answer(self) -> None:
        self._unanswered = asyncio.Event()
        try:
            await self._unanswered.wait()
        finally:
            self._unanswered = None
        raise names.failed(names.CONNECTION_CANCELED)

    async def _resolve_services(self, connection: Connection) -> None:
        try:
            with on_lost_link(LinkLostError()):
                services = await discover(connection, self.gatt.services)
            faults = self._host.faults
            if faults.services_before_objects and services != self.gatt.services:
                faults.services_before_objects -= 1
                self._show_resolved(resolved=True)
                await asyncio.sleep(OBJECTS_LATE_S)
            self.gatt.export(services)
            await self.gatt.connected(connection)
        except (LinkLostError, BusError, core.TimeoutError, core.ProtocolError):
            return  # the link is gone, or the device does not answer: nothing is resolved
        if self._connection is connection:
            self.change({"UUIDs": Variant("as", self.gatt.uuids)})
            self._show_resolved(resolved=True)

    def _show_resolved(self, *, resolved: bool) -> None:
        if self.interface.properties["ServicesResolved"].value != resolved:
            self.change({"ServicesResolved": Variant("b", resolved)})

    def _on_link_lost(self, _reason: int) -> None:
        self._connection = None
        self._lost.set()
        self.gatt.disconnected()
        self._show_resolved(resolved=False)
        self.change({"Connected": names.NO})

    async def _disconnect(self, _call: Call) -> None:
        self._give_up()
        connection = self._connection
        if connection is None:
            return
        if not self._disconnecting:
            self._disconnecting = True
            try:
                async with asyncio.timeout(self._host.behaviour.disconnect_s):
                    await self._lost.wait()
            except TimeoutError:
                await self._hang_up(connection)
            finally:
                self._disconnecting = False
        await self._lost.wait()

    def _give_up(self) -> None:
        self._host.links.give_up(self.address)
        if self._unanswered is not None:
            self._unanswered.set()

    async def _hang_up(self, connection: Connection) -> None:
        if self._connection is connection:
            await connection.disconnect()

    async def _pair(self, call: Call) -> None:
        if self.paired:
            raise names.already_exists()
        if self._connecting or self.pairing_client is not None:
            raise names.in_progress()
        self.temporary = False
        self.pairing_client = call.sender
        try:
            connection = self._connection or await self._establish()
            async with self._securing:
                bonded = connection.is_encrypted or await self._bond(connection)
            if not bonded:
                await self._hang_up(connection)
                self.temporary = not self.interface.properties["Trusted"].value
                raise names.authentication("Failed")
        finally:
            self.pairing_client = None

    async def _cancel_pairing(self, _call: Call) -> None:
        if self.pairing_client is None:
            raise names.does_not_exist()
        await self.drop()

    def _on_security_request(self, _requirements: int) -> None:
        self._tasks.create_task(self._elevate())

    async def _elevate(self) -> bool:
        """Encrypt the link, pairing where there is no bond, as the kernel does of its own accord."""
        async with self._securing:
            connection = self._connection
            if connection is None:
                return False
            if connection.is_encrypted:
                return True
            if self.paired:
                return await self._encrypt(connection)
            return await self._bond(connection)

    async def _encrypt(self, connection: Connection) -> bool:
        return await self._succeeds(connection.encrypt())

    async def _bond(self, connection: Connection) -> bool:
        if not await self._succeeds(connection.pair()):
            return False
        self.change({"Paired": names.YES, "Bonded": names.YES})
        self.temporary = False
        return True

    @staticmethod
    async def _succeeds(security: Awaitable[None]) -> bool:
        try:
            async with asyncio.timeout(SECURITY_S_MAX):
                with on_lost_link(LinkLostError()):
                    await security
        except (TimeoutError, LinkLostError, *_SECURITY_ERRORS):
            return False
        return True
