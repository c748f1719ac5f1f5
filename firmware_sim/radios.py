"""The radio that a device needs: a peripheral or a beacon."""

from __future__ import annotations

from firmware_sim.air import Air
from firmware_sim.beacon import Beacon
from firmware_sim.device import SimulatedDevice
from firmware_sim.peripheral import Peripheral

RadioOf = Peripheral | Beacon


def radio_of(device: SimulatedDevice, air: Air) -> RadioOf:
    """Put a device on the air; its `run` is to be a task. What has GATT sources is connected to."""
    return Peripheral(device, air) if device.sign.gatt else Beacon(device, air)
