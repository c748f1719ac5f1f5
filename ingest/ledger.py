"""The ledger: per hub and batch, published = stored + duplicate + quarantined; and its proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.platform.postgres import Connection, connect_blocking, load_queries, translated
from gateway.vitals import BY_CODE

_QUERIES = load_queries(Path(__file__).parent / "sql" / "ledger.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubLedger:
    """The terms of one hub in one epoch. `missing`: sequences below the highest that never came."""

    hub: str
    epoch: int
    batches: int
    missing: int
    published: int
    stored: int
    duplicate: int
    quarantined: int
    last_committed_at: datetime

    @property
    def balanced(self) -> bool:
        """Whether every measurement is accounted for and no batch is missing."""
        terms = self.stored + self.duplicate + self.quarantined
        return self.published == terms and self.missing == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Sequences of a hub's epoch that never came, both ends included."""

    hub: str
    epoch: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The whole ledger, or one hub's.

    `disagreeing`: (hub, epoch, sequence) of batches whose terms are not what the tables hold, at
    most 100; `orphans`: batches that rows name and the ledger does not know; both empty when not asked
    for. `gaps`: at most 1000. `rejected`: messages that were no batch.
    """

    hubs: tuple[HubLedger, ...]
    gaps: tuple[Gap, ...]
    disagreeing: tuple[tuple[str, int, int], ...]
    orphans: int
    rejected: int

    @property
    def balanced(self) -> bool:
        """Whether the proof holds."""
        whole = not self.disagreeing and not self.orphans
        return whole and all(hub.balanced for hub in self.hubs)

    def total(self, term: str) -> int:
        """Return the sum of one term over the hubs."""
        return sum(getattr(hub, term) for hub in self.hubs)

    def as_json(self) -> dict[str, Any]:
        """Return what --json prints."""
        terms = ("batches", "missing", "published", "stored", "duplicate", "quarantined")
        return {term: self.total(term) for term in terms} | {
            "rejected_messages": self.rejected,
            "balanced": self.balanced,
            "gaps": [asdict(gap) for gap in self.gaps],
            "orphans": self.orphans,
            "disagreeing": [list(batch) for batch in self.disagreeing],
            "hubs": [
                asdict(hub) | {"last_committed_at": hub.last_committed_at.isoformat()}
                for hub in self.hubs
            ],
        }


def read_ledger(
    dsn: str, *, hub: str | None = None, prove: bool = True, since: datetime | None = None
) -> Ledger:
    """Read the ledger; with `prove`, compare each batch with the rows of the tables.

    `since`: compare only the batches committed then or later; the terms and gaps are of all.

    Raises:
        UnavailableError: the database is down.
    """
    with connect_blocking(dsn, application="hearth-ledger") as connection, translated():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        *disagreeing, (*_, orphans) = (
            _rows(connection, "proof", hub, since) if prove else [(None, None, None, 0)]
        )
        hubs = tuple(_hub_ledger(row) for row in _rows(connection, "by_hub", hub))
        has_gaps = any(line.missing for line in hubs)
        ((_messages, rejected),) = _rows(connection, "rejected", hub)
        return Ledger(
            hubs=hubs,
            gaps=tuple(
                Gap(hub=name, epoch=epoch, first=first, last=last)
                for name, epoch, first, last in _rows(connection, "gaps", hub)
            )
            if has_gaps
            else (),
            orphans=orphans,
            disagreeing=tuple(
                (name, epoch, sequence) for name, epoch, sequence, _none in disagreeing
            ),
            rejected=rejected,
        )


def stored_signs(dsn: str) -> list[str]:
    """Return the names of the signs of which at least one measurement is stored."""
    with connect_blocking(dsn, application="hearth-ledger") as connection, translated():
        rows = connection.execute(_QUERIES["stored_signs"], {"signs": list(BY_CODE)})
        return [BY_CODE[code].name for (code,) in rows.fetchall()]


def _rows(
    connection: Connection, query: str, hub: str | None, since: datetime | None = None
) -> Sequence[tuple[Any, ...]]:
    return connection.execute(_QUERIES[query], {"hub": hub, "since": since}).fetchall()


def _hub_ledger(row: tuple[Any, ...]) -> HubLedger:
    name, epoch, batches, missing, published, stored, duplicate, quarantined, committed_at = row
    return HubLedger(
        hub=name,
        epoch=epoch,
        batches=batches,
        missing=missing,
        published=published,
        stored=stored,
        duplicate=duplicate,
        quarantined=quarantined,
        last_committed_at=committed_at,
    )
