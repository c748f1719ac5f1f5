"""From the feed of changes to alerts, some residents a transaction.

For every resident's sign that changed, the rules are evaluated from the earliest changed reading on,
and from the beginning of any alert that reaches there, so that what is written is what the whole
history says.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.gatt.times import from_ms, ms_since_epoch
from gateway.guidelines.alerts import (
    AlertRule,
    Episodes,
    Points,
    Stage,
    Targets,
    episodes_of,
    evaluate,
)
from gateway.guidelines.samples import Samples
from gateway.platform.changes import Changed, Place
from gateway.platform.postgres import AsyncConnection, dict_row
from gateway.vital_sign import VitalSign
from gateway.vitals import BY_NAME
from ingest.alerts.readings import read_samples
from ingest.alerts.reconcile import Alert, Episode, State, Step, What, reconcile
from ingest.alerts.rules import QUERIES, Pace, RuleInForce, is_evaluable, pace_of, rule_of_row

RESIDENTS_A_QUERY = 500
"""So many residents' readings are held in memory at once and evaluated in one transaction."""
RESTS_A_QUERY = {Pace.PROMPT: 0.0, Pace.OVER_DAYS: 4.0}
"""After a transaction it rests so many times as long as that took: what is in no hurry takes no more
than a fifth of a processor."""
HISTORY_MS = 400 * 86_400_000
"""Readings further before the earliest change are not looked at; no rule reaches so far."""
SERVICE = "service:alerts"
NOBODY = 0
"""The resident of readings that are in nobody's archive yet (docs/attribution.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What a step did. `changes`: how many of the feed it took; 0 where it began anew."""

    changes: int
    residents: int
    readings: int
    told: Mapping[What, int]


