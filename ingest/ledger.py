"""The ledger: per hub and batch, published = stored + duplicate + quarantined; and its proof."""

from __future__ import annotations

from collections.abc import Iterable
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
class Ledger:
    """The whole ledger, or one hub's.

    `disagreeing`: (hub, epoch, sequence) of batches whose terms are not what the tables hold, at
    most 100, empty when not asked for. `rejected`: messages that were no batch.
    """

    hubs: tuple[HubLedger, ...]
    disagreeing: tuple[tuple[str, int, int], ...]
    rejected: int

    @property
    def balanced(self) -> bool:
        """Whether the proof holds."""
        return not self.disagreeing and all(hub.balanced for hub in self.hubs)

    def total(self, term: str) -> int:
        """Return the sum of one term over the hubs."""
        return sum(getattr(hub, term) for hub in self.hubs)

    def as_json(self) -> dict[str, Any]:
        """Return what --json prints."""
        terms = ("batches", "missing", "published", "stored", "duplicate", "quarantined")
        return {term: self.total(term) for term in terms} | {
            "rejected_messages": self.rejected,
            "balanced": self.balanced,
            "disagreeing": [list(batch) for batch in self.disagreeing],
            "hubs": [
                asdict(hub) | {"last_committed_at": hub.last_committed_at.isoformat()}
                for hub in self.hubs
            ],
        }


def read_ledger(dsn: str, *, hub: str | None = None, prove: bool = True) -> Ledger:
    """Read the ledger; with `prove`, compare each batch with the rows of the tables.

    Raises:
        UnavailableError: the database is down.
    """
    with connect_blocking(dsn, application="hearth-ledger") as connection, translated():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        disagreeing = _rows(connection, "disagreeing_batches", hub) if prove else []
        ((_messages, rejected),) = _rows(connection, "rejected", hub)
        return Ledger(
            hubs=tuple(_hub_ledger(row) for row in _rows(connection, "by_hub", hub)),
            disagreeing=tuple((name, epoch, sequence) for name, epoch, sequence in disagreeing),
            rejected=rejected,
        )


def stored_signs(dsn: str) -> list[str]:
    """Return the names of the signs of which at least one measurement is stored."""
    with connect_blocking(dsn, application="hearth-ledger") as connection, translated():
        rows = connection.execute(_QUERIES["stored_signs"], {"signs": list(BY_CODE)})
        return [BY_CODE[code].name for (code,) in rows.fetchall()]


def _rows(connection: Connection, query: str, hub: str | None) -> Iterable[tuple[Any, ...]]:
    return connection.execute(_QUERIES[query], {"hub": hub}).fetchall()


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
