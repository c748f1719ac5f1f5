"""A month of homes as a plan: who lives there, with which devices and hubs, and what goes wrong.

Everything is drawn from the seed; facts and shares stand in data/month.toml. Nothing here knows how
a hub works or what it makes of it: this is the truth that its work is held against.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from numpy.random import Generator, default_rng

from firmware_sim.clock import ClockModel, Setting
from firmware_sim.data import FOLDER, exact, load
from firmware_sim.homes import Home, HomeDevice, Resident, User, generate_homes
from firmware_sim.model import DeviceModel, models_of
from firmware_sim.physiology import Body, draw_body, draw_conditions, physiology
from firmware_sim.scenario import bodies_of
from gateway.gatt.times import TimeType
from gateway.vitals import BY_NAME

BEGINS_AT = datetime(2026, 3, 6, tzinfo=UTC)
"""A Friday before the clocks change in New York, Berlin and on Lord Howe Island."""
DAYS_MAX = 60
GUEST = -1
"""A person who is no resident of anywhere."""

_PLAN, _GUEST, _DAY = 11, 12, 13
"""What a random stream is for; the rest of its key is seed, home and place or day."""
_PPM_S_PER_DAY = 0.0864
_NIGHT = timedelta(hours=3)
"""When devices change hands, in local time: nobody measures then."""
_CHILD = "growing"


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class HouseholdFacts:
    """Who lives in a home."""

    residents: dict[str, float]
    similar_weight: float
    similar_weight_kg: float
    guest_uses: float


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFacts:
    """What devices' clocks are like."""

    drift_s_per_day: tuple[float, float]
    right: float
    right_s: float
    off_by_minutes: float
    off_min: float
    off_by_years: float
    off_years: float
    settings: dict[str, float]
    default_dates: tuple[int, ...]


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong: chances a home, a device, a day or a session, as data/month.toml says."""

    battery: float
    shared_scale: float
    second_hub: float
    replaced_hub: float
    moves_zone: float
    neighbours_cuff: float
    lent_slot: float
    network_lost: float
    network_lost_days: tuple[int, int]
    hub_off: float
    hub_off_days: tuple[int, int]
    resends: float
    resend_days: int
    batch_twice: float
    link_breaks: float
    delay_s: tuple[float, float]
    syncs_every: int
    often_per_day: float


@exact
@dataclass(frozen=True, slots=True, kw_only=True)
class MonthFacts:
    """The whole of data/month.toml."""

    household: HouseholdFacts
    zones: dict[str, float]
    clock: ClockFacts
    faults: Faults


@cache
def month_facts() -> MonthFacts:
    """Return the facts, read once."""
    return load(FOLDER / "month.toml", MonthFacts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A time from `begins_at` to before `ends_at`."""

    begins_at: datetime
    ends_at: datetime

    def holds(self, moment: datetime) -> bool:
        """Tell whether a moment lies in it."""
        return self.begins_at <= moment < self.ends_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """A device, by its place in its home, in other hands; `person`: the one who uses it then."""

    device: int
    during: Stretch
    person: int
    slot: int | None = None
    """The slot that belongs to `person` then; None: the whole device is at the neighbours'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """One home and its month. `hubs`: names, with the one that replaces the first as the last.

    `zones`: from when the hub is set to which zone. `shared`: places of devices that tell nobody
    apart although several use them; `guests`: of those that a guest may use. `offline`: the hub
    hears and cannot send; `off`: it hears nothing.
    """

    home: Home
    zones: tuple[tuple[datetime, str], ...]
    hubs: tuple[str, ...]
    replaced_at: datetime | None
    has_second_hub: bool
    shared: frozenset[int]
    resends: frozenset[int]
    lent: tuple[Lent, ...]
    offline: tuple[Stretch, ...]
    off: tuple[Stretch, ...]
    guest: Body
    bodies: Mapping[int, Body]

    def zone_at(self, moment: datetime) -> ZoneInfo:
        """Return the zone that the hub is set to."""
        return ZoneInfo([name for since, name in self.zones if since <= moment][-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Somebody uses a device. `slot` is the one that the reading will name."""

    at: datetime
    device: int
    person: int
    slot: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBattery:
    """A device is given a new battery."""

    at: datetime
    device: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resend:
    """A device wants to send all that it has kept again."""

    at: datetime
    device: int


Happening = Use | NewBattery | Resend


def generate_month(count: int, seed: int, days: int) -> tuple[Household, ...]:
    """Return households; number n of a seed is the same however many are asked for.

    But for the last of an odd number, each lends to and borrows from its neighbour: n ^ 1.
    """
    homes = generate_homes(count, seed)
    return tuple(
        _household(home, seed, days, has_neighbour=home.index ^ 1 < count) for home in homes
    )


