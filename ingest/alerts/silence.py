"""Marked residents who have not measured for days, and devices whose readings do not get through.

A device is in trouble where its readings are kept apart for reasons of its own, or where its hub says
that a bond is gone or that it cannot be reached (ingest.device_states). Neither follows from a reading, so they are looked at every few minutes. What is told is one alert
while it lasts: the next reading clears it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from gateway.gatt.times import ms_since_epoch
from gateway.guidelines.alerts import Stage
from gateway.guidelines.samples import DAY_MS
from gateway.platform.postgres import AsyncConnection
from gateway.vitals import BY_CODE
from ingest.alerts.evaluator import Evaluator
from ingest.alerts.reconcile import Alert, Episode, State, reconcile
from ingest.alerts.rules import QUERIES, SILENCE, TROUBLE
from ingest.verdicts import Verdict

DAYS_DEFAULT = 3
"""A mark that names no days means so many."""
RESIDENTS_A_QUERY = 1_000
TROUBLE_DAYS, TROUBLE_ENTRIES = 7, 3
"""So many readings of a device kept apart in so many days are trouble."""
TROUBLE_REASONS = (
    Verdict.RECORD_INVALID,
    Verdict.TIME_UNPLACED,
    Verdict.TIME_FUTURE,
    Verdict.TIME_TOO_OLD,
    Verdict.HUB_CLOCK,
    Verdict.UNDECODED,
)
"""Reasons that lie with a device or its clock, and that somebody can mend."""


async def look_for_silence(
    connection: AsyncConnection, evaluator: Evaluator, rule_id: int, now_ms: int
) -> int:
    """Bring the alerts of marked residents up to date; return how many events were told."""
    told = await _withdraw_of_doubles(connection, evaluator, rule_id, now_ms)
    after = 0
    while True:
        async with connection.transaction():
            cursor = await connection.execute(
                QUERIES["silent"],
                {
                    "rule": SILENCE,
                    "signs": list(BY_CODE),
                    "days_default": DAYS_DEFAULT,
                    "after": after,
                    "limit": RESIDENTS_A_QUERY,
                },
            )
            rows = await cursor.fetchall()
            alerts = await evaluator.alerts_of(SILENCE, [row[0] for row in rows])
            for resident, days, marked_at, last_at in rows:
                since_ms = ms_since_epoch(max(filter(None, (marked_at, last_at))))
                due_ms = since_ms + (days or DAYS_DEFAULT) * DAY_MS
                episodes = silences(alerts[resident], since_ms, due_ms, now_ms)
                steps = reconcile(episodes, alerts[resident], now_ms)
                told += len(await evaluator.write(SILENCE, rule_id, resident, steps))
        if len(rows) < RESIDENTS_A_QUERY:
            return told
        after = rows[-1][0]


async def _withdraw_of_doubles(
    connection: AsyncConnection, evaluator: Evaluator, rule_id: int, now_ms: int
) -> int:
    """Take back the silences of entries whose readings are another entry's now."""
    told = 0
    async with connection.transaction():
        cursor = await connection.execute(QUERIES["silent_doubles"], {"rule": SILENCE})
        doubles = [resident for (resident,) in await cursor.fetchall()]
        for resident, alerts in (await evaluator.alerts_of(SILENCE, doubles)).items():
            lasting = [alert for alert in alerts if alert.episode.cleared_ms is None]
            steps = reconcile([], lasting, now_ms)
            told += len(await evaluator.write(SILENCE, rule_id, resident, steps))
    return told


def silences(alerts: Iterable[Alert], last_ms: int, due_ms: int, now_ms: int) -> list[Episode]:
    """Return the silences of a resident whose last reading was at `last_ms`.

    Earlier alerts whose silence a later reading ended stay, cleared by it; one that a late reading
    shows never to have been is left out, and so withdrawn.
    """
    episodes = [
        _episode(
            alert.episode.started_ms,
            alert.episode.last_ms,
            alert.episode.cleared_ms or last_ms,
        )
        for alert in alerts
        if alert.state is not State.WITHDRAWN and alert.episode.started_ms <= last_ms
    ]
    if due_ms <= now_ms:
        episodes.append(_episode(due_ms, now_ms, None))
    return episodes


async def look_for_trouble(
    connection: AsyncConnection, evaluator: Evaluator, rule_id: int, now_ms: int
) -> int:
    """Bring the alerts about devices up to date, one a resident, device and episode.

    Returns how many events were told. An alert from before alerts named their device ends here.
    """
    async with connection.transaction():
        cursor = await connection.execute(
            QUERIES["troubled"],
            {
                "reasons": [int(reason) for reason in TROUBLE_REASONS],
                "days": TROUBLE_DAYS,
                "entries": TROUBLE_ENTRIES,
            },
        )
        troubled = {
            (resident, device): (ms_since_epoch(since), count)
            for resident, device, since, count in await cursor.fetchall()
        }
        open_ = await connection.execute(QUERIES["open_of_rule"], {"rule": TROUBLE})
        residents = {who for who, _device in troubled} | {who for (who,) in await open_.fetchall()}
        known: dict[tuple[int, int | None], list[Alert]] = defaultdict(list)
        told = 0
        for resident, alerts in (await evaluator.alerts_of(TROUBLE, sorted(residents))).items():
            for alert in alerts:
                known[resident, alert.device].append(alert)
        for resident, device in sorted(troubled.keys() | known.keys(), key=_resident_first):
            alerts = known[resident, device]
            episodes = _troubles(alerts, troubled.get((resident, device)), now_ms)
            steps = reconcile(episodes, alerts, now_ms)
            told += len(await evaluator.write(TROUBLE, rule_id, resident, steps, device))
    return told


def _resident_first(concerned: tuple[int, int | None]) -> tuple[int, int]:
    resident, device = concerned
    return resident, device or 0


def _troubles(
    alerts: Sequence[Alert], trouble: tuple[int, int] | None, now_ms: int
) -> list[Episode]:
    """Return past troubles as they were, the present one going on or over."""
    episodes = []
    for alert in alerts:
        before = alert.episode
        if alert.state is State.WITHDRAWN:
            continue
        if before.cleared_ms is None and trouble is not None:
            episodes.append(_episode(before.started_ms, now_ms, None, trouble[1]))
            trouble = None
        else:
            cleared_ms = before.cleared_ms or now_ms
            episodes.append(
                _episode(before.started_ms, before.last_ms, cleared_ms, before.readings)
            )
    if trouble is not None and not any(e.started_ms == trouble[0] for e in episodes):
        episodes.append(_episode(trouble[0], now_ms, None, trouble[1]))
    return episodes


def _episode(started_ms: int, last_ms: int, cleared_ms: int | None, readings: int = 0) -> Episode:
    return Episode(
        started_ms=started_ms,
        last_ms=last_ms,
        cleared_ms=cleared_ms,
        alarm_ms=started_ms,
        stage=Stage.ALARM,
        readings=readings,
        peak=None,
    )
