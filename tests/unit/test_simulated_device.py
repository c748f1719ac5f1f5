"""What simulated devices remember, what their clocks show and how their payloads break."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from firmware_sim.clock import ClockModel, DeviceClock, Setting
from firmware_sim.device import PADDED_BYTES, SimulatedDevice, failed_values
from firmware_sim.journal import Event, Journal
from firmware_sim.model import DeviceModel, Garble
from gateway.errors import DecodeError, Fault
from gateway.gatt.times import DeviceTime, TimeType, from_ms, local_device_time, ms_since_epoch
from gateway.quantity import Absent
from gateway.vital_sign import AdvertisedSource, GattSource, VitalSign
from gateway.vitals import BY_NAME, SIGNS
from tests.simulated import typical

NOON = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
CHINA = timedelta(hours=8)
CUFF = BY_NAME["blood_pressure"]
SOURCE = CUFF.gatt[0]
IDS = [sign.name for sign in SIGNS]


class Watch:
    """True time, set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def device_of(
    model: DeviceModel, watch: Watch | None = None, journal: Journal | None = None
) -> SimulatedDevice:
    return SimulatedDevice(
        model,
        BY_NAME[model.sign],
        "C0:26:DA:01:02:03",
        journal=journal or Journal(None),
        utc_offset=CHINA,
        now=watch or Watch(),
    )


def can_fail(sign: VitalSign) -> bool:
    """Tell whether a format has a special value; of those on the air only, none has."""
    model = DeviceModel(name="plain", sign=sign.name)
    return bool(sign.gatt) and failed_values(sign, model) is not None


def cuff(**differences: object) -> DeviceModel:
    return replace(DeviceModel(name="cuff", sign=CUFF.name), **differences)  # type: ignore[arg-type] # the test's own keys


# Memory


def test_a_full_memory_overwrites_its_oldest_record_and_counts_it() -> None:
    device = device_of(cuff(memory=3))
    for _ in range(5):
        device.take(typical(CUFF))
    assert [record.number for record in device.memory] == [3, 4, 5]
    assert device.memory.overwritten == 2


def test_a_delivered_record_is_forgotten() -> None:
    device = device_of(cuff())
    first, second = device.take(typical(CUFF)), device.take(typical(CUFF))
    device.delivered(first, Event.CONFIRMED)
    assert device.memory.oldest() == second


def test_a_device_that_trusts_no_hub_sends_its_whole_memory_again() -> None:
    device = device_of(cuff(keeps=True))
    first, second = device.take(typical(CUFF)), device.take(typical(CUFF))
    device.delivered(first, Event.CONFIRMED)
    assert list(device.memory) == [second]
    device.resend()
    assert list(device.memory) == [first, second]


def test_kept_records_make_room_before_unsent_ones_do() -> None:
    device = device_of(cuff(keeps=True, memory=2))
    device.delivered(device.take(typical(CUFF)), Event.CONFIRMED)
    unsent = [device.take(typical(CUFF)) for _ in range(2)]
    assert list(device.memory) == unsent
    assert device.memory.overwritten == 0


# Readings


@pytest.mark.parametrize("sign", SIGNS, ids=IDS)
def test_a_plain_device_of_every_sign_says_what_it_measured(sign: VitalSign) -> None:
    device = device_of(DeviceModel(name="plain", sign=sign.name))
    record = device.take(typical(sign))
    sources: list[GattSource | AdvertisedSource] = [*sign.gatt, *sign.advertised]
    for source in sources:
        assert source.decode(device.payload(record, source)).values == typical(sign)


def test_a_quantity_that_is_left_out_is_not_sent() -> None:
    device = device_of(cuff(omits=frozenset({CUFF.quantities[-1].name})))
    payload = device.payload(device.take(typical(CUFF)), SOURCE)
    assert SOURCE.decode(payload).values == (*typical(CUFF)[:-1], Absent.NOT_SENT)


@pytest.mark.parametrize("sign", [sign for sign in SIGNS if can_fail(sign)], ids=lambda s: s.name)
def test_a_failed_measurement_is_told_by_special_values(sign: VitalSign) -> None:
    device = device_of(DeviceModel(name="plain", sign=sign.name, failed_every=2))
    device.take(typical(sign))
    payload = device.payload(device.take(typical(sign)), sign.gatt[0])
    assert isinstance(sign.gatt[0].decode(payload).values[0], Absent)


def test_artefacts_are_told_in_turn() -> None:
    device = device_of(cuff(artefact_every=1))
    told = {device.take(typical(CUFF)).reading.status for _ in CUFF.artefact_statuses}
    assert told == {status.value for status in CUFF.artefact_statuses}


def test_a_slot_is_told_only_by_a_device_that_has_slots() -> None:
    assert device_of(cuff(slots=2)).take(typical(CUFF), slot=1).reading.user_slot == 1
    assert device_of(cuff()).take(typical(CUFF), slot=1).reading.user_slot is None


