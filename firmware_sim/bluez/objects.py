"""A tree of D-Bus objects: properties, methods, ObjectManager. D-Bus Specification 0.43.

dbus-fast's own service classes show every property always, to everyone, and do not tell who
called; BlueZ leaves out what it does not know (no RSSI, no Name) and answers by caller. So objects
here are tables of properties and methods, served at the level of messages.
"""

from __future__ import annotations

from asyncio import TaskGroup
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import quoteattr

from dbus_fast import Message, MessageType, Variant
from dbus_fast.signature import get_signature_tree

from firmware_sim.bluez.connection import BusConnection

OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"

_PROPERTIES_METHODS = {"Get": "ss", "GetAll": "s", "Set": "ssv"}

_UNKNOWN_OBJECT = "org.freedesktop.DBus.Error.UnknownObject"
_UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"
_INVALID_ARGS = "org.freedesktop.DBus.Error.InvalidArgs"
_READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"


class BusError(Exception):
    """What a method answers instead of a result: the error's name and its text."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One method call: who called, with what."""

    sender: str
    arguments: tuple[Any, ...]


Handler = Callable[[Call], Awaitable[tuple[Any, ...] | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method: its D-Bus signatures in and out, and what it does. None answers nothing."""

    handler: Handler
    takes: str = ""
    returns: str = ""


@dataclass(slots=True, kw_only=True)
class Interface:
    """One interface of an object. A property that is absent now is simply not in the table."""

    name: str
    properties: dict[str, Variant] = field(default_factory=dict)
    methods: Mapping[str, Method] = field(default_factory=dict)
    setters: Mapping[str, Callable[[Any], Awaitable[None]]] = field(default_factory=dict)


class ObjectTree:
    """The objects of one service, and their signals. Calls run as tasks of `tasks`.

    It outlives the connection: after `attach`ing another bus, the same objects are served there.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._bus: BusConnection | None = None
        self._objects: dict[str, dict[str, Interface]] = {}

    def attach(self, bus: BusConnection | None) -> None:
        """Serve on `bus`; None: nowhere, signals are dropped."""
        self._bus = bus
        if bus is not None:
            bus.on_message(self._on_message)

    def __contains__(self, path: object) -> bool:
        return path in self._objects

    def add(self, path: str, *interfaces: Interface) -> None:
        """Make an object appear."""
        self._objects[path] = {interface.name: interface for interface in interfaces}
        body = [path, {interface.name: interface.properties for interface in interfaces}]
        self._signal("/", OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", body)

    def remove(self, path: str) -> None:
        """Make an object vanish, with its children; one that is not there is none's business."""
        below = [other for other in self._objects if other.startswith(f"{path}/")]
        for gone in (*reversed(below), path):
            interfaces = self._objects.pop(gone, None)
            if interfaces is not None:
                body = [gone, list(interfaces)]
                self._signal("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", body)

    def change(
        self, path: str, interface: Interface, changed: Mapping[str, Variant | None]
    ) -> None:
        """Set properties and tell of them; None takes a property away."""
        present = {name: value for name, value in changed.items() if value is not None}
        absent = [name for name, value in changed.items() if value is None]
        gone = [name for name in absent if interface.properties.pop(name, None) is not None]
        interface.properties.update(present)
        if (present or gone) and path in self._objects:
            body = [interface.name, present, gone]
            self._signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    def _signal(
        self, path: str, interface: str, member: str, signature: str, body: list[Any]
    ) -> None:
        if self._bus is not None:
            self._bus.send(
                Message.new_signal(
                    path=path, interface=interface, member=member, signature=signature, body=body
                )
            )

    def _on_message(self, message: Message) -> bool:
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        self._tasks.create_task(self._answer(self._bus, message))
        return True

    async def _answer(self, bus: BusConnection | None, message: Message) -> None:
        try:
            signature, body = await self._call(message)
            reply = Message.new_method_return(message, signature, body)
        except BusError as error:
            reply = Message.new_error(message, error.name, error.text)
        if bus is not None:
            bus.send(reply)

    async def _call(self, message: Message) -> tuple[str, list[Any]]:
        path = message.path or "/"
        match message.interface, message.member:
            case (str(name), "GetManagedObjects") if name == OBJECT_MANAGER and path == "/":
                return "a{oa{sa{sv}}}", [self._managed()]
            case (str(name), "Introspect") if name == INTROSPECTABLE:
                return "s", [self._introspection(path)]
            case (str(name), "Ping") if name == PEER:
                return "", []
        interfaces = self._objects.get(path)
        if interfaces is None:
            raise BusError(_UNKNOWN_OBJECT, f"no object at {path}")
        if message.interface == PROPERTIES:
            return await self._properties_call(interfaces, message)
        interface = interfaces.get(message.interface or "")
        method = interface.methods.get(message.member or "") if interface else None
        if method is None:
            raise BusError(_UNKNOWN_METHOD, f"no {message.interface}.{message.member} at {path}")
        if message.signature != method.takes:
            raise BusError(_INVALID_ARGS, f"{message.member} takes {method.takes!r}")
        call = Call(sender=message.sender or "", arguments=tuple(message.body))
        result = await method.handler(call)
        return method.returns, list(result or ())

    async def _properties_call(
        self, interfaces: Mapping[str, Interface], message: Message
    ) -> tuple[str, list[Any]]:
        if _PROPERTIES_METHODS.get(message.member or "") != message.signature:
            raise BusError(_UNKNOWN_METHOD, f"no {PROPERTIES}.{message.member}")
        interface = interfaces.get(message.body[0])
        if interface is None:
            raise BusError(_INVALID_ARGS, f"no interface {message.body[0]}")
        match message.member:
            case "GetAll":
                return "a{sv}", [interface.properties]
            case "Get":
                value = interface.properties.get(message.body[1])
                if value is None:
                    raise BusError(_INVALID_ARGS, f"no property {message.body[1]}")
                return "v", [value]
            case "Set":
                setter = interface.setters.get(message.body[1])
                if setter is None:
                    raise BusError(_READ_ONLY, f"{message.body[1]} cannot be set")
                await setter(message.body[2].value)
        return "", []

    def _managed(self) -> dict[str, dict[str, dict[str, Variant]]]:
        return {
            path: {interface.name: interface.properties for interface in interfaces.values()}
            for path, interfaces in self._objects.items()
        }

    def _introspection(self, path: str) -> str:
        interfaces = self._objects.get(path, {}).values()
        prefix = "/" if path == "/" else f"{path}/"
        children = {
            other[len(prefix) :].partition("/")[0]
            for other in self._objects
            if other.startswith(prefix)
        }
        described = "".join(map(_describe, interfaces))
        nodes = "".join(f"<node name={quoteattr(child)}/>" for child in sorted(children))
        return f"<node>{described}{nodes}</node>"


def _describe(interface: Interface) -> str:
    methods = "".join(
        f"<method name={quoteattr(name)}>"
        + _arguments(method.takes, "in")
        + _arguments(method.returns, "out")
        + "</method>"
        for name, method in interface.methods.items()
    )
    properties = "".join(
        f"<property name={quoteattr(name)} type={quoteattr(value.signature)} access="
        f"{quoteattr('readwrite' if name in interface.setters else 'read')}/>"
        for name, value in interface.properties.items()
    )
    return f"<interface name={quoteattr(interface.name)}>{methods}{properties}</interface>"


def _arguments(signature: str, direction: str) -> str:
    types = get_signature_tree(signature).types
    return "".join(
        f"<arg type={quoteattr(part.signature)} direction={quoteattr(direction)}/>"
        for part in types
    )
