"""Links in ingest's arrays: bytes a link, time to load them, look-ups, how soon a change is known.

Full: 20 million links. The load is held against a COPY of the same rows out of the store, which
sends a message a row.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.databases import own_database
from bench.result import Result, compare
from gateway.platform.postgres import (
    AsyncConnection,
    connect,
    connect_blocking,
    copy_out,
    load_queries,
    sql,
)
from ingest.registry import Ints, Registry, load_registry, update_registry

GOAL_BYTES = 40.0
"""A link takes at most so much memory."""
GOAL_LOAD = 1.0
"""Loading takes at most as long as a COPY of the same rows."""
GOAL_CHANGE_S = 2.0
"""A worker knows of a changed link within so many seconds."""
_DATABASE = "hearth_bench_links"
_LOOK_UPS = 20_000
"""As many as a flush has rows."""
_CHANGES = 20


def bench_links(server: str, *, quick: bool, progress: Callable[[str], None]) -> list[Result]:
    """Measure in a database of its own on `server`, which is dropped afterwards."""
    devices = 100_000 if quick else 10_000_000
    with own_database(server, _DATABASE) as dsn:
        progress(f"entering {2 * devices:,} links")
        _populate(dsn, devices)
        return asyncio.run(_measure(dsn, devices, rounds=3, progress=progress))


async def _measure(
    dsn: str, devices: int, rounds: int, progress: Callable[[str], None]
) -> list[Result]:
    async with (
        await connect(dsn, application="hearth-bench", autocommit=True) as connection,
        await connect(dsn, application="hearth-bench-changes", autocommit=True) as admin,
    ):
        loads, copies = [], []
        for number in range(rounds):
            started = time.perf_counter()
            registry = await load_registry(connection)
            loads.append(time.perf_counter() - started)
            copies.append(await _copy(connection))
            progress(f"load {number + 1}/{rounds}: {loads[-1]:.1f} s, COPY {copies[-1]:.1f} s")
        links = len(registry.links)
        rates = [_look_up(registry, devices, seed) for seed in range(rounds)]
        changes = [await _change(connection, admin, registry, n + 1) for n in range(_CHANGES)]
    return [
        compare(
            "links memory", "bytes/link", [registry.links.bytes / links],
            "goal", [GOAL_BYTES], goal=1.0, lower_is_better=True,
        ),
        compare(
            f"links load of {links:,}", "s", loads, "COPY of the same rows", copies,
            goal=GOAL_LOAD, lower_is_better=True,
        ),
        compare(
            "links look-up", "look-ups/s", rates, "a flush's rows", [_LOOK_UPS] * rounds, goal=None
        ),
        compare(
            "links change", "s", changes, "goal", [GOAL_CHANGE_S] * _CHANGES,
            goal=1.0, lower_is_better=True,
        ),
    ]  # fmt: skip


async def _copy(connection: AsyncConnection) -> float:
    started = time.perf_counter()
    statement = sql.SQL(
        "COPY (SELECT device_id, user_slot, lower(during), upper(during), resident_id FROM link"
        " WHERE superseded_at IS NULL) TO STDOUT (FORMAT BINARY)"
    )
    await copy_out(connection, statement)
    return time.perf_counter() - started


def _look_up(registry: Registry, devices: int, seed: int) -> float:
    generator = np.random.default_rng(seed)
    addresses = generator.integers(1, devices, _LOOK_UPS).astype(np.uint64)
    at_ms: Ints = np.full(_LOOK_UPS, int(time.time() * 1000), np.int64)
    started = time.perf_counter()
    device_ids, _homes = registry.find_devices(addresses)
    residents = registry.find_residents(device_ids, np.full(_LOOK_UPS, 255, np.uint8), at_ms)
    elapsed_s = time.perf_counter() - started
    assert residents.all()  # noqa: S101 - every device of the bench has a link
    return _LOOK_UPS / elapsed_s


async def _change(
    connection: AsyncConnection, admin: AsyncConnection, registry: Registry, device_id: int
) -> float:
    """End a device's link; return how long it takes from COMMIT to the state that knows it."""
    await admin.execute(
        sql.SQL("UPDATE link SET superseded_at = now() WHERE link_id = {}").format(
            sql.Literal(device_id)
        )
    )
    started = time.perf_counter()
    changed, changes = await update_registry(connection, registry)
    elapsed_s = time.perf_counter() - started
    assert changes.devices is not None  # noqa: S101 - else all was read again
    assert changed is not registry  # noqa: S101
    return elapsed_s


def _populate(dsn: str, devices: int) -> None:
    with connect_blocking(dsn, application="hearth-bench", autocommit=True) as connection:
        for statement in load_queries(Path(__file__).parent / "sql" / "links.sql").all():
            connection.execute(statement, {"devices": devices})
