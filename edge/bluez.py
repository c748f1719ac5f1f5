"""BlueZ itself, over D-Bus: the pairing agent, and adapters that come and go. BlueZ 5.86, doc/.

bleak asks for neither: without a registered org.bluez.Agent1 not even Just Works pairing succeeds
(bleak#1434), and a scanner is not told when its adapter is unplugged or bluetoothd starts anew.
Where bleak is the door to devices (edge.central), this is the door to everything else of BlueZ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.errors import AuthError, InvalidAddressError

from edge.agent import AGENT_CAPABILITY, AGENT_PATH, Agent
from gateway.errors import UnavailableError
from gateway.platform.backoff import Backoff
from gateway.platform.logs import get_logger

RECONNECT = Backoff(first_s=0.5, longest_s=30.0)
"""Between attempts to reach the system bus; without end."""
BUS_CHECK_S = 5.0
"""How often it is looked whether the bus still stands; bluetoothd's coming and going is told."""
CALL_S_MAX = 10.0
"""A call that BlueZ does not answer within this has failed."""

_BLUEZ = "org.bluez"
_ADAPTER = "org.bluez.Adapter1"
_AGENT_MANAGER = "org.bluez.AgentManager1"
_ROOT = "/org/bluez"
_OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_ALREADY_EXISTS = "org.bluez.Error.AlreadyExists"
_BUS = "org.freedesktop.DBus"
_SIGNALS = (
    f"type='signal',sender='{_BUS}',member='NameOwnerChanged',arg0='{_BLUEZ}'",
    f"type='signal',sender='{_BLUEZ}',interface='{_OBJECT_MANAGER}',path='/'",
    f"type='signal',sender='{_BLUEZ}',interface='{_PROPERTIES}',arg0='{_ADAPTER}'",
)

_log = get_logger(__name__)


