"""What ingest counts. No label names a person, a device or a value."""

from __future__ import annotations

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

from ingest.attribution.settle import SettledSlots
from ingest.store import Committed
from ingest.verdicts import Verdict

MEASUREMENTS = Counter(
    "hearth_ingest_measurements",
    "Measurements by what became of them (the ledger's terms and, for quarantine, the reason).",
    ["verdict"],
)
PUBLISHED = Counter("hearth_ingest_published", "Measurements in new batches.")
BATCHES = Counter("hearth_ingest_batches", "Batches: new, or again (redelivered).", ["what"])
REJECTED = Counter(
    "hearth_ingest_rejected_messages",
    "Messages that are no batch of their hub, or another batch than came under their number.",
    ["reason"],
)
SHED = Counter(
    "hearth_ingest_shed_messages",
    "Messages not taken because their hub was over its rate; a hub sends them again.",
)
STATES = Counter(
    "hearth_ingest_states", "What hubs told of their devices, by what became of it.", ["what"]
)
LOOKED_UP = Counter(
    "hearth_ingest_looked_up", "Readings looked up because they may have come before."
)
JUDGED_AGAIN = Counter(
    "hearth_ingest_judged_again", "Flushes judged again: links changed before they were committed."
)
ATTRIBUTED = Counter(
    "hearth_ingest_attributed", "Readings of shared slots whose owner was found, or changed."
)
COMMIT_SECONDS = Histogram(
    "hearth_ingest_commit_seconds",
    "Time of one flush in the database.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
DATABASE_FAILURES = Counter(
    "hearth_ingest_database_failures", "Times that a flush was put off: the database was down."
)
INBOX_WAITING = Gauge(
    "hearth_ingest_inbox_waiting",
    "Batches from FHIR that are not committed yet; the worker that reads them shows it.",
)
INBOX_TAKEN = Counter("hearth_ingest_inbox_taken", "Batches from FHIR that were committed.")
LANES = Gauge("hearth_ingest_lanes", "Lanes that this worker reads.")
HELD_BYTES = Gauge("hearth_ingest_held_bytes", "Bytes read from the lanes and not committed yet.")


def count_committed(committed: Committed) -> None:
    """Count one committed flush."""
    counts = np.bincount(committed.verdict, minlength=256)
    for verdict in Verdict:
        if counts[verdict]:
            MEASUREMENTS.labels(verdict.name.lower()).inc(int(counts[verdict]))
    for outcome in committed.outcomes:
        if outcome.again:
            BATCHES.labels("again").inc()
            continue
        BATCHES.labels("new").inc()
        PUBLISHED.inc(outcome.batch.header.count)
        if outcome.batch.undecoded:
            MEASUREMENTS.labels(Verdict.UNDECODED.name.lower()).inc(len(outcome.batch.undecoded))
    for rejected in committed.rejected:
        REJECTED.labels(rejected.reason.name.lower()).inc()
    LOOKED_UP.inc(committed.looked_up)


def count_settled(settled: SettledSlots) -> None:
    """Count what settling shared slots changed."""
    ATTRIBUTED.inc(settled.changed)
