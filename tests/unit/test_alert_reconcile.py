"""Episodes against the alerts that are there: one alert an episode, whatever comes late."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.guidelines.alerts import FRESH_MS, Stage
from gateway.platform.changes import CHANGES_A_READ
from ingest.alerts.app import POLL_S, REST_S_MAX, RESTS, rest_s
from ingest.alerts.reconcile import Alert, Episode, State, Step, What, reconcile

NOW = 10 * FRESH_MS
HOUR = 3_600_000


def an_episode(
    start: int, last: int, *, stage: Stage = Stage.ALARM, cleared: int | None = None
) -> Episode:
    return Episode(
        started_ms=start,
        last_ms=last,
        cleared_ms=cleared,
        alarm_ms=start if stage is Stage.ALARM else None,
        stage=stage,
        readings=1,
        peak=1.0,
    )


def an_alert(episode: Episode, *, state: State = State.OPEN, is_note: bool = False) -> Alert:
    return Alert(alert_id=1, episode=episode, is_note=is_note, state=state)


def told(steps: list[Step]) -> list[What]:
    return [what for step in steps for what in step.told]


def test_a_new_episode_raises_one_alert() -> None:
    (step,) = reconcile([an_episode(NOW - HOUR, NOW)], [], NOW)
    assert (step.alert.alert_id, step.alert.state, step.told) == (None, State.OPEN, (What.RAISED,))


def test_an_episode_that_goes_on_tells_nothing_new() -> None:
    alert = an_alert(an_episode(NOW - HOUR, NOW - HOUR), state=State.ACKNOWLEDGED)
    (step,) = reconcile([an_episode(NOW - HOUR, NOW)], [alert], NOW)
    assert (step.told, step.alert.state) == ((), State.ACKNOWLEDGED)


def test_what_is_as_it_was_is_not_written() -> None:
    episode = an_episode(NOW - HOUR, NOW)
    assert reconcile([episode], [an_alert(episode)], NOW) == []


def test_what_became_known_too_late_is_a_note() -> None:
    (step,) = reconcile([an_episode(0, HOUR)], [], NOW)
    assert step.alert.is_note
    assert step.told == (What.NOTED,)


def test_a_note_that_somebody_resolved_is_open_again_when_it_goes_on_today() -> None:
    note = an_alert(an_episode(0, HOUR), is_note=True, state=State.RESOLVED)
    (step,) = reconcile([an_episode(0, NOW)], [note], NOW)
    assert (step.alert.state, step.told) == (State.OPEN, (What.RAISED,))


def test_a_note_that_goes_on_until_today_alarms_after_all() -> None:
    note = an_alert(an_episode(0, HOUR), is_note=True)
    (step,) = reconcile([an_episode(0, NOW)], [note], NOW)
    assert not step.alert.is_note
    assert step.told == (What.RAISED,)


def test_a_repeat_that_is_severe_too_raises_even_what_was_resolved() -> None:
    asked = an_alert(an_episode(NOW - HOUR, NOW, stage=Stage.ASK_REPEAT), state=State.RESOLVED)
    (step,) = reconcile([an_episode(NOW - HOUR, NOW)], [asked], NOW)
    assert (step.told, step.alert.state) == ((What.RAISED,), State.OPEN)


def test_a_repeat_that_is_not_severe_settles_itself() -> None:
    asked = an_alert(an_episode(NOW - HOUR, NOW - HOUR, stage=Stage.ASK_REPEAT))
    over = an_episode(NOW - HOUR, NOW - HOUR, stage=Stage.ASK_REPEAT, cleared=NOW)
    (step,) = reconcile([over], [asked], NOW)
    assert (step.told, step.alert.state) == ((What.CLEARED,), State.RESOLVED)


def test_a_late_reading_that_moves_the_beginning_keeps_the_alert() -> None:
    alert = an_alert(an_episode(NOW - HOUR, NOW), state=State.ACKNOWLEDGED)
    (step,) = reconcile([an_episode(NOW - 3 * HOUR, NOW)], [alert], NOW)
    assert (step.alert.alert_id, step.alert.state) == (1, State.ACKNOWLEDGED)


def test_an_episode_that_never_was_is_withdrawn_and_can_come_back() -> None:
    episode = an_episode(NOW - HOUR, NOW)
    (gone,) = reconcile([], [an_alert(episode)], NOW)
    assert (gone.alert.state, gone.told) == (State.WITHDRAWN, (What.WITHDRAWN,))
    assert reconcile([], [gone.alert], NOW) == []
    (back,) = reconcile([episode], [gone.alert], NOW)
    assert (back.alert.state, back.told) == (State.OPEN, (What.REOPENED,))


def test_two_alerts_that_a_late_reading_joins_become_one() -> None:
    first = an_alert(an_episode(0, HOUR))
    second = replace(an_alert(an_episode(3 * HOUR, 4 * HOUR)), alert_id=2)
    steps = reconcile([an_episode(0, 4 * HOUR)], [first, second], 4 * HOUR)
    assert {step.alert.alert_id: step.alert.state for step in steps} == {
        1: State.OPEN,
        2: State.WITHDRAWN,
    }


_spans = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), max_size=6)


def spread(spans: list[tuple[int, int]]) -> list[Episode]:
    """Episodes one after another: (gap before, length) each."""
    episodes, at = [], NOW - 100 * HOUR
    for gap, length in spans:
        episodes.append(an_episode(at + gap * HOUR, at + (gap + length) * HOUR))
        at += (gap + length) * HOUR
    return episodes


@given(_spans, _spans)
def test_whatever_stood_there_the_alerts_become_the_episodes(
    before: list[tuple[int, int]], now: list[tuple[int, int]]
) -> None:
    standing = [
        replace(step.alert, alert_id=number)
        for number, step in enumerate(reconcile(spread(before), [], NOW))
    ]
    episodes = spread(now)
    changed = {alert.alert_id: alert for alert in standing}
    new = []
    for step in reconcile(episodes, standing, NOW):
        if step.alert.alert_id is None:
            new.append(step.alert)
        else:
            changed[step.alert.alert_id] = step.alert
    live = [alert for alert in (*changed.values(), *new) if alert.state is not State.WITHDRAWN]
    assert sorted(alert.episode.started_ms for alert in live) == [e.started_ms for e in episodes]
    assert reconcile(episodes, live, NOW) == []


def test_evaluating_rests_for_most_of_the_time_unless_it_is_behind() -> None:
    assert rest_s(0.001, 0) == POLL_S
    assert rest_s(0.1, 3) == 0.1 * RESTS
    assert rest_s(60.0, 3) == REST_S_MAX
    assert rest_s(60.0, CHANGES_A_READ) == 0.0
