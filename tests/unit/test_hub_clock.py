"""The hub's clock table, row by row (HL7 PHD IG 2.0.0), and what it infers where nobody says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.clock import (
    CLOCK_ERROR_MAX,
    DRIFT_PER_DAY,
    DRIFT_PPM_MAX,
    LINES_MAX,
    LIVE_LAG_PER_DAY,
    NOW_MAX,
    OBSERVED_MAX,
    RECORD_AGE_MAX,
    ROWS,
    SHOWN_MS_MAX,
    Pair,
    Placed,
    TimeLine,
    clock_error,
    pair_of,
    place,
    with_live,
    with_pair,
)
from gateway.gatt.times import DeviceTime, TimeType, ms_since_epoch
from gateway.measurement import TimeQuality

CHINA = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
CHINA_OFFSET = timedelta(hours=8)
WRONG = timedelta(days=400, seconds=17)
"""How far behind the wrong clocks here are."""
TAKEN = NOW - timedelta(hours=5)


def shown(
    kind: TimeType,
    true_at: datetime,
    *,
    behind: timedelta = timedelta(0),
    current: bool | None = None,
    synced: bool | None = None,
    offset_min: int | None = None,
) -> DeviceTime:
    """What a clock that is `behind` shows at a true instant."""
    local = CHINA_OFFSET if kind is TimeType.LOCAL else timedelta(0)
    return DeviceTime(
        type=kind,
        ms=ms_since_epoch(true_at + local - behind),
        current=current,
        synced=synced,
        utc_offset_min=offset_min,
    )


def line_of(kind: TimeType, behind: timedelta, at: datetime = NOW) -> TimeLine:
    (line,) = with_pair((), Pair(shown=shown(kind, at, behind=behind), at=at))
    return line


EXPECTED = [
    # time type, current, synced, offset -> quality, whose offset: the guide's table, in its order
    (TimeType.UTC, True, True, True, TimeQuality.SYNCHRONISED, "device"),
    (TimeType.UTC, True, True, False, TimeQuality.SYNCHRONISED, "hub"),
    (TimeType.UTC, True, False, True, TimeQuality.MAPPED, "hub"),
    (TimeType.UTC, True, False, False, TimeQuality.MAPPED, "hub"),
    (TimeType.UTC, False, True, True, TimeQuality.SYNCHRONISED, "device"),
    (TimeType.UTC, False, True, False, TimeQuality.SYNCHRONISED, "hub"),
    (TimeType.UTC, False, False, True, TimeQuality.UNPLACED, "hub"),
    (TimeType.UTC, False, False, False, TimeQuality.UNPLACED, "hub"),
    (TimeType.LOCAL, True, True, True, TimeQuality.SYNCHRONISED, "device"),
    (TimeType.LOCAL, True, True, False, TimeQuality.SYNCHRONISED, "hub"),
    (TimeType.LOCAL, True, False, True, TimeQuality.MAPPED, "hub"),
    (TimeType.LOCAL, True, False, False, TimeQuality.MAPPED, "hub"),
    (TimeType.LOCAL, False, True, True, TimeQuality.SYNCHRONISED, "device"),
    (TimeType.LOCAL, False, True, False, TimeQuality.SYNCHRONISED, "hub"),
    (TimeType.LOCAL, False, False, True, TimeQuality.UNPLACED, "hub"),
    (TimeType.LOCAL, False, False, False, TimeQuality.UNPLACED, "hub"),
    (TimeType.TICKS, True, None, None, TimeQuality.MAPPED, "hub"),
    (TimeType.TICKS, False, None, None, TimeQuality.UNPLACED, "hub"),
]
TIBET_MIN = 360
"""An offset that a device may tell and that is not the hub's."""


def test_the_table_has_the_guides_eighteen_rows() -> None:
    assert set(ROWS) == {row[:4] for row in EXPECTED}
    assert len(ROWS) == 18


