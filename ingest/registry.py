"""Hubs, devices and links as arrays, so that a flush is linked to residents without a query.

Read whole from the store once, then kept up by its change log: what changed behind the snapshot that
a state was read in, whatever the order of the commits. A state is never altered; the next one
shares what did not change (ingest.layers). 20 million links take 28 bytes each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.platform.postgres import AsyncConnection, load_queries, sql, translated
from ingest.layers import Layered, Sorted, layered, sorted_rows

CHANGES_MAX = 100_000
"""Of more changes at once nothing is looked at: everything is read again."""
KIND_HUB, KIND_DEVICE, KIND_LINKS, KIND_READINGS = 1, 2, 3, 4
"""What a row of registry_change is about."""

_QUERIES = load_queries(Path(__file__).parent / "sql" / "registry.sql")

Keys = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SLOT_BITS = 8
"""A link's key is the device's, shifted by so many, and the user slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Who may have been measured: (m,) pairs of a reading's place and a resident.

    `usual` is what the resident says is usual for them, NaN where nothing is said.
    """

    place: npt.NDArray[np.intp]
    resident_id: Ids
    usual: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The state of the registry at `snapshot`.

    `hubs`: keys, homes, whether revoked, by name. `devices`: keys, homes by address. `links`: starts and ends
    (milliseconds, end exclusive), residents by device key and slot, in the order of their starts;
    the store allows no overlap. `shared_links`: the same with `usual`, several at a time.
    `shared_homes` ever had more than one hub: two may hear the same device there.
    """

    hubs: Layered
    devices: Layered
    links: Layered
    shared_links: Layered
    shared_homes: Ids
    snapshot: str

    def find_hub(self, name: int) -> tuple[int, int] | None:
        """Return the keys (hub, home) of an enrolled hub, None of any other."""
        hub_id, home_id, revoked = self._hub(name)
        return (hub_id, home_id) if hub_id and not revoked else None

    def is_revoked(self, name: int) -> bool:
        """Tell whether a hub was enrolled once and counts no more."""
        return bool(self._hub(name)[2])

    def _hub(self, name: int) -> tuple[int, int, int]:
        hub_id, home_id, revoked = _look_up(self.hubs, _signed(np.array([name], np.uint64)))
        return int(hub_id[0]), int(home_id[0]), int(revoked[0])

    def find_devices(self, addresses: Keys) -> tuple[Ids, Ids]:
        """Return (n,) device keys and (n,) their homes; 0 where the device is not registered."""
        device_id, home_id = _look_up(self.devices, _signed(addresses))
        return device_id, home_id

    def find_residents(
        self, device_ids: Ids, slots: npt.NDArray[np.uint8], measured_ms: Ints
    ) -> Ids:
        """Return (n,) the resident linked to (device, slot) at that time; 0 where none is."""
        keys = _slot_keys(device_ids, slots)
        residents = np.zeros(len(keys), np.int32)
        for places, rows in self.links.parts(keys):
            residents[places] = _resident_at(rows, keys[places], measured_ms[places])
        return residents

    def find_candidates(
        self, device_ids: Ids, slots: npt.NDArray[np.uint8], measured_ms: Ints
    ) -> Candidates:
        """Return who shared (device, slot) at that time."""
        keys = _slot_keys(device_ids, slots)
        found = []
        for places, rows in self.shared_links.parts(keys):
            place, row = rows.rows_of(keys[places])
            start, end, resident_id, usual = rows.columns
            at_ms = measured_ms[places[place]]
            then = (start[row] <= at_ms) & (at_ms < end[row])
            found.append((places[place[then]], resident_id[row[then]], usual[row[then]]))
        place, resident_id, usual = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.lexsort((resident_id, place))
        return Candidates(place=place[order], resident_id=resident_id[order], usual=usual[order])


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is different in a new state; None: it may be anything.

    `devices`: keys of those with other links, or that are new or changed. `known`: of those that changed
    and were there before: moved to another home, or with readings that a replay has stored. `residents`: keys of those whose stored readings were re-attributed.
    """

    devices: Ids | None
    known: Ids | None
    residents: Ids | None


async def load_registry(connection: AsyncConnection) -> Registry:
    """Read the whole registry, as one consistent state.

    Raises:
        UnavailableError: the database is down.
    """
    with translated():
        async with connection.transaction():
            return await _load(connection)


async def update_registry(
    connection: AsyncConnection, registry: Registry
) -> tuple[Registry, Changes]:
    """Return the state of now and what is different in it.

    Raises:
        UnavailableError: the database is down.
    """
    with translated():
        async with connection.transaction():
            changed = await _changed(connection, registry.snapshot)
            if changed is None:
                fresh = await _load(connection)
                return fresh, Changes(devices=None, known=None, residents=None)
            return await _updated(connection, registry, changed)


async def forget_changes(connection: AsyncConnection, age_s: float) -> None:
    """Forget changes that are older; whoever has not read them reads everything again."""
    with translated():
        await connection.execute(_QUERIES["forget_changes"], {"age_s": age_s})


async def addresses_of(connection: AsyncConnection, device_ids: Ids) -> list[int]:
    """Return the addresses of devices as the store has them, signed numbers."""
    with translated():
        rows = await connection.execute(_QUERIES["addresses"], {"devices": device_ids.tolist()})
        return [address for (address,) in await rows.fetchall()]


_HUB = np.dtype(
    [("key", ">i8"), ("hub", ">i4"), ("home", ">i4"), ("revoked", "?"), ("shared", "?")]
)
_DEVICE = np.dtype([("key", ">i8"), ("device", ">i4"), ("home", ">i4")])
_LINK_FIELDS = [
    ("device", ">i4"), ("slot", ">i2"), ("start", ">i8"), ("end", ">i8"), ("resident", ">i4"),
]  # fmt: skip
_LINK = np.dtype(_LINK_FIELDS)
_SHARED_LINK = np.dtype([*_LINK_FIELDS, ("usual", ">f8")])


async def _load(connection: AsyncConnection) -> Registry:
    snapshot = await _snapshot(connection)
    hubs, shared_homes = await _read_hubs(connection)
    return Registry(
        hubs=layered(hubs),
        devices=layered(await _read_devices(connection)),
        links=layered(await _read_links(connection), SLOT_BITS),
        shared_links=layered(await _read_shared_links(connection), SLOT_BITS),
        shared_homes=shared_homes,
        snapshot=snapshot,
    )


async def _snapshot(connection: AsyncConnection) -> str:
    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    row = await connection.execute(_QUERIES["snapshot"])
    ((snapshot,),) = await row.fetchall()
    return str(snapshot)


async def _changed(connection: AsyncConnection, snapshot: str) -> dict[int, list[int]] | None:
    """Return the keys that changed, by kind; None where all must be read again."""
    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    rows = await connection.execute(
        _QUERIES["changes"], {"snapshot": snapshot, "limit": CHANGES_MAX + 1}
    )
    found = await rows.fetchall()
    if len(found) > CHANGES_MAX or any(key is None for _kind, key in found):
        return None
    changed: dict[int, list[int]] = {kind: [] for kind in range(KIND_HUB, KIND_READINGS + 1)}
    for kind, key in found:
        changed[kind].append(key)
    return changed


async def _updated(
    connection: AsyncConnection, registry: Registry, changed: dict[int, list[int]]
) -> tuple[Registry, Changes]:
    row = await connection.execute(_QUERIES["snapshot"])
    ((snapshot,),) = await row.fetchall()
    now = replace(registry, snapshot=str(snapshot))
    if names := changed[KIND_HUB]:
        only = sql.SQL(
            "(('x' || name)::bit(64)::bigint = ANY({names}) OR home_id IN"
            " (SELECT home_id FROM hub WHERE ('x' || name)::bit(64)::bigint = ANY({names})))"
        ).format(names=sql.Literal(names))
        hubs, shared_homes = await _read_hubs(connection, only)
        now = replace(
            now,
            hubs=await _with_changes(now.hubs, names, hubs),
            shared_homes=np.union1d(now.shared_homes, shared_homes).astype(np.int32),
        )
    known = changed_devices = np.empty(0, np.int32)
    if addresses := changed[KIND_DEVICE]:
        only = sql.SQL("address = ANY({})").format(
            sql.Literal([_address(address) for address in addresses])
        )
        devices = await _read_devices(connection, only)
        now = replace(now, devices=await _with_changes(now.devices, addresses, devices))
        device_id, _home = devices.columns
        _id_before, home_before = _look_up(registry.devices, devices.keys)
        changed_devices, known = device_id, device_id[home_before != 0]
    if linked := changed[KIND_LINKS]:
        only = sql.SQL("device_id = ANY({})").format(sql.Literal(linked))
        links = await _read_links(connection, only)
        shared = await _read_shared_links(connection, only)
        now = replace(
            now,
            links=await _with_changes(now.links, linked, links),
            shared_links=await _with_changes(now.shared_links, linked, shared),
        )
    return now, Changes(
        devices=np.union1d(changed_devices, np.array(linked, np.int32)).astype(np.int32),
        known=known,
        residents=np.array(changed[KIND_READINGS], np.int32),
    )


async def _with_changes(table: Layered, owners: Sequence[int], rows: Sorted) -> Layered:
    # In a thread: once in a while it merges millions of rows.
    return await asyncio.to_thread(table.with_changes, np.array(owners, np.int64), rows)


def _address(signed: int) -> str:
    """Return the address that the device table has for a key of `devices`."""
    number = signed % (1 << 64)
    size = 6 if number < 1 << 48 else 8
    return number.to_bytes(size, "big").hex(":").upper()


async def _read_hubs(
    connection: AsyncConnection, only: sql.Composable | None = None
) -> tuple[Sorted, Ids]:
    table = await _read(connection, "hub", _HUB, only)
    homes: Ids = np.unique(table["home"][table["shared"]])
    return sorted_rows(table["key"], (table["hub"], table["home"], table["revoked"])), homes


async def _read_devices(connection: AsyncConnection, only: sql.Composable | None = None) -> Sorted:
    table = await _read(connection, "device", _DEVICE, only)
    return sorted_rows(table["key"], (table["device"], table["home"]))


async def _read_links(connection: AsyncConnection, only: sql.Composable | None = None) -> Sorted:
    table = await _read(connection, "link", _LINK, only)
    return await asyncio.to_thread(_links, table, "resident")


async def _read_shared_links(
    connection: AsyncConnection, only: sql.Composable | None = None
) -> Sorted:
    table = await _read(connection, "shared_link", _SHARED_LINK, only)
    return await asyncio.to_thread(_links, table, "resident", "usual")


def _links(table: dict[str, npt.NDArray[Any]], *columns: str) -> Sorted:
    key = _slot_keys(table.pop("device"), table.pop("slot").astype(np.uint8))
    start, end = _ms(table.pop("start")), _ms(table.pop("end"))
    return sorted_rows(key, (start, end, *(table.pop(name) for name in columns)), start)


BLOCKS_A_PIECE = 1024
"""So much of a table (8 MB of it) is read at a time: what is in memory besides the arrays."""


async def _read(
    connection: AsyncConnection, name: str, layout: np.dtype[np.void], only: sql.Composable | None
) -> dict[str, npt.NDArray[Any]]:
    """Read a table, whole or the rows that are `only` asked for, as arrays in native byte order."""
    pieces: dict[str, list[npt.NDArray[Any]]] = {field: [] for field in layout.names or ()}
    async with connection.cursor(binary=True) as cursor:
        for part in [only] if only else await _parts(connection, name):
            await cursor.execute(_QUERIES[name].format(only=part))
            (content,) = await cursor.fetchone() or (None,)
            rows = np.frombuffer(content or b"", layout)
            for field, arrays in pieces.items():
                arrays.append(rows[field].astype(layout[field].newbyteorder("=")))
    columns = {}
    for field in list(pieces):
        columns[field] = np.concatenate(pieces.pop(field))
    return columns


async def _parts(connection: AsyncConnection, name: str) -> list[sql.Composable]:
    row = await connection.execute(_QUERIES["blocks"], {"table": name})
    ((blocks,),) = await row.fetchall()
    return [
        sql.SQL("ctid >= {}::tid AND ctid < {}::tid").format(
            sql.Literal(f"({start},0)"), sql.Literal(f"({start + BLOCKS_A_PIECE},0)")
        )
        for start in range(0, max(blocks, 1), BLOCKS_A_PIECE)
    ]


_POSTGRES_EPOCH_MS = 946_684_800_000
_EVER_MS = 1 << 62


def _ms(microseconds: Ints) -> Ints:
    """Return PostgreSQL's timestamps as milliseconds since 1970, rounded up: measured times are whole.

    Its infinities become times before and behind all others.
    """
    limits = np.iinfo(np.int64)
    ms = -(-microseconds // 1000) + _POSTGRES_EPOCH_MS
    ms[microseconds == limits.max] = _EVER_MS
    ms[microseconds == limits.min] = -_EVER_MS
    return ms


def _look_up(table: Layered, keys: Ints) -> Sequence[Ids]:
    """Return the columns of a table at unique keys; 0 where there is no such key."""
    columns = [np.zeros(len(keys), column.dtype) for column in table.base.columns]
    for places, rows in table.parts(keys):
        row, found = rows.find(keys[places])
        for column, values in zip(columns, rows.columns, strict=True):
            column[places[found]] = values[row[found]]
    return columns


def _resident_at(rows: Sorted, keys: Ints, at_ms: Ints) -> Ids:
    start, end, resident_id = rows.columns
    residents = np.zeros(len(keys), np.int32)
    if not len(rows.keys):
        return residents
    # The last link of the key; where it starts too late, step back. A key has few links.
    index = np.searchsorted(rows.keys, keys, side="right") - 1
    pending = np.flatnonzero((index >= 0) & (rows.keys[index] == keys))
    while len(pending):
        at = index[pending]
        begun = start[at] <= at_ms[pending]
        inside = begun & (at_ms[pending] < end[at])
        residents[pending[inside]] = resident_id[at[inside]]
        pending = pending[~begun]
        index[pending] -= 1
        pending = pending[(index[pending] >= 0) & (rows.keys[index[pending]] == keys[pending])]
    return residents


def _slot_keys(device_ids: Ids, slots: npt.NDArray[np.uint8]) -> Ints:
    return (device_ids.astype(np.int64) << SLOT_BITS) | slots


def _signed(keys: Keys) -> Ints:
    return keys.astype(np.uint64, copy=False).view(np.int64)
