"""AdvertisementMonitorManager1: passive scanning. BlueZ 5.87, src/adv_monitor.c.

Of a monitor only its patterns count here (type "or_patterns"): bleak uses nothing else of it.
"""

from __future__ import annotations

from asyncio import TaskGroup
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from dbus_fast import Message, MessageType, Variant

from firmware_sim.bluez import names
from firmware_sim.bluez.discovery import Heard, Pattern
from firmware_sim.bluez.objects import OBJECT_MANAGER, PROPERTIES, Call, Interface, Method

_SHOWN = f"type='signal',sender='{{}}',interface='{OBJECT_MANAGER}',member='InterfacesAdded'"

CallBus = Callable[[Message], Awaitable[Message | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """A monitor object of a D-Bus client."""

    owner: str
    path: str


class Monitors:
    """The monitors of one adapter. One hears nothing until its patterns are known."""

    def __init__(self, call_bus: CallBus, tasks: TaskGroup) -> None:
        self._call_bus = call_bus
        self._tasks = tasks
        self._patterns: dict[Monitor, tuple[Pattern, ...]] = {}
        self.interface = Interface(
            name=names.MONITOR_MANAGER,
            properties={
                "SupportedMonitorTypes": Variant("as", ["or_patterns"]),
                "SupportedFeatures": Variant("as", []),
            },
            methods={
                "RegisterMonitor": Method(handler=self._register, takes="o"),
                "UnregisterMonitor": Method(handler=self._unregister, takes="o"),
            },
        )

    def __len__(self) -> int:
        return len(self._patterns)

    def match(self, heard: Heard) -> bool:
        """Tell whether any monitor wants an advertisement."""
        return any(p.matches(heard) for patterns in self._patterns.values() for p in patterns)

    def clear(self) -> None:
        """Forget all monitors."""
        self._patterns.clear()

    def client_left(self, client: str) -> None:
        """Forget the monitors of a client that is no longer on the bus."""
        for monitor in [m for m in self._patterns if m.owner == client]:
            del self._patterns[monitor]

    def on_interfaces_added(
        self, sender: str, path: str, interfaces: Mapping[str, Mapping[str, Variant]]
    ) -> None:
        """Take note of an object that a client shows; it may be a monitor it registered before."""
        monitor = Monitor(owner=sender, path=path)
        patterns = interfaces.get(names.MONITOR, {}).get("Patterns")
        if monitor in self._patterns and patterns is not None:
            self._patterns[monitor] = _parse(patterns)

    async def _register(self, call: Call) -> None:
        monitor = Monitor(owner=call.sender, path=call.arguments[0])
        if monitor in self._patterns:
            raise names.already_exists()
        self._patterns[monitor] = ()
        # bleak shows its monitor only when this call has returned: then it is told of it.
        await self._call_bus(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="AddMatch",
                signature="s",
                body=[_SHOWN.format(call.sender)],
            )
        )
        self._tasks.create_task(self._ask(monitor))

    async def _unregister(self, call: Call) -> None:
        monitor = Monitor(owner=call.sender, path=call.arguments[0])
        if self._patterns.pop(monitor, None) is None:
            raise names.does_not_exist()

    async def _ask(self, monitor: Monitor) -> None:
        """Read the patterns of a monitor that was there before it was registered."""
        reply = await self._call_bus(
            Message(
                destination=monitor.owner,
                path=monitor.path,
                interface=PROPERTIES,
                member="Get",
                signature="ss",
                body=[names.MONITOR, "Patterns"],
            )
        )
        answered = reply is not None and reply.message_type is MessageType.METHOD_RETURN
        if answered and reply is not None and monitor in self._patterns:
            self._patterns[monitor] = _parse(reply.body[0])


def _parse(patterns: Variant) -> tuple[Pattern, ...]:
    return tuple(
        Pattern(start=start, type=kind, value=bytes(value)) for start, kind, value in patterns.value
    )
