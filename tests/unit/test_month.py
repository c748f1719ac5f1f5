"""The plan of a month and the pairing of its truth with rows: reproducible, and what they promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from firmware_sim.clock import Setting
from firmware_sim.month import (
    BEGINS_AT,
    GUEST,
    NewBattery,
    Use,
    generate_month,
    happenings,
    month_facts,
)
from gateway.cli.month.score import Attribution, Errors, Score, matches

DAYS = 30
HOMES = generate_month(120, seed=1, days=DAYS)


def test_a_seed_gives_the_same_month() -> None:
    again = generate_month(120, seed=1, days=DAYS)
    assert [each.home for each in again] == [each.home for each in HOMES]
    assert happenings(again[7], 3) == happenings(HOMES[7], 3)
    assert generate_month(3, seed=2, days=DAYS)[0].home != HOMES[0].home


def test_every_fault_is_there() -> None:
    devices = [device for each in HOMES for device in each.home.devices]
    drifts = [abs(device.model.clock.drift_ppm) * 0.0864 for device in devices]
    assert all(0.5 <= drift <= 5.0 for drift in drifts)
    assert {device.model.clock.setting for device in devices} == set(Setting)
    assert {each.home.zone for each in HOMES} == set(month_facts().zones)
    for has in (
        lambda each: each.replaced_at is not None,
        lambda each: each.has_second_hub,
        lambda each: bool(each.shared),
        lambda each: bool(each.resends),
        lambda each: bool(each.offline),
        lambda each: bool(each.off),
        lambda each: len(each.zones) > 1,
        lambda each: any(lent.slot is None for lent in each.lent),
        lambda each: any(lent.slot is not None for lent in each.lent),
        lambda each: any("growing" in resident.conditions for resident in each.home.residents),
    ):
        assert any(map(has, HOMES))
    month = [event for each in HOMES[:40] for day in range(DAYS) for event in happenings(each, day)]
    assert any(isinstance(event, NewBattery) for event in month)
    assert any(isinstance(event, Use) and event.person == GUEST for event in month)


def test_a_day_is_in_order_and_as_full_as_real_life() -> None:
    uses = []
    for each in HOMES:
        day = happenings(each, 5)
        assert [event.at for event in day] == sorted(event.at for event in day)
        uses += [event for event in day if isinstance(event, Use)]
    assert 60 < len(uses) / len(HOMES) < 90  # 74 readings a day of a home


def test_similar_couples_and_children_are_what_they_are_called() -> None:
    couples = [each for each in HOMES if len(each.bodies) > 1]
    apart = [
        abs(first.levels["body_weight_kg"] - second.levels["body_weight_kg"])
        for each in couples
        for first, second, *_others in [list(each.bodies.values())]
    ]
    assert sum(kg < 2 for kg in apart) > len(apart) * 0.15
    children = [
        body for each in HOMES for body in each.bodies.values() if "growing" in body.conditions
    ]
    assert children
    assert all(15 < body.levels["body_weight_kg"] < 62 for body in children)


def test_nobody_measures_while_a_device_changes_hands() -> None:
    for each in HOMES:
        for lent in each.lent:
            local = lent.during.begins_at.astimezone(each.zone_at(lent.during.begins_at))
            assert 2 <= local.hour <= 4
            assert lent.during.begins_at > BEGINS_AT


@pytest.mark.parametrize(
    ("truth", "taken", "rows", "measured", "expected"),
    [
        ([(1, 255, 10)], [100], [(1, 255, 10)], [101], [0]),
        ([(1, 255, 10), (1, 255, 20)], [100, 200], [(1, 255, 20)], [200], [-1, 0]),
        # a clock that began anew has stamped two readings alike
        ([(1, 255, 10)] * 2, [100, 900], [(1, 255, 10)] * 2, [905, 104], [1, 0]),
        ([(1, 255, 10)] * 2, [100, 900], [(1, 255, 10)], [905], [-1, 0]),
        # a row too many
        ([(1, 255, 10)], [100], [(1, 255, 10)] * 2, [500, 101], [1]),
        ([(1, 255, 10)], [100], [], [], [-1]),
    ],
)
def test_readings_find_their_rows(
    truth: list[tuple[int, int, int]],
    taken: list[int],
    rows: list[tuple[int, int, int]],
    measured: list[int],
    expected: list[int],
) -> None:
    keys = np.array(truth, np.int64).reshape(-1, 3).T
    row_keys = np.array(rows, np.int64).reshape(-1, 3).T
    found = matches(
        (keys[0], keys[1], keys[2]),
        np.array(taken, np.int64),
        (row_keys[0], row_keys[1], row_keys[2]),
        np.array(measured, np.int64),
    )
    assert found.tolist() == expected


def test_each_goal_that_is_missed_is_a_month_not_met() -> None:
    fine = Attribution(readings=1000, right=990, wrong=0, unassigned=10)
    errors = Errors(readings=1000, p50=1.0, p99=59.0, max=700.0)
    met = Score(
        homes=1,
        days=1,
        seed=1,
        taken=2000,
        received=2000,
        overwritten=0,
        unheard=0,
        on_devices=0,
        stored=1980,
        held={"unlinked": 20},
        lost=0,
        doubled=0,
        shared_scales=replace(fine, wrong=5),
        others=fine,
        time_error_s=errors,
        time_error_by_quality_s={},
        seconds=1.0,
    )
    assert met.met
    assert not replace(met, lost=1).met
    assert not replace(met, doubled=1).met
    assert not replace(met, others=replace(fine, wrong=1)).met
    assert not replace(met, shared_scales=replace(fine, wrong=6)).met
    assert not replace(met, time_error_s=replace(errors, p99=61.0)).met
