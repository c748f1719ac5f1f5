"""The pairing agent: org.bluez.Agent1, NoInputNoOutput, so that pairing is Just Works. BlueZ 5.86.

The home's devices have neither display nor keys, so nobody can compare or enter a number. What
protects is that only a device which the hub is talking to may pair: a stranger's request is
rejected, and every method that would need a person is, too.
"""

# No `from __future__ import annotations`: dbus-fast reads annotations when the class is made.

from dbus_fast import DBusError
from dbus_fast.annotations import DBusObjectPath, DBusStr, DBusUInt16, DBusUInt32
from dbus_fast.service import ServiceInterface, dbus_method

AGENT_PATH = "/hearth/agent"
AGENT_CAPABILITY = "NoInputNoOutput"
_REJECTED = "org.bluez.Error.Rejected"


class Agent(ServiceInterface):
    """The object that bluetoothd asks. `expected`: the paths of devices that may pair now."""

    def __init__(self) -> None:
        super().__init__("org.bluez.Agent1")
        self.expected: set[str] = set()

    @dbus_method(name="Release")
    def release(self) -> None:
        """Note that bluetoothd has let go of this agent; edge.bluez registers it again."""

    @dbus_method(name="Cancel")
    def cancel(self) -> None:
        """Note that a request was cancelled; none is ever left open."""

    @dbus_method(name="RequestAuthorization")
    def request_authorization(self, device: DBusObjectPath) -> None:
        """Allow a Just Works pairing that the device began, if it is expected."""
        self._check(device)

    @dbus_method(name="RequestConfirmation")
    def request_confirmation(self, device: DBusObjectPath, passkey: DBusUInt32) -> None:  # noqa: ARG002 - D-Bus passes it
        """Confirm, unseen, the number of a pairing that is expected: nobody could compare it."""
        self._check(device)

    @dbus_method(name="AuthorizeService")
    def authorize_service(self, device: DBusObjectPath, uuid: DBusStr) -> None:  # noqa: ARG002 - D-Bus passes it
        """Allow an expected device to use a service of the hub's."""
        self._check(device)

    @dbus_method(name="RequestPinCode")
    def request_pin_code(self, device: DBusObjectPath) -> DBusStr:
        """Reject: nobody is there to read or enter a number."""
        raise _rejection(device)

    @dbus_method(name="RequestPasskey")
    def request_passkey(self, device: DBusObjectPath) -> DBusUInt32:
        """Reject: nobody is there to read or enter a number."""
        raise _rejection(device)

    @dbus_method(name="DisplayPinCode")
    def display_pin_code(self, device: DBusObjectPath, pin_code: DBusStr) -> None:  # noqa: ARG002 - D-Bus passes it
        """Reject: there is no display."""
        raise _rejection(device)

    @dbus_method(name="DisplayPasskey")
    def display_passkey(
        self,
        device: DBusObjectPath,
        passkey: DBusUInt32,  # noqa: ARG002 - D-Bus passes it
        entered: DBusUInt16,  # noqa: ARG002 - D-Bus passes it
    ) -> None:
        """Reject: there is no display."""
        raise _rejection(device)

    def _check(self, device: str) -> None:
        if device not in self.expected:
            raise _rejection(device)


def _rejection(device: str) -> DBusError:
    return DBusError(_REJECTED, f"{device} is not expected to pair")