class Evaluator:
    """Evaluates the rules of a pace over one connection, which holds the turn."""

    def __init__(self, connection: AsyncConnection, pace: Pace = Pace.PROMPT) -> None:
        self._connection = connection
        self._pace = pace
        self._signs: dict[str, int] = {}
        """By the rule's name, whose readings meet it."""

    async def place(self) -> Place | None:
        """Return how far the feed is evaluated; None: nothing is, under the rules in force."""
        cursor = await self._connection.execute(QUERIES["progress"], {"pace": str(self._pace)})
        row = await cursor.fetchone()
        return None if row is None else Place(*row)

    async def moved_ago_s(self) -> float | None:
        """Return how long ago the place was moved on; None: never."""
        cursor = await self._connection.execute(QUERIES["moved_ago_s"], {"pace": str(self._pace)})
        row = await cursor.fetchone()
        return None if row is None else float(row[0])

    async def follow(
        self, changed: Changed, end: Place, now_ms: int, *, changes: int = 0
    ) -> Evaluated:
        """Evaluate what this concerns and move the place on to `end`."""
        entered, rules = await self._rules()
        total = _Total()
        for sign, of_sign in _by_sign(rules):
            await self._sign(sign, of_sign, _earliest(changed, sign.code), now_ms, total)
        await self._stand_at(end, entered)
        return total.evaluated(changes)

    async def begin_anew(self, end: Place, now_ms: int) -> Evaluated:
        """Evaluate everything of the last `HISTORY_MS` and stand at the end of the feed."""
        entered, rules = await self._rules()
        total = _Total()
        from_ms_ = now_ms - HISTORY_MS
        for sign, of_sign in _by_sign(rules):
            cursor = await self._connection.execute(
                QUERIES["all_residents"], {"sign": sign.code, "from_at": from_ms(from_ms_)}
            )
            oldest = {resident: from_ms_ for (resident,) in await cursor.fetchall()}
            await self._sign(sign, of_sign, oldest, now_ms, total)
        await self._stand_at(end, entered)
        return total.evaluated(0)

    async def _rules(self) -> tuple[int, list[RuleInForce]]:
        """Return the pace's rules that can be evaluated now, and how many were entered before."""
        cursor = await self._connection.execute(QUERIES["rules_entered"])
        ((entered,),) = await cursor.fetchall()  # first: a rule that comes now begins all anew
        async with self._connection.cursor(row_factory=dict_row) as rows:
            await rows.execute(QUERIES["rules"])
            rules = [rule_of_row(row) for row in await rows.fetchall()]
        usable = [
            found
            for found in rules
            if found.enabled and is_evaluable(found.rule) and pace_of(found.rule) is self._pace
        ]
        self._signs = {found.rule.name: BY_NAME[found.rule.sign].code for found in usable}
        return entered, usable

    async def _stand_at(self, place: Place, entered: int) -> None:
        await self._connection.execute(
            QUERIES["put_progress"],
            {
                "pace": str(self._pace),
                "transaction": place.transaction,
                "change": place.change,
                "rules_entered": entered,
            },
        )

    async def write(
        self,
        rule: str,
        rule_id: int,
        resident: int,
        steps: Iterable[Step],
        device: int | None = None,
    ) -> list[What]:
        """Write what `reconcile` returned, new alerts about `device`; return what was told."""
        told: list[What] = []
        for step in steps:
            alert = step.alert if device is None else replace(step.alert, device=device)
            alert_id = await self._write_alert(rule, rule_id, resident, alert)
            if alert_id is None:
                continue
            for what in step.told:
                await self._tell(alert_id, what, aloud=not step.alert.is_note)
                told.append(what)
        return told

    async def alerts_of(self, rule: str, residents: Sequence[int]) -> dict[int, list[Alert]]:
        """Return the alerts of a rule that residents have, locked for this transaction."""
        alerts: dict[int, list[Alert]] = defaultdict(list)
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(QUERIES["alerts_of"], {"rule": rule, "residents": list(residents)})
            for row in await cursor.fetchall():
                alerts[row["resident_id"]].append(_alert(row))
        return alerts

    async def _sign(
        self,
        sign: VitalSign,
        rules: Sequence[RuleInForce],
        oldest: Mapping[int, int],
        now_ms: int,
        total: _Total,
    ) -> None:
        # By the earliest change, so that one far back does not make a thousand others read as far.
        residents = sorted(oldest, key=oldest.__getitem__)
        for first in range(0, len(residents), RESIDENTS_A_QUERY):
            some = {who: oldest[who] for who in residents[first : first + RESIDENTS_A_QUERY]}
            began_s = time.monotonic()
            async with self._connection.transaction():
                plans = [await self._plan(found, some) for found in rules]
                await self._some(sign, [plan for plan in plans if plan.starts], now_ms, total)
            await asyncio.sleep(RESTS_A_QUERY[self._pace] * (time.monotonic() - began_s))

    async def _plan(self, found: RuleInForce, oldest: Mapping[int, int]) -> _Plan:
        """Find out for whom of those that changed a rule is to be evaluated, and from where on."""
        residents = sorted(oldest)
        if found.rule.marked_only:
            cursor = await self._connection.execute(
                QUERIES["marked"], {"rule": found.rule.name, "residents": residents}
            )
            marked = {resident for (resident,) in await cursor.fetchall()}
            residents = [resident for resident in residents if resident in marked]
        alerts = await self.alerts_of(found.rule.name, residents)
        starts = {who: _start(found.rule, alerts.get(who, ()), oldest[who]) for who in residents}
        return _Plan(found=found, starts=starts, alerts=alerts)

    async def _some(
        self, sign: VitalSign, plans: Sequence[_Plan], now_ms: int, total: _Total
    ) -> None:
        """Evaluate the rules of a sign on its readings, which are read once for all of them."""
        if not plans:
            return
        everybody = np.array(sorted(set().union(*(plan.starts for plan in plans))), np.int64)
        from_at = from_ms(min(plan.from_ms for plan in plans))
        readings = await read_samples(self._connection, everybody, sign, from_at)
        total.count(residents=len(everybody), readings=len(readings))
        for plan in plans:
            rule, residents = plan.found.rule, np.array(list(plan.starts), np.int64)
            start_ms = np.array(list(plan.starts.values()), np.int64)
            own = readings
            if len(residents) < len(everybody):
                own = readings.where(np.isin(readings.resident, residents))
            targets = await self._targets(rule, residents)
            by_resident = _episodes(rule, own, targets, residents, start_ms)
            for resident in sorted(by_resident.keys() | plan.alerts.keys()):
                start, known = plan.starts[resident], plan.alerts.get(resident, ())
                concerned = [alert for alert in known if alert.episode.last_ms >= start]
                steps = reconcile(by_resident.get(resident, []), concerned, now_ms)
                total.told += await self.write(rule.name, plan.found.rule_id, resident, steps)

    async def _targets(self, rule: AlertRule, residents: npt.NDArray[np.int64]) -> Targets:
        """Return the residents' own limits where they take the place of the rule's thresholds."""
        cursor = await self._connection.execute(
            QUERIES["targets"],
            {
                "residents": residents.tolist(),
                "quantities": list(rule.parameters),
                "limit": "low" if rule.is_low else "high",
            },
        )
        rows = await cursor.fetchall()
        who = np.unique(np.array([resident for resident, _name, _limit in rows], np.int64))
        values = {name: np.full(len(who), np.nan) for name in rule.parameters}
        for resident, name, limit in rows:
            values[name][np.searchsorted(who, resident)] = limit
        return Targets(resident=who, values=values)

    async def _write_alert(
        self, rule: str, rule_id: int, resident: int, alert: Alert
    ) -> int | None:
        """Return the alert's number; None: the resident was erased meanwhile."""
        episode = alert.episode
        columns = {
            "alert_id": alert.alert_id,
            "resident_id": resident,
            "rule": rule,
            "rule_id": rule_id,
            "sign": self._signs.get(rule),
            "device_id": alert.device,
            "started_at": from_ms(episode.started_ms),
            "last_at": from_ms(episode.last_ms),
            "cleared_at": None if episode.cleared_ms is None else from_ms(episode.cleared_ms),
            "alarm_at": None if episode.alarm_ms is None else from_ms(episode.alarm_ms),
            "stage": int(episode.stage),
            "readings": episode.readings,
            "peak": episode.peak,
            "is_note": alert.is_note,
            "state": str(alert.state),
        }
        if alert.alert_id is not None:
            await self._connection.execute(QUERIES["change_alert"], columns)
            return alert.alert_id
        cursor = await self._connection.execute(QUERIES["add_alert"], columns)
        row = await cursor.fetchone()
        return None if row is None else int(row[0])

    async def _tell(self, alert_id: int, what: What, *, aloud: bool) -> None:
        cursor = await self._connection.execute(
            QUERIES["add_event"],
            {"alert_id": alert_id, "actor": SERVICE, "what": str(what), "note": None},
        )
        ((event_id,),) = await cursor.fetchall()
        if aloud:
            await self._connection.execute(QUERIES["tell_webhooks"], {"event_id": event_id})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One rule's part of a step: by resident, from where on it is evaluated, and the alerts there are."""

    found: RuleInForce
    starts: Mapping[int, int]
    """In the order of the residents."""
    alerts: Mapping[int, Sequence[Alert]]

    @property
    def from_ms(self) -> int:
        """From where on readings are needed."""
        return min(self.starts.values()) - self.found.rule.reach_ms