def name_of(row: tuple[object, ...]) -> str:
    """Name a row of the table: local-current-unsynced-without_offset."""
    kind, current, synced, offset, *_expected = row
    assert isinstance(kind, TimeType)
    words = [kind.name.lower(), "current" if current else "not_current"]
    if synced is not None:
        words += ["synced" if synced else "unsynced", "offset" if offset else "without_offset"]
    return "-".join(words)


@pytest.mark.parametrize(
    ("kind", "current", "synced", "offset", "quality", "whose"),
    EXPECTED,
    ids=[name_of(row) for row in EXPECTED],
)
def test_a_row_of_the_table(
    kind: TimeType,
    *,
    current: bool,
    synced: bool | None,
    offset: bool | None,
    quality: TimeQuality,
    whose: str,
) -> None:
    behind = timedelta(0) if synced else WRONG
    if offset and synced and kind is TimeType.LOCAL:
        behind += CHINA_OFFSET - timedelta(minutes=TIBET_MIN)  # it shows that offset's local time
    time = shown(kind, TAKEN, behind=behind, current=current, synced=synced)
    time = replace(time, utc_offset_min=TIBET_MIN if offset else None)
    cannot = quality is TimeQuality.UNPLACED
    lines = () if cannot else with_pair((), Pair(shown=shown(kind, NOW, behind=behind), at=NOW))
    placed = place(time, received_at=NOW, lines=lines, zone=CHINA)
    assert placed.quality is quality
    assert placed.measured_at == (NOW if cannot else TAKEN)
    assert placed.utc_offset_min == (TIBET_MIN if whose == "device" else 480)


PAIR_REQUIRED = [
    row for row in EXPECTED if row[1] and (row[4] is TimeQuality.MAPPED or row[0] is TimeType.LOCAL)
]
"""The rows of which the guide says "required" in its column of coincident time-stamps."""


@pytest.mark.parametrize("row", PAIR_REQUIRED, ids=name_of)
def test_without_the_pair_that_its_row_requires_a_time_cannot_be_placed(
    row: tuple[TimeType, bool, bool | None, bool | None, TimeQuality, str],
) -> None:
    kind, current, synced, offset, _quality, _whose = row
    time = shown(
        kind, TAKEN, current=current, synced=synced, offset_min=TIBET_MIN if offset else None
    )
    assert place(time, received_at=NOW, lines=(), zone=CHINA).quality is TimeQuality.UNPLACED


def test_seven_rows_require_a_pair() -> None:
    assert len(PAIR_REQUIRED) == 7


@pytest.mark.parametrize("kind", [TimeType.UTC, TimeType.LOCAL])
def test_a_synchronised_time_of_before_a_jump_needs_no_pair(kind: TimeType) -> None:
    """Whatever the clock shows now: it does not speak for the time line of then."""
    time = shown(kind, TAKEN, current=False, synced=True)
    lines = (line_of(kind, WRONG),)
    placed = place(time, received_at=NOW, lines=lines, zone=CHINA)
    assert (placed.measured_at, placed.quality) == (TAKEN, TimeQuality.SYNCHRONISED)


def test_a_claim_to_be_right_is_held_against_the_clock_that_was_read() -> None:
    """Set from the network a year ago, it says so for ever, and has drifted since."""
    behind = timedelta(minutes=3)
    time = shown(TimeType.UTC, TAKEN, behind=behind, current=True, synced=True)
    placed = place(time, received_at=NOW, lines=(line_of(TimeType.UTC, behind),), zone=CHINA)
    assert (placed.measured_at, placed.quality) == (TAKEN, TimeQuality.MAPPED)


def test_local_time_that_claims_to_be_right_is_held_against_the_clock_that_was_read() -> None:
    """Synchronised, but to another time zone than the hub's, and it does not say which."""
    behind = timedelta(hours=2)
    time = shown(TimeType.LOCAL, TAKEN, behind=behind, current=True, synced=True)
    lines = (line_of(TimeType.LOCAL, behind),)
    placed = place(time, received_at=NOW, lines=lines, zone=CHINA)
    assert (placed.measured_at, placed.quality) == (TAKEN, TimeQuality.MAPPED)


