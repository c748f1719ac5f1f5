"""Whether a device was away when it measured, told by what its home's hubs heard of others."""

from __future__ import annotations

import numpy as np

from ingest.attribution.away import absences

HOUR, DAY = 3_600_000, 86_400_000
HEARD = np.arange(0, 40 * DAY, 5 * HOUR)
"""The home's hubs hear other devices every five hours."""
SOON = 2_000
"""Of the readings that are heard at once."""


def found(
    *late: tuple[int, int, int], heard: np.ndarray = HEARD, at_once: int = 20
) -> list[tuple[int, int]]:
    """A reading a day that is heard at once, but where there are late ones: from, count, received."""
    taken = [
        (start + n * 4 * HOUR, received) for start, count, received in late for n in range(count)
    ]
    days = [day * DAY + 9 * HOUR for day in range(at_once)]
    usual = [
        (at, at + SOON)
        for at in days
        if all(not start <= at <= received for start, _count, received in late)
    ]
    measured_ms, received_ms = np.array(sorted(taken + usual), np.int64).T
    return absences(measured_ms, received_ms, heard)


def test_what_is_brought_home_after_a_day_that_the_hub_heard_others_was_measured_away() -> None:
    start = 5 * DAY
    assert found((start, 8, 8 * DAY)) == [(start, start + 28 * HOUR)]


def test_a_hub_that_was_off_tells_nothing() -> None:
    silent = HEARD[(HEARD < 5 * DAY - 1) | (HEARD > 8 * DAY)]
    assert found((5 * DAY, 8, 8 * DAY), heard=silent) == []


def test_a_home_without_other_devices_tells_nothing() -> None:
    assert found((5 * DAY, 8, 8 * DAY), heard=np.empty(0, np.int64)) == []


def test_a_link_that_breaks_or_an_evening_out_is_no_absence() -> None:
    assert found((5 * DAY, 1, 6 * DAY)) == []
    assert found((5 * DAY, 3, 6 * DAY)) == []


def test_a_device_that_is_always_read_later_was_not_away() -> None:
    """A meter that is read once a week."""
    weeks = [(week * 7 * DAY, 20, (week + 1) * 7 * DAY) for week in range(4)]
    assert found(*weeks) == []


def test_a_device_of_which_little_is_known_was_not_away() -> None:
    assert found((5 * DAY, 8, 8 * DAY), at_once=6) == []


def test_a_reading_at_home_ends_an_absence() -> None:
    first, second = (4 * DAY, 5, 6 * DAY), (10 * DAY, 5, 12 * DAY)
    assert found(first, second, at_once=60) == [
        (4 * DAY, 4 * DAY + 16 * HOUR),
        (10 * DAY, 10 * DAY + 16 * HOUR),
    ]
