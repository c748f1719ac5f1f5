"""The devices that an adapter knows: they appear when heard, and the temporary ones vanish again.

BlueZ 5.87, src/adapter.c (`btd_adapter_device_found`) and src/device.c.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from bumble import hci
from dbus_fast import Variant

from firmware_sim.air import Advertisement
from firmware_sim.bluez.behaviour import Behaviour
from firmware_sim.bluez.discovery import Heard
from firmware_sim.bluez.objects import ObjectTree
from firmware_sim.bluez.remote_device import RemoteDevice
from firmware_sim.bluez.sessions import Sessions


class KnownDevices:
    """Device objects by address; `make` makes one."""

    def __init__(
        self, tree: ObjectTree, behaviour: Behaviour, make: Callable[[hci.Address], RemoteDevice]
    ) -> None:
        self._tree = tree
        self._behaviour = behaviour
        self._make = make
        self._by_address: dict[hci.Address, RemoteDevice] = {}
        self._expiry: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[RemoteDevice]:
        """Give them all; they may change meanwhile."""
        return iter(list(self._by_address.values()))

    def get(self, address: hci.Address) -> RemoteDevice | None:
        """Return the device of this address."""
        return self._by_address.get(address)

    def at(self, path: str) -> RemoteDevice | None:
        """Return the device of this object path."""
        return next((device for device in self if device.path == path), None)

    def show(self, advertisement: Advertisement, heard: Heard, sessions: Sessions) -> None:
        """Let a device appear, or tell what has changed of one that is there."""
        device = self._by_address.get(advertisement.address)
        if device is None:
            device = self._make(advertisement.address)
            self._by_address[advertisement.address] = device
        device.heard_at = asyncio.get_running_loop().time()
        device.connectable = advertisement.connectable
        changed = self._changes(device, advertisement.rssi_dbm, heard, sessions)
        if device.path in self._tree:
            device.change(changed)
        else:
            device.interface.properties.update(changed)
            self._tree.add(device.path, device.interface)
        if device.temporary and self._expiry is None:
            self._schedule_expiry(device.heard_at)

    def show_all(self) -> None:
        """Let all appear: the adapter is back."""
        for device in self:
            self._tree.add(device.path, device.interface)

    def hide_all(self) -> None:
        """Let all vanish; the temporary ones are forgotten."""
        for device in self:
            device.gatt.remove()
            if device.temporary:
                self.forget(device)
            else:
                self._tree.remove(device.path)

    def end_discovery(self) -> None:
        """Forget how strong signals were, and what cannot be connected to."""
        for device in self:
            device.change({"RSSI": None})
            if device.temporary and not device.connectable and not device.connected:
                self.forget(device)

    def forget(self, device: RemoteDevice) -> None:
        """Let a device vanish."""
        self._by_address.pop(device.address, None)
        self._tree.remove(device.path)

    def close(self) -> None:
        """Leave no timer behind."""
        if self._expiry is not None:
            self._expiry.cancel()

    def _changes(
        self, device: RemoteDevice, rssi_dbm: int, heard: Heard, sessions: Sessions
    ) -> dict[str, Variant]:
        told = device.interface.properties
        step = 0 if sessions.wants_every_signal else self._behaviour.rssi_step_dbm
        changed: dict[str, Variant] = {}
        if "RSSI" not in told or abs(told["RSSI"].value - rssi_dbm) >= step:
            changed["RSSI"] = Variant("n", rssi_dbm)
        data = _data_properties(heard)
        changed.update(data if sessions.wants_duplicates else _new(data, told))
        uuids = sorted({*told["UUIDs"].value, *heard.uuids})
        others = {"UUIDs": Variant("as", uuids)}
        if heard.name is not None:
            others["Name"] = Variant("s", heard.name)
            if "Name" not in told:
                others["Alias"] = Variant("s", heard.name)
        if heard.flags is not None:
            others["AdvertisingFlags"] = Variant("ay", bytes((heard.flags,)))
        changed.update(_new(others, told))
        return changed

    def _schedule_expiry(self, heard_at: float) -> None:
        at = heard_at + self._behaviour.temporary_s
        self._expiry = asyncio.get_running_loop().call_at(at, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        now = asyncio.get_running_loop().time()
        temporary = [device for device in self if device.temporary and not device.connected]
        for device in temporary:
            if now - device.heard_at >= self._behaviour.temporary_s:
                self.forget(device)
        left = [d.heard_at for d in temporary if d.address in self._by_address]
        if left:
            self._schedule_expiry(min(left))


def _data_properties(heard: Heard) -> dict[str, Variant]:
    properties = {}
    if heard.service_data:
        data = {uuid: Variant("ay", value) for uuid, value in heard.service_data.items()}
        properties["ServiceData"] = Variant("a{sv}", data)
    if heard.manufacturer_data:
        made = {key: Variant("ay", value) for key, value in heard.manufacturer_data.items()}
        properties["ManufacturerData"] = Variant("a{qv}", made)
    return properties


def _new(properties: Mapping[str, Variant], told: Mapping[str, Variant]) -> dict[str, Variant]:
    return {name: value for name, value in properties.items() if told.get(name) != value}
