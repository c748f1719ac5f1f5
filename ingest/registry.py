"""Hubs, devices and links as arrays, so that a flush is linked to residents without a query.

Read whole from the store when it says that something changed; small enough to be replaced at once,
never altered in place. A look-up is a binary search over a sorted array.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.platform.postgres import AsyncConnection, copy_out, load_queries

_QUERIES = load_queries(Path(__file__).parent / "sql" / "registry.sql")

Keys = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

_SLOT_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Sorted arrays; `hub_names` and `device_addresses` are the look-up keys.

    `shared_homes` are those that ever had more than one hub: two may hear the same device there.
    `link_keys` (device id and slot) with `link_starts` and `link_ends` (milliseconds, end
    exclusive) are sorted by key, then start; the store allows no overlap.
    """

    hub_names: Keys
    hub_ids: Ids
    hub_homes: Ids
    device_addresses: Keys
    device_ids: Ids
    device_homes: Ids
    shared_homes: Ids
    link_keys: Ints
    link_starts: Ints
    link_ends: Ints
    link_residents: Ids
    revoked_hubs: Keys = field(default_factory=lambda: np.zeros(0, np.uint64))
    """Sorted; none of them is in `hub_names`."""

    def is_revoked(self, name: int) -> bool:
        """Tell whether a hub was enrolled once and counts no more."""
        index = int(np.searchsorted(self.revoked_hubs, np.uint64(name)))
        return index < len(self.revoked_hubs) and int(self.revoked_hubs[index]) == name

    def find_hub(self, name: int) -> tuple[int, int] | None:
        """Return the keys (hub, home) of an enrolled hub, None of any other."""
        index = int(np.searchsorted(self.hub_names, np.uint64(name)))
        if index == len(self.hub_names) or int(self.hub_names[index]) != name:
            return None
        return int(self.hub_ids[index]), int(self.hub_homes[index])

    def find_devices(self, addresses: Keys) -> tuple[Ids, Ids]:
        """Return (n,) device keys and (n,) their homes; 0 where the device is not registered."""
        if not len(self.device_addresses):
            nothing = np.zeros(len(addresses), np.int32)
            return nothing, nothing
        index = np.searchsorted(self.device_addresses, addresses)
        index[index == len(self.device_addresses)] = 0
        found = self.device_addresses[index] == addresses
        return (
            np.where(found, self.device_ids[index], 0).astype(np.int32),
            np.where(found, self.device_homes[index], 0).astype(np.int32),
        )

    def find_residents(
        self, device_ids: Ids, slots: npt.NDArray[np.uint8], measured_ms: Ints
    ) -> Ids:
        """Return (n,) the resident linked to (device, slot) at that time; 0 where none is."""
        residents = np.zeros(len(device_ids), np.int32)
        if not len(self.link_keys):
            return residents
        keys = (device_ids.astype(np.int64) << _SLOT_BITS) | slots
        # The last link of the key; where it starts too late, step back. A key has few links.
        index = np.searchsorted(self.link_keys, keys, side="right") - 1
        pending = np.flatnonzero((index >= 0) & (self.link_keys[index] == keys))
        while len(pending):
            at = index[pending]
            begun = self.link_starts[at] <= measured_ms[pending]
            inside = begun & (measured_ms[pending] < self.link_ends[at])
            residents[pending[inside]] = self.link_residents[at[inside]]
            pending = pending[~begun]
            index[pending] -= 1
            pending = pending[
                (index[pending] >= 0) & (self.link_keys[index[pending]] == keys[pending])
            ]
        return residents


async def load_registry(connection: AsyncConnection) -> Registry:
    """Read the whole registry, as one consistent state."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        hubs = await _table(connection, "hubs", ("name", ">u8"), ("hub", ">i4"), ("home", ">i4"))
        revoked = await _table(connection, "revoked_hubs", ("name", ">u8"))
        devices = await _table(
            connection, "devices", ("address", ">u8"), ("device", ">i4"), ("home", ">i4")
        )
        shared = await _table(connection, "shared_homes", ("home", ">i4"))
        links = await _table(
            connection,
            "links",
            ("key", ">i8"),
            ("start", ">i8"),
            ("end", ">i8"),
            ("resident", ">i4"),
        )
    hub_order = np.argsort(hubs["name"])
    device_order = np.argsort(devices["address"])
    link_order = np.lexsort((links["start"], links["key"]))
    return Registry(
        hub_names=hubs["name"][hub_order].astype(np.uint64),
        hub_ids=hubs["hub"][hub_order].astype(np.int32),
        hub_homes=hubs["home"][hub_order].astype(np.int32),
        device_addresses=devices["address"][device_order].astype(np.uint64),
        device_ids=devices["device"][device_order].astype(np.int32),
        device_homes=devices["home"][device_order].astype(np.int32),
        shared_homes=shared["home"].astype(np.int32),
        link_keys=links["key"][link_order].astype(np.int64),
        link_starts=links["start"][link_order].astype(np.int64),
        link_ends=links["end"][link_order].astype(np.int64),
        link_residents=links["resident"][link_order].astype(np.int32),
        revoked_hubs=np.sort(revoked["name"].astype(np.uint64)),
    )


def moved_devices(before: Registry, now: Registry) -> Ids:
    """Return the keys of the devices that have another home now than before."""
    index = np.searchsorted(before.device_addresses, now.device_addresses)
    index = np.minimum(index, max(len(before.device_ids) - 1, 0))
    if not len(before.device_ids):
        return now.device_ids[:0]
    known = before.device_addresses[index] == now.device_addresses
    moved: Ids = now.device_ids[known & (before.device_homes[index] != now.device_homes)]
    return moved


_COPY_HEAD_BYTES, _COPY_TAIL_BYTES = 19, 2


async def _table(
    connection: AsyncConnection, query: str, *fields: tuple[str, str]
) -> npt.NDArray[np.void]:
    """Read a query of fixed-size columns, none of them null, as a structured array."""
    row = [("fields", ">i2")]
    for name, form in fields:
        row += [(f"{name}_bytes", ">i4"), (name, form)]
    data = await copy_out(connection, _QUERIES[query])
    return np.frombuffer(data[_COPY_HEAD_BYTES:-_COPY_TAIL_BYTES], dtype=np.dtype(row))
