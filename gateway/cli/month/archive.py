"""The real archive of the month: its registry, and the ingest path from messages to rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import LiteralString
from uuid import NAMESPACE_URL, UUID, uuid5

from api.records import Link, NewDevice, NewHub, Registration, SharedLink
from api.registry import register
from firmware_sim.month import Household, Lent
from gateway.gatt.times import ms_since_epoch
from gateway.platform.postgres import AsyncConnection, connect_blocking, dsn_with, sql
from gateway.vital_sign import NO_USER_SLOT
from gateway.vitals import BY_NAME
from gateway.wire import RECORD_BYTES
from ingest.attribution.settle import settle_due
from ingest.batches import Message, hub_homes, read_messages, reference_ms
from ingest.migrations import migrate
from ingest.registry import load_registry
from ingest.store import BatchIds, Store, prepare
from ingest.verdicts import judge, tables_of

FLUSH_BYTES = 20_000 * RECORD_BYTES
"""A flush is closed when its messages reach this."""
_DATABASE = "hearth_simulate_month"
_tables = tables_of()


@contextmanager
def own_database(server: str) -> Iterator[str]:
    """Make a database with the schema for the block; return its DSN."""

    def execute(statement: LiteralString) -> None:
        with connect_blocking(server, application="hearth-simulate", autocommit=True) as admin:
            admin.execute(sql.SQL(statement).format(sql.Identifier(_DATABASE)))

    execute("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    execute("CREATE DATABASE {}")
    try:
        dsn = dsn_with(server, dbname=_DATABASE)
        migrate(dsn)
        yield dsn
    finally:
        execute("DROP DATABASE IF EXISTS {} WITH (FORCE)")


def resident_of(person: int) -> UUID:
    """Return the public id of a person."""
    return uuid5(NAMESPACE_URL, f"hearth-month:{person}")


def enter(dsn: str, households: Sequence[Household]) -> None:
    """Enter everybody and everything as an administrator would, with what is known of lending."""
    devices = [
        (h, place, device) for h in households for place, device in enumerate(h.home.devices)
    ]
    new = Registration(
        homes=[_home_of(household) for household in households],
        residents=[resident_of(person) for household in households for person in household.bodies],
        hubs=[
            NewHub(name=name, home=_home_of(household))
            for household in households
            for name in (household.hubs[:2] if household.has_second_hub else household.hubs[:1])
        ],
        devices=[
            NewDevice(address=device.address, home=_home_of(household), model=device.model.name)
            for household, _place, device in devices
        ],
        links=[link for household, place, _device in devices for link in _links(household, place)],
        shared_links=[
            link
            for household in households
            for place in sorted(household.shared)
            for link in _shared_links(household, place)
        ],
    )
    with connect_blocking(dsn, application="hearth-simulate") as connection:
        register(connection, new)


def replace_hub(dsn: str, household: Household, old: str, new: str) -> None:
    """Revoke a hub and enrol the one that takes its place."""
    with connect_blocking(dsn, application="hearth-simulate") as connection:
        connection.execute("UPDATE hub SET revoked_at = now() WHERE name = %s", [old])
        register(connection, Registration(hubs=[NewHub(name=new, home=_home_of(household))]))


class Archive:
    """Commits messages as an ingest worker does, with the time of the simulation."""

    def __init__(self, dsn: str, connection: AsyncConnection) -> None:
        self._store = Store(connection)
        self._batch_ids = BatchIds(dsn)

    async def close(self) -> None:
        """Close what the archive has opened itself."""
        await self._batch_ids.close()

    async def settle(self) -> None:
        """Attribute the readings of shared slots, as a worker does within seconds."""
        while (await settle_due(self._store.connection)).slots:
            pass

    async def commit(self, messages: Sequence[Message], now: datetime) -> None:
        """Judge and store messages, flush by flush, by the registry as it is now."""
        registry = await load_registry(self._store.connection)
        now_ms = ms_since_epoch(now)
        for flushed in _flushes(messages):
            flush = read_messages(flushed, registry)
            judged = judge(
                flush.records, reference_ms(flush), hub_homes(flush), registry, _tables, now_ms
            )
            batch_ids = await self._batch_ids.take(len(flush.batches))
            await self._store.commit(prepare(flush, judged, registry, batch_ids, now_ms))


def _flushes(messages: Sequence[Message]) -> Iterator[list[Message]]:
    flushed: list[Message] = []
    size = 0
    for message in messages:
        flushed.append(message)
        size += len(message.payload)
        if size >= FLUSH_BYTES:
            yield flushed
            flushed, size = [], 0
    if flushed:
        yield flushed


def _home_of(household: Household) -> UUID:
    return uuid5(NAMESPACE_URL, f"hearth-month-home:{household.home.index}")


def _links(household: Household, place: int) -> list[Link]:
    """Return who is measured by a device: nobody, where it does not tell several users apart."""
    device = household.home.devices[place]
    if place in household.shared:
        return []
    lent = [each for each in household.lent if each.device == place and each.slot is not None]
    return [
        link
        for user in device.users
        for link in _of_slot(
            device.address,
            NO_USER_SLOT if user.slot is None else user.slot,
            user.person,
            next((each for each in lent if each.slot == user.slot), None),
        )
    ]


def _shared_links(household: Household, place: int) -> list[SharedLink]:
    """Return those who share a device, each with what they said was usual when it was set up."""
    device = household.home.devices[place]
    quantity = BY_NAME[device.model.sign].quantities[0]
    return [
        SharedLink(
            device=device.address,
            user_slot=NO_USER_SLOT,
            resident=resident_of(user.person),
            starts_at=None,
            usual=round(household.bodies[user.person].levels[quantity.name]),
        )
        for user in device.users
    ]


def _of_slot(address: str, slot: int, person: int, lent: Lent | None) -> list[Link]:
    """Return the links of a slot: its owner's, but for the time it is lent."""
    if lent is None:
        return [Link(device=address, user_slot=slot, resident=resident_of(person), starts_at=None)]
    begins_at, ends_at = lent.during.begins_at, lent.during.ends_at
    stretches = (
        (person, None, begins_at),
        (lent.person, begins_at, ends_at),
        (person, ends_at, None),
    )
    return [
        Link(
            device=address,
            user_slot=slot,
            resident=resident_of(who),
            starts_at=starts_at,
            ends_at=until,
        )
        for who, starts_at, until in stretches
    ]
