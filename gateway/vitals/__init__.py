"""The registry: every vital sign that Hearth knows, each in a module of its own.

To add one, write its module and its line here (docs/add-a-vital-sign.md).
"""

from __future__ import annotations

from gateway.quantity import Quantity
from gateway.vital_sign import AdvertisedSource, GattSource, VitalSign
from gateway.vitals import (
    activity,
    blood_glucose,
    blood_pressure,
    body_composition,
    body_temperature,
    body_weight,
    heart_rate,
    pulse_oximetry,
    water_intake,
)

SIGNS: tuple[VitalSign, ...] = (
    blood_pressure.SIGN,
    body_temperature.SIGN,
    body_weight.SIGN,
    activity.SIGN,
    water_intake.SIGN,
    pulse_oximetry.SIGN,
    heart_rate.SIGN,
    blood_glucose.SIGN,
    body_composition.SIGN,
)

BY_CODE: dict[int, VitalSign] = {sign.code: sign for sign in SIGNS}
BY_NAME: dict[str, VitalSign] = {sign.name: sign for sign in SIGNS}
QUANTITIES: tuple[Quantity, ...] = tuple(q for sign in SIGNS for q in sign.quantities)
SERVICES: frozenset[int] = frozenset(source.service for sign in SIGNS for source in sign.gatt)
"""The GATT services to scan for."""

assert len(BY_CODE) == len(BY_NAME) == len(SIGNS)  # noqa: S101
assert len({q.name for q in QUANTITIES}) == len(QUANTITIES)  # noqa: S101


def sources(uuid: int) -> list[tuple[VitalSign, GattSource | AdvertisedSource]]:
    """Return the signs that read a characteristic or service data of a UUID, with their sources."""
    return [*gatt_sources(uuid), *advertised_sources(uuid)]


def gatt_sources(characteristic: int) -> list[tuple[VitalSign, GattSource]]:
    """Return the signs that read a characteristic, each with its source."""
    return [
        (sign, source)
        for sign in SIGNS
        for source in sign.gatt
        if source.characteristic == characteristic
    ]


def advertised_sources(service_data: int) -> list[tuple[VitalSign, AdvertisedSource]]:
    """Return the signs that read advertised service data of a UUID, each with its source."""
    return [
        (sign, source)
        for sign in SIGNS
        for source in sign.advertised
        if source.service_data == service_data
    ]
