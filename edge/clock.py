"""Placing a device's time on the hub's time line.

HL7 Personal Health Device guide (PHD IG 2.0.0), base Observation, "Timestamp: effective[x]", after
IEEE 11073-10206: `ROWS` is its table. The simple profiles claim neither "current" nor "synced";
there the hub infers both from the time lines it has seen. Pure: nothing here reads a clock.

A device's clock runs on a *time line* from one jump (set, reset, new battery) to the next. A
coincident pair, the device's clock read at a known instant of the hub, says how far the line lies
from the hub's; a series of them, how fast the clock drifts. The hub remembers ended lines, so a
record from before a jump can still be placed. docs/time.md tells it in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum

from gateway.gatt.times import DeviceTime, TimeType, from_ms, ms_since_epoch
from gateway.measurement import TimeQuality
from gateway.wire import OFFSET_STEP_MIN

CLOCK_ERROR_MAX = timedelta(seconds=5)
"""A clock that is off by less is right: its own times are kept. One that is off by more is set."""
READING_ERROR = timedelta(seconds=2)
"""What a clock of whole seconds, read over a slow link, may seem to jump by while it runs on."""
DRIFT_PER_DAY = timedelta(seconds=26)
"""300 parts per million, three times a bad watch crystal. Off by more since last time: a jump."""
DRIFT_CHANGE_PER_DAY = timedelta(seconds=3)
"""35 parts per million: by so much a drift that is known still varies, with temperature and age."""
DRIFT_PRIOR = timedelta(days=1)
"""A drift of nothing weighs as much as so long a watch, so that clocks of whole seconds, read
minutes apart, do not seem to race."""
DRIFT_PPM_MAX = 300.0
"""`DRIFT_PER_DAY` as an estimate's bound."""
OBSERVED_MAX = timedelta(days=60)
"""An estimate weighs as much as so long a watch at most: a crystal ages, and it must follow."""
NOW_MAX = timedelta(seconds=60)
"""Where no clock can be read: a time-stamp this close to its reception shows a clock that is right.
Devices send within seconds of measuring; a wrong clock is wrong by hours or years."""
LIVE_LAG_PER_DAY = timedelta(seconds=9)
"""Where no clock can be read, the shortest delay seen is the nearest to the truth. So fast may it
be given up again, or a clock that falls behind would never be followed (100 parts per million)."""
RECORD_AGE_MAX = timedelta(days=400)
"""No home device's memory reaches back further; an older time-stamp is a clock's default date."""
SHOWN_MS_MAX = 1 << 47
"""About 4,400 years. A clock that shows more is not one; it counts as showing no date."""
LIVE_APART_MIN = timedelta(minutes=10)
"""Two time-stamps that are equally wrong this far apart show that it is the clock that is wrong."""
UNSEEN_MIN = timedelta(minutes=1)
"""A clock that was read, or told the time, so lately cannot have begun anew since."""
WRONG_DATE_MIN = timedelta(days=2)
"""A line this far from UTC has a wrong date, as a clock has that began at its default date."""
LINES_MAX = 8
"""Time lines remembered of one device. At the bound the oldest is forgotten; records on it become
UNPLACED and wait in quarantine."""

_PPM = 1_000_000


class Rule(Enum):
    """What to do with a time-stamp."""

    KEEP = "keep"
    """It is right; only its distance to UTC may have to be added."""
    TO_UTC = "to_utc"
    """It is local time that claims to be right: to UTC by its own offset or the hub's, once the
    coincident pair agrees."""
    MAP = "map"
    """Move it by the coincident pair of the line that runs now."""
    EARLIER = "earlier"
    """It lies on a line that has ended: move it if that line is remembered."""
    INFER = "infer"
    """The profile makes no claims: look where on the known lines it fits."""


