"""What is there at the end: journals, table, quarantine, ledger and the hubs' own counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.chaos.comparison import Found, Keys, Payloads
from bench.chaos.journal import Event, What, read_journal
from bench.chaos.load import keys_of, number_of_payload, numbers_of_times, values_of_numbers
from edge.config import load_config
from edge.outbox import Tally
from edge.status import read_status
from gateway.platform.postgres import Connection, connect_blocking, load_queries, translated
from ingest.batches import RECORD_DTYPE
from ingest.ledger import read_ledger
from ingest.rows import KIND_RECORD
from ingest.verdicts import Verdict

QUERIES = load_queries(Path(__file__).parents[1] / "sql" / "chaos.sql")


def read_findings(dsn: str, journals: Sequence[Path]) -> tuple[Found, Payloads]:
    """Read all that is compared, reading by reading."""
    lines = np.concatenate([read_journal(path) for path in journals])
    with connect_blocking(dsn, application="hearth-chaos") as connection, translated():
        stored, altered = _stored(connection)
        readings, payloads = _quarantined(connection)
    return (
        Found(
            offered=_keys(lines, Event.OFFERED, What.READING),
            kept=_keys(lines, Event.KEPT, What.READING),
            stored=stored,
            altered=altered,
            quarantined=readings,
        ),
        Payloads(
            offered=_keys(lines, Event.OFFERED, What.PAYLOAD),
            kept=_keys(lines, Event.KEPT, What.PAYLOAD),
            quarantined=payloads,
        ),
    )


def waiting_reasons(dsn: str) -> dict[str, int]:
    """Return how much waits in quarantine, by reason."""
    with connect_blocking(dsn, application="hearth-chaos") as connection, translated():
        rows = connection.execute(QUERIES["reasons"]).fetchall()
    return {Verdict(reason).name.lower(): count for reason, count in rows}


def disagreements(dsn: str, configs: Sequence[Path]) -> list[str]:
    """Return in what ledger, table and the hubs' own counts disagree; empty where they agree."""
    ledger = read_ledger(dsn)
    found = [f"batch {hub} {epoch} {sequence}" for hub, epoch, sequence in ledger.disagreeing]
    found += [f"hub {line.hub}: not balanced" for line in ledger.hubs if not line.balanced]
    with connect_blocking(dsn, application="hearth-chaos") as connection, translated():
        published = {str(name): int(n) for name, n in connection.execute(QUERIES["published"])}
    for path in configs:
        config = load_config(path)
        tallies = read_status(config.hub_id, config.outbox_path, config.identity).tallies
        kept = tallies[Tally.KEPT] + tallies[Tally.UNDECODED]
        receipted = sum(tallies[t] for t in (Tally.STORED, Tally.DUPLICATE, Tally.QUARANTINED))
        told = published.get(config.hub.id, 0)
        if not kept == receipted == told:
            found.append(f"hub {config.hub.id}: kept {kept}, receipted {receipted}, ledger {told}")
    return found


def _stored(connection: Connection) -> tuple[Keys, Keys]:
    rows = connection.execute(QUERIES["stored"]).fetchall()
    fields = [("device", np.int64), ("identity_ms", np.int64), ("value", np.float64)]
    table = np.array([tuple(row) for row in rows], fields)
    numbers = numbers_of_times(table["identity_ms"])
    keys = keys_of(table["device"], numbers)
    return keys, keys[table["value"] != values_of_numbers(numbers)]


def _quarantined(connection: Connection) -> tuple[Keys, Keys]:
    rows = connection.execute(QUERIES["quarantined"]).fetchall()
    records = np.frombuffer(
        b"".join(bytes(content) for kind, _device, content in rows if kind == KIND_RECORD),
        RECORD_DTYPE,
    )
    payloads = [(device, bytes(content)) for kind, device, content in rows if kind != KIND_RECORD]
    return (
        keys_of(records["device"], numbers_of_times(records["device_time_ms"].astype(np.int64))),
        keys_of(
            [device for device, _content in payloads],
            [number_of_payload(content) for _device, content in payloads],
        ),
    )


def _keys(lines: npt.NDArray[np.void], event: Event, what: What) -> Keys:
    wanted = lines[(lines["event"] == event) & (lines["what"] == what)]
    return keys_of(wanted["device"], wanted["number"].astype(np.int64))
