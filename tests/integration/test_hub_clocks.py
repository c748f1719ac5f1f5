"""Devices with wrong clocks: what they say is placed at its true time, and their clocks are set."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bumble import hci

from edge.roster import Outcome
from firmware_sim.clock import ClockModel, Setting
from firmware_sim.model import DeviceModel
from gateway.gatt.times import TimeType
from gateway.measurement import Measurement, TimeQuality
from gateway.vital_sign import Framing, VitalSign
from gateway.vitals import BY_NAME, SIGNS
from tests.hub_agent import hub_agent
from tests.simulated import model_of, simulated_home, typical

pytestmark = pytest.mark.integration

CUFF = BY_NAME["blood_pressure"]
(TRACKER,) = [
    sign for sign in SIGNS if any(s.framing is Framing.STORED_SEGMENTS for s in sign.gatt)
]
YEAR = timedelta(days=365).total_seconds()
NEARLY = timedelta(seconds=2)
"""A clock of whole seconds, read over a link."""


def with_clock(sign: VitalSign, clock: ClockModel) -> DeviceModel:
    return replace(model_of(sign), clock=clock, idle_s=0.3)


def is_near(measurement: Measurement, true_at: datetime) -> bool:
    return abs(measurement.measured_at - true_at) <= NEARLY


@pytest.mark.parametrize("fast_s", [-16 * YEAR, -3600.0, -60.0, 60.0, 8 * 3600.0, 3 * YEAR])
@pytest.mark.parametrize("sign", [CUFF, TRACKER], ids=lambda sign: sign.name)
async def test_a_wrong_clock_is_seen_through_and_set(
    bluetooth: str, tmp_path: Path, sign: VitalSign, fast_s: float
) -> None:
    model = with_clock(sign, ClockModel(fast_s=fast_s))
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model)
        old = device.take(typical(sign), at=datetime.now(UTC) - timedelta(days=2))
        (first,) = await hub.measurements(1)
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        assert hub.counts.clocks_set == 1
        new = device.take(typical(sign, more=1))
        first, second = await hub.measurements(2)
    assert is_near(first, old.taken_at)
    assert first.time_quality in {TimeQuality.MAPPED, TimeQuality.MAPPED_EARLIER}
    assert is_near(second, new.taken_at)
    assert second.time_quality is TimeQuality.SYNCHRONISED


@pytest.mark.parametrize("setting", [Setting.IGNORES, Setting.REFUSES])
@pytest.mark.parametrize("sign", [CUFF, TRACKER], ids=lambda sign: sign.name)
async def test_a_clock_that_cannot_be_set_is_not_believed_to_be(
    bluetooth: str, tmp_path: Path, sign: VitalSign, setting: Setting
) -> None:
    model = with_clock(sign, ClockModel(fast_s=-YEAR, setting=setting))
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model)
        records = []
        for more in range(2):
            records.append(device.take(typical(sign, more=more)))
            await hub.measurements(more + 1)
            await hub.until(lambda done=more: hub.counts.sessions[Outcome.TAKEN] > done)  # type: ignore[misc] # bound here
        measurements = await hub.measurements(2)
    assert hub.counts.clocks_set == 0
    assert hub.counts.clocks_refused == 2
    for record, measurement in zip(records, measurements, strict=True):
        assert is_near(measurement, record.taken_at)
        assert measurement.time_quality is TimeQuality.MAPPED


@pytest.mark.parametrize("kind", [TimeType.LOCAL, TimeType.UTC, TimeType.TICKS])
async def test_every_kind_of_clock_is_understood(
    bluetooth: str, tmp_path: Path, kind: TimeType
) -> None:
    model = with_clock(TRACKER, ClockModel(type=kind, fast_s=YEAR))
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        record = home.add(model).take(typical(TRACKER))
        (measurement,) = await hub.measurements(1)
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        assert hub.counts.clocks_set == (kind is not TimeType.TICKS)
    assert is_near(measurement, record.taken_at)
    assert measurement.time_quality is TimeQuality.MAPPED


@pytest.mark.parametrize("sign", [CUFF, TRACKER], ids=lambda sign: sign.name)
async def test_a_record_from_before_a_new_battery_is_placed_on_the_time_line_it_was_taken_on(
    bluetooth: str, tmp_path: Path, sign: VitalSign
) -> None:
    clock = ClockModel(starts_at=datetime(2020, 1, 1, tzinfo=UTC), setting=Setting.IGNORES)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(with_clock(sign, clock))
        device.take(typical(sign))
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        home.air.silent.add(hci.Address(device.address))
        before = device.take(typical(sign, more=1))
        device.replace_battery()
        after = device.take(typical(sign, more=2))
        home.air.silent.clear()
        _first, earlier, later = await hub.measurements(3)
    assert is_near(earlier, before.taken_at)
    assert earlier.time_quality is TimeQuality.MAPPED_EARLIER
    assert is_near(later, after.taken_at)
    assert later.time_quality is TimeQuality.MAPPED


async def test_what_a_device_stamped_on_a_time_line_that_nobody_saw_cannot_be_placed(
    bluetooth: str, tmp_path: Path
) -> None:
    clock = ClockModel(starts_at=datetime(2020, 1, 1, tzinfo=UTC), setting=Setting.IGNORES)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(with_clock(CUFF, clock))
        device.take(typical(CUFF))
        device.replace_battery()
        (measurement,) = await hub.measurements(1)
    assert measurement.time_quality is TimeQuality.UNPLACED
    assert measurement.measured_at == measurement.received_at
    assert measurement.reading.device_time is not None


async def test_a_clock_that_knows_no_date_is_given_one(bluetooth: str, tmp_path: Path) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(with_clock(CUFF, ClockModel()))
        device.replace_battery()
        device.take(typical(CUFF))
        (undated,) = await hub.measurements(1)
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        record = device.take(typical(CUFF, more=1))
        undated, dated = await hub.measurements(2)
    assert undated.time_quality is TimeQuality.RECEPTION
    assert dated.time_quality is TimeQuality.SYNCHRONISED
    assert is_near(dated, record.taken_at)


async def test_a_clock_that_shows_nonsense_is_set(bluetooth: str, tmp_path: Path) -> None:
    nonsense = ClockModel(type=TimeType.UTC, fast_s=2.0**47)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(with_clock(TRACKER, nonsense))
        device.take(typical(TRACKER))
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        record = device.take(typical(TRACKER, more=1))
        first, second = await hub.measurements(2)
    assert first.time_quality is TimeQuality.UNPLACED
    assert second.time_quality is TimeQuality.SYNCHRONISED
    assert is_near(second, record.taken_at)


async def test_without_a_time_stamp_the_reception_counts(bluetooth: str, tmp_path: Path) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        home.add(with_clock(CUFF, ClockModel(time_stamps=False))).take(typical(CUFF))
        (measurement,) = await hub.measurements(1)
    assert measurement.time_quality is TimeQuality.RECEPTION
    assert measurement.measured_at == measurement.received_at


async def test_without_a_clock_to_read_a_time_stamp_of_now_speaks_for_the_clock(
    bluetooth: str, tmp_path: Path
) -> None:
    """And once it has spoken, older records of that device can be placed too."""
    clock = ClockModel(setting=Setting.NONE)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(with_clock(CUFF, clock))
        now = device.take(typical(CUFF))
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        old = device.take(typical(CUFF, more=1), at=datetime.now(UTC) - timedelta(days=3))
        first, second = await hub.measurements(2)
    for measurement, record in ((first, now), (second, old)):
        assert measurement.time_quality is TimeQuality.SYNCHRONISED
        assert is_near(measurement, record.taken_at)


async def test_without_a_clock_to_read_a_wrong_time_stamp_is_not_believed(
    bluetooth: str, tmp_path: Path
) -> None:
    clock = ClockModel(setting=Setting.NONE, fast_s=-YEAR)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        home.add(with_clock(CUFF, clock)).take(typical(CUFF))
        (measurement,) = await hub.measurements(1)
    assert measurement.time_quality is TimeQuality.UNPLACED
