"""The hub agent reads simulated devices over real bleak; what it kept is in its outbox."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.intake import framing_of
from edge.roster import Outcome
from firmware_sim.model import Garble
from gateway.errors import Fault
from gateway.measurement import Measurement, Undecoded, device_id
from gateway.quantity import Absent
from gateway.vital_sign import Framing, VitalSign
from gateway.vitals import BY_NAME, SIGNS
from tests.hub_agent import HURRY, hub_agent, items_in
from tests.simulated import ADDRESS, model_of, simulated_home, typical

pytestmark = pytest.mark.integration

CUFF = BY_NAME["blood_pressure"]
SCALE = BY_NAME["body_weight"]
STORED = [sign for sign in SIGNS if any(s.framing is Framing.STORED_SEGMENTS for s in sign.gatt)]
ASKED_FOR = [sign for sign in SIGNS if any(s.framing is Framing.STORED for s in sign.gatt)]
ADVERTISED = [sign for sign in SIGNS if sign.advertised]


@pytest.mark.parametrize("sign", SIGNS, ids=[sign.name for sign in SIGNS])
async def test_a_reading_is_kept_digit_by_digit(
    bluetooth: str, tmp_path: Path, sign: VitalSign
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model_of(sign))
        record = device.take(typical(sign))
        (measurement,) = await hub.measurements(1)
        await hub.until(lambda: not len(device.memory))
    assert measurement.device == device_id(ADDRESS)
    assert measurement.sign == sign.code
    assert sent(measurement) == list(map(str, typical(sign)))
    assert abs(measurement.measured_at - record.taken_at) < timedelta(seconds=1.5)
    assert measurement.utc_offset_min == 480


@pytest.mark.parametrize("sign", SIGNS, ids=[sign.name for sign in SIGNS])
async def test_a_device_may_use_any_of_its_signs_units(
    bluetooth: str, tmp_path: Path, sign: VitalSign
) -> None:
    last = len(sign.unit_sets) - 1
    steps = sign.unit_sets[last].steps
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        home.add(replace(model_of(sign), unit_set=last)).take([100 * step for step in steps])
        (measurement,) = await hub.measurements(1)
    assert measurement.reading.unit_set == last
    assert sent(measurement) == [str(100 * step) for step in steps]


async def test_the_whole_memory_of_a_device_comes_in_one_session(
    bluetooth: str, tmp_path: Path
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model_of(CUFF))
        began_at = datetime.now(UTC) - timedelta(days=3)
        for hour in range(30):
            device.take(typical(CUFF, more=hour), at=began_at + timedelta(hours=2 * hour))
        measurements = await hub.measurements(30)
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
    assert [sent(m)[0] for m in measurements] == [
        str(typical(CUFF, more=hour)[0]) for hour in range(30)
    ]
    for hour, measurement in enumerate(measurements):
        taken_at = began_at + timedelta(hours=2 * hour)
        assert abs(measurement.measured_at - taken_at) < timedelta(seconds=1.5)


async def test_user_slots_and_failed_measurements_are_kept(bluetooth: str, tmp_path: Path) -> None:
    model = replace(model_of(SCALE), slots=4, failed_every=2)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model)
        device.take(typical(SCALE), slot=2)
        device.take(typical(SCALE), slot=3)
        first, second = await hub.measurements(2)
    assert (first.reading.user_slot, second.reading.user_slot) == (2, 3)
    assert second.reading.values[0] is Absent.UNSUCCESSFUL


@pytest.mark.parametrize("sign", STORED, ids=[sign.name for sign in STORED])
async def test_stored_records_are_deleted_on_the_device_once_they_are_durable(
    bluetooth: str, tmp_path: Path, sign: VitalSign
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model_of(sign))
        for number in range(40):
            device.take(typical(sign, more=number))
        await hub.until(lambda: not len(device.memory))
        # Deleted: then they are all in the file already, sealed or not.
        assert hub.storage.depth.held >= 40
        measurements = await hub.measurements(40)
    assert all(m.stored_record for m in measurements[:40])
    assert [sent(m)[0] for m in measurements] == [
        str(typical(sign, more=number)[0]) for number in range(40)
    ]


@pytest.mark.parametrize("sign", STORED, ids=[sign.name for sign in STORED])
async def test_a_reading_taken_while_connected_comes_live(
    bluetooth: str, tmp_path: Path, sign: VitalSign
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(replace(model_of(sign), idle_s=5.0))
        device.take(typical(sign))
        await hub.measurements(1)
        device.take(typical(sign, more=1))
        first, second = await hub.measurements(2)
    assert (first.stored_record, second.stored_record) == (True, False)


@pytest.mark.parametrize("sign", ASKED_FOR, ids=[sign.name for sign in ASKED_FOR])
async def test_records_that_stay_on_the_device_are_asked_for_whenever_it_is_heard(
    bluetooth: str, tmp_path: Path, sign: VitalSign
) -> None:
    """A meter tells nothing of itself (Glucose Service 1.0.1, 3.4), and its memory is its user's."""
    began_at = datetime.now(UTC) - timedelta(days=2)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(replace(model_of(sign), keeps=True))
        for number in range(20):
            device.take(typical(sign, more=number), at=began_at + timedelta(hours=number))
        first = await hub.measurements(20)
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        device.resend()
        again = (await hub.measurements(40))[20:]
    assert all(m.stored_record for m in first)
    told = [str(typical(sign, more=number)[0]) for number in range(20)]
    assert [sent(m)[0] for m in first] == [sent(m)[0] for m in again] == told
    assert [m.reading.device_time for m in first] == [m.reading.device_time for m in again]
    for number, measurement in enumerate(first):
        taken_at = began_at + timedelta(hours=number)
        assert abs(measurement.measured_at - taken_at) < timedelta(seconds=1.5)


