"""Who hears what: discovery sessions with their filters, and advertisement monitors.

BlueZ 5.87, src/adapter.c (`is_filter_match`) and src/adv_monitor.c (`or_patterns`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bumble.core import AdvertisingData
from dbus_fast import Variant

from gateway.gatt.uuids import uuid128

PARSED_MAX = 512
"""So many different advertisements stay parsed, as most are repeats; then the oldest are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The contents of an advertisement, as BlueZ shows them."""

    structures: tuple[tuple[int, bytes], ...]
    name: str | None
    flags: int | None
    uuids: tuple[str, ...]
    service_data: Mapping[str, bytes]
    manufacturer_data: Mapping[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a client wants to discover."""

    uuids: frozenset[str] = frozenset()
    """Any of these is advertised; empty: whatever it advertises."""
    rssi_dbm_min: int | None = None
    duplicate_data: bool = True

    def matches(self, heard: Heard, rssi_dbm: int) -> bool:
        """Tell whether the client wants this advertisement."""
        if self.uuids and self.uuids.isdisjoint(heard.uuids):
            return False
        return self.rssi_dbm_min is None or rssi_dbm >= self.rssi_dbm_min


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Bytes that an advertising structure of one type holds at one place."""

    start: int
    type: int
    value: bytes

    def matches(self, heard: Heard) -> bool:
        """Tell whether the advertisement holds them."""
        end = self.start + len(self.value)
        return any(
            kind == self.type and data[self.start : end] == self.value
            for kind, data in heard.structures
        )


ALL = Filter()
"""Of a client that has set no filter."""


def parse_filter(options: Mapping[str, Variant]) -> Filter:
    """Return the filter of a SetDiscoveryFilter call."""
    values: dict[str, Any] = {name: value.value for name, value in options.items()}
    return Filter(
        uuids=frozenset(str(uuid).lower() for uuid in values.get("UUIDs", ())),
        rssi_dbm_min=values.get("RSSI"),
        duplicate_data=values.get("DuplicateData", True),
    )


@lru_cache(maxsize=PARSED_MAX)
def parse_advertisement(data: bytes) -> Heard:
    """Return what advertising data says. Core Specification Supplement 11, Part A."""
    structures = tuple(AdvertisingData.from_bytes(data).ad_structures)
    name: str | None = None
    flags: int | None = None
    uuids: list[str] = []
    service_data: dict[str, bytes] = {}
    manufacturer_data: dict[int, bytes] = {}
    for kind, value in structures:
        match kind:
            case AdvertisingData.FLAGS:
                flags = value[0]
            case AdvertisingData.COMPLETE_LOCAL_NAME | AdvertisingData.SHORTENED_LOCAL_NAME:
                name = value.decode("utf-8", "replace")
            case (
                AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS
                | AdvertisingData.INCOMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS
            ):
                uuids.extend(
                    uuid128(int.from_bytes(value[i : i + 2], "little"))
                    for i in range(0, len(value), 2)
                )
            case AdvertisingData.SERVICE_DATA_16_BIT_UUID:
                service_data[uuid128(int.from_bytes(value[:2], "little"))] = value[2:]
            case AdvertisingData.MANUFACTURER_SPECIFIC_DATA:
                manufacturer_data[int.from_bytes(value[:2], "little")] = value[2:]
    return Heard(
        structures=structures,
        name=name,
        flags=flags,
        uuids=tuple(uuids),
        service_data=service_data,
        manufacturer_data=manufacturer_data,
    )
