"""Bringing back what died: when, how often, and when no more."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

import pytest

from gateway.errors import UnavailableError
from gateway.platform.backoff import Backoff
from gateway.platform.supervisor import DEATHS_MAX, STEADY_S, Supervisor, keep

BACKOFF = Backoff(first_s=1.0, longest_s=8.0)
LONG_S = 100.0
"""Longer than any back-off here."""


@dataclass(slots=True)
class Lamp:
    """A part that can be put out."""

    name: str = "lamp"
    is_lit: bool = True
    is_broken: bool = False
    times_lit: int = 1

    def needs_restart(self) -> bool:
        return not self.is_lit

    def restart(self) -> None:
        if self.is_broken:
            raise UnavailableError("no light")
        self.is_lit = True
        self.times_lit += 1


def test_what_runs_is_left_alone() -> None:
    lamp = Lamp()
    supervisor = Supervisor([lamp])
    for now_s in range(5):
        supervisor.look(float(now_s))
    assert (lamp.times_lit, supervisor.restarts) == (1, 0)


def test_what_died_comes_back_after_its_back_off_and_not_before() -> None:
    lamp = Lamp(is_lit=False)
    supervisor = Supervisor([lamp], backoff=BACKOFF)
    supervisor.look(0.0)
    supervisor.look(0.4)  # jitter leaves at least half of the first step
    assert (lamp.times_lit, supervisor.restarts) == (1, 0)
    supervisor.look(1.0)
    assert (lamp.times_lit, supervisor.restarts) == (2, 1)


def test_each_death_in_a_row_is_waited_out_longer() -> None:
    lamp = Lamp(is_lit=False, is_broken=True)
    supervisor = Supervisor([lamp], backoff=BACKOFF)
    supervisor.look(0.0)
    supervisor.look(1.0)  # tried, failed: the second death in a row
    lamp.is_broken = False
    supervisor.look(1.9)  # half of the second step is not over
    assert lamp.times_lit == 1
    supervisor.look(3.0)
    assert lamp.times_lit == 2


def test_what_dies_again_and_again_ends_its_owner_by_name() -> None:
    lamp = Lamp()
    supervisor = Supervisor([lamp], backoff=BACKOFF)
    now_s = 0.0
    for _ in range(DEATHS_MAX):
        lamp.is_lit = False
        supervisor.look(now_s)
        now_s += 10.0
        supervisor.look(now_s)
        assert lamp.is_lit
    lamp.is_lit = False
    with pytest.raises(UnavailableError, match=f"lamp.*{DEATHS_MAX + 1} times in a row"):
        supervisor.look(now_s)


def test_why_it_does_not_start_is_told_at_the_end() -> None:
    lamp = Lamp(is_lit=False, is_broken=True)
    supervisor = Supervisor([lamp], backoff=BACKOFF, deaths_max=1)
    supervisor.look(0.0)
    with pytest.raises(UnavailableError, match="no light"):
        supervisor.look(LONG_S)


def test_a_part_that_has_run_steadily_begins_a_new_row() -> None:
    lamp = Lamp()
    supervisor = Supervisor([lamp], backoff=BACKOFF, deaths_max=1)
    now_s = 0.0
    for _ in range(5):
        lamp.is_lit = False
        supervisor.look(now_s)
        supervisor.look(now_s + 10.0)
        now_s += 10.0 + STEADY_S
        supervisor.look(now_s)
    assert supervisor.restarts == 5


def test_one_that_is_down_does_not_keep_another_from_coming_back() -> None:
    broken, lamp = Lamp(name="broken", is_lit=False, is_broken=True), Lamp(is_lit=False)
    supervisor = Supervisor([broken, lamp], backoff=BACKOFF)
    supervisor.look(0.0)
    supervisor.look(LONG_S)
    assert lamp.is_lit


async def test_a_restart_under_way_is_brought_to_its_end_before_keeping_ends() -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Slow(Lamp):
        def restart(self) -> None:
            begun.set()
            assert may_end.wait(10.0)
            Lamp.restart(self)

    lamp = Slow(is_lit=False)
    supervisor = Supervisor([lamp], backoff=Backoff(first_s=0.0, longest_s=0.0))
    keeping = asyncio.ensure_future(keep(supervisor))
    assert await asyncio.to_thread(begun.wait, 10.0)
    keeping.cancel()
    await asyncio.sleep(0)
    assert not keeping.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert lamp.is_lit
