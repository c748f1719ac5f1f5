"""Mutated payloads through the arrays of the ingest path; and the counter that can fail."""

from __future__ import annotations

import numpy as np
import pytest

from bench import fuzz as fuzz_module
from bench.fuzz import Outcome, a_registry, fuzz, mutated, templates
from gateway import wire
from ingest.batches import read_messages
from ingest.verdicts import Verdict

PAYLOADS = 100_000


async def test_a_hundred_thousand_mutated_payloads_crash_nothing_and_are_accounted_for() -> None:
    outcome = await fuzz(PAYLOADS, 7, a_registry(), lambda _done: None)
    assert outcome.crashes == []
    assert outcome.unaccounted == 0
    assert outcome.payloads == PAYLOADS
    verdicts = {v.name.lower() for v in Verdict}
    assert sum(n for name, n in outcome.became.items() if name in verdicts) == outcome.records
    assert outcome.became["stored"] > 0
    assert outcome.became["duplicate"] > 0
    assert len(verdicts & outcome.became.keys()) > 8, "the mutations reach too few rules"
    assert {"batch", "rejected", "reading", "located_error"} <= outcome.became.keys()


async def test_a_crash_is_told_with_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(fuzz_module, "judge", broken)
    outcome = await fuzz(1000, 7, a_registry(), lambda _done: None)
    assert not outcome.holds
    assert outcome.crashes[0].startswith("crashed: ZeroDivisionError")


async def test_a_record_that_is_dropped_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_messages
    monkeypatch.setattr(fuzz_module, "read_messages", lambda messages, r: whole(messages[1:], r))
    outcome = await fuzz(5000, 7, a_registry(), lambda _done: None)
    assert outcome.unaccounted > 0
    assert not outcome.holds


def test_mutations_alter_most_and_leave_the_templates_alone() -> None:
    valid = templates().view(np.uint8).reshape(-1, wire.RECORD_BYTES)
    before = valid.copy()
    altered = mutated(np.random.default_rng(7), valid)
    assert (altered != valid).any(axis=1).mean() > 0.5
    assert (altered == valid).all(axis=1).mean() > 0.05
    assert (valid == before).all()
    assert Outcome().holds