def test_a_right_clocks_own_time_is_kept_so_that_a_record_is_the_same_each_time_it_comes() -> None:
    almost = timedelta(seconds=3)
    time = shown(TimeType.LOCAL, TAKEN, behind=almost)
    placed = place(time, received_at=NOW, lines=(line_of(TimeType.LOCAL, almost),), zone=CHINA)
    assert placed.quality is TimeQuality.SYNCHRONISED
    assert placed.measured_at == TAKEN - almost


@pytest.mark.parametrize("behind", [WRONG, -WRONG, timedelta(minutes=1), -timedelta(hours=1)])
def test_a_wrong_clock_is_seen_through(behind: timedelta) -> None:
    time = shown(TimeType.LOCAL, TAKEN, behind=behind)
    placed = place(time, received_at=NOW, lines=(line_of(TimeType.LOCAL, behind),), zone=CHINA)
    assert (placed.measured_at, placed.quality) == (TAKEN, TimeQuality.MAPPED)


@pytest.mark.parametrize("behind", [WRONG, -WRONG, timedelta(minutes=1), -timedelta(minutes=1)])
def test_records_of_before_and_after_a_setting_go_by_their_own_time_line(
    behind: timedelta,
) -> None:
    lines = with_pair((), Pair(shown=shown(TimeType.LOCAL, NOW, behind=behind), at=NOW))
    set_at = NOW + timedelta(seconds=10)
    lines = with_pair(lines, Pair(shown=shown(TimeType.LOCAL, set_at), at=set_at), set_at=set_at)
    before = shown(TimeType.LOCAL, TAKEN, behind=behind)
    later_at = set_at + timedelta(seconds=20)
    after = shown(TimeType.LOCAL, later_at)
    received_at = later_at + timedelta(seconds=1)
    old = place(before, received_at=received_at, lines=lines, zone=CHINA)
    new = place(after, received_at=received_at, lines=lines, zone=CHINA)
    assert (old.measured_at, old.quality) == (TAKEN, TimeQuality.MAPPED_EARLIER)
    assert (new.measured_at, new.quality) == (later_at, TimeQuality.SYNCHRONISED)


def test_a_record_of_before_a_jump_between_two_sessions_goes_by_the_earlier_line() -> None:
    yesterday = NOW - timedelta(days=1)
    first = Pair(shown=shown(TimeType.LOCAL, yesterday), at=yesterday)
    second = Pair(shown=shown(TimeType.LOCAL, NOW, behind=WRONG), at=NOW)
    lines = with_pair(with_pair((), first), second)
    assert len(lines) == 2
    record = shown(TimeType.LOCAL, TAKEN)
    placed = place(record, received_at=NOW, lines=lines, zone=CHINA)
    assert (placed.measured_at, placed.quality) == (TAKEN, TimeQuality.MAPPED_EARLIER)


DEFAULT_DATE = datetime(2015, 1, 1, tzinfo=UTC)


def since_a_battery(battery_at: datetime, at: datetime) -> DeviceTime:
    """What a clock shows that began at its default date with a new battery."""
    return shown(TimeType.LOCAL, at, behind=battery_at - DEFAULT_DATE)


def test_a_clock_that_may_have_begun_anew_at_the_same_date_places_nothing() -> None:
    """The link broke before the clock was read: the stamp fits the former battery's line as well."""
    first_at, second_at = NOW - timedelta(days=16), NOW - timedelta(minutes=20)
    seen = Pair(
        shown=since_a_battery(first_at, first_at + timedelta(minutes=30)),
        at=first_at + timedelta(minutes=30),
    )
    lines = with_pair((), seen)
    lines = with_pair(lines, Pair(shown=since_a_battery(first_at, second_at), at=second_at))
    assert len(lines) == 1
    taken_at = second_at + timedelta(minutes=5)
    record = since_a_battery(second_at, taken_at)
    assert place(record, received_at=NOW, lines=lines, zone=CHINA).quality is TimeQuality.UNPLACED
    # Nor on a line that has ended.
    set_at = NOW - timedelta(hours=2)
    ended = with_pair(lines, Pair(shown=shown(TimeType.LOCAL, set_at), at=set_at), set_at=set_at)
    assert place(record, received_at=NOW, lines=ended, zone=CHINA).quality is TimeQuality.UNPLACED
    # Once the clock is read, all is clear: what is of the new line, and what is of the former.
    read = with_pair(lines, Pair(shown=since_a_battery(second_at, NOW), at=NOW))
    placed = place(record, received_at=NOW, lines=read, zone=CHINA)
    assert (placed.measured_at, placed.quality) == (taken_at, TimeQuality.MAPPED)
    former = since_a_battery(first_at, NOW - timedelta(days=3))
    placed = place(former, received_at=NOW, lines=read, zone=CHINA)
    assert placed.measured_at == NOW - timedelta(days=3)


