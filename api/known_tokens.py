"""Tokens that were found good a moment ago are not checked again: a signature costs more than a read.

What a token says of itself does not change, and it is never known beyond its own end. Whether its
account and session still stand, the database says in each transaction as before.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import jwt

from api.access import Principal
from api.auth import LEEWAY_S, Verifier

KNOWN_S_MAX = 30.0
"""A key that its issuer withdraws is believed so much longer, and so is the role of an account."""
KNOWN_MAX = 10_000
"""Beyond so many tokens the one that was used longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    ends_at_s: float
    """By the wall clock, as the token says."""
    until_s: float
    """By the monotonic clock, which nobody sets back."""


class KnownTokens:
    """A `Verifier` that remembers what another one said."""

    def __init__(
        self,
        verifier: Verifier,
        now_s: Callable[[], float] = time.time,
        passed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verifier = verifier
        self._now_s = now_s
        self._passed_s = passed_s
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def principal(self, token: str) -> Principal:
        """Return who bears the token; see `api.auth.Verifier`."""
        known = self._known.get(token)
        if known and self._now_s() < known.ends_at_s and self._passed_s() < known.until_s:
            self._known.move_to_end(token)
            return known.principal
        self._known.pop(token, None)
        principal = await self._verifier.principal(token)
        ends_at_s = _ends_at_s(token) + LEEWAY_S
        self._known[token] = _Known(principal, ends_at_s, self._passed_s() + KNOWN_S_MAX)
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return principal


def _ends_at_s(token: str) -> float:
    """Return `exp` of a token that was checked; every good one has it."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return float(claims["exp"])
