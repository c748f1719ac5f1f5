"""What the episodes of a resident's rule mean for the alerts that are there: values in, values out.

An episode and an alert are the same when they begin at the same moment, else when they overlap, so
that an alert keeps what people said of it although a late reading moved its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.guidelines.alerts import FRESH_MS, Stage


class State(StrEnum):
    """Where an alert stands with people."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    WITHDRAWN = "withdrawn"


class What(StrEnum):
    """What happened to an alert."""

    ASKED = "asked"
    RAISED = "raised"
    NOTED = "noted"
    CLEARED = "cleared"
    WITHDRAWN = "withdrawn"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    REOPENED = "reopened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One episode; instants are milliseconds since 1970, None: not (yet)."""

    started_ms: int
    last_ms: int
    cleared_ms: int | None
    alarm_ms: int | None
    stage: Stage
    readings: int
    peak: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert as it stands in the store, or as it is to be.

    `alert_id` None: a new one. `device`: its number, where the alert is about a device.
    """

    alert_id: int | None
    episode: Episode
    is_note: bool
    state: State
    device: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An alert as it is to be from now on, and what is told of it."""

    alert: Alert
    told: tuple[What, ...]


def reconcile(episodes: Sequence[Episode], alerts: Sequence[Alert], now_ms: int) -> list[Step]:
    """Return what to write so that the alerts say what the episodes are; nothing where they do.

    Withdrawals come first, so that a moment is free before another episode begins there.
    """
    left = list(alerts)
    pairs = [(episode, _take(episode, left)) for episode in sorted(episodes, key=_start)]
    steps = [_withdrawn(alert) for alert in left if alert.state is not State.WITHDRAWN]
    for episode, alert in pairs:
        step = _new(episode, now_ms) if alert is None else _again(episode, alert, now_ms)
        if step is not None:
            steps.append(step)
    return steps


def _start(episode: Episode) -> int:
    return episode.started_ms


def _take(episode: Episode, alerts: list[Alert]) -> Alert | None:
    """Take the alert of an episode out of the list."""
    same = [alert for alert in alerts if alert.episode.started_ms == episode.started_ms]
    overlapping = [
        alert
        for alert in alerts
        if alert.state is not State.WITHDRAWN
        and alert.episode.started_ms <= episode.last_ms
        and episode.started_ms <= alert.episode.last_ms
    ]
    found = next(iter(same or overlapping), None)
    if found is not None:
        alerts.remove(found)
    return found


def _new(episode: Episode, now_ms: int) -> Step:
    is_note = _is_stale(episode, now_ms)
    state = State.RESOLVED if _answered_itself(episode) else State.OPEN
    told: list[What] = [What.NOTED if is_note else _told_of(episode.stage)]
    if episode.cleared_ms is not None:
        told.append(What.CLEARED)
    alert = Alert(alert_id=None, episode=episode, is_note=is_note, state=state)
    return Step(alert=alert, told=tuple(told))


def _again(episode: Episode, alert: Alert, now_ms: int) -> Step | None:
    before = alert.episode
    told: list[What] = []
    state, is_note = alert.state, alert.is_note
    if state is State.WITHDRAWN:
        state = State.OPEN
        told.append(What.REOPENED)
    if is_note and not _is_stale(episode, now_ms):
        is_note, state = False, State.OPEN  # what was said of what was long over does not settle it
        told.append(_told_of(episode.stage))
    elif episode.stage > before.stage:
        told.append(What.NOTED if is_note else What.RAISED)
        state = State.OPEN  # what was said of the smaller thing does not settle the greater
    if episode.cleared_ms is not None and before.cleared_ms is None:
        told.append(What.CLEARED)
    if _answered_itself(episode):
        state = State.RESOLVED
    new = replace(alert, episode=episode, is_note=is_note, state=state)
    return None if new == alert else Step(alert=new, told=tuple(told))


def _withdrawn(alert: Alert) -> Step:
    return Step(alert=replace(alert, state=State.WITHDRAWN), told=(What.WITHDRAWN,))


def _told_of(stage: Stage) -> What:
    return What.RAISED if stage is Stage.ALARM else What.ASKED


def _is_stale(episode: Episode, now_ms: int) -> bool:
    return now_ms - episode.last_ms > FRESH_MS


def _answered_itself(episode: Episode) -> bool:
    """Tell whether a repeat was asked for and was not severe: nobody needs to do anything."""
    return episode.stage is Stage.ASK_REPEAT and episode.cleared_ms is not None