def test_a_clock_of_a_wrong_date_that_ran_on_for_days_still_places_what_it_stamps() -> None:
    """Too late on its line to be of a clock that began anew since it was last seen."""
    battery_at = NOW - timedelta(days=9)
    lines: tuple[TimeLine, ...] = ()
    for days in (8, 7, 1):
        at = NOW - timedelta(days=days)
        lines = with_pair(lines, Pair(shown=since_a_battery(battery_at, at), at=at))
    placed = place(since_a_battery(battery_at, TAKEN), received_at=NOW, lines=lines, zone=CHINA)
    assert (placed.measured_at, placed.quality) == (TAKEN, TimeQuality.MAPPED)


def test_a_clock_that_drifts_runs_on_and_one_that_jumps_does_not() -> None:
    lines = with_pair((), Pair(shown=shown(TimeType.LOCAL, NOW), at=NOW))
    week = NOW + timedelta(days=7)
    drifted = shown(TimeType.LOCAL, week, behind=DRIFT_PER_DAY * 6.9)
    assert len(with_pair(lines, Pair(shown=drifted, at=week))) == 1
    jumped = shown(TimeType.LOCAL, week, behind=DRIFT_PER_DAY * 7.5)
    assert len(with_pair(lines, Pair(shown=jumped, at=week))) == 2


