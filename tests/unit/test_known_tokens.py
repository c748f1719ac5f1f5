"""What is remembered of tokens never makes a bad one good."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import jwt
import pytest

from api.access import Principal, Role
from api.auth import LEEWAY_S, RefusedTokenError
from api.known_tokens import KNOWN_MAX, KNOWN_S_MAX, KnownTokens

SOMEONE = Principal(user=UUID(int=5), role=Role.CLINICIAN)
KEY = "a key of this test alone, long enough"


@dataclass
class Checks:
    """Takes what is in `good`, and counts."""

    good: set[str] = field(default_factory=set)
    asked: int = 0

    async def principal(self, token: str) -> Principal:
        self.asked += 1
        if token not in self.good:
            raise RefusedTokenError("signature")
        return SOMEONE


@dataclass
class Clocks:
    wall_s: float = 1_000_000.0
    passed_s: float = 50.0

    def go_on(self, seconds: float) -> None:
        self.wall_s += seconds
        self.passed_s += seconds


def a_token(ends_at_s: float, number: int = 0) -> str:
    return jwt.encode({"exp": int(ends_at_s), "n": number}, KEY, algorithm="HS256")


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def known(checks: Checks, clocks: Clocks) -> KnownTokens:
    return KnownTokens(checks, lambda: clocks.wall_s, lambda: clocks.passed_s)


async def test_a_good_token_is_checked_once_in_a_while(
    known: KnownTokens, checks: Checks, clocks: Clocks
) -> None:
    token = a_token(clocks.wall_s + 900)
    checks.good.add(token)
    for _ in range(3):
        assert await known.principal(token) == SOMEONE
    assert checks.asked == 1
    clocks.go_on(KNOWN_S_MAX)
    checks.good.clear()  # its key is withdrawn
    with pytest.raises(RefusedTokenError):
        await known.principal(token)


async def test_a_token_is_not_known_beyond_its_own_end(
    known: KnownTokens, checks: Checks, clocks: Clocks
) -> None:
    token = a_token(clocks.wall_s + 3)
    checks.good.add(token)
    await known.principal(token)
    clocks.go_on(3 + LEEWAY_S)
    await known.principal(token)
    assert checks.asked == 2


async def test_a_clock_that_is_set_back_keeps_no_token_good(
    known: KnownTokens, checks: Checks, clocks: Clocks
) -> None:
    token = a_token(clocks.wall_s + 900)
    checks.good.add(token)
    await known.principal(token)
    clocks.go_on(KNOWN_S_MAX)
    clocks.wall_s -= 3600
    await known.principal(token)
    assert checks.asked == 2


async def test_a_bad_token_is_checked_each_time(
    known: KnownTokens, checks: Checks, clocks: Clocks
) -> None:
    for _ in range(2):
        with pytest.raises(RefusedTokenError):
            await known.principal(a_token(clocks.wall_s + 900))
    assert checks.asked == 2


async def test_so_many_tokens_are_known_and_no_more(
    known: KnownTokens, checks: Checks, clocks: Clocks
) -> None:
    tokens = [a_token(clocks.wall_s + 900, number) for number in range(KNOWN_MAX + 1)]
    checks.good.update(tokens)
    for token in tokens:
        await known.principal(token)
    await known.principal(tokens[-1])
    assert checks.asked == KNOWN_MAX + 1
    await known.principal(tokens[0])
    assert checks.asked == KNOWN_MAX + 2
