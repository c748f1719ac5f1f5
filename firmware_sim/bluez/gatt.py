"""GattService1, GattCharacteristic1, GattDescriptor1 of one device. BlueZ 5.87, src/gatt-client.c."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bumble import att, core
from bumble.device import Connection
from bumble.gatt import Characteristic
from dbus_fast import Variant

from firmware_sim.bluez import names
from firmware_sim.bluez.database import RemoteCharacteristic, RemoteDescriptor, RemoteService
from firmware_sim.bluez.objects import BusError, Call, Interface, Method, ObjectTree
from firmware_sim.lost_link import on_lost_link
from gateway.gatt.uuids import uuid128

_CCCD = uuid128(0x2902)
_GAP_SERVICE = uuid128(0x1800)
"""Claimed by bluetoothd itself, so no client sees it."""
_FLAGS = (
    (Characteristic.Properties.BROADCAST, "broadcast"),
    (Characteristic.Properties.READ, "read"),
    (Characteristic.Properties.WRITE_WITHOUT_RESPONSE, "write-without-response"),
    (Characteristic.Properties.WRITE, "write"),
    (Characteristic.Properties.NOTIFY, "notify"),
    (Characteristic.Properties.INDICATE, "indicate"),
)
_NOTIFY, _INDICATE, _OFF = b"\x01\x00", b"\x02\x00", b"\x00\x00"
_SECURITY_ERRORS = frozenset(
    {
        att.ATT_INSUFFICIENT_AUTHENTICATION_ERROR,
        att.ATT_INSUFFICIENT_ENCRYPTION_ERROR,
        att.ATT_INSUFFICIENT_ENCRYPTION_KEY_SIZE_ERROR,
    }
)

_ERRORS: dict[int, Callable[[], BusError]] = {
    att.ATT_READ_NOT_PERMITTED_ERROR: lambda: names.not_permitted("Read not permitted"),
    att.ATT_WRITE_NOT_PERMITTED_ERROR: lambda: names.not_permitted("Write not permitted"),
    att.ATT_INVALID_OFFSET_ERROR: lambda: names.invalid_arguments("Invalid offset"),
    att.ATT_INVALID_ATTRIBUTE_LENGTH_ERROR: lambda: names.invalid_arguments("Invalid Length"),
    att.ATT_REQUEST_NOT_SUPPORTED_ERROR: names.not_supported,
    **dict.fromkeys(_SECURITY_ERRORS, lambda: names.not_permitted("Not paired")),
}
"""src/gatt-client.c, create_gatt_dbus_error."""


@dataclass(slots=True, kw_only=True)
class _Exported:
    """A characteristic on the bus, with the clients that want its values."""

    path: str
    remote: RemoteCharacteristic
    interface: Interface
    clients: set[str] = field(default_factory=set)
    writing: bool = False
    """A second write at a time is answered with InProgress."""


class GattObjects:
    """The GATT objects of one device. They stay when it disconnects, as BlueZ caches them.

    `elevate` encrypts the connection, pairing where need be; False: it could not.
    """

    def __init__(
        self, tree: ObjectTree, device: str, elevate: Callable[[], Awaitable[bool]]
    ) -> None:
        self._tree = tree
        self._device = device
        self._elevate = elevate
        self._connection: Connection | None = None
        self._characteristics: list[_Exported] = []
        self.services: tuple[RemoteService, ...] = ()

    @property
    def uuids(self) -> list[str]:
        """The services' UUIDs, as Device1 lists them."""
        return sorted(service.uuid for service in self.services)

    def export(self, services: tuple[RemoteService, ...]) -> None:
        """Make the objects appear; those that are there already stay as they are."""
        if services == self.services:
            return
        self.remove()
        self.services = services
        for service in services:
            if service.uuid != _GAP_SERVICE:
                self._export_service(service)

    def remove(self) -> None:
        """Make the objects vanish."""
        for service in self.services:
            self._tree.remove(self._service_path(service))
        self._characteristics.clear()
        self.services = ()

    async def connected(self, connection: Connection) -> None:
        """Use `connection`; who wanted a characteristic's values before still gets them."""
        self._connection = connection
        mtu = Variant("q", connection.att_mtu)
        for exported in list(self._characteristics):
            exported.interface.properties["MTU"] = mtu
            if exported.clients:
                await self._enable(exported)

    def disconnected(self) -> None:
        """Forget the connection."""
        self._connection = None

    async def client_left(self, client: str) -> None:
        """Drop what a D-Bus client had asked for: it is no longer on the bus."""
        for exported in list(self._characteristics):
            if client in exported.clients:
                exported.clients.discard(client)
                await self._disable_unused(exported)

    def _service_path(self, service: RemoteService) -> str:
        return f"{self._device}/service{service.handle:04x}"

    def _export_service(self, service: RemoteService) -> None:
        path = self._service_path(service)
        properties = {
            "UUID": Variant("s", service.uuid),
            "Device": Variant("o", self._device),
            "Primary": names.YES,
            "Includes": Variant("ao", []),
        }
        self._tree.add(path, Interface(name=names.GATT_SERVICE, properties=properties))
        for characteristic in service.characteristics:
            self._export_characteristic(path, characteristic)

    def _export_characteristic(self, service: str, remote: RemoteCharacteristic) -> None:
        path = f"{service}/char{remote.handle - 1:04x}"
        flags = [flag for bit, flag in _FLAGS if remote.properties & bit]
        interface = Interface(
            name=names.GATT_CHARACTERISTIC,
            properties={
                "UUID": Variant("s", remote.uuid),
                "Service": Variant("o", service),
                "Value": Variant("ay", b""),
                "Flags": Variant("as", flags),
                "MTU": Variant("q", att.ATT_DEFAULT_MTU),
            },
        )
        exported = _Exported(path=path, remote=remote, interface=interface)
        interface.methods = {
            "ReadValue": Method(
                handler=partial(self._read, exported, remote.handle), takes="a{sv}", returns="ay"
            ),
            "WriteValue": Method(handler=partial(self._write, exported), takes="aya{sv}"),
            "StartNotify": Method(handler=partial(self._start_notify, exported)),
            "StopNotify": Method(handler=partial(self._stop_notify, exported)),
            "AcquireNotify": Method(handler=_refuse, takes="a{sv}", returns="hq"),
            "AcquireWrite": Method(handler=_refuse, takes="a{sv}", returns="hq"),
        }
        if "notify" in flags or "indicate" in flags:
            interface.properties["Notifying"] = names.NO
        self._characteristics.append(exported)
        self._tree.add(path, interface)
        for descriptor in remote.descriptors:
            self._export_descriptor(exported, descriptor)

    def _export_descriptor(self, exported: _Exported, descriptor: RemoteDescriptor) -> None:
        properties = {
            "UUID": Variant("s", descriptor.uuid),
            "Characteristic": Variant("o", exported.path),
            "Value": Variant("ay", b""),
        }
        interface = Interface(name=names.GATT_DESCRIPTOR, properties=properties)
        path = f"{exported.path}/desc{descriptor.handle:04x}"
        interface.methods = {
            "ReadValue": Method(
                handler=partial(self._read_descriptor, descriptor.handle),
                takes="a{sv}",
                returns="ay",
            ),
            "WriteValue": Method(
                handler=partial(self._write_descriptor, descriptor), takes="aya{sv}"
            ),
        }
        self._tree.add(path, interface)

    async def _read(self, exported: _Exported, handle: int, _call: Call) -> tuple[bytes]:
        value = await self._over_air(lambda client: client.read_value(handle))
        # Whoever is subscribed to the characteristic sees what was read, too.
        self._show_value(exported, value)
        return (value,)

    async def _read_descriptor(self, handle: int, _call: Call) -> tuple[bytes]:
        return (await self._over_air(lambda client: client.read_value(handle)),)

    async def _write_descriptor(self, descriptor: RemoteDescriptor, call: Call) -> None:
        if descriptor.uuid == _CCCD:
            raise names.not_permitted("Write not permitted")  # it is StartNotify's to write
        value = bytes(call.arguments[0])
        await self._over_air(
            lambda client: client.write_value(descriptor.handle, value, with_response=True)
        )

    async def _write(self, exported: _Exported, call: Call) -> None:
        value, options = call.arguments
        kind = options["type"].value if "type" in options else None
        with_response = kind != "command"
        needed = (
            Characteristic.Properties.WRITE
            if with_response
            else Characteristic.Properties.WRITE_WITHOUT_RESPONSE
        )
        if kind is None and not exported.remote.properties & needed:
            raise names.not_supported()
        if exported.writing:
            raise names.in_progress()
        exported.writing = True
        try:
            await self._over_air(
                lambda client: client.write_value(
                    exported.remote.handle, bytes(value), with_response=with_response
                )
            )
        finally:
            exported.writing = False

    async def _start_notify(self, exported: _Exported, call: Call) -> None:
        if "Notifying" not in exported.interface.properties:
            raise names.not_supported()
        if call.sender in exported.clients:
            return
        exported.clients.add(call.sender)
        if self._connection is None:
            return  # as BlueZ does: it subscribes when the device is connected again
        try:
            await self._enable(exported)
        except BusError:
            exported.clients.discard(call.sender)
            raise

    async def _stop_notify(self, exported: _Exported, call: Call) -> None:
        if call.sender not in exported.clients:
            raise names.failed("No notify session started")
        exported.clients.discard(call.sender)
        await self._disable_unused(exported)

    async def _enable(self, exported: _Exported) -> None:
        handle = exported.remote.handle
        notify = bool(exported.remote.properties & Characteristic.Properties.NOTIFY)
        if self._connection is None:
            raise names.not_connected()
        client = self._connection.gatt_client
        subscribers = client.notification_subscribers if notify else client.indication_subscribers
        subscribers[handle] = {partial(self._show_value, exported)}
        await self._write_cccd(exported, _NOTIFY if notify else _INDICATE)
        self._show_notifying(exported, notifying=True)

    async def _disable_unused(self, exported: _Exported) -> None:
        if exported.clients:
            return
        if self._connection is not None:
            client = self._connection.gatt_client
            client.notification_subscribers.pop(exported.remote.handle, None)
            client.indication_subscribers.pop(exported.remote.handle, None)
            with suppress(BusError):  # the device has gone meanwhile: nothing left to switch off
                await self._write_cccd(exported, _OFF)
        self._show_notifying(exported, notifying=False)

    async def _write_cccd(self, exported: _Exported, value: bytes) -> None:
        descriptors = exported.remote.descriptors
        cccd = next((d.handle for d in descriptors if d.uuid == _CCCD), None)
        if cccd is None:
            raise names.not_supported()
        await self._over_air(lambda client: client.write_value(cccd, value, with_response=True))

    async def _over_air(self, operation: Callable[[Any], Awaitable[Any]]) -> Any:  # noqa: ANN401 - as the operation
        if self._connection is None:
            raise names.not_connected()
        client = self._connection.gatt_client
        unanswered = _att_error(att.ATT_UNLIKELY_ERROR_ERROR)
        try:
            with on_lost_link(unanswered):
                try:
                    return await operation(client)
                except att.ATT_Error as error:
                    if error.error_code not in _SECURITY_ERRORS or not await self._elevate():
                        raise
                return await operation(client)
        except att.ATT_Error as error:
            raise _bus_error(error) from error
        except core.TimeoutError as error:
            raise unanswered from error

    def _show_value(self, exported: _Exported, value: bytes) -> None:
        self._tree.change(exported.path, exported.interface, {"Value": Variant("ay", value)})

    def _show_notifying(self, exported: _Exported, *, notifying: bool) -> None:
        if exported.interface.properties["Notifying"].value != notifying:
            changed = {"Notifying": Variant("b", notifying)}
            self._tree.change(exported.path, exported.interface, changed)


async def _refuse(_call: Call) -> None:
    # No file descriptors here; bleak uses StartNotify unless told otherwise.
    raise names.not_supported()


def _bus_error(error: att.ATT_Error) -> BusError:
    known = _ERRORS.get(error.error_code)
    return known() if known else _att_error(error.error_code)


def _att_error(code: int) -> BusError:
    return names.failed(f"Operation failed with ATT error: {code:#04x}")
