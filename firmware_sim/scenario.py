"""How homes live: who uses which device when. It talks to devices only, whatever carries them.

Readings are taken at random intervals, as often as model and pace say. True time stays true time: a
faster pace means more readings, not a faster clock.
"""

from __future__ import annotations

import asyncio
from asyncio import TaskGroup
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from numpy.random import Generator, default_rng

from firmware_sim.device import SimulatedDevice
from firmware_sim.homes import Home, HomeDevice
from firmware_sim.physiology import Body, draw_body

DAY_S = 86_400.0
SPACING_S = 2.0
"""A device takes no two readings closer together, whatever the pace: its time-stamps count whole
seconds, and a real one takes longer."""
INTERVAL_SHAPE = 2.0
"""Of the gamma distribution of the intervals: more regular than by pure chance."""
BACKLOG_SPACING_S = 6 * 3600.0
"""A backlog's readings lie so far apart, the last one this long before the start."""

_BODY, _BACKLOG, _USE = 1, 2, 3
"""What a random stream is for; the rest of its key is seed, home and place in the home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often devices are used. As it stands: as real people do, with their nights."""

    factor: float = 1.0
    """So many times as often; other than 1, hours of the day mean nothing."""
    mean_interval_s: float | None = None
    """Each device so often, whatever its model says."""

    @property
    def real(self) -> bool:
        """Whether hours of the day mean anything."""
        return self.factor == 1.0 and self.mean_interval_s is None

    @property
    def day_s(self) -> float:
        """How long a day's habits take."""
        return DAY_S / self.factor

    def interval_s(self, per_day: float) -> float:
        """Return the mean time between readings of a device."""
        return self.mean_interval_s or self.day_s / per_day


def evenly(homes: Sequence[Home], readings_per_s: float) -> Pace:
    """Return the pace of a demonstration: all `homes` together take `readings_per_s`.

    Every device takes part alike, so that also what is measured twice a day is seen.
    """
    return Pace(mean_interval_s=sum(len(home.devices) for home in homes) / readings_per_s)


def bodies_of(home: Home, first_day: datetime) -> dict[int, Body]:
    """Return each resident's body, by person."""
    return {
        resident.person: draw_body(
            (home.seed, home.index, _BODY, place),
            sex=resident.sex,
            age=first_day.year - resident.birth_year,
            conditions=resident.conditions,
            first_day=first_day.toordinal(),
            known=resident.levels,
        )
        for place, resident in enumerate(home.residents)
    }


class Life:
    """One home's days. `devices` stand in the order of the home's own."""

    def __init__(self, home: Home, devices: Sequence[SimulatedDevice], pace: Pace) -> None:
        self._home = home
        self._devices = tuple(zip(home.devices, devices, strict=True))
        self._pace = pace
        self._zone = ZoneInfo(home.zone)
        self._bodies = bodies_of(home, devices[0].now())

    def fill_memories(self) -> None:
        """Let the devices take the readings that they hold from before the start."""
        for place, (described, device) in enumerate(self._devices):
            generator = self._generator(_BACKLOG, place)
            now = device.now()
            for back in range(described.backlog, 0, -1):
                at = now - timedelta(seconds=back * BACKLOG_SPACING_S)
                self._take(described, device, generator, at)

    def start(self, tasks: TaskGroup) -> None:
        """Let the residents use their devices until the tasks are cancelled."""
        for place, (described, device) in enumerate(self._devices):
            tasks.create_task(self._use(described, device, self._generator(_USE, place)))

    async def _use(
        self, described: HomeDevice, device: SimulatedDevice, generator: Generator
    ) -> None:
        mean_s = self._pace.interval_s(described.model.per_day)
        since_resend_s = 0.0
        # Not all at once: the first comes after some part of an interval.
        wait_s = mean_s * generator.random()
        while True:
            await asyncio.sleep(wait_s)
            if self._is_awake(described, device):
                self._take(described, device, generator, None)
            since_resend_s += wait_s
            if described.model.keeps and since_resend_s >= self._pace.day_s:
                device.resend()
                since_resend_s = 0.0
            drawn_s = generator.gamma(INTERVAL_SHAPE, mean_s / INTERVAL_SHAPE)
            wait_s = max(SPACING_S, drawn_s)

    def _is_awake(self, described: HomeDevice, device: SimulatedDevice) -> bool:
        if not self._pace.real:
            return True
        first, last = described.model.hours
        return first <= device.now().astimezone(self._zone).hour < last

    def _take(
        self,
        described: HomeDevice,
        device: SimulatedDevice,
        generator: Generator,
        at: datetime | None,
    ) -> None:
        user = described.users[int(generator.integers(len(described.users)))]
        local = (at or device.now()).astimezone(self._zone)
        values = self._bodies[user.person].measure(
            device.sign, device.model.unit_set, local, generator
        )
        device.take(values, at=at, person=user.person, slot=user.slot)

    def _generator(self, purpose: int, place: int) -> Generator:
        return default_rng([self._home.seed, self._home.index, purpose, place])
