"""Homes as data: who lives there, which devices they use and how. Described in TOML or generated.

People are opaque numbers; what they really are is only in here and in the journal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from numpy.random import Generator, default_rng

from firmware_sim.data import FOLDER, exact, load
from firmware_sim.model import DeviceModel, model_named, models_of
from firmware_sim.physiology import draw_conditions
from gateway.errors import UsageError
from gateway.vital_sign import NO_USER_SLOT
from gateway.vitals import BY_NAME, SIGNS

ZONE = "Asia/Shanghai"
PEOPLE_PER_HOME_MAX = 10
"""Person numbers of home n begin at n times this."""
SHARED_SHARE = 0.2
"""So many of the devices that could be shared without saying who it was, are."""
BACKLOG_MAX = 6
"""A generated device holds at most so many readings from before the simulation."""

_HOMES = FOLDER / "homes"
_BIRTH_YEARS = (1936, 1972)
_RESIDENTS = (1, 2, 3)
_RESIDENTS_SHARES = (0.3, 0.55, 0.15)
_STATIC_ADDRESS = 0xC0 << 40
"""The two highest bits of a random static address are 1 (Core 5.4, Vol 6 Part B, 1.3.2.1)."""
_LOCAL_ADDRESS = 0x02 << 40
"""A public address that no vendor has: locally administered (IEEE 802)."""


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """One person. `levels` fixes what would else be drawn, by quantity (body_height_cm)."""

    person: int
    birth_year: int
    sex: str
    levels: dict[str, float] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who uses a device, under a slot where the device has them."""

    person: int
    slot: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeDevice:
    """One device of a home; `backlog`: readings it holds from before the simulation."""

    model: DeviceModel
    address: str
    users: tuple[User, ...]
    backlog: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """One home: its hub (16 hexadecimal digits), residents and devices."""

    index: int
    hub: str
    zone: str
    residents: tuple[Resident, ...]
    devices: tuple[HomeDevice, ...]
    seed: int


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class _DescribedDevice:
    """A device as a file describes it; without an address one is drawn."""

    model: str
    users: tuple[User, ...]
    address: str | None = None
    backlog: int = 0
    per_day: float | None = None


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class _DescribedHome:
    """A home as a file describes it."""

    resident: tuple[Resident, ...]
    device: tuple[_DescribedDevice, ...]
    zone: str = ZONE
    hub: str | None = None


def described_homes() -> tuple[str, ...]:
    """Return the names of the homes that are described here."""
    return tuple(sorted(path.stem for path in _HOMES.glob("*.toml")))


def load_home(name: str, index: int, seed: int) -> Home:
    """Return a home that is described: by one of `described_homes`, or in a file of this name.

    Raises:
        UsageError: there is none, or its description is wrong.
    """
    path = _HOMES / f"{name}.toml"
    described = load(path if path.is_file() else Path(name), _DescribedHome)
    generator = default_rng([seed, index])
    people = {resident.person for resident in described.resident}
    for device in described.device:
        strangers = {user.person for user in device.users} - people
        if strangers or not device.users:
            raise UsageError(
                f"{name}: {device.model}: 使用者须为住户 / users must be residents: {sorted(people)}"
            )
    base = index * PEOPLE_PER_HOME_MAX
    return Home(
        index=index,
        hub=described.hub or _draw_hub(generator),
        zone=described.zone,
        residents=tuple(
            dataclasses.replace(resident, person=base + resident.person)
            for resident in described.resident
        ),
        devices=tuple(_described_device(d, base, generator) for d in described.device),
        seed=seed,
    )


def generate_homes(count: int, seed: int) -> tuple[Home, ...]:
    """Return plausible homes, each with a device of every sign.

    Home n of a seed is the same however many are asked for.
    """
    return tuple(_generate_home(index, seed) for index in range(count))


def _generate_home(index: int, seed: int) -> Home:
    generator = default_rng([seed, index])
    residents = _draw_residents(index, generator)
    return Home(
        index=index,
        hub=_draw_hub(generator),
        zone=ZONE,
        residents=residents,
        devices=tuple(_draw_device(models_of(sign), residents, generator) for sign in SIGNS),
        seed=seed,
    )


def _draw_residents(index: int, generator: Generator) -> tuple[Resident, ...]:
    count = int(generator.choice(_RESIDENTS, p=_RESIDENTS_SHARES))
    sexes = generator.permutation(["female", "male", "female"])
    return tuple(
        Resident(
            person=index * PEOPLE_PER_HOME_MAX + number + 1,
            birth_year=int(generator.integers(*_BIRTH_YEARS, endpoint=True)),
            sex=str(sexes[number]),
            conditions=draw_conditions(generator),
        )
        for number in range(count)
    )


def _draw_device(
    models: Sequence[DeviceModel], residents: Sequence[Resident], generator: Generator
) -> HomeDevice:
    shares = [model.share for model in models]
    chosen = generator.choice(len(models), p=[share / sum(shares) for share in shares])
    model = models[int(chosen)]
    backlog = int(generator.integers(0, BACKLOG_MAX, endpoint=True))
    return HomeDevice(
        model=model,
        address=_draw_address(generator, public=model.public_address),
        users=_users(model, residents, generator),
        # Without a time-stamp, or without a memory, an old reading would pass for a new one.
        backlog=backlog if model.clock.time_stamps and BY_NAME[model.sign].gatt else 0,
    )


def _users(
    model: DeviceModel, residents: Sequence[Resident], generator: Generator
) -> tuple[User, ...]:
    if model.slots:
        numbered = enumerate(residents[: min(model.slots, NO_USER_SLOT)], start=1)
        return tuple(User(person=resident.person, slot=slot) for slot, resident in numbered)
    if model.shared and generator.random() < SHARED_SHARE:
        return tuple(User(person=resident.person) for resident in residents)
    return (User(person=residents[0].person),)


def _described_device(device: _DescribedDevice, base: int, generator: Generator) -> HomeDevice:
    model = model_named(device.model)
    if device.per_day is not None:
        model = dataclasses.replace(model, per_day=device.per_day)
    drawn = _draw_address(generator, public=model.public_address)
    return HomeDevice(
        model=model,
        address=device.address or drawn,
        users=tuple(dataclasses.replace(user, person=base + user.person) for user in device.users),
        backlog=device.backlog,
    )


def _draw_hub(generator: Generator) -> str:
    return generator.bytes(8).hex()


def _draw_address(generator: Generator, *, public: bool) -> str:
    marked = _LOCAL_ADDRESS if public else _STATIC_ADDRESS
    drawn = int.from_bytes(generator.bytes(5), "big")
    return (marked | drawn).to_bytes(6, "big").hex(":").upper()
