"""Adapter1: one radio, who scans with it and the devices that it knows. BlueZ 5.87, src/adapter.c."""

from __future__ import annotations

import asyncio
from asyncio import TaskGroup
from typing import Any

from bumble import hci
from bumble.device import Device, DeviceConfiguration
from bumble.keys import MemoryKeyStore
from dbus_fast import Variant

from firmware_sim.air import Advertisement, Air, ScanningRadio
from firmware_sim.bluez import names
from firmware_sim.bluez.agents import Agents
from firmware_sim.bluez.behaviour import Behaviour, Faults
from firmware_sim.bluez.discovery import parse_advertisement
from firmware_sim.bluez.known_devices import KnownDevices
from firmware_sim.bluez.links import Links
from firmware_sim.bluez.monitors import CallBus, Monitors
from firmware_sim.bluez.objects import Call, Interface, Method, ObjectTree
from firmware_sim.bluez.remote_device import RemoteDevice
from firmware_sim.bluez.sessions import Sessions
from firmware_sim.pairing import JustWorks


class Adapter:
    """One adapter (`hci0`) with its devices. Its bonds outlive its removal and bluetoothd."""

    def __init__(
        self,
        name: str,
        address: str,
        air: Air,
        *,
        tree: ObjectTree,
        tasks: TaskGroup,
        agents: Agents,
        call_bus: CallBus,
        behaviour: Behaviour,
    ) -> None:
        self.name = name
        self.path = f"{names.ROOT}/{name}"
        self.address = address
        self.air = air
        self.agents = agents
        self.behaviour = behaviour
        self.faults = Faults()
        self.bonds = MemoryKeyStore()
        self._tree = tree
        self._radio = ScanningRadio(name, air, address)
        self._radio.heard = self._on_advertisement
        self.central = self._new_central(name)
        self.links = Links(self.central, behaviour.link_attempt_s)
        self._devices = KnownDevices(
            tree, behaviour, lambda address: RemoteDevice(self, tree, tasks, address)
        )
        self._sessions = Sessions()
        self.monitors = Monitors(call_bus, tasks)
        self.listened = asyncio.Event()
        """A hub has begun to discover, once."""
        self.interface = Interface(
            name=names.ADAPTER,
            properties={
                "Address": Variant("s", address),
                "AddressType": Variant("s", "public"),
                "Name": Variant("s", name),
                "Alias": Variant("s", name),
                "Powered": names.YES,
                "Discovering": names.NO,
                "Roles": Variant("as", ["central", "peripheral"]),
                "UUIDs": Variant("as", []),
            },
            methods={
                "StartDiscovery": Method(handler=self._start_discovery),
                "StopDiscovery": Method(handler=self._stop_discovery),
                "SetDiscoveryFilter": Method(handler=self._set_filter, takes="a{sv}"),
                "GetDiscoveryFilters": Method(handler=_filters_known, returns="as"),
                "RemoveDevice": Method(handler=self._remove_device, takes="o"),
            },
            setters={"Powered": self._set_powered, "Alias": self._set_alias},
        )

    @property
    def powered(self) -> bool:
        """Whether the radio is on."""
        return bool(self.interface.properties["Powered"].value)

    async def power_on(self) -> None:
        """Start the radio, once."""
        self.central.keystore = self.bonds
        await self.central.power_on()

    def appear(self) -> None:
        """Show the adapter on the bus, with the devices that it remembers."""
        self._tree.add(self.path, self.interface, self.monitors.interface)
        self._devices.show_all()

    async def vanish(self) -> None:
        """Take the adapter off the bus, as when it is unplugged or bluetoothd ends."""
        await self._stop_everything()
        self._devices.hide_all()
        self._tree.remove(self.path)

    async def close(self) -> None:
        """End for good."""
        await self._stop_everything()
        self._devices.close()
        self.air.leave(self._radio)

    async def client_left(self, client: str) -> None:
        """End what a D-Bus client had started: it is no longer on the bus."""
        self._sessions.client_left(client)
        self._show_discovering()
        self.monitors.client_left(client)
        for device in self._devices:
            await device.gatt.client_left(client)

    def _new_central(self, name: str) -> Device:
        unused = hci.Address("F0:00:00:00:00:00")  # it connects from its public address
        central = Device(
            config=DeviceConfiguration(name=name, address=unused), host=self._radio.new_host()
        )
        central.pairing_config_factory = lambda connection: _Authorised(
            self, connection.peer_address
        ).config()
        return central

    async def may_pair(self, address: hci.Address) -> bool:
        """Tell whether to pair: the agent says, without an agent nobody may (src/device.c)."""
        device = self._devices.get(address)
        if device is None:
            return False
        if device.pairing_client is not None:
            return self.agents.for_client(device.pairing_client) is not None
        return await self.agents.authorises(device.path)

    async def _stop_everything(self) -> None:
        self._sessions.clear()
        self.monitors.clear()
        self._show_discovering()
        self.links.give_up_all()
        for device in self._devices:
            await device.drop()

    async def _set_powered(self, value: Any) -> None:  # noqa: ANN401 - whatever the client sent
        if not value:
            await self._stop_everything()
        self._tree.change(self.path, self.interface, {"Powered": Variant("b", bool(value))})

    async def _set_alias(self, value: Any) -> None:  # noqa: ANN401 - whatever the client sent
        self._tree.change(self.path, self.interface, {"Alias": Variant("s", str(value))})

    async def _set_filter(self, call: Call) -> None:
        self._sessions.set_filter(call)

    async def _start_discovery(self, call: Call) -> None:
        if not self.powered:
            raise names.not_ready()
        if self.faults.start_discovery_in_progress:
            self.faults.start_discovery_in_progress -= 1
            raise names.in_progress("Operation already in progress")
        self._sessions.start(call.sender)
        self.listened.set()
        self._show_discovering()

    async def _stop_discovery(self, call: Call) -> None:
        if not self.powered:
            raise names.not_ready()
        self._sessions.stop(call.sender)
        self._show_discovering()

    def _show_discovering(self) -> None:
        discovering = bool(self._sessions)
        if self.interface.properties["Discovering"].value != discovering:
            changed = {"Discovering": Variant("b", discovering)}
            self._tree.change(self.path, self.interface, changed)
            if not discovering:
                self._devices.end_discovery()

    async def _remove_device(self, call: Call) -> None:
        device = self._devices.at(call.arguments[0])
        if device is None:
            raise names.does_not_exist()
        if not self.powered:
            raise names.not_ready()
        await device.drop()
        self._devices.forget(device)
        await self.bonds.delete(str(device.address))

    def _on_advertisement(self, advertisement: Advertisement) -> None:
        if not self.powered or self.path not in self._tree:
            return
        if advertisement.connectable:
            self.links.heard(advertisement.address)
        if not self._sessions and not self.monitors:
            return
        heard = parse_advertisement(advertisement.data)
        wanted = self._sessions.match(heard, advertisement.rssi_dbm)
        if wanted or self.monitors.match(heard):
            self._devices.show(advertisement, heard, self._sessions)


class _Authorised(JustWorks):
    """Pairs when `may_pair` says so."""

    def __init__(self, adapter: Adapter, address: hci.Address) -> None:
        super().__init__()
        self._adapter = adapter
        self._address = address

    async def confirm(self, auto: bool = False) -> bool:  # noqa: ARG002, FBT001, FBT002 - bumble's signature
        return await self._adapter.may_pair(self._address)


async def _filters_known(_call: Call) -> tuple[list[str]]:
    return (["UUIDs", "RSSI", "Transport", "DuplicateData"],)
