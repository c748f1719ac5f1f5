"""How often one may ask: a bucket a principal, refilled steadily. RFC 6585, 4 (429).

Whoever bears no token yet (signing in, probing) has the bucket of the address they come from.

In memory of one process: of several (`api.processes`) a client may ask so often of each, by as many
connections. What guesses passwords is held by the account's lock in the database.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import Principal
from api.origin import origin_of
from api.problems import problem

RATE_PER_S = 100.0
"""What one principal may ask, or one address without a token, unless the settings say otherwise."""
BUCKETS_MAX = 10_000
"""So many who asked last are remembered; whoever is forgotten begins with a full bucket."""
BURST_S = 2.0
"""A bucket holds what is refilled in this time: so much may be asked at once."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class Buckets:
    """Token buckets by key. `rate_per_s` 0: no limit."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._size = max(rate_per_s * BURST_S, 1.0)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, key: str, now: float) -> float:
        """Take one token; returns 0, or in how many seconds there will be one."""
        if not self._rate_per_s:
            return 0.0
        bucket = self._buckets.pop(key, None) or _Bucket(self._size, now)
        self._buckets[key] = bucket  # the last one is whoever asked last
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._size, bucket.tokens + (now - bucket.filled_at) * self._rate_per_s)
        bucket.filled_at = now
        if bucket.tokens < 1.0:
            return (1.0 - bucket.tokens) / self._rate_per_s
        bucket.tokens -= 1.0
        return 0.0

    def __len__(self) -> int:
        return len(self._buckets)


async def refuse(wait_s: float, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 429 with the time to wait."""
    response = problem(HTTPStatus.TOO_MANY_REQUESTS)
    MutableHeaders(raw=response.raw_headers)["Retry-After"] = str(math.ceil(wait_s))
    await response(scope, receive, send)


class LimitRate:
    """ASGI middleware behind authentication: one bucket a principal, or an address without one."""

    def __init__(self, app: ASGIApp, rate_per_s: float) -> None:
        self._app = app
        self._buckets = Buckets(rate_per_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        principal: Principal | None = scope.get("state", {}).get("principal")
        whose = f"from {origin_of(scope)}" if principal is None else str(principal.user)
        wait_s = self._buckets.wait_s(whose, time.monotonic())
        if wait_s:
            await refuse(wait_s, scope, receive, send)
        else:
            await self._app(scope, receive, send)
