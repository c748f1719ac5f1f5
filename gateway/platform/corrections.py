"""What follows when stored readings get another owner, whoever corrects it: a person, or ingest itself."""

from __future__ import annotations

from pathlib import Path

from gateway.platform.changes import Changed
from gateway.platform.postgres import Int2s, Int4s, Int8s, load_queries

_QUERIES = load_queries(Path(__file__).parent / "sql" / "corrections.sql")
FORGET_POSTERIORS = _QUERIES["forget_posteriors"]
"""By `correction_id`, whose attributions are written."""
MAKE_DUE = _QUERIES["make_due"]
"""With the parameters that `due` returns."""


def due(changed: Changed, device_id: int, user_slot: int) -> dict[str, object]:
    """Return the parameters of `MAKE_DUE`: whose readings of a slot moved, old owners and new."""
    return {
        "device_id": device_id,
        "user_slot": user_slot,
        "residents": Int4s(changed.resident),
        "signs": Int2s(changed.sign),
        "oldest_ms": Int8s(changed.oldest_ms),
        "newest_ms": Int8s(changed.newest_ms),
    }
