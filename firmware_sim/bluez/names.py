"""The names that BlueZ gives to interfaces and errors. BlueZ 5.87, doc/ and src/error.c."""

from __future__ import annotations

from dbus_fast import Variant

from firmware_sim.bluez.objects import BusError

SERVICE = "org.bluez"
ROOT = "/org/bluez"

ADAPTER = "org.bluez.Adapter1"
MONITOR_MANAGER = "org.bluez.AdvertisementMonitorManager1"
MONITOR = "org.bluez.AdvertisementMonitor1"
AGENT_MANAGER = "org.bluez.AgentManager1"
AGENT = "org.bluez.Agent1"
DEVICE = "org.bluez.Device1"
BATTERY = "org.bluez.Battery1"
GATT_SERVICE = "org.bluez.GattService1"
GATT_CHARACTERISTIC = "org.bluez.GattCharacteristic1"
GATT_DESCRIPTOR = "org.bluez.GattDescriptor1"

YES = Variant("b", True)  # noqa: FBT003 - a D-Bus value
NO = Variant("b", False)  # noqa: FBT003 - a D-Bus value

CONNECTION_CANCELED = "br-connection-canceled"
"""What a Connect answers when it was given up, also over LE."""
CONNECTION_ABORTED = "le-connection-abort-by-local"


def failed(text: str) -> BusError:
    """Return the error for everything that has none of its own."""
    return BusError("org.bluez.Error.Failed", text)


def in_progress(text: str = "In Progress") -> BusError:
    """Return the error for a call while another one like it runs."""
    return BusError("org.bluez.Error.InProgress", text)


def not_ready() -> BusError:
    """Return the error of an adapter without power."""
    return BusError("org.bluez.Error.NotReady", "Resource Not Ready")


def not_connected() -> BusError:
    """Return the error of GATT calls on a device that is not connected."""
    return failed("Not connected")


def not_permitted(text: str) -> BusError:
    """Return the error of an attribute whose permissions forbid the access."""
    return BusError("org.bluez.Error.NotPermitted", text)


def not_supported() -> BusError:
    """Return the error of what the object cannot do."""
    return BusError("org.bluez.Error.NotSupported", "Operation is not supported")


def does_not_exist() -> BusError:
    """Return the error of an object that is unknown."""
    return BusError("org.bluez.Error.DoesNotExist", "Does Not Exist")


def already_exists(text: str = "Already Exists") -> BusError:
    """Return the error of what was made before."""
    return BusError("org.bluez.Error.AlreadyExists", text)


def invalid_arguments(text: str = "Invalid arguments in method call") -> BusError:
    """Return the error of arguments that cannot be."""
    return BusError("org.bluez.Error.InvalidArguments", text)


def authentication(outcome: str) -> BusError:
    """Return the error of a pairing: outcome "Failed", "Canceled", "Rejected", "Timeout"."""
    return BusError(f"org.bluez.Error.Authentication{outcome}", f"Authentication {outcome}")
