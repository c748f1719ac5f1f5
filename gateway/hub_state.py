"""What a hub says of itself on its state topic. Specified in docs/wire.md, "State".

Of the document only what ingest takes is read here: how the hub gets on with each of its devices.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.errors import DecodeError, Fault
from gateway.measurement import device_address, device_id

STATE_BYTES_MAX = 32 * 1024
"""A longer message of the state topic is none."""
DEVICES_MAX = 64
"""So many devices a hub tells of; those that it has had no session with for longest are left out."""


class Trouble(StrEnum):
    """Why a device's readings do not come, as its hub sees it."""

    BOND_LOST = "bond-lost"
    """The device has forgotten its bond; the hub has removed it too and waits to pair anew."""
    PAIRING_REFUSED = "pairing-refused"
    """The device wants a bond and does not pair: a person must put it into pairing mode."""
    UNREACHABLE = "unreachable"
    """It advertises, but connections to it fail again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStates:
    """How a hub gets on with its devices; None: well. A device that is left out is as it was.

    `started_at` names the run of the hub's process, `uptime_s` orders what is told within it.
    """

    started_at: datetime
    uptime_s: float
    devices: Mapping[int, Trouble | None]


def devices_part(devices: Mapping[int, Trouble | None]) -> list[dict[str, str | None]]:
    """Return what the document says of devices, `DEVICES_MAX` at most."""
    return [
        {"device": device_address(device), "trouble": trouble and str(trouble)}
        for device, trouble in list(devices.items())[-DEVICES_MAX:]
    ]


def decode_device_states(payload: bytes) -> DeviceStates | None:
    """Return what a message of the state topic says of devices; None: nothing, as a last will does.

    Raises:
        DecodeError: it is no such message.
    """
    if len(payload) > STATE_BYTES_MAX:
        raise DecodeError(Fault.INVALID, "state", 0, f"is of {len(payload)} bytes")
    try:
        document = json.loads(payload)
        if "devices" not in document:
            return None
        states = DeviceStates(
            started_at=datetime.fromisoformat(document["started_at"]),
            uptime_s=float(document["uptime_s"]),
            devices={
                device_id(entry["device"]): None
                if entry["trouble"] is None
                else Trouble(entry["trouble"])
                for entry in document["devices"][:DEVICES_MAX]
            },
        )
    except (
        ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise DecodeError(Fault.INVALID, "state", 0, "is no document of a hub") from error
    if states.started_at.tzinfo is None or not math.isfinite(states.uptime_s):
        raise DecodeError(Fault.INVALID, "state", 0, "tells no time of the hub's process")
    return states