def drifting(lines: tuple[TimeLine, ...], s_per_day: float, days: range) -> tuple[TimeLine, ...]:
    """See a clock once a day, in whole seconds, that falls behind by so much each day."""
    for day in days:
        at = NOW + timedelta(days=day, milliseconds=day * 137 % 1000)
        clock = shown(TimeType.LOCAL, at, behind=timedelta(seconds=s_per_day * day))
        clock = replace(clock, ms=clock.ms // 1000 * 1000)
        lines = with_pair(lines, Pair(shown=clock, at=at))
    return lines


@pytest.mark.parametrize("s_per_day", [0.5, 5.0, -0.5, -5.0, 10.0])
def test_a_clocks_drift_is_learned_and_places_what_was_measured_between_two_sessions(
    s_per_day: float,
) -> None:
    lines = drifting((), s_per_day, range(20))
    assert len(lines) == 1
    assert lines[0].drift_ppm == pytest.approx(s_per_day / 0.0864, abs=abs(s_per_day) + 2)
    lines = drifting(lines, s_per_day, range(30, 31))  # ten days without a session
    taken_at = NOW + timedelta(days=21)
    time = shown(TimeType.LOCAL, taken_at, behind=timedelta(seconds=s_per_day * 21))
    placed = place(time, received_at=NOW + timedelta(days=30), lines=lines, zone=CHINA)
    assert abs(placed.measured_at - taken_at) <= timedelta(seconds=5)


def test_a_drift_that_is_known_shows_a_small_jump() -> None:
    """A person moves the clock by half a minute: as a drift over three days it would pass."""
    lines = drifting((), 3.0, range(20))
    at = NOW + timedelta(days=22)
    moved = shown(TimeType.LOCAL, at, behind=timedelta(seconds=3.0 * 22 + 30))
    assert len(with_pair(lines, Pair(shown=moved, at=at))) == 2
    assert len(with_pair((line_of(TimeType.LOCAL, timedelta(seconds=57), NOW + timedelta(days=19)),),
                         Pair(shown=moved, at=at))) == 1  # fmt: skip


def test_a_drift_outlives_the_setting_of_its_clock() -> None:
    lines = drifting((), 3.0, range(20))
    at = NOW + timedelta(days=20)
    lines = with_pair(lines, Pair(shown=shown(TimeType.LOCAL, at), at=at), set_at=at)
    assert len(lines) == 2
    assert lines[1].drift_ppm == lines[0].drift_ppm
    assert lines[1].observed == lines[0].observed


def test_a_drift_is_bounded() -> None:
    lines = with_pair((), Pair(shown=shown(TimeType.LOCAL, NOW), at=NOW))
    for second in range(1, 200):
        at = NOW + timedelta(minutes=second)
        clock = shown(TimeType.LOCAL, at, behind=timedelta(seconds=1.9 * second))
        lines = with_pair(lines, Pair(shown=clock, at=at))
    assert 0 < lines[-1].drift_ppm <= DRIFT_PPM_MAX


def test_a_clock_that_cannot_be_read_is_followed_by_its_shortest_delays() -> None:
    """It falls behind by five seconds a day for sixty days; the hub hears of each after 3 to 40 s."""
    lines: tuple[TimeLine, ...] = ()
    for day in range(60):
        at = NOW + timedelta(days=day)
        time = shown(TimeType.LOCAL, at, behind=timedelta(seconds=5 * day))
        received_at = at + timedelta(seconds=3 + day * 7 % 38)
        lines = with_live(lines, time, received_at, CHINA)
        placed = place(time, received_at=received_at, lines=lines, zone=CHINA)
        assert placed.quality in {TimeQuality.SYNCHRONISED, TimeQuality.MAPPED}
        late = placed.measured_at - at
        assert -timedelta(seconds=5) <= late <= LIVE_LAG_PER_DAY * 3
    assert len(lines) == 1


def test_a_clock_that_cannot_be_read_and_runs_fast_is_not_placed_in_the_future() -> None:
    lines: tuple[TimeLine, ...] = ()
    for day in range(60):
        at = NOW + timedelta(days=day)
        time = shown(TimeType.LOCAL, at, behind=-timedelta(seconds=5 * day))
        received_at = at + timedelta(seconds=4)
        lines = with_live(lines, time, received_at, CHINA)
        placed = place(time, received_at=received_at, lines=lines, zone=CHINA)
        assert placed.measured_at <= received_at + CLOCK_ERROR_MAX
        assert abs(placed.measured_at - at) <= timedelta(seconds=9)


DEFAULT = datetime(2015, 1, 1, tzinfo=UTC)
"""Where a clock begins after a new battery."""


def stamped(lines: tuple[TimeLine, ...], shown_at: datetime, received_at: datetime) -> Placed:
    time = shown(TimeType.LOCAL, shown_at - CHINA_OFFSET)
    return place(time, received_at=received_at, lines=lines, zone=CHINA)


def see(
    lines: tuple[TimeLine, ...], shown_at: datetime, received_at: datetime
) -> tuple[TimeLine, ...]:
    return with_live(lines, shown(TimeType.LOCAL, shown_at - CHINA_OFFSET), received_at, CHINA)


def test_a_clock_at_its_default_date_that_cannot_be_read_is_seen_through_at_its_second_word() -> (
    None
):
    lines = see((), DEFAULT + timedelta(hours=1), NOW)
    assert stamped(lines, DEFAULT + timedelta(hours=1), NOW).quality is TimeQuality.UNPLACED
    later = NOW + timedelta(hours=7)
    lines = see(lines, DEFAULT + timedelta(hours=8) - timedelta(seconds=20), later)
    placed = stamped(lines, DEFAULT + timedelta(hours=8) - timedelta(seconds=20), later)
    assert placed.quality is TimeQuality.MAPPED
    assert abs(placed.measured_at - later) <= timedelta(seconds=20)
    first = stamped(lines, DEFAULT + timedelta(hours=1), later)  # sent again, it can be placed too
    assert abs(first.measured_at - NOW) <= timedelta(seconds=1)


def test_a_memory_told_at_once_by_a_clock_at_its_default_date_settles_nothing() -> None:
    lines: tuple[TimeLine, ...] = ()
    for hour in range(5):
        lines = see(lines, DEFAULT + timedelta(hours=hour), NOW + timedelta(seconds=hour))
    (line,) = lines
    assert line.is_doubtful
    later = NOW + timedelta(hours=3)
    (line,) = see(lines, DEFAULT + timedelta(hours=7), later)  # as far behind as the last of them
    assert not line.is_doubtful


def test_records_of_the_last_year_that_come_equally_late_do_not_make_a_clock_wrong() -> None:
    """Measured at six and sent at seven, every day: it is the delay, as far as anyone can tell."""
    lines: tuple[TimeLine, ...] = ()
    for day in range(9):
        at = NOW + timedelta(days=day)
        lines = see(lines, at + CHINA_OFFSET - timedelta(hours=1), at)
    assert lines == ()


def test_a_doubt_ends_when_the_clock_shows_to_be_right() -> None:
    lines = see((), DEFAULT, NOW)
    later = NOW + timedelta(hours=1)
    (line,) = with_live(lines, shown(TimeType.LOCAL, later), later, CHINA)
    assert not line.is_doubtful
    (line,) = with_pair(lines, Pair(shown=shown(TimeType.LOCAL, later), at=later))
    assert not line.is_doubtful


def test_time_lines_are_bounded_and_the_oldest_goes() -> None:
    lines: tuple[TimeLine, ...] = ()
    for jump in range(LINES_MAX + 3):
        at = NOW + timedelta(hours=jump)
        clock = shown(TimeType.LOCAL, at, behind=timedelta(days=jump))
        lines = with_pair(lines, Pair(shown=clock, at=at))
    assert len(lines) == LINES_MAX
    assert lines[0].first_at == NOW + timedelta(hours=3)


def test_a_record_that_would_lie_in_the_future_is_not_placed_there() -> None:
    """The clock was reset, nobody saw the line before, and the record is from before."""
    record = shown(TimeType.LOCAL, NOW - timedelta(minutes=1))
    lines = (line_of(TimeType.LOCAL, WRONG),)
    placed = place(record, received_at=NOW, lines=lines, zone=CHINA)
    assert (placed.measured_at, placed.quality) == (NOW, TimeQuality.UNPLACED)


def test_a_default_date_is_no_time_of_measurement() -> None:
    time = shown(TimeType.LOCAL, NOW - RECORD_AGE_MAX - timedelta(days=1))
    lines = (line_of(TimeType.LOCAL, timedelta(0)),)
    assert place(time, received_at=NOW, lines=lines, zone=CHINA).quality is TimeQuality.UNPLACED


@pytest.mark.parametrize("kind", [TimeType.LOCAL, TimeType.UTC])
def test_a_time_stamp_of_now_speaks_for_a_clock_that_cannot_be_read(kind: TimeType) -> None:
    live = shown(kind, NOW - timedelta(seconds=50))
    placed = place(live, received_at=NOW, lines=(), zone=CHINA)
    assert placed.quality is TimeQuality.SYNCHRONISED
    assert placed.measured_at == NOW - timedelta(seconds=50)
    lines = with_live((), live, NOW, CHINA)
    old = place(shown(kind, TAKEN), received_at=NOW, lines=lines, zone=CHINA)
    assert (old.measured_at, old.quality) == (TAKEN, TimeQuality.SYNCHRONISED)


def test_a_time_stamp_of_long_ago_speaks_for_nothing() -> None:
    old = shown(TimeType.LOCAL, NOW - NOW_MAX - timedelta(seconds=1))
    assert with_live((), old, NOW, CHINA) == ()
    assert place(old, received_at=NOW, lines=(), zone=CHINA).quality is TimeQuality.UNPLACED


def test_a_small_jump_that_only_the_device_knows_of_does_not_lose_a_record() -> None:
    time = shown(TimeType.LOCAL, TAKEN, current=False, synced=False)
    lines = (line_of(TimeType.LOCAL, timedelta(0)),)
    placed = place(time, received_at=NOW, lines=lines, zone=CHINA)
    assert (placed.measured_at, placed.quality) == (TAKEN, TimeQuality.MAPPED_EARLIER)


def test_no_time_stamp_is_the_time_of_reception() -> None:
    placed = place(None, received_at=NOW, lines=(), zone=CHINA)
    assert (placed.measured_at, placed.quality) == (NOW, TimeQuality.RECEPTION)
    assert placed.utc_offset_min == 480


def test_the_offset_is_that_of_the_day_of_measurement() -> None:
    """Lord Howe Island keeps summer time of half an hour; the wire counts quarter hours."""
    zone = ZoneInfo("Australia/Lord_Howe")
    winter, summer = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
    offsets = [
        place(None, received_at=at, lines=(), zone=zone).utc_offset_min for at in (winter, summer)
    ]
    assert offsets == [630, 660]


def test_an_offset_that_is_no_quarter_hour_is_not_told() -> None:
    """Shanghai before 1901 was 8:05:43 ahead."""
    old = datetime(1890, 1, 1, tzinfo=UTC)
    assert place(None, received_at=old, lines=(), zone=CHINA).utc_offset_min is None


def test_how_wrong_a_clock_is() -> None:
    behind = Pair(shown=shown(TimeType.LOCAL, NOW, behind=WRONG), at=NOW)
    assert clock_error(behind, CHINA) == WRONG
    ticks = Pair(shown=shown(TimeType.TICKS, NOW, behind=WRONG), at=NOW)
    assert clock_error(ticks, CHINA) == timedelta(0)
    assert timedelta(0) < CLOCK_ERROR_MAX < timedelta(minutes=1)


times = st.builds(
    DeviceTime,
    type=st.sampled_from(TimeType),
    ms=st.integers(-(1 << 62), 1 << 62),
    current=st.none() | st.booleans(),
    synced=st.none() | st.booleans(),
    utc_offset_min=st.none() | st.integers(-56, 56).map(lambda steps: steps * 15),
)
moments = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - given its zone
all_lines = st.lists(
    st.builds(
        TimeLine,
        type=st.sampled_from(TimeType),
        ahead=st.timedeltas(timedelta(days=-50000), timedelta(days=50000)),
        first_at=moments,
        last_at=moments,
        set_at=st.none() | moments,
        drift_ppm=st.floats(-DRIFT_PPM_MAX, DRIFT_PPM_MAX),
        observed=st.timedeltas(timedelta(0), OBSERVED_MAX),
        is_doubtful=st.booleans(),
    ),
    max_size=LINES_MAX,
)


@given(time=times, received_at=moments, lines=all_lines)
def test_whatever_a_device_says_is_placed_somewhere(
    time: DeviceTime, received_at: datetime, lines: list[TimeLine]
) -> None:
    placed = place(time, received_at=received_at, lines=lines, zone=CHINA)
    if placed.quality in {TimeQuality.UNPLACED, TimeQuality.RECEPTION}:
        assert placed.measured_at == received_at
    if time.current is None and placed.quality in {TimeQuality.SYNCHRONISED, TimeQuality.MAPPED}:
        assert placed.measured_at <= received_at + NOW_MAX


@given(time=times, at=moments, lines=all_lines)
def test_whatever_a_clock_shows_the_lines_stay_bounded(
    time: DeviceTime, at: datetime, lines: list[TimeLine]
) -> None:
    pair = pair_of(time, at)
    assert (pair is None) == (abs(time.ms) > SHOWN_MS_MAX)
    if pair:
        assert len(with_pair(lines, pair)) <= LINES_MAX
        after = with_pair(lines, pair)
        assert abs(after[-1].drift_ppm) <= DRIFT_PPM_MAX
        clock_error(pair, CHINA)
    assert len(with_live(lines, time, at, CHINA)) <= LINES_MAX
