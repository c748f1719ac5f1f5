"""`hearth simulate month`: a month of homes, compressed in time, with known truth.

    household (plan) -> devices -> link -> Session, clock, sealing -> batches -> judge, Store -> score
    firmware_sim                   radio   edge                                  ingest

Only the radio and the passing of time are not real: what decides about times, identity and residents
is the hub's and ingest's own code, against the real database.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from numpy.random import default_rng

from firmware_sim.month import BEGINS_AT, generate_month, month_facts
from gateway.cli.month.archive import Archive, enter, replace_hub
from gateway.cli.month.score import Month, Score, score
from gateway.cli.month.street import House, Street
from gateway.cli.month.world import World
from gateway.platform.postgres import connect
from ingest.batches import Message

_MAIL = 15
"""What a random stream is for: the order of arrival, and which batches come twice."""
_DAY = timedelta(days=1)
_SETTLED_EVERY = 5
"""Shared scales are attributed every so many days, not within seconds: a month takes minutes."""
_EVERYWHERE = timedelta(hours=12)
"""A day that has ended at Greenwich has ended in New York so much later, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to simulate."""

    homes: int
    days: int
    seed: int


async def run_month(dsn: str, plan: Plan, progress: Callable[[int], None]) -> Score:
    """Simulate into an empty database and score it; arguments as of `live_month`."""
    began_s = time.monotonic()
    world, month = await live_month(dsn, plan, progress)
    async with await connect(dsn, application="hearth-simulate", autocommit=True) as connection:
        return await score(connection, world, month, seconds=time.monotonic() - began_s)


async def live_month(dsn: str, plan: Plan, progress: Callable[[int], None]) -> tuple[World, Month]:
    """Simulate into an empty database; return the truth.

    Args:
        dsn: a database with the schema and nothing in it.
        plan: how much.
        progress: called with the home-days done so far.

    Raises:
        UnavailableError: the database is down.
    """
    households = generate_month(plan.homes, plan.seed, plan.days)
    enter(dsn, households)
    world = World(BEGINS_AT)
    street = Street(households, world)
    mail = _Mail(plan.seed)
    async with await connect(dsn, application="hearth-simulate", autocommit=True) as connection:
        archive = Archive(dsn, connection)
        for day in range(plan.days):
            begins_at = BEGINS_AT + day * _DAY
            for replaced in street.replace_hubs(day):
                await archive.commit(replaced.last, begins_at)
                replace_hub(dsn, replaced.household, replaced.old, replaced.new)
            for number, house in enumerate(street.houses, start=1):
                await street.live(house, day)
                mail.post(street.send(house, day))
                progress(day * plan.homes + number)
            await archive.commit(mail.arrived(), begins_at + _DAY + _EVERYWHERE)
            if day % _SETTLED_EVERY == 0:
                await archive.settle()
        mail.post(street.send_all(plan.days - 1))
        ends_at = BEGINS_AT + plan.days * _DAY + _EVERYWHERE
        await archive.commit(mail.arrived(), ends_at)
        await archive.commit(mail.arrived(), ends_at)
        await archive.settle()
        await archive.close()
    month = Month(homes=plan.homes, days=plan.days, seed=plan.seed, shared=_shared(street.houses))
    return world, month


class _Mail:
    """What is on its way to ingest: in any order, and some of it comes again the next day."""

    def __init__(self, seed: int) -> None:
        self._luck = default_rng([seed, _MAIL])
        self._posted: list[Message] = []
        self._again: list[Message] = []

    def post(self, messages: list[Message]) -> None:
        """Send messages."""
        self._posted += messages

    def arrived(self) -> list[Message]:
        """Return what has arrived today."""
        posted = [*self._posted, *self._again]
        arrived = [posted[place] for place in self._luck.permutation(len(posted))]
        twice = month_facts().faults.batch_twice
        self._again = [message for message in self._posted if self._luck.random() < twice]
        self._posted = []
        return arrived


def _shared(houses: list[House]) -> frozenset[int]:
    return frozenset(house.numbers[place] for house in houses for place in house.household.shared)
