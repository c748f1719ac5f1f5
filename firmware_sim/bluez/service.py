"""org.bluez itself: owns the name, holds the adapters, can end and come back."""

from __future__ import annotations

from asyncio import TaskGroup
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbus_fast import Message, MessageType

from firmware_sim.air import Air
from firmware_sim.bluez import names
from firmware_sim.bluez.adapter import Adapter
from firmware_sim.bluez.agents import Agents
from firmware_sim.bluez.behaviour import Behaviour
from firmware_sim.bluez.connection import BusConnection
from firmware_sim.bluez.objects import ObjectTree

_CLIENT_LEFT = (
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
    "member='NameOwnerChanged',arg2=''"
)


class Bluez:
    """bluetoothd on one bus. Make it with `run_bluez`."""

    def __init__(self, bus_address: str, tasks: TaskGroup, behaviour: Behaviour) -> None:
        self._bus_address = bus_address
        self._tasks = tasks
        self._behaviour = behaviour
        self._bus: BusConnection | None = None
        self._tree = ObjectTree(tasks)
        self._agents = Agents(self._call)
        self._present: list[Adapter] = []
        self.adapters: list[Adapter] = []

    async def add_adapter(self, air: Air, address: str) -> Adapter:
        """Plug in an adapter that hears `air`; its name counts from hci0."""
        adapter = Adapter(
            f"hci{len(self.adapters)}",
            address,
            air,
            tree=self._tree,
            tasks=self._tasks,
            agents=self._agents,
            call_bus=self._call,
            behaviour=self._behaviour,
        )
        await adapter.power_on()
        self.adapters.append(adapter)
        self.plug_in(adapter)
        return adapter

    def plug_in(self, adapter: Adapter) -> None:
        """Let an adapter appear (again)."""
        self._present.append(adapter)
        adapter.appear()

    async def unplug(self, adapter: Adapter) -> None:
        """Let an adapter vanish; its bonds are kept for when it comes back."""
        self._present.remove(adapter)
        await adapter.vanish()

    async def start(self) -> None:
        """Start bluetoothd: take the name, show the adapters that are plugged in."""
        self._bus = await BusConnection.connect(self._bus_address)
        self._bus.on_message(self._on_signal)
        self._tree.attach(self._bus)
        self._tree.add(names.ROOT, self._agents.interface)
        for adapter in self._present:
            adapter.appear()
        await self._call(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="AddMatch",
                signature="s",
                body=[_CLIENT_LEFT],
            )
        )
        await self._bus.request_name(names.SERVICE)

    async def stop(self, *, crash: bool = False) -> None:
        """End bluetoothd: the name is free, links are lost; a crash says no farewell."""
        bus, self._bus = self._bus, None
        if crash:
            self._tree.attach(None)
        for adapter in self._present:
            await adapter.vanish()
        self._tree.remove(names.ROOT)
        self._tree.attach(None)
        self._agents.clear()
        if bus is not None:
            await bus.close()

    async def close(self) -> None:
        """End for good."""
        await self.stop()
        for adapter in self.adapters:
            await adapter.close()

    async def _call(self, message: Message) -> Message | None:
        return await self._bus.call(message) if self._bus is not None else None

    def _on_signal(self, message: Message) -> bool:
        match message.message_type, message.member:
            case MessageType.SIGNAL, "NameOwnerChanged":
                self._tasks.create_task(self._client_left(message.body[0]))
            case MessageType.SIGNAL, "InterfacesAdded":
                for adapter in self._present:
                    adapter.monitors.on_interfaces_added(message.sender or "", *message.body)
        return False

    async def _client_left(self, client: str) -> None:
        self._agents.client_left(client)
        for adapter in self._present:
            await adapter.client_left(client)


@asynccontextmanager
async def run_bluez(bus_address: str, behaviour: Behaviour | None = None) -> AsyncIterator[Bluez]:
    """Serve org.bluez on the bus at `bus_address` until the context ends."""
    async with TaskGroup() as tasks:
        bluez = Bluez(bus_address, tasks, behaviour or Behaviour())
        await bluez.start()
        try:
            yield bluez
        finally:
            await bluez.close()