class _CallError(UnavailableError):
    """BlueZ or the bus answered with an error."""

    def __init__(self, member: str, name: str, body: Sequence[object]) -> None:
        super().__init__(f"{member}: {name}: {body}")
        self.name = name


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter that is there and powered, from then until it is not: each time another object."""

    name: str


class Bluez:
    """The system's BlueZ. `run` must be running."""

    def __init__(self) -> None:
        self._bus: MessageBus | None = None
        self._agent = Agent()
        self._adapters: dict[str, Adapter] = {}
        self._changed = asyncio.Event()
        self._failures = 0
        """Attempts to reach the bus that failed, in a row."""
        self._owner_changed = asyncio.Event()

    async def run(self) -> None:
        """Stay on the system bus and follow BlueZ, until cancelled."""
        while True:
            try:
                await self._follow()
            except UnavailableError as error:
                self._failures += 1
                if self._failures == 1:
                    _log.warning("bluetooth_unavailable", why=str(error))
            self._forget_adapters()
            await asyncio.sleep(RECONNECT.wait_s(max(self._failures, 1)))

    async def ready(self, name: str | None) -> Adapter:
        """Return the adapter of this name (None: the first), once it is there and powered."""
        while True:
            changed = self._changed
            names = [name] if name else sorted(self._adapters)
            adapter = next((self._adapters[n] for n in names if n in self._adapters), None)
            if adapter is not None:
                return adapter
            await changed.wait()

    async def lost(self, adapter: Adapter) -> None:
        """Return once the adapter is gone or off, or bluetoothd has ended or started anew."""
        while self._adapters.get(adapter.name) is adapter:
            await self._changed.wait()

    async def power_cycle(self, adapter: Adapter) -> None:
        """Turn the radio off and on: what frees one that is stuck (habluetooth#340).

        Raises:
            UnavailableError: BlueZ does not do it.
        """
        for powered in (False, True):
            await self._call(
                Message(
                    destination=_BLUEZ,
                    path=f"{_ROOT}/{adapter.name}",
                    interface=_PROPERTIES,
                    member="Set",
                    signature="ssv",
                    body=[_ADAPTER, "Powered", Variant("b", powered)],
                )
            )

    @contextmanager
    def expecting(self, device_path: str) -> Iterator[None]:
        """Let this device pair for the block; every other request to pair is rejected."""
        self._agent.expected.add(device_path)
        try:
            yield
        finally:
            self._agent.expected.discard(device_path)

    async def _follow(self) -> None:
        """Connect to the bus and follow BlueZ until the bus is lost."""
        try:
            bus = MessageBus(bus_type=BusType.SYSTEM)
            try:
                await bus.connect()
                self._bus = bus
                self._failures = 0
                bus.export(AGENT_PATH, self._agent)
                bus.add_message_handler(self._on_message)
                for rule in _SIGNALS:
                    await self._call(_bus_call("AddMatch", rule))
                await self._follow_bluetoothd(bus)
            finally:
                self._bus = None
                bus.disconnect()
        except (OSError, EOFError, AuthError, DBusError, InvalidAddressError) as error:
            raise UnavailableError(f"system bus: {error}") from error

    async def _follow_bluetoothd(self, bus: MessageBus) -> None:
        """Meet bluetoothd each time it comes, as long as the bus stands."""
        failures = 0
        while bus.connected:
            self._owner_changed.clear()
            try:
                await self._meet_bluetoothd()
                failures = 0
            except UnavailableError as error:  # it has ended, or not quite begun
                failures += 1
                _log.warning("bluetoothd_unavailable", why=str(error))
                await asyncio.sleep(RECONNECT.wait_s(failures))
            else:
                await self._until_owner_changes(bus)

    async def _until_owner_changes(self, bus: MessageBus) -> None:
        while bus.connected:
            try:
                async with asyncio.timeout(BUS_CHECK_S):
                    await self._owner_changed.wait()
                    return
            except TimeoutError:
                continue

    async def _meet_bluetoothd(self) -> None:
        """Register the agent and learn which adapters there are; none without bluetoothd."""
        self._forget_adapters()
        if not (await self._call(_bus_call("NameHasOwner", _BLUEZ))).body[0]:
            return
        try:
            await self._call(_agent_call("RegisterAgent", "os", AGENT_PATH, AGENT_CAPABILITY))
        except _CallError as error:
            if error.name != _ALREADY_EXISTS:
                raise
        await self._call(_agent_call("RequestDefaultAgent", "o", AGENT_PATH))
        objects = await self._call(
            Message(
                destination=_BLUEZ, path="/", interface=_OBJECT_MANAGER, member="GetManagedObjects"
            )
        )
        for path, interfaces in objects.body[0].items():
            self._note_interfaces(path, interfaces)

    async def _call(self, message: Message) -> Message:
        """Call over the bus.

        Raises:
            UnavailableError: no bus, no answer, or an error as the answer.
        """
        if self._bus is None:
            raise UnavailableError("system bus: not connected")
        try:
            async with asyncio.timeout(CALL_S_MAX):
                reply = await self._bus.call(message)
        except (TimeoutError, OSError, EOFError) as error:
            raise UnavailableError(f"{message.member}: no answer") from error
        if reply.message_type is MessageType.ERROR:
            raise _CallError(message.member or "", reply.error_name or "", reply.body)
        return reply

    def _on_message(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        match message.member, message.body:
            case "NameOwnerChanged", [str(name), _, _] if name == _BLUEZ:
                self._forget_adapters()
                self._owner_changed.set()
            case "InterfacesAdded", [str(path), dict(interfaces)]:
                self._note_interfaces(path, interfaces)
            case "InterfacesRemoved", [str(path), list(interfaces)] if _ADAPTER in interfaces:
                self._note(path, is_on=False)
            case "PropertiesChanged", [str(interface), dict(changed), _] if (
                interface == _ADAPTER and "Powered" in changed and message.path
            ):
                self._note(message.path, is_on=changed["Powered"].value)

    def _note_interfaces(self, path: str, interfaces: dict[str, dict[str, Variant]]) -> None:
        if _ADAPTER in interfaces:
            self._note(path, is_on=interfaces[_ADAPTER]["Powered"].value)

    def _note(self, path: str, *, is_on: bool) -> None:
        name = path.rpartition("/")[2]
        if is_on and name not in self._adapters:
            self._adapters[name] = Adapter(name)
            _log.info("adapter_found", adapter=name)
        elif not is_on and name in self._adapters:
            del self._adapters[name]
            _log.warning("adapter_lost", adapter=name)
        self._tell()

    def _forget_adapters(self) -> None:
        self._adapters.clear()
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _bus_call(member: str, argument: str) -> Message:
    return Message(
        destination=_BUS,
        path="/org/freedesktop/DBus",
        interface=_BUS,
        member=member,
        signature="s",
        body=[argument],
    )


def _agent_call(member: str, signature: str, *arguments: str) -> Message:
    return Message(
        destination=_BLUEZ,
        path=_ROOT,
        interface=_AGENT_MANAGER,
        member=member,
        signature=signature,
        body=list(arguments),
    )