def happenings(household: Household, day: int) -> list[Happening]:
    """Return what happens in a home on a day of the month, in order of time."""
    home = household.home
    generator = default_rng([home.seed, home.index, _DAY, day])
    facts = month_facts()
    begins_at = _local(household.zone_at(BEGINS_AT + timedelta(days=day)), day)
    found: list[Happening] = []
    for place, device in enumerate(home.devices):
        model = device.model
        first, last = model.hours
        count = generator.poisson(model.per_day)
        hours = sorted(generator.uniform(first, last, count))
        times = [begins_at + timedelta(hours=hour) for hour in hours]
        gap = timedelta(seconds=60)
        spaced = times[:1] + [later for earlier, later in pairwise(times) if later - earlier >= gap]
        found += [_use(household, place, at, generator) for at in spaced]
        if generator.random() < facts.faults.battery:
            found.append(NewBattery(at=_any_time(begins_at, generator), device=place))
        if place in household.resends and day % facts.faults.resend_days == 0:
            found.append(Resend(at=_any_time(begins_at, generator), device=place))
    return sorted(found, key=lambda happening: happening.at)


def _household(home: Home, seed: int, days: int, *, has_neighbour: bool) -> Household:
    generator = default_rng([seed, home.index, _PLAN])
    facts = month_facts()
    faults = facts.faults
    residents = _residents(home, generator)
    home = dataclasses.replace(home, residents=residents)
    zone = _choose(facts.zones, generator)
    devices = _devices(home, generator)
    home = dataclasses.replace(home, residents=residents, devices=devices, zone=zone)
    shared = frozenset(
        place
        for place, device in enumerate(devices)
        if len(device.users) > 1 and any(user.slot is None for user in device.users)
    )
    replaced = generator.random() < faults.replaced_hub
    hubs = [home.hub, *(generator.bytes(8).hex() for _more in range(2))]
    zones = [(BEGINS_AT - timedelta(days=1), zone)]
    if generator.random() < faults.moves_zone:
        zones.append((_some_night(zone, days, generator), _choose(facts.zones, generator)))
    return Household(
        home=home,
        zones=tuple(zones),
        hubs=tuple(hubs),
        replaced_at=_some_night(zone, days, generator) if replaced else None,
        has_second_hub=generator.random() < faults.second_hub,
        shared=shared,
        resends=frozenset(
            place
            for place, device in enumerate(devices)
            if device.model.keeps and device.model.clock.time_stamps
        ),
        lent=_lent(home, days, generator, has_neighbour=has_neighbour),
        offline=_stretches(faults.network_lost, faults.network_lost_days, zone, days, generator),
        off=_stretches(faults.hub_off, faults.hub_off_days, zone, days, generator),
        guest=_guest(home),
        bodies=bodies_of(home, BEGINS_AT),
    )


def _residents(home: Home, generator: Generator) -> tuple[Resident, ...]:
    facts = month_facts().household
    kind = _choose(facts.residents, generator)
    count = {"single": 1, "couple": 2}.get(kind, 3)
    sexes = [*generator.permutation(["female", "male"]).tolist(), "female"]
    residents = [
        Resident(
            person=home.index * 10 + number + 1,
            birth_year=int(generator.integers(1936, 1995)),
            sex=sexes[number],
            conditions=draw_conditions(generator),
        )
        for number in range(count)
    ]
    if kind == "couple_with_child":
        children = physiology().child
        child = children[int(generator.integers(len(children)))]
        residents[2] = dataclasses.replace(
            residents[2],
            birth_year=BEGINS_AT.year - child.age,
            levels=child.levels,
            conditions=(_CHILD,),
        )
    if count > 1 and generator.random() < facts.similar_weight:
        partner = bodies_of(dataclasses.replace(home, residents=tuple(residents)), BEGINS_AT)
        kg = partner[residents[0].person].levels["body_weight_kg"]
        near = kg + float(generator.normal(0, facts.similar_weight_kg))
        residents[1] = dataclasses.replace(residents[1], levels={"body_weight_kg": near})
    return tuple(residents)


def _devices(home: Home, generator: Generator) -> tuple[HomeDevice, ...]:
    faults = month_facts().faults
    several = len(home.residents) > 1
    found = []
    for device in home.devices:
        sign = BY_NAME[device.model.sign]
        model = device.model
        without_slots = [m for m in models_of(sign) if m.shared and not m.slots]
        is_shared = generator.random() < faults.shared_scale and several and bool(without_slots)
        is_shared = is_shared and sign.user_slots  # a scale: it could have told them apart
        if is_shared:
            model = without_slots[0]
        resends = bool(sign.gatt) and generator.random() < faults.resends
        model = dataclasses.replace(
            model,
            clock=_clock(model, generator, readable=bool(sign.gatt)),
            battery_lasts=0,
            keeps=model.clock.time_stamps and (resends or model.keeps) and bool(sign.gatt),
        )
        found.append(
            HomeDevice(
                model=model,
                address=device.address,
                users=_users(model, home.residents, shared=is_shared, generator=generator),
            )
        )
    return tuple(found)