@pytest.mark.parametrize(
    ("garble", "fault"), [(Garble.PADDED, Fault.TRAILING), (Garble.CUT, Fault.TRUNCATED)]
)
def test_a_garbled_payload_does_not_decode(garble: Garble, fault: Fault) -> None:
    device = device_of(cuff(garble=garble, garbled_every=2))
    SOURCE.decode(device.payload(device.take(typical(CUFF)), SOURCE))
    broken = device.payload(device.take(typical(CUFF)), SOURCE)
    assert len(broken) <= PADDED_BYTES
    with pytest.raises(DecodeError) as error:
        SOURCE.decode(broken)
    assert error.value.fault is fault


# Clocks


def test_a_right_clock_shows_the_homes_wall_time() -> None:
    assert running(ClockModel()).reads(NOON) == replace(
        local_device_time(NOON + CHINA), current=True, synced=False
    )


def test_a_clock_that_runs_fast_gets_ahead() -> None:
    clock = running(ClockModel(drift_ppm=100))
    day = NOON + timedelta(days=1)
    assert shown(clock, day) - (day + CHINA) == timedelta(seconds=8)  # 8.64 s, in whole seconds


def test_a_time_stamp_is_of_when_it_was_taken() -> None:
    watch = Watch()
    device = device_of(cuff(clock=ClockModel(fast_s=60)), watch)
    record = device.take(typical(CUFF))
    watch.now += timedelta(hours=1)
    sent = SOURCE.decode(device.payload(record, SOURCE)).device_time
    assert sent == local_device_time(NOON + CHINA + timedelta(seconds=60))


def test_setting_a_clock_starts_a_new_time_line() -> None:
    clock = running(ClockModel(type=TimeType.UTC, fast_s=3600))
    before = clock.stamp(NOON)
    clock.set(DeviceTime(type=TimeType.UTC, ms=ms_since_epoch(NOON), synced=True), NOON)
    after = clock.stamp(NOON)
    earlier, now = clock.device_time(before), clock.device_time(after)
    assert earlier is not None
    assert now is not None
    assert (earlier.current, now.current) == (False, True)
    assert earlier.ms - now.ms == 3_600_000
    assert now.synced


@pytest.mark.parametrize("setting", [Setting.IGNORES, Setting.REFUSES, Setting.NONE])
def test_a_clock_that_does_not_take_a_setting_goes_on_as_before(setting: Setting) -> None:
    clock = running(ClockModel(fast_s=3600, setting=setting))
    clock.set(local_device_time(NOON + CHINA), NOON)
    assert shown(clock, NOON) == NOON + CHINA + timedelta(hours=1)


def test_a_new_battery_takes_the_clock_back_to_its_first_date() -> None:
    first = datetime(2015, 1, 1, tzinfo=UTC)
    clock = running(ClockModel(starts_at=first))
    clock.replace_battery(NOON)
    assert shown(clock, NOON + timedelta(minutes=5)) == first + timedelta(minutes=5)


def test_a_clock_without_a_first_date_knows_none_after_a_new_battery() -> None:
    watch = Watch()
    device = device_of(cuff(), watch)
    device.replace_battery()
    assert device.clock.reads(NOON) is None
    payload = device.payload(device.take(typical(CUFF)), SOURCE)
    assert SOURCE.decode(payload).device_time is None


def test_a_tick_counter_starts_again_at_zero() -> None:
    clock = running(ClockModel(type=TimeType.TICKS))
    clock.replace_battery(NOON)
    time = clock.reads(NOON + timedelta(seconds=30))
    assert time is not None
    assert (time.type, time.ms) == (TimeType.TICKS, 30_000)


# The journal


def test_the_journal_holds_what_was_taken_of_whom_and_what_became_of_it(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    with Journal(path) as journal:
        device = device_of(cuff(memory=1, slots=2), journal=journal)
        device.take(typical(CUFF), person=7, slot=2)
        record = device.take(typical(CUFF), person=7)
        device.delivered(record, Event.CONFIRMED)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["event"], line["record"]) for line in lines] == [
        ("taken", 1),
        ("taken", 2),
        ("overwritten", 1),
        ("confirmed", 2),
    ]
    taken = lines[0]
    assert taken["person"] == 7
    assert taken["user_slot"] == 2
    assert taken["values"] == [str(value) for value in typical(CUFF)]
    assert taken["taken_at"] == NOON.isoformat()
    assert taken["device_time_ms"] == ms_since_epoch(NOON + CHINA)
    assert all(line["monotonic_ns"] <= lines[-1]["monotonic_ns"] for line in lines)


def running(model: ClockModel) -> DeviceClock:
    return DeviceClock.running(model, NOON, CHINA)


def shown(clock: DeviceClock, now: datetime) -> datetime:
    time = clock.reads(now)
    assert time is not None
    return from_ms(time.ms)
