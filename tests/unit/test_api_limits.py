"""Token buckets and entity tags, by literal cases."""

from __future__ import annotations

import pytest

from api import limits
from api.conditional import entity_tag, is_known
from api.limits import Buckets


def test_a_burst_is_let_through_and_then_only_the_rate() -> None:
    buckets = Buckets(rate_per_s=10)
    assert [buckets.wait_s("a", 0.0) for _ in range(20)] == [0.0] * 20
    assert buckets.wait_s("a", 0.0) == pytest.approx(0.1)
    assert buckets.wait_s("a", 0.1) == 0.0
    assert buckets.wait_s("a", 0.1) > 0.0


def test_who_asks_much_takes_nothing_from_others() -> None:
    buckets = Buckets(rate_per_s=1)
    assert [buckets.wait_s("a", 0.0) > 0 for _ in range(3)] == [False, False, True]
    assert buckets.wait_s("b", 0.0) == 0.0


def test_no_rate_is_no_limit() -> None:
    buckets = Buckets(rate_per_s=0)
    assert all(buckets.wait_s("a", 0.0) == 0.0 for _ in range(1000))
    assert len(buckets) == 0


def test_only_so_many_buckets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUCKETS_MAX", 3)
    buckets = Buckets(rate_per_s=1)
    for key in "abcde":
        buckets.wait_s(key, 0.0)
    assert len(buckets) == 3


@pytest.mark.parametrize(
    ("field", "known"),
    [
        (None, False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
        ("a", False),
    ],
)
def test_a_tag_is_found_in_its_field(field: str | None, known: bool) -> None:  # noqa: FBT001
    assert is_known('"a"', field) is known


def test_other_bytes_have_another_tag() -> None:
    assert entity_tag(b"a") != entity_tag(b"b")
    assert entity_tag(b"a") == entity_tag(b"a")
