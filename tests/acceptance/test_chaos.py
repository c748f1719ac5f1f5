"""Everything dies at random and nothing is lost; and with a safety taken away, something is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.chaos.conductor import Summary, Wish, conduct
from bench.chaos.faults import Kind
from bench.chaos.stage import Cast
from gateway.platform.embedded.packages import Packages

pytestmark = pytest.mark.acceptance

ROUNDS = 8
"""Twenty-four faults: every kind at least once, about a minute."""


@pytest.mark.timeout(400)
def test_nothing_is_lost_or_doubled_whatever_dies() -> None:
    command = [sys.executable, "-m", "gateway.cli.main", "chaos", "--rounds", str(ROUNDS), "--json"]
    done = subprocess.run([*command, "--seed", "7"], capture_output=True, check=False)
    assert done.stdout, done.stderr.decode()[-2000:]
    told = json.loads(done.stdout)
    assert done.returncode == 0, told
    assert (told["lost"], told["doubled"], told["altered"], told["invented"]) == (0, 0, 0, 0)
    assert told["disagreements"] == []
    assert told["kept"] > 1000
    assert set(told["faults"]) == {kind.value for kind in Kind}
    unseen = [kind for kind, times in told["faults"].items() if times == 0]
    assert unseen == [], f"never seen to happen; kept from it by others: {told['missed']}"


@pytest.mark.timeout(300)
async def test_without_receipts_after_commit_readings_are_lost(
    home: Path, packages: Packages
) -> None:
    """Safety removed: ingest sends its receipts before COMMIT."""
    summary = await run_with(
        Cast(ingest="tests.mutants.ingest_receipts_first"),
        (Kind.INGEST_KILLED,),
        home,
        packages,
    )
    assert summary.lost > 0
    assert not summary.holds


@pytest.mark.timeout(300)
async def test_a_hub_that_forgets_on_puback_loses_readings(home: Path, packages: Packages) -> None:
    """Safety removed: the hub deletes a batch when the broker has acknowledged it."""
    summary = await run_with(
        Cast(hubs="tests.mutants.hubs_forget_on_puback"),
        (Kind.BROKER_KILLED, Kind.INGEST_BROKER_CUT),
        home,
        packages,
    )
    assert summary.lost > 0
    assert not summary.holds


async def run_with(cast: Cast, kinds: tuple[Kind, ...], home: Path, packages: Packages) -> Summary:
    """Run rounds of these faults with parts of another cast."""
    wish = Wish(rounds=5, seed=3, hubs=8, readings_per_s=400, kinds=kinds, cast=cast)
    return await conduct(wish, home / "chaos", packages, lambda _done, _what: None, home / "logs")
