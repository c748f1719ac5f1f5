"""Whom the hub talks to next, and how long it leaves a device alone."""

from __future__ import annotations

import pytest

from edge.roster import (
    AFTER_FAILURE,
    AFTER_NOTHING,
    AFTER_TAKEN_S,
    DEVICES_MAX,
    HEARD_S_MAX,
    WINDOW_GAP_S,
    Outcome,
    Roster,
)

FREE = {"hci0", "hci1"}


def heard(*addresses: str, at_s: float = 0.0) -> Roster:
    roster = Roster()
    for address in addresses:
        roster.hear(address, "hci0", at_s)
    return roster


def session(roster: Roster, address: str, outcome: Outcome, began_s: float, ended_s: float) -> None:
    roster.begin(address, began_s)
    roster.end(address, outcome, ended_s)


def test_a_device_that_is_heard_is_talked_to_at_once() -> None:
    assert heard("a").next(0.0, FREE) == ("a", "hci0")


def test_an_adapter_that_is_busy_is_not_used() -> None:
    assert heard("a").next(0.0, {"hci1"}) is None


def test_the_device_that_has_waited_longest_comes_first() -> None:
    roster = heard("b", at_s=1.0)
    roster.hear("a", "hci0", 2.0)
    assert roster.next(3.0, FREE) == ("b", "hci0")


def test_a_device_in_a_session_is_not_talked_to_twice() -> None:
    roster = heard("a")
    roster.begin("a", 0.0)
    roster.hear("a", "hci1", 0.1)
    assert roster.next(0.1, FREE) is None


def test_a_device_that_stopped_advertising_is_not_connected_to() -> None:
    assert heard("a").next(HEARD_S_MAX + 1, FREE) is None


def test_after_a_session_a_device_has_to_be_heard_again() -> None:
    roster = heard("a")
    session(roster, "a", Outcome.TAKEN, 0.0, 5.0)
    assert roster.next(5.0 + AFTER_TAKEN_S, FREE) is None
    roster.hear("a", "hci0", 6.0)
    assert roster.next(6.0 + AFTER_TAKEN_S, FREE) == ("a", "hci0")


def test_a_failed_connection_is_tried_again_if_the_device_went_on_advertising() -> None:
    roster = heard("a")
    roster.begin("a", 0.0)
    roster.hear("a", "hci0", 4.0)
    roster.end("a", Outcome.UNREACHABLE, 5.0)
    wake_s = roster.wake_s(5.0)
    assert wake_s is not None
    assert 5.0 < wake_s <= 5.0 + AFTER_FAILURE.first_s
    assert roster.next(wake_s, FREE) == ("a", "hci0")


def test_a_failed_connection_to_a_device_that_went_silent_is_not_tried_again() -> None:
    roster = heard("a")
    session(roster, "a", Outcome.UNREACHABLE, 1.0, 5.0)
    assert roster.wake_s(5.0) is None
    assert roster.next(20.0, FREE) is None


@pytest.mark.parametrize(
    ("outcome", "longest_s"),
    [
        (Outcome.UNREACHABLE, AFTER_FAILURE.longest_s),
        (Outcome.BROKEN, AFTER_FAILURE.longest_s),
        (Outcome.EMPTY, AFTER_NOTHING.longest_s),
        (Outcome.FOREIGN, AFTER_NOTHING.longest_s),
        (Outcome.REFUSED, AFTER_NOTHING.longest_s),
    ],
)
def test_the_rest_doubles_up_to_its_bound(outcome: Outcome, longest_s: float) -> None:
    roster = heard("a")
    now_s = 0.0
    rests = []
    for _ in range(15):
        session(roster, "a", outcome, now_s, now_s)
        roster.hear("a", "hci0", now_s + 0.01)
        began_s = now_s
        while roster.next(now_s, FREE) is None:  # it advertises all the time
            now_s += 0.5
            roster.hear("a", "hci0", now_s)
        rests.append(now_s - began_s)
    assert rests[0] <= AFTER_NOTHING.first_s + 0.5
    assert longest_s / 2 <= rests[-1] <= longest_s + 0.5


def test_a_new_advertising_window_forgets_the_failures_of_the_last() -> None:
    roster = heard("a")
    for _ in range(10):
        session(roster, "a", Outcome.EMPTY, 0.0, 0.0)
    roster.hear("a", "hci0", WINDOW_GAP_S)
    assert roster.next(WINDOW_GAP_S, FREE) == ("a", "hci0")


def test_a_device_is_talked_to_over_the_adapter_that_heard_it_last() -> None:
    roster = heard("a")
    roster.hear("a", "hci1", 1.0)
    assert roster.next(1.0, FREE) == ("a", "hci1")


def test_the_roster_is_bounded_and_forgets_whom_it_heard_longest_ago() -> None:
    roster = Roster()
    for number in range(DEVICES_MAX + 10):
        roster.hear(str(number), "hci0", float(number))
    assert len(roster._known) == DEVICES_MAX
    assert "9" not in roster._known
    assert "10" in roster._known


def test_a_device_in_a_session_is_never_forgotten() -> None:
    roster = heard("a")
    roster.begin("a", 0.0)
    for number in range(DEVICES_MAX + 10):
        roster.hear(str(number), "hci0", float(number + 1))
    roster.end("a", Outcome.TAKEN, 600.0)
