"""`hearth simulate month`: the goals on a few homes and days, and that the score can tell when not."""

from __future__ import annotations

import json

import pytest

from gateway.cli.month import Plan, live_month
from gateway.cli.month.score import Score, score
from gateway.platform.postgres import connect
from ingest.ledger import read_ledger
from tests.worlds import query

pytestmark = pytest.mark.integration

PLAN = Plan(homes=14, days=4, seed=4)


async def test_a_month_of_homes_in_small_meets_its_goals_and_tells_when_it_does_not(
    database: str,
) -> None:
    done: list[int] = []
    world, month = await live_month(database, PLAN, done.append)
    assert done == list(range(1, PLAN.homes * PLAN.days + 1))

    async def scored() -> Score:
        async with await connect(database, application="hearth-tests", autocommit=True) as session:
            return await score(session, world, month, seconds=1.0)

    good = await scored()
    assert good.met, good.as_json()
    assert (good.lost, good.doubled, good.others.wrong) == (0, 0, 0)
    assert good.time_error_s.p99 is not None
    assert good.time_error_s.p99 <= 60
    assert good.taken == good.received + good.overwritten + good.unheard + good.on_devices
    assert good.received == good.stored + sum(good.held.values())
    assert read_ledger(database).balanced
    json.dumps(good.as_json())

    # What goes wrong in it is there: devices send again, clocks cannot be placed, guests come.
    assert read_ledger(database).total("duplicate") > 0
    assert {"unlinked", "time_unplaced"} <= good.held.keys()
    assert {"synchronised", "mapped", "mapped_earlier", "reception"} <= (
        good.time_error_by_quality_s.keys()
    )
    assert good.shared_scales.readings > 0
    assert good.shared_scales.right > 0

    query(
        database,
        "DELETE FROM measurement WHERE measured_at = (SELECT max(measured_at) FROM measurement)",
    )
    assert (await scored()).lost == 1
    query(database, "INSERT INTO measurement SELECT * FROM (SELECT * FROM measurement LIMIT 1) m"
                    " ON CONFLICT DO NOTHING")  # fmt: skip
    assert (await scored()).doubled == 0
    query(
        database,
        "CREATE TEMP TABLE again AS SELECT * FROM measurement LIMIT 1;"
        "UPDATE again SET measured_at = measured_at + interval '3 days';"
        "INSERT INTO measurement SELECT * FROM again",
    )
    assert (await scored()).doubled == 1
    query(
        database,
        "UPDATE measurement SET resident_id = (SELECT max(resident_id) FROM resident)"
        " WHERE resident_id = (SELECT min(resident_id) FROM measurement WHERE resident_id <> 0)",
    )
    bad = await scored()
    assert bad.others.wrong > 0
    assert not bad.met