class _Total:
    """Sums up a step."""

    def __init__(self) -> None:
        self.told: list[What] = []
        self._residents = 0
        self._readings = 0

    def count(self, *, residents: int, readings: int) -> None:
        self._residents += residents
        self._readings += readings

    def evaluated(self, changes: int) -> Evaluated:
        told = {what: self.told.count(what) for what in What if what in self.told}
        return Evaluated(
            changes=changes, residents=self._residents, readings=self._readings, told=told
        )


def _by_sign(
    rules: Sequence[RuleInForce],
) -> list[tuple[VitalSign, Sequence[RuleInForce]]]:
    """Return the rules by whose readings they are of."""
    names = dict.fromkeys(found.rule.sign for found in rules)
    return [
        (BY_NAME[name], [found for found in rules if found.rule.sign == name]) for name in names
    ]


def _earliest(changed: Changed, sign: int) -> dict[int, int]:
    """Return each resident's earliest changed moment of a sign; nobody's readings are passed over."""
    of_sign = (changed.sign == sign) & (changed.resident != NOBODY)
    residents, oldest_ms = changed.resident[of_sign], changed.oldest_ms[of_sign]
    return dict(zip(residents.tolist(), oldest_ms.tolist(), strict=True))


def _start(rule: AlertRule, alerts: Sequence[Alert], changed_ms: int) -> int:
    """Return from where on the rule is to be evaluated anew after a change."""
    start = changed_ms
    for alert in reversed(alerts):  # by start: an extension backwards may reach a further one
        end = max(alert.episode.last_ms, alert.episode.cleared_ms or 0)
        if end + rule.gap_ms + rule.reach_ms >= start:
            start = min(start, alert.episode.started_ms)
    return max(start, changed_ms - HISTORY_MS)


def _episodes(
    rule: AlertRule,
    readings: Samples,
    targets: Targets,
    residents: npt.NDArray[np.int64],
    start_ms: npt.NDArray[np.int64],
) -> dict[int, list[Episode]]:
    points = evaluate(rule, readings, targets)
    place = np.searchsorted(residents, points.resident)
    kept = points.at_ms >= start_ms[place]
    points = Points(
        resident=points.resident[kept],
        at_ms=points.at_ms[kept],
        stage=points.stage[kept],
        value=points.value[kept],
    )
    found = episodes_of(points, rule.gap_ms, low=rule.is_low)
    by_resident: dict[int, list[Episode]] = defaultdict(list)
    for index, resident in enumerate(found.resident.tolist()):
        by_resident[resident].append(_episode(found, index))
    return by_resident


def _episode(found: Episodes, index: int) -> Episode:
    cleared_ms, alarm_ms = int(found.cleared_ms[index]), int(found.alarm_ms[index])
    peak = float(found.peak[index])
    return Episode(
        started_ms=int(found.started_ms[index]),
        last_ms=int(found.last_ms[index]),
        cleared_ms=None if cleared_ms < 0 else cleared_ms,
        alarm_ms=None if alarm_ms < 0 else alarm_ms,
        stage=Stage(int(found.stage[index])),
        readings=int(found.readings[index]),
        peak=None if math.isnan(peak) else peak,
    )


def _alert(row: Mapping[str, Any]) -> Alert:
    def ms(name: str) -> int | None:
        return None if row[name] is None else ms_since_epoch(row[name])

    return Alert(
        alert_id=row["alert_id"],
        episode=Episode(
            started_ms=ms_since_epoch(row["started_at"]),
            last_ms=ms_since_epoch(row["last_at"]),
            cleared_ms=ms("cleared_at"),
            alarm_ms=ms("alarm_at"),
            stage=Stage(row["stage"]),
            readings=row["readings"],
            peak=row["peak"],
        ),
        is_note=row["is_note"],
        state=State(row["state"]),
        device=row["device_id"],
    )
