"""How much of one hub a worker takes, so that none can hold up the others: a bucket of bytes a hub.

A home makes some hundred readings a day; a hub that was away for months brings its whole outbox in
one go, and the bucket has room for that. What is beyond is *shed*: acknowledged at once, not stored,
not receipted, and counted. A hub of ours keeps a batch until its receipt and sends it again later,
so that nothing of it is lost; a hub that floods floods itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from gateway.platform.logs import get_logger
from gateway.wire import BATCH_MAGIC

BURST_BYTES = 24 << 20
"""More than the longest packet that the broker lets through, and than a full outbox: 100,000 readings
in batches of 500 have 6.5 MB."""
RATE_BYTES_PER_S = 512 << 10
"""What a hub may go on to send for ever: eight thousand readings a second in full batches, eight
hundred batches a second of one reading each."""
REJECTED_BYTES = 64 << 10
"""A message that is no batch of its hub counts as so many bytes more: quarantine keeps it, and a
hub may have eight such a second kept, after a hundred at once."""
HUBS_MAX = 100_000
"""Buckets kept; when there are more, the full ones are forgotten, which changes nothing."""
TOLD_EVERY_S = 10.0
"""A hub that is over its rate is told of in the log so often."""

_log = get_logger(__name__)


def is_like_a_batch(payload: bytes) -> bool:
    """Tell whether a message begins as a batch does; else it costs more from the beginning."""
    return payload.startswith(BATCH_MAGIC)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float
    shed: int = 0
    told_s: float = float("-inf")


class Fairness:
    """The buckets of one worker. `hub` None: a topic that is no hub's; all share one bucket."""

    def __init__(self, now_s: Callable[[], float] = monotonic) -> None:
        self._now_s = now_s
        self._buckets: dict[int | None, _Bucket] = {}

    def admits(self, hub: int | None, size: int) -> bool:
        """Take `size` bytes out of a hub's bucket; False, and nothing taken: it has not so many."""
        bucket = self._filled(hub)
        if bucket.tokens < size:
            bucket.shed += 1
            self._tell(hub, bucket)
            return False
        bucket.tokens -= size
        return True

    def charge(self, hub: int | None, size: int) -> None:
        """Take bytes out of a hub's bucket for what it has cost us, down to below nothing."""
        bucket = self._filled(hub)
        bucket.tokens = max(bucket.tokens - size, -float(BURST_BYTES))

    def _filled(self, hub: int | None) -> _Bucket:
        now_s = self._now_s()
        bucket = self._buckets.get(hub)
        if bucket is None:
            self._forget_full(now_s)
            bucket = self._buckets[hub] = _Bucket(tokens=float(BURST_BYTES), at_s=now_s)
            return bucket
        grown = bucket.tokens + (now_s - bucket.at_s) * RATE_BYTES_PER_S
        bucket.tokens, bucket.at_s = min(grown, float(BURST_BYTES)), now_s
        return bucket

    def _forget_full(self, now_s: float) -> None:
        if len(self._buckets) >= HUBS_MAX:
            full_s = BURST_BYTES / RATE_BYTES_PER_S
            self._buckets = {
                hub: bucket for hub, bucket in self._buckets.items() if now_s - bucket.at_s < full_s
            }

    def _tell(self, hub: int | None, bucket: _Bucket) -> None:
        if bucket.at_s - bucket.told_s >= TOLD_EVERY_S:
            name = None if hub is None else f"{hub:016x}"
            _log.warning("hub_over_its_rate", hub=name, shed=bucket.shed)
            bucket.told_s, bucket.shed = bucket.at_s, 0
