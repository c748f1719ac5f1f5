"""Simulated homes: described or generated, the same every time, with every sign."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from firmware_sim.device import SimulatedDevice
from firmware_sim.homes import (
    PEOPLE_PER_HOME_MAX,
    Home,
    described_homes,
    generate_homes,
    load_home,
)
from firmware_sim.journal import Journal
from firmware_sim.model import catalogue, models_of
from firmware_sim.scenario import DAY_S, SPACING_S, Life, Pace, evenly
from gateway.errors import UsageError
from gateway.measurement import device_id
from gateway.vitals import BY_NAME, SIGNS

HOMES = 20
SEED = 7


def test_every_home_has_a_device_of_every_sign() -> None:
    for home in generate_homes(HOMES, SEED):
        assert [device.model.sign for device in home.devices] == [sign.name for sign in SIGNS]


def test_a_home_is_the_same_however_many_are_asked_for() -> None:
    assert generate_homes(HOMES, SEED)[:3] == generate_homes(3, SEED)
    assert generate_homes(3, SEED) != generate_homes(3, SEED + 1)


def test_hubs_addresses_and_people_are_unique() -> None:
    homes = generate_homes(HOMES * 5, SEED)
    addresses = [device_id(device.address) for home in homes for device in home.devices]
    people = [resident.person for home in homes for resident in home.residents]
    assert len({home.hub for home in homes}) == len(homes)
    assert len(set(addresses)) == len(addresses)
    assert len(set(people)) == len(people)


def test_devices_are_used_by_residents_under_slots_of_their_own() -> None:
    for home in generate_homes(HOMES, SEED):
        people = {resident.person for resident in home.residents}
        assert len(people) < PEOPLE_PER_HOME_MAX
        for device in home.devices:
            assert {user.person for user in device.users} <= people
            slots = [user.slot for user in device.users]
            assert len(set(slots)) == len(slots) or slots == [None] * len(slots)


def test_many_homes_have_every_model() -> None:
    used = {device.model.name for home in generate_homes(200, SEED) for device in home.devices}
    assert used >= set(catalogue()), "besides the plain models of signs that have none there"


def test_every_model_is_of_a_sign_and_names_its_quantities() -> None:
    for model in catalogue().values():
        sign = BY_NAME[model.sign]
        assert model.omits <= {quantity.name for quantity in sign.quantities}
        assert 0 <= model.unit_set < len(sign.unit_sets)
        assert model.slots == 0 or sign.user_slots


def test_a_sign_without_a_model_gets_a_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware_sim.model.catalogue", dict)
    (model,) = models_of(SIGNS[0])
    assert model.sign == SIGNS[0].name


@pytest.mark.parametrize("name", described_homes())
def test_every_described_home_can_be_loaded(name: str) -> None:
    home = load_home(name, index=2, seed=SEED)
    assert home.residents[0].person // PEOPLE_PER_HOME_MAX == 2
    assert home == load_home(name, index=2, seed=SEED)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[resident]]\nperson = 1", "birth_year"),
        ("[[device]]\nmodel = 'Cuff A'\nusers = []", "resident"),
        ("resident = []\ndevice = []\ncolour = 'red'", "colour"),
        ("nonsense", "TOML"),
    ],
)
def test_a_wrong_description_is_told_by_its_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "home.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=named):
        load_home(str(path), index=0, seed=SEED)


def test_a_device_may_be_used_by_residents_only(tmp_path: Path) -> None:
    path = tmp_path / "home.toml"
    path.write_text("resident = []\n[[device]]\nmodel = 'Cuff A'\nusers = [{ person = 1 }]")
    with pytest.raises(UsageError, match="Cuff A"):
        load_home(str(path), index=0, seed=SEED)


# How they live


def devices_of(home: Home) -> list[SimulatedDevice]:
    return [
        SimulatedDevice(
            device.model,
            BY_NAME[device.model.sign],
            device.address,
            journal=Journal(None),
            utc_offset=timedelta(hours=8),
            now=lambda: datetime.now(UTC),
        )
        for device in home.devices
    ]


def test_memories_hold_readings_from_before_the_start() -> None:
    (home,) = generate_homes(1, SEED)
    devices = devices_of(home)
    Life(home, devices, Pace()).fill_memories()
    assert [len(device.memory) for device in devices] == [d.backlog for d in home.devices]
    now = datetime.now(UTC)
    for device in devices:
        taken = [record.taken_at for record in device.memory]
        assert taken == sorted(taken)
        assert all(at < now for at in taken)


def test_what_has_no_time_stamp_holds_nothing_from_before() -> None:
    for home in generate_homes(HOMES, SEED):
        for device in home.devices:
            assert device.backlog == 0 or device.model.clock.time_stamps


def test_a_demonstration_takes_so_many_readings_a_second() -> None:
    homes = generate_homes(HOMES, SEED)
    pace = evenly(homes, readings_per_s=7)
    rate = sum(1 / pace.interval_s(d.model.per_day) for home in homes for d in home.devices)
    assert rate == pytest.approx(7)
    assert pace.interval_s(2) > SPACING_S


def test_real_people_take_as_many_readings_a_day_as_their_models_say() -> None:
    assert Pace().interval_s(4) == DAY_S / 4
    assert Pace(factor=10).interval_s(4) == DAY_S / 40


async def test_a_home_that_is_lived_in_takes_readings() -> None:
    (home,) = generate_homes(1, SEED)
    devices = devices_of(home)
    woken = asyncio.Event()
    for device in devices:
        device.wake = woken.set
    life = Life(home, devices, evenly([home], readings_per_s=100))

    async def live() -> None:
        async with asyncio.TaskGroup() as tasks:
            life.start(tasks)

    living = asyncio.ensure_future(live())
    async with asyncio.timeout(10):
        await woken.wait()
    living.cancel()
    await asyncio.wait({living})
    assert any(len(device.memory) for device in devices)
