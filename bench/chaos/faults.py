"""Which faults happen when: decided by the seed alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random

FAULTS_A_ROUND = 3
"""They overlap at random; with every kind dealt in turn, 100 rounds see each at least 15 times."""
START_S_MAX = 2.5
"""A fault begins this long after its round at the latest."""
LASTS_S_MIN, LASTS_S_MAX = 0.5, 3.0
"""How long a fault holds; for a part that is killed, how long it stays dead."""


class Kind(StrEnum):
    """The kinds of fault."""

    BROKER_KILLED = "broker_killed"
    DATABASE_KILLED = "database_killed"
    INGEST_KILLED = "ingest_killed"
    HUBS_KILLED = "hubs_killed"
    HUBS_BROKER_CUT = "hubs_broker_cut"
    HUBS_BROKER_DELAYED = "hubs_broker_delayed"
    HUBS_BROKER_THROTTLED = "hubs_broker_throttled"
    INGEST_BROKER_CUT = "ingest_broker_cut"
    INGEST_BROKER_DELAYED = "ingest_broker_delayed"
    INGEST_BROKER_THROTTLED = "ingest_broker_throttled"
    INGEST_DATABASE_CUT = "ingest_database_cut"
    INGEST_DATABASE_DELAYED = "ingest_database_delayed"
    INGEST_DATABASE_THROTTLED = "ingest_database_throttled"
    HUBS_DISK_FULL = "hubs_disk_full"
    DATABASE_DISK_FULL = "database_disk_full"
    HUBS_CLOCK_BACK = "hubs_clock_back"
    INGEST_CLOCK_BACK = "ingest_clock_back"
    MESSAGES_DUPLICATED = "messages_duplicated"
    MESSAGES_REORDERED = "messages_reordered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of a round. `strength`: 0 to 1, how bad, where a kind can be more or less so."""

    kind: Kind
    at_s: float
    lasts_s: float
    strength: float


def schedule(seed: int, rounds: int, kinds: tuple[Kind, ...] = tuple(Kind)) -> list[list[Fault]]:
    """Return the faults of each round: the kinds are dealt like cards, so none is left out."""
    random = Random(seed)  # noqa: S311 - a plan that can be repeated, no secret
    cards = _dealt(random, kinds)
    return [_round(random, cards, len(kinds)) for _ in range(rounds)]


def _round(random: Random, cards: Iterator[Kind], kinds: int) -> list[Fault]:
    chosen: list[Kind] = []
    while len(chosen) < min(FAULTS_A_ROUND, kinds):
        kind = next(cards)
        if kind not in chosen:  # the end of one deck and the beginning of the next may agree
            chosen.append(kind)
    return [
        Fault(
            kind=kind,
            at_s=round(random.uniform(0, START_S_MAX), 3),
            lasts_s=round(random.uniform(LASTS_S_MIN, LASTS_S_MAX), 3),
            strength=round(random.random(), 3),
        )
        for kind in chosen
    ]


def _dealt(random: Random, kinds: tuple[Kind, ...]) -> Iterator[Kind]:
    while True:
        deck = list(kinds)
        random.shuffle(deck)
        yield from deck
