"""Readings that another home's hub had long before the own one: a device that was lent.

What a hub of another home hears waits in quarantine (`DEVICE_ELSEWHERE`). When the device is back and
sends its memory at home, the same records come by its own hub, and would be filed to whoever the device
is linked to, who did not measure. So a record that its own home has only long after it was measured is
looked up among those that wait: what another home had long before waits too, for a person. A neighbour's
hub that hears through the wall changes nothing, unless the own hub was off meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway import wire
from gateway.gatt.times import ms_since_epoch
from gateway.platform.postgres import AsyncConnection, Int8s, load_queries
from ingest.batches import RECORD_DTYPE
from ingest.rows import KIND_RECORD, Rows, content_hashes
from ingest.verdicts import Verdict

LATE_MS = 3_600_000
"""A home's own hub has what is measured there within this, unless it was off; and what it has so long
after another home's hub was measured there."""
HEARD_MAX = 100_000
"""Records of other homes that are looked at for a flush, the newest first."""

_QUERIES = load_queries(Path(__file__).parent / "sql" / "elsewhere.sql")
_KEY = np.dtype(
    [("device", "u8"), ("sign", "u1"), ("slot", "u1"), ("time_ms", "i8"), ("content", "i4")]
)


async def settle_elsewhere(
    connection: AsyncConnection,
    rows: Rows,
    verdict: npt.NDArray[np.uint8],
    places: npt.NDArray[np.intp],
) -> bool:
    """Keep apart those of the readings at `places` that were measured in another home.

    Changes `verdict`; returns whether there were any.
    """
    judged = rows.judged
    late = judged.received_ms[places] - judged.measured_ms[places] >= LATE_MS
    has_time = rows.records["time_flags"][places] & wire.TIME_TYPE_MASK != 0
    places = places[late & has_time]
    if not len(places):
        return False
    records = rows.records[places]
    found = await connection.execute(
        _QUERIES["heard_elsewhere"],
        {
            "devices": Int8s(np.unique(records["device"]).astype(np.int64)),
            "kind": KIND_RECORD,
            "reason": int(Verdict.DEVICE_ELSEWHERE),
            "limit": HEARD_MAX,
        },
    )
    entries = await found.fetchall()
    if not entries:
        return False
    heard = np.frombuffer(b"".join([content for content, _at in entries]), RECORD_DTYPE)
    heard_ms = np.array([ms_since_epoch(at) for _content, at in entries], np.int64)
    keys = np.concatenate(
        (_keys(heard, content_hashes(heard)), _keys(records, rows.content_hash[places]))
    )
    groups = np.unique(keys, return_inverse=True)[1]
    first_ms = np.full(len(keys), np.iinfo(np.int64).max)
    np.minimum.at(first_ms, groups[: len(heard)], heard_ms)
    elsewhere = first_ms[groups[len(heard) :]] <= judged.received_ms[places] - LATE_MS
    verdict[places[elsewhere]] = Verdict.DEVICE_ELSEWHERE
    return bool(elsewhere.any())


def _keys(records: npt.NDArray[np.void], content: npt.NDArray[np.int32]) -> npt.NDArray[np.void]:
    """Return (n,) what a record is known by, whichever hub brought it."""
    keys = np.empty(len(records), _KEY)
    keys["device"], keys["sign"] = records["device"], records["sign"]
    keys["slot"], keys["time_ms"] = records["user_slot"], records["device_time_ms"]
    keys["content"] = content
    return keys
