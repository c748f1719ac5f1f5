"""Alerts from stored readings: raised once, right again after late data."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from api.erasure import erase
from api.resident_merge import merge, unmerge
from gateway.errors import UsageError
from gateway.guidelines.alerts import DEFAULT_RULES
from gateway.hub_state import DeviceStates, Trouble
from gateway.measurement import Measurement
from gateway.platform.changes import record_change, summarised
from gateway.platform.postgres import AsyncConnection, connect, connect_blocking
from gateway.vitals import BY_NAME
from ingest.alerts import desk
from ingest.alerts.app import Work, catch_up, follow
from ingest.alerts.evaluator import Evaluator
from ingest.alerts.reconcile import State, reconcile
from ingest.alerts.rules import (
    QUERIES,
    SILENCE,
    Pace,
    change_rule,
    pace_of,
    rules_in_force,
)
from ingest.alerts.silence import look_for_silence, look_for_trouble
from ingest.device_states import write_states
from ingest.store import Store
from tests.alerts import BY, NOW, SETTLED_S_MAX, alerting, arrive, evaluate, sequences, severe
from tests.flushes import committed
from tests.worlds import CUFF, HUB, SCALE, a_message, a_pressure, a_reading, query

pytestmark = pytest.mark.integration


@pytest.fixture
async def connection(database: str) -> AsyncIterator[AsyncConnection]:
    async with alerting(database) as session:
        yield session


def an_elevated_week() -> list[Measurement]:
    """Two readings each morning and evening (08:00 and 20:00 in Shanghai), elevated, none severe."""
    midnight = NOW.replace(hour=0, minute=0)
    return [
        severe(midnight - timedelta(days=day) + timedelta(hours=hours, minutes=minutes), 150)
        for day in range(2, 9)
        for hours in (0, 12)
        for minutes in (0, 1)
    ]


def a_temperature(celsius: str, at: datetime) -> Measurement:
    sign = BY_NAME["body_temperature"].code
    return replace(a_pressure(at=at), sign=sign, reading=a_reading(Decimal(celsius), at=at))


def alerts(database: str) -> list[tuple[Any, ...]]:
    return query(
        database,
        "SELECT rule, stage, state, is_note, started_at, cleared_at, readings FROM alert"
        " ORDER BY started_at",
    )


def events(database: str) -> list[str]:
    return [what for (what,) in query(database, "SELECT what FROM alert_event ORDER BY event_id")]


async def test_the_services_turn_holds_up_no_flush(
    connection: AsyncConnection, database: str
) -> None:
    async with await connect(database, application="hearth-tests", autocommit=True) as service:
        for work in Work:
            await service.execute(QUERIES["take_turn"], {"work": int(work)})
        async with asyncio.timeout(SETTLED_S_MAX):
            await committed(Store(connection), a_message(severe(NOW)))
    assert query(database, "SELECT count(*) FROM measurement") == [(1,)]


async def test_one_severe_reading_asks_and_the_next_one_alarms(
    connection: AsyncConnection, database: str
) -> None:
    first = NOW - timedelta(minutes=30)
    await arrive(connection, [severe(first)])
    assert alerts(database) == [("pressure-crisis", 1, "open", False, first, None, 1)]
    await arrive(connection, [severe(first + timedelta(minutes=5))])
    assert alerts(database) == [("pressure-crisis", 2, "open", False, first, None, 2)]
    assert events(database) == ["asked", "raised"]


async def test_a_repeat_that_is_well_settles_the_alert(
    connection: AsyncConnection, database: str
) -> None:
    first = NOW - timedelta(minutes=30)
    well = first + timedelta(minutes=5)
    await arrive(connection, [severe(first)], [severe(well, systolic=140)])
    assert alerts(database) == [("pressure-crisis", 1, "resolved", False, first, well, 1)]


async def test_many_severe_readings_are_one_alert(
    connection: AsyncConnection, database: str
) -> None:
    start = NOW - timedelta(hours=2)
    flushes = [[severe(start + timedelta(minutes=5 * place))] for place in range(12)]
    await arrive(connection, *flushes)
    ((_rule, stage, state, _note, started_at, _cleared, readings),) = alerts(database)
    assert (stage, state, started_at, readings) == (2, "open", start, 12)
    assert events(database) == ["asked", "raised"]


async def test_readings_that_come_weeks_late_are_a_note_and_no_alarm(
    connection: AsyncConnection, database: str
) -> None:
    long_ago = NOW - timedelta(days=20)
    await arrive(connection, [severe(long_ago), severe(long_ago + timedelta(minutes=5))])
    ((_rule, _stage, state, is_note, *_rest),) = alerts(database)
    assert (state, is_note) == ("open", True)
    assert events(database) == ["noted"]


async def test_a_restored_database_goes_on_raising_alerts(
    connection: AsyncConnection, database: str
) -> None:
    """Its places are of a server that had counted further than the one it was restored on."""
    await evaluate(connection)
    query(database, "UPDATE alert_progress SET transaction_id = 1::bigint << 60")
    await committed(Store(connection), a_message(severe(NOW), sequence=next(sequences)))
    async with asyncio.timeout(SETTLED_S_MAX):
        while not alerts(database):
            await follow(connection, Evaluator(connection))
    assert [alert[0] for alert in alerts(database)] == ["pressure-crisis"]
    await arrive(connection, [severe(NOW + timedelta(minutes=5))])
    assert events(database) == ["asked", "raised"]


async def test_any_order_of_arrival_gives_the_same_alerts(
    connection: AsyncConnection, database: str
) -> None:
    chosen = random.Random(5)  # noqa: S311 - a test's own order
    month = [
        severe(NOW - timedelta(days=day, hours=hour, minutes=minute), chosen.choice((130, 185)))
        for day in range(0, 28, 3)
        for hour in (2, 13)
        for minute in (0, 6, 11)
    ] + an_elevated_week()
    found = []
    for _ in range(3):
        chosen.shuffle(month)
        await arrive(connection, *(month[place : place + 7] for place in range(0, len(month), 7)))
        live = [alert for alert in alerts(database) if alert[2] != State.WITHDRAWN]
        found.append([(rule, stage, at, end, n) for rule, stage, _s, _n, at, end, n in live])
        await connection.execute(
            "TRUNCATE measurement, batch, alert, alert_event, alert_progress, webhook_delivery"
        )
    assert {"pressure-crisis", "pressure-mean"} == {rule for rule, *_rest in found[0]}
    assert found[0] == found[1] == found[2]


async def test_what_days_say_together_is_evaluated_apart_and_each_resident_once(
    connection: AsyncConnection, database: str
) -> None:
    elevated = an_elevated_week()
    store = Store(connection)
    over_days = Evaluator(connection, Pace.OVER_DAYS)
    await arrive(connection, [severe(NOW - timedelta(days=30), 120)])
    for flush in (elevated[:10], elevated[10:]):
        await committed(store, a_message(*flush, sequence=next(sequences)))
    async with asyncio.timeout(SETTLED_S_MAX):
        changes = 0
        while changes < 2:  # another test's transaction may hold the feed up a while
            prompt = await follow(connection, Evaluator(connection))
            changes += 0 if prompt is None else prompt.changes
            await asyncio.sleep(0.05)
    assert alerts(database) == []
    done = await catch_up(connection, over_days)
    assert done is not None
    assert [alert[:3] for alert in alerts(database)] == [("pressure-mean", 2, "open")]
    assert (done.residents, done.readings) == (1, len(elevated))


def test_single_readings_are_evaluated_at_once() -> None:
    paces = {rule.name: pace_of(rule) for rule in DEFAULT_RULES}
    assert {name for name, pace in paces.items() if pace is Pace.OVER_DAYS} == {
        "pressure-mean",
        "weight-gain",
    }


async def test_a_changed_rule_is_evaluated_again_and_kept_with_who_changed_it(
    connection: AsyncConnection, database: str
) -> None:
    first = NOW - timedelta(minutes=30)
    await arrive(connection, [severe(first, 175), severe(first + timedelta(minutes=5), 176)])
    assert alerts(database) == []
    with connect_blocking(database, application="hearth-tests") as desk_connection:
        changed = change_rule(
            desk_connection,
            "pressure-crisis",
            parameters={"severe_systolic_mmhg": 170},
            enabled=None,
            by=BY,
        )
    assert changed.changed_by == BY[0]
    await evaluate(connection)
    assert [alert[:3] for alert in alerts(database)] == [("pressure-crisis", 2, "open")]
    versions = query(
        database,
        "SELECT changed_by, superseded_at IS NULL FROM alert_rule WHERE name = 'pressure-crisis'"
        " ORDER BY rule_id",
    )
    assert versions == [("service:alerts", False), ("cli:test", True)]
    assert query(database, "SELECT action FROM audit") == [("alert_rule.change",)]


async def test_a_personal_target_takes_the_place_of_a_rules_threshold(
    connection: AsyncConnection, database: str
) -> None:
    await arrive(connection, [a_temperature("37.6", NOW - timedelta(hours=1))])
    assert alerts(database) == []
    query(
        database,
        "INSERT INTO resident_profile (resident_id, targets)"
        ' VALUES (101, \'{"body_temperature_celsius": {"high": 37.5}}\')',
    )
    await arrive(connection, [a_temperature("37.7", NOW)])
    assert [alert[:3] for alert in alerts(database)] == [("fever", 2, "open")]


async def test_people_acknowledge_and_resolve_with_a_note_once_each(
    connection: AsyncConnection, database: str
) -> None:
    await arrive(
        connection, [severe(NOW - timedelta(minutes=9)), severe(NOW - timedelta(minutes=2))]
    )
    ((public_id,),) = query(database, "SELECT public_id FROM alert")
    with connect_blocking(database, application="hearth-tests") as session:
        desk.settle(session, public_id, State.ACKNOWLEDGED, note="called", by=BY)
        with pytest.raises(UsageError, match="acknowledged already"):
            desk.settle(session, public_id, State.ACKNOWLEDGED, note=None, by=BY)
        desk.settle(session, public_id, State.RESOLVED, note=None, by=BY)
    said = query(database, "SELECT actor, what, note FROM alert_event WHERE actor = 'cli:test'")
    assert said == [("cli:test", "acknowledged", "called"), ("cli:test", "resolved", None)]
    audited = query(database, "SELECT action, resident_id FROM audit ORDER BY audit_id")
    assert audited == [("alert.acknowledged", 101), ("alert.resolved", 101)]


async def test_who_is_marked_and_does_not_measure_is_told_until_they_do(
    connection: AsyncConnection, database: str
) -> None:
    ((resident,),) = query(database, "SELECT public_id FROM resident WHERE resident_id = 101")
    with connect_blocking(database, application="hearth-tests") as session:
        desk.mark(session, resident, SILENCE, 2, BY)
        rule_id = {found.rule.name: found.rule_id for found in rules_in_force(session)}[SILENCE]
    query(database, "UPDATE alert_mark SET marked_at = now() - interval '30 days'")
    await arrive(connection, [severe(NOW - timedelta(days=5), 130)])
    evaluator = Evaluator(connection)
    now_ms = round(NOW.timestamp() * 1000)
    await look_for_silence(connection, evaluator, rule_id, now_ms)
    await look_for_silence(connection, evaluator, rule_id, now_ms + 300_000)
    silent = ("no-readings", 2, "open", False, NOW - timedelta(days=3), None, 0)
    assert alerts(database) == [silent]
    await arrive(connection, [severe(NOW - timedelta(hours=1), 130)])
    await look_for_silence(connection, evaluator, rule_id, now_ms + 600_000)
    assert [alert[5] for alert in alerts(database)] == [NOW - timedelta(hours=1)]
    assert events(database) == ["raised", "cleared"]


async def test_a_device_whose_bond_is_gone_is_one_alert_until_its_hub_says_it_is_well(
    connection: AsyncConnection, database: str
) -> None:
    query(database, "INSERT INTO link (device_id, user_slot, resident_id, during)"
                    " VALUES (12, 2, 102, '(,)')")  # fmt: skip
    told_at = (
        "SELECT device_id, resident_id, state, cleared_at IS NULL FROM alert ORDER BY alert_id"
    )
    await tell(connection, 1.0, {CUFF: Trouble.BOND_LOST, SCALE: None})
    await look_for_troubles(connection)
    await tell(connection, 2.0, {CUFF: Trouble.PAIRING_REFUSED})  # the same trouble, further on
    await look_for_troubles(connection)
    assert query(database, told_at) == [(11, 101, "open", True)]
    await tell(connection, 3.0, {SCALE: Trouble.UNREACHABLE})
    await look_for_troubles(connection)
    shared = [(12, 101, "open", True), (12, 102, "open", True)]
    assert query(database, told_at) == [(11, 101, "open", True), *shared]
    await tell(connection, 4.0, {CUFF: None})
    await tell(connection, 2.5, {CUFF: Trouble.PAIRING_REFUSED})  # comes late: an earlier word
    await look_for_troubles(connection)
    assert query(database, told_at) == [(11, 101, "open", False), *shared]
    await tell(connection, 0.5, {CUFF: Trouble.BOND_LOST}, started_at=NOW)  # another run
    await look_for_troubles(connection)
    assert query(database, told_at) == [(11, 101, "open", False), *shared, (11, 101, "open", True)]
    assert events(database) == ["raised", "raised", "raised", "cleared", "raised"]


async def test_a_trouble_that_somebody_resolved_is_raised_again_when_it_comes_again(
    connection: AsyncConnection, database: str
) -> None:
    await tell(connection, 1.0, {CUFF: Trouble.UNREACHABLE})
    await look_for_troubles(connection)
    ((alert,),) = query(database, "SELECT public_id FROM alert")
    with connect_blocking(database, application="hearth-tests") as session:
        desk.settle(session, alert, State.RESOLVED, note="new battery", by=BY)
    for uptime_s, trouble in ((2.0, None), (3.0, Trouble.UNREACHABLE)):
        await tell(connection, uptime_s, {CUFF: trouble})
        await look_for_troubles(connection)
    states = query(database, "SELECT state, cleared_at IS NULL FROM alert ORDER BY alert_id")
    assert states == [("resolved", False), ("open", True)]


async def test_readings_kept_apart_for_a_devices_sake_are_its_trouble(
    connection: AsyncConnection, database: str
) -> None:
    future = [a_pressure(at=NOW + timedelta(days=400, minutes=minute)) for minute in range(3)]
    await committed(Store(connection), a_message(*future, sequence=next(sequences)))
    await look_for_troubles(connection)
    troubles = query(database, "SELECT device_id, resident_id, readings, state FROM alert")
    assert troubles == [(11, 101, 3, "open")]


async def tell(
    connection: AsyncConnection,
    uptime_s: float,
    devices: dict[int, Trouble | None],
    *,
    started_at: datetime = NOW - timedelta(days=3),
) -> None:
    """Let the hub say how it gets on with devices."""
    states = DeviceStates(started_at=started_at, uptime_s=uptime_s, devices=devices)
    await write_states(connection, {HUB: states})


async def look_for_troubles(connection: AsyncConnection) -> None:
    cursor = await connection.execute(
        "SELECT rule_id FROM alert_rule WHERE name = 'device-trouble' AND superseded_at IS NULL"
    )
    ((rule_id,),) = await cursor.fetchall()
    now_ms = time.time_ns() // 1_000_000
    await look_for_trouble(connection, Evaluator(connection), rule_id, now_ms)


async def test_readings_that_become_anothers_or_nobodys_take_their_alert_back(
    connection: AsyncConnection, database: str
) -> None:
    first = NOW - timedelta(minutes=9)
    await arrive(connection, [severe(first), severe(NOW - timedelta(minutes=2))])
    assert [alert[2] for alert in alerts(database)] == ["open"]
    one = np.array([1])
    first_ms = round(first.timestamp() * 1000)
    for former, now in ((101, 102), (102, 0)):
        await connection.execute("UPDATE measurement SET resident_id = %s", [now])
        both = np.array([former, now])
        changed = summarised(both, one.repeat(2), np.full(2, first_ms))
        await record_change(connection, changed, first_ms)
        await evaluate(connection)
    told = query(database, "SELECT resident_id, state FROM alert ORDER BY resident_id")
    assert told == [(101, "withdrawn"), (102, "withdrawn")]


def public_ids(database: str) -> dict[int, UUID]:
    return dict(query(database, "SELECT resident_id, public_id FROM resident"))


async def test_alerts_go_with_the_readings_of_a_double_entry_and_come_back_with_them(
    connection: AsyncConnection, database: str
) -> None:
    whose = "SELECT resident_id, state FROM alert ORDER BY resident_id"
    await arrive(connection, [severe(NOW - timedelta(hours=1))])
    who = public_ids(database)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as session:
        merge(session, who[102], who[101], "entered twice")
        await evaluate(connection)
        assert query(database, whose) == [(101, "withdrawn"), (102, "open")]
        unmerge(session, who[101], "two people after all")
        await evaluate(connection)
    assert query(database, whose) == [(101, "open"), (102, "withdrawn")]


async def test_a_mark_of_a_double_entry_holds_for_the_one_that_has_its_readings(
    connection: AsyncConnection, database: str
) -> None:
    who = public_ids(database)
    with connect_blocking(database, application="hearth-tests", autocommit=True) as session:
        desk.mark(session, who[101], SILENCE, 2, BY)
        rule_id = {found.rule.name: found.rule_id for found in rules_in_force(session)}[SILENCE]
        query(database, "UPDATE alert_mark SET marked_at = now() - interval '30 days'")
        await arrive(connection, [severe(NOW - timedelta(days=5), 130)])
        now_ms = round(NOW.timestamp() * 1000)

        async def silences() -> list[tuple[Any, ...]]:
            await look_for_silence(connection, Evaluator(connection), rule_id, now_ms)
            return query(
                database, "SELECT resident_id, state, started_at FROM alert ORDER BY resident_id"
            )

        since = NOW - timedelta(days=3)
        assert await silences() == [(101, "open", since)]
        merge(session, who[102], who[101], "entered twice")
        assert await silences() == [(101, "withdrawn", since), (102, "open", since)]


async def test_no_alert_is_raised_for_whoever_was_erased_since_the_readings_were_read(
    connection: AsyncConnection, database: str
) -> None:
    """An erasure waits for no evaluation that has read and not written yet; this one writes behind it."""
    await arrive(connection, [severe(NOW - timedelta(minutes=9))])
    evaluator = Evaluator(connection)
    (alert,) = (await evaluator.alerts_of("pressure-crisis", [101]))[101]
    with connect_blocking(database, application="hearth-tests", autocommit=True) as session:
        rule_id = {found.rule.name: found.rule_id for found in rules_in_force(session)}
        erase(session, public_ids(database)[101], "asked for")
    steps = reconcile([alert.episode], [], round(NOW.timestamp() * 1000))
    assert await evaluator.write("pressure-crisis", rule_id["pressure-crisis"], 101, steps) == []
    assert (alerts(database), events(database)) == ([], [])