ROWS: dict[tuple[TimeType, bool | None, bool | None, bool | None], Rule] = {
    # time type, current, synced, offset (None: does not matter)
    (TimeType.UTC, True, True, True): Rule.KEEP,
    (TimeType.UTC, True, True, False): Rule.KEEP,
    (TimeType.UTC, True, False, True): Rule.MAP,
    (TimeType.UTC, True, False, False): Rule.MAP,
    (TimeType.UTC, False, True, True): Rule.KEEP,
    (TimeType.UTC, False, True, False): Rule.KEEP,
    (TimeType.UTC, False, False, True): Rule.EARLIER,
    (TimeType.UTC, False, False, False): Rule.EARLIER,
    (TimeType.LOCAL, True, True, True): Rule.TO_UTC,
    (TimeType.LOCAL, True, True, False): Rule.TO_UTC,
    (TimeType.LOCAL, True, False, True): Rule.MAP,
    (TimeType.LOCAL, True, False, False): Rule.MAP,
    (TimeType.LOCAL, False, True, True): Rule.KEEP,
    (TimeType.LOCAL, False, True, False): Rule.KEEP,
    (TimeType.LOCAL, False, False, True): Rule.EARLIER,
    (TimeType.LOCAL, False, False, False): Rule.EARLIER,
    (TimeType.TICKS, True, None, None): Rule.MAP,
    (TimeType.TICKS, False, None, None): Rule.EARLIER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A coincident time-stamp: the device's clock showed `shown` at the hub's instant `at`."""

    shown: DeviceTime
    at: datetime

    @property
    def ahead(self) -> timedelta:
        """How far the hub's UTC lies ahead of what the device shows, taken as if it were UTC."""
        return timedelta(milliseconds=ms_since_epoch(self.at) - self.shown.ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLine:
    """A stretch during which a device's clock ran on without a jump.

    A device time plus `ahead` was UTC at `last_at`, the hub's instant of the latest coincident pair;
    `first_at` is that of the first. `set_at` is when the hub began the line by setting the clock.
    `drift_ppm` is how much `ahead` grows, as known from having watched this device for `observed`,
    on this line and the ones before: a crystal stays the same when its clock is set. A line
    `is_doubtful` while one time-stamp alone speaks for it; nothing is placed on it.
    """

    type: TimeType
    ahead: timedelta
    first_at: datetime
    last_at: datetime
    set_at: datetime | None = None
    drift_ppm: float = 0.0
    observed: timedelta = timedelta(0)
    is_doubtful: bool = False

    def ahead_at(self, moment: datetime) -> timedelta:
        """Return how far UTC lies ahead of what the device shows at a moment, drift and all."""
        return self.ahead + (moment - self.last_at) * (self.drift_ppm / _PPM)

    def jump_min(self, moment: datetime) -> timedelta:
        """Return how far off the expected a clock read at a moment must be to have jumped."""
        days = max(moment - self.last_at, timedelta(0)) / timedelta(days=1)
        unknown = DRIFT_PRIOR / (DRIFT_PRIOR + self.observed)
        return READING_ERROR + days * (
            DRIFT_CHANGE_PER_DAY + (DRIFT_PER_DAY - DRIFT_CHANGE_PER_DAY) * unknown
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a reading lies: an aware UTC instant, how it came about, the local time's offset."""

    measured_at: datetime
    quality: TimeQuality
    utc_offset_min: int | None


def place(
    time: DeviceTime | None, *, received_at: datetime, lines: Sequence[TimeLine], zone: tzinfo
) -> Placed:
    """Place what a device says of when it measured; `lines` are its time lines, oldest first."""
    if time is None:
        return _placed(received_at, TimeQuality.RECEPTION, zone)
    of_type = [line for line in _certain(lines) if line.type is time.type]
    match _rule(time):
        case Rule.KEEP:
            # Needs no pair; but where the clock was read, its claim is held against what it showed.
            read = of_type if time.current else []
            placed = _kept_or_mapped(time, read[-1], zone) if read else _kept(time, zone)
        case Rule.TO_UTC:
            placed = (
                _kept_or_mapped(time, of_type[-1], zone)
                if of_type
                else _kept_if_now(time, received_at, zone)
            )
        case Rule.MAP:
            placed = _on_line(time, of_type[-1], TimeQuality.MAPPED, zone) if of_type else None
        case Rule.EARLIER:
            placed = _earlier(time, of_type, zone)
        case Rule.INFER:
            placed = _inferred(time, received_at, of_type, zone)
    return placed or _placed(received_at, TimeQuality.UNPLACED, zone)


def pair_of(shown: DeviceTime | None, at: datetime) -> Pair | None:
    """Return the pair that a clock read at an instant of the hub makes; None: it shows no date."""
    if shown is None or abs(shown.ms) > SHOWN_MS_MAX:
        return None
    return Pair(shown=shown, at=at)


def clock_error(pair: Pair, zone: tzinfo) -> timedelta:
    """Return how far a device's clock is behind (positive) or ahead of the hub's.

    A clock of local time is held against the hub's local time; a tick counter shows no time of day
    and is never wrong.
    """
    if pair.shown.type is TimeType.TICKS:
        return timedelta(0)
    shown_at = _as_utc(pair.shown, zone)
    return pair.at - shown_at if shown_at else timedelta.max


def with_pair(
    lines: Sequence[TimeLine], pair: Pair, *, set_at: datetime | None = None
) -> tuple[TimeLine, ...]:
    """Return the lines after a coincident pair: the last one runs on, or a new one has begun.

    `set_at`: the hub has set the clock since the pair before, at this instant.
    """
    lines = _certain(lines)
    last = lines[-1] if lines else None
    if last is not None and set_at is None and _runs_on(last, pair):
        return (*lines[:-1], _seen_on(last, pair))
    new = TimeLine(
        type=pair.shown.type, ahead=pair.ahead, first_at=pair.at, last_at=pair.at, set_at=set_at
    )
    if last is not None and last.type is new.type:
        new = replace(new, drift_ppm=last.drift_ppm, observed=last.observed)
    return (*lines, new)[-LINES_MAX:]


def with_live(
    lines: Sequence[TimeLine], time: DeviceTime, received_at: datetime, zone: tzinfo
) -> tuple[TimeLine, ...]:
    """Return the lines after a time-stamp that may be of "now", where no clock can be read.

    The guide allows "a time-stamp that is known to be now". The first one that agrees with the
    hub's clock to `NOW_MAX` shows that the device's clock is right, no finer: so it is taken as
    exactly right. From then on the clock is followed by the shortest delay from a time-stamp to its
    reception, since a delay is never negative, so that one that drifts is not believed for ever. A
    clock at its default date speaks by two time-stamps that are equally wrong, some time apart.
    """
    if time.type is TimeType.TICKS or time.current is not None or abs(time.ms) > SHOWN_MS_MAX:
        return tuple(lines)
    told = Pair(shown=time, at=received_at)
    certain = _certain(lines)
    last = certain[-1] if certain else None
    if last is not None and last.type is time.type and received_at >= last.last_at:
        delay = told.ahead - last.ahead_at(received_at)
        if -last.jump_min(received_at) <= delay <= NOW_MAX:
            gap = received_at - last.last_at
            ahead = min(told.ahead, last.ahead + gap / timedelta(days=1) * LIVE_LAG_PER_DAY)
            return (*certain[:-1], replace(last, ahead=ahead, last_at=received_at))
    utc = _as_utc(time, zone)
    if utc is None:
        return tuple(lines)
    age = received_at - utc
    if abs(age) <= NOW_MAX:
        return with_pair(certain, Pair(shown=time, at=min(utc, received_at)))
    if timedelta(0) <= age <= RECORD_AGE_MAX:
        return tuple(lines)  # a record of then, as far as anyone can tell
    return _with_doubtful(lines, told)


def _certain(lines: Sequence[TimeLine]) -> tuple[TimeLine, ...]:
    return tuple(line for line in lines if not line.is_doubtful)


def _with_doubtful(lines: Sequence[TimeLine], told: Pair) -> tuple[TimeLine, ...]:
    """Return the lines after a time-stamp that no right clock shows: one more like it settles it.

    Of several within one connection the latest counts: the others may be records of before.
    """
    certain = _certain(lines)
    doubt = next((line for line in lines if line.is_doubtful), None)
    new = TimeLine(
        type=told.shown.type,
        ahead=told.ahead,
        first_at=told.at,
        last_at=told.at,
        is_doubtful=True,
    )
    if doubt is not None and doubt.type is new.type:
        apart = told.at - doubt.first_at
        ahead = min(doubt.ahead, told.ahead)
        if apart < LIVE_APART_MIN:
            new = replace(doubt, ahead=ahead)
        elif abs(told.ahead - doubt.ahead) <= NOW_MAX:
            new = replace(doubt, ahead=ahead, last_at=told.at, is_doubtful=False)
    return (*certain, new)[-LINES_MAX:]


def _rule(time: DeviceTime) -> Rule:
    if time.current is None:
        return Rule.INFER
    if time.type is TimeType.TICKS:
        return ROWS[time.type, time.current, None, None]
    return ROWS[time.type, time.current, bool(time.synced), time.utc_offset_min is not None]


def _kept(time: DeviceTime, zone: tzinfo) -> Placed | None:
    utc = _as_utc(time, zone)
    if utc is None:
        return None
    placed = _placed(utc, TimeQuality.SYNCHRONISED, zone)
    if time.utc_offset_min is None:
        return placed
    return replace(placed, utc_offset_min=time.utc_offset_min)


def _kept_if_now(time: DeviceTime, received_at: datetime, zone: tzinfo) -> Placed | None:
    """Keep a time-stamp of now: it is its own coincident pair. Of another one nothing is known."""
    own = _kept(time, zone)
    return own if own and abs(received_at - own.measured_at) <= NOW_MAX else None


def _kept_or_mapped(time: DeviceTime, line: TimeLine, zone: tzinfo) -> Placed | None:
    """Keep the device's own time where its line agrees with the hub's clock, else map it.

    Kept, it is the same however often the record comes; mapped, it moves with the clock's drift.
    """
    own = _kept(time, zone)
    mapped = _on_line(time, line, TimeQuality.MAPPED, zone)
    if own and mapped and abs(own.measured_at - mapped.measured_at) <= CLOCK_ERROR_MAX:
        return own
    return mapped


def _earlier(time: DeviceTime, lines: Sequence[TimeLine], zone: tzinfo) -> Placed | None:
    if len(lines) == 1:  # whatever the jump was, it was too small to see
        return _on_line(time, lines[0], TimeQuality.MAPPED_EARLIER, zone)
    return next((placed for _index, placed in _on_earlier(time, lines, zone)), None)


def _on_earlier(
    time: DeviceTime, lines: Sequence[TimeLine], zone: tzinfo
) -> Iterator[tuple[int, Placed]]:
    """Yield, the latest first, the ended lines during whose life the time-stamp would lie."""
    for index in reversed(range(len(lines) - 1)):
        placed = _on_line(time, lines[index], TimeQuality.MAPPED_EARLIER, zone)
        if placed and _begins(lines, index) <= placed.measured_at <= _ends(lines, index):
            yield index, placed


def _inferred(
    time: DeviceTime, received_at: datetime, lines: Sequence[TimeLine], zone: tzinfo
) -> Placed | None:
    """Find the latest line during whose life the time-stamp would lie.

    Only that can be right: on any other line it would have been taken before the line began or
    after it ended; unless the clock may have begun anew at the same date as then (a new battery,
    and the link broke before it was read): then nobody knows. Without any line, a time-stamp of now
    needs none.
    """
    if not lines:
        return None if time.type is TimeType.TICKS else _kept_if_now(time, received_at, zone)
    oldest = received_at - RECORD_AGE_MAX
    placed = _kept_or_mapped(time, lines[-1], zone)
    begins = max(_begins(lines, len(lines) - 1), oldest)
    if placed and begins <= placed.measured_at <= received_at + CLOCK_ERROR_MAX:
        return None if _may_be_anew(time, lines[-1], lines[-1].last_at, received_at) else placed
    if len(lines) == 1:
        return None
    for index, placed in _on_earlier(time, lines, zone):
        if placed.measured_at < oldest:
            return None
        unknown = _may_be_anew(time, lines[index], lines[-1].last_at, received_at)
        return None if unknown else placed
    return None


def _may_be_anew(
    time: DeviceTime, line: TimeLine, seen_at: datetime, received_at: datetime
) -> bool:
    """Tell whether a time-stamp that fits a line of a wrong date fits a later one of that date too.

    A clock that began anew after it was last seen has run for as long at most; the date it begins
    at was no later than what the line showed first.
    """
    unseen = received_at - seen_at
    if unseen < UNSEEN_MIN or abs(line.ahead) < WRONG_DATE_MIN:
        return False
    first_shown_ms = ms_since_epoch(line.first_at) - line.ahead / timedelta(milliseconds=1)
    return time.ms <= first_shown_ms + unseen / timedelta(milliseconds=1)


def _runs_on(line: TimeLine, pair: Pair) -> bool:
    if line.type is not pair.shown.type:
        return False
    return abs(pair.ahead - line.ahead_at(pair.at)) <= line.jump_min(pair.at)


def _seen_on(line: TimeLine, pair: Pair) -> TimeLine:
    """Return a line that runs on, with what the pair tells of the clock's drift.

    The surprise over the gap counts as much as the gap weighs against all that was watched before.
    """
    gap = pair.at - line.last_at
    if gap <= timedelta(0):
        return replace(line, ahead=pair.ahead, last_at=pair.at)
    surprise = pair.ahead - line.ahead_at(pair.at)
    watched = DRIFT_PRIOR + line.observed + gap
    drift_ppm = line.drift_ppm + surprise / watched * _PPM
    return replace(
        line,
        ahead=pair.ahead,
        last_at=pair.at,
        drift_ppm=min(max(drift_ppm, -DRIFT_PPM_MAX), DRIFT_PPM_MAX),
        observed=min(line.observed + gap, OBSERVED_MAX),
    )


def _begins(lines: Sequence[TimeLine], index: int) -> datetime:
    """Return the earliest that a record on this line can be: it is not known to begin later."""
    line = lines[index]
    if line.set_at is not None:
        return line.set_at - READING_ERROR
    if index:
        return lines[index - 1].last_at - READING_ERROR
    return datetime.min.replace(tzinfo=UTC)


def _ends(lines: Sequence[TimeLine], index: int) -> datetime:
    after = lines[index + 1]
    return (after.set_at or after.first_at) + READING_ERROR


def _on_line(time: DeviceTime, line: TimeLine, quality: TimeQuality, zone: tzinfo) -> Placed | None:
    try:
        about_at = from_ms(time.ms) + line.ahead
        return _placed(from_ms(time.ms) + line.ahead_at(about_at), quality, zone)
    except OverflowError:
        return None


def _as_utc(time: DeviceTime, zone: tzinfo) -> datetime | None:
    """Return the device's own time as UTC, by its own offset or else the hub's; None: no date."""
    try:
        moment = from_ms(time.ms)
        if time.type is TimeType.UTC:
            return moment
        if time.utc_offset_min is not None:
            return moment - timedelta(minutes=time.utc_offset_min)
        return moment.replace(tzinfo=zone).astimezone(UTC)
    except OverflowError:
        return None


def _placed(moment: datetime, quality: TimeQuality, zone: tzinfo) -> Placed:
    try:
        offset = moment.astimezone(zone).utcoffset() or timedelta(0)
    except OverflowError:
        offset = timedelta(seconds=1)  # at the very end of the calendar no offset can be told
    steps, rest = divmod(offset, timedelta(minutes=OFFSET_STEP_MIN))
    return Placed(
        measured_at=moment,
        quality=quality,
        utc_offset_min=None if rest else steps * OFFSET_STEP_MIN,
    )