@pytest.mark.parametrize("sign", ADVERTISED, ids=[sign.name for sign in ADVERTISED])
async def test_each_advertised_reading_is_kept_once(
    bluetooth: str, tmp_path: Path, sign: VitalSign
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model_of(sign))
        for _ in range(5):
            device.take(typical(sign))
        await hub.measurements(5)
        await hub.until(lambda: not len(device.memory))
        assert hub.counts.repeats > 5
        assert len(await items_in(hub.storage)) == 5


@pytest.mark.parametrize("sign", ADVERTISED, ids=[sign.name for sign in ADVERTISED])
async def test_a_repeat_is_known_after_a_restart_of_the_hub(
    bluetooth: str, tmp_path: Path, sign: VitalSign
) -> None:
    async with simulated_home(bluetooth) as home:
        device = home.add(replace(model_of(sign), repeats_s=10.0))
        device.take(typical(sign))
        async with hub_agent(tmp_path) as hub:
            await hub.measurements(1)
        async with hub_agent(tmp_path) as hub:
            await hub.until(lambda: hub.counts.repeats > 3)
            assert len(await items_in(hub.storage)) == 1


@pytest.mark.parametrize("garble", [Garble.CUT, Garble.PADDED])
async def test_a_payload_that_nobody_reads_is_kept_whole(
    bluetooth: str, tmp_path: Path, garble: Garble
) -> None:
    model = replace(model_of(CUFF), garble=garble, garbled_every=2)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model)
        device.take(typical(CUFF))
        broken = device.take(typical(CUFF, more=1))
        items = await hub.items(2)
    (payload,) = [item for item in items if isinstance(item, Undecoded)]
    assert payload.payload == device.payload(broken, CUFF.gatt[0])
    assert payload.source == CUFF.gatt[0].characteristic
    assert payload.fault in {Fault.TRUNCATED, Fault.TRAILING}
    assert payload.clock_offset_ms is not None
    assert abs(payload.clock_offset_ms + 8 * 3600 * 1000) < 2000
    assert payload.utc_offset_min == 480


async def test_a_stored_record_whose_payload_is_broken_does_not_stay_for_ever(
    bluetooth: str, tmp_path: Path
) -> None:
    (sign,) = STORED
    model = replace(model_of(sign), garble=Garble.CUT, garbled_every=2)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(model)
        for _ in range(4):
            device.take(typical(sign))
        items = await hub.items(4)
        await hub.until(lambda: not len(device.memory))
    kept = [item for item in items if isinstance(item, Undecoded)]
    assert len(kept) == 2
    assert all(framing_of(item.source) is Framing.STORED_SEGMENTS for item in kept)


async def test_all_devices_of_a_home_are_read(bluetooth: str, tmp_path: Path) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        devices = {}
        for number, sign in enumerate((*SIGNS, *SIGNS)):
            address = f"C0:26:DA:01:02:{number:02X}"
            devices[device_id(address)] = device = home.add(model_of(sign), address)
            for more in range(3):
                device.take(typical(sign, more=more))
        measurements = await hub.measurements(3 * len(devices))
    for device_number in devices:
        assert sum(m.device == device_number for m in measurements) == 3


async def test_a_device_that_is_not_listed_is_left_alone(bluetooth: str, tmp_path: Path) -> None:
    listed, stranger = "C0:26:DA:01:02:01", "C0:26:DA:01:02:02"
    settings = replace(HURRY, listed=frozenset({device_id(listed)}), accepts_any=False)
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path, settings) as hub:
        neighbours = home.add(model_of(CUFF), stranger)
        neighbours.take(typical(CUFF))
        home.add(model_of(CUFF), listed).take(typical(CUFF))
        (measurement,) = await hub.measurements(1)
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        assert len(neighbours.memory) == 1
    assert measurement.device == device_id(listed)


async def test_a_device_that_never_hangs_up_is_left_once_it_is_quiet(
    bluetooth: str, tmp_path: Path
) -> None:
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(replace(model_of(CUFF), idle_s=600.0))
        device.take(typical(CUFF))
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        await hub.until(lambda: not home.peripheral(device).connected)
        device.take(typical(CUFF, more=1))
        await hub.measurements(2)


async def test_a_device_that_two_adapters_hear_is_read_once(bluetooth: str, tmp_path: Path) -> None:
    settings = replace(HURRY, adapters=("hci0", "hci1"))
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path, settings) as hub:
        await home.bluez.add_adapter(home.air, "00:00:5E:00:53:02")
        bottle = BY_NAME["water_intake"]
        device = home.add(model_of(CUFF))
        device.take(typical(CUFF))
        home.add(model_of(bottle), "C0:26:DA:01:02:04").take(typical(bottle))
        await hub.measurements(2)
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        assert len(await items_in(hub.storage)) == 2
        assert sum(hub.counts.sessions.values()) == 1


async def test_a_device_that_sends_its_memory_again_is_believed_again(
    bluetooth: str, tmp_path: Path
) -> None:
    """The same reading twice is one row; that is ingest's to decide, by the device's own time."""
    async with simulated_home(bluetooth) as home, hub_agent(tmp_path) as hub:
        device = home.add(replace(model_of(CUFF), keeps=True))
        device.take(typical(CUFF))
        await hub.measurements(1)
        await hub.until(lambda: hub.counts.sessions[Outcome.TAKEN] == 1)
        device.resend()
        first, again = await hub.measurements(2)
    assert first.reading.device_time == again.reading.device_time
    assert first.measured_at == again.measured_at


def sent(measurement: Measurement) -> list[str]:
    """Return the values with the digits that were sent; what was not sent is left out."""
    return [str(v) for v in measurement.reading.values if v is not Absent.NOT_SENT]