def _users(
    model: DeviceModel, residents: Sequence[Resident], *, shared: bool, generator: Generator
) -> tuple[User, ...]:
    if model.slots:
        numbered = enumerate(residents[: model.slots], start=1)
        return tuple(User(person=resident.person, slot=slot) for slot, resident in numbered)
    if shared:
        return tuple(User(person=resident.person) for resident in residents)
    return (User(person=residents[int(generator.integers(len(residents)))].person),)


def _clock(model: DeviceModel, generator: Generator, *, readable: bool) -> ClockModel:
    facts = month_facts().clock
    clock = model.clock
    drift = generator.uniform(*facts.drift_s_per_day) * generator.choice((-1, 1))
    how_wrong = generator.random()
    if how_wrong < facts.right or not readable:
        fast_s = generator.uniform(-facts.right_s, facts.right_s)
    elif how_wrong < facts.right + facts.off_by_minutes:
        fast_s = generator.uniform(-facts.off_min, facts.off_min) * 60
    else:
        fast_s = generator.uniform(-facts.off_years, 0) * 365 * 86_400
    year = int(generator.choice(facts.default_dates))
    setting = Setting[_choose(facts.settings, generator)] if readable else Setting.NONE
    if clock.type is TimeType.TICKS:  # it counts from its last battery, and cannot be set
        fast_s, setting = 0.0, Setting.REFUSES
    return dataclasses.replace(
        clock,
        drift_ppm=float(drift) / _PPM_S_PER_DAY,
        fast_s=float(fast_s),
        setting=setting,
        starts_at=datetime(year, 1, 1, tzinfo=UTC),
    )


def _lent(home: Home, days: int, generator: Generator, *, has_neighbour: bool) -> tuple[Lent, ...]:
    faults = month_facts().faults
    found = []
    for place, device in enumerate(home.devices):
        slots = [user for user in device.users if user.slot is not None]
        to_neighbour, to_resident = generator.random(2)
        begins_at = _some_night(home.zone, days, generator)
        if device.model.sign != "blood_pressure":
            continue
        if has_neighbour and to_neighbour < faults.neighbours_cuff:
            during = Stretch(begins_at=begins_at, ends_at=begins_at + timedelta(days=2))
            person = (home.index ^ 1) * 10 + 1
            found.append(Lent(device=place, during=during, person=person))
        elif len(slots) > 1 and to_resident < faults.lent_slot:
            during = Stretch(begins_at=begins_at, ends_at=begins_at + timedelta(days=4))
            found.append(
                Lent(device=place, during=during, person=slots[1].person, slot=slots[0].slot)
            )
    return tuple(found)


def _use(household: Household, place: int, at: datetime, generator: Generator) -> Use:
    device = household.home.devices[place]
    user = device.users[int(generator.integers(len(device.users)))]
    person, slot = user.person, user.slot
    by_guest = generator.random() < month_facts().household.guest_uses
    for lent in household.lent:
        if lent.device == place and lent.during.holds(at) and lent.slot in (None, slot):
            person = lent.person
    if by_guest and (place in household.shared or device.model.slots):
        person, slot = GUEST, None  # a device with slots has a button for guests
    return Use(at=at, device=place, person=person, slot=slot)


def _guest(home: Home) -> Body:
    generator = default_rng([home.seed, home.index, _GUEST])
    return draw_body(
        (home.seed, home.index, _GUEST),
        sex=str(generator.choice(("female", "male"))),
        age=float(generator.uniform(20, 80)),
        conditions=(),
        first_day=BEGINS_AT.toordinal(),
        known={},
    )


def _stretches(
    share: float, days_long: tuple[int, int], zone: str, days: int, generator: Generator
) -> tuple[Stretch, ...]:
    is_hit, long = generator.random() < share, int(generator.integers(*days_long, endpoint=True))
    begins_at = _some_night(zone, days, generator) + timedelta(
        hours=float(generator.uniform(4, 14))
    )
    return (Stretch(begins_at=begins_at, ends_at=begins_at + timedelta(days=long)),) * is_hit


def _some_night(zone: str, days: int, generator: Generator) -> datetime:
    """Return a night within the month, not the first: something must have been before."""
    return _local(ZoneInfo(zone), int(generator.integers(1, max(days, 2)))) + _NIGHT


def _local(zone: ZoneInfo, day: int) -> datetime:
    """Return the midnight with which a day of the month begins, as UTC."""
    wall = (BEGINS_AT + timedelta(days=day)).replace(tzinfo=zone)
    return wall.astimezone(UTC)


def _any_time(begins_at: datetime, generator: Generator) -> datetime:
    return begins_at + timedelta(hours=float(generator.uniform(0, 24)))


def _choose(shares: Mapping[str, float], generator: Generator) -> str:
    names = list(shares)
    weights = [shares[name] / sum(shares.values()) for name in names]
    return names[int(generator.choice(len(names), p=weights))]
