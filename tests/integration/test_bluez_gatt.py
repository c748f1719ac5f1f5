"""The real, unmodified bleak reads simulated devices through the simulated BlueZ."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.exc import BleakGATTProtocolError

from firmware_sim.clock import ClockModel, Setting
from gateway.gatt import health_observation as ghs
from gateway.gatt import record_access
from gateway.gatt.times import TimeType, decode_current_time, encode_current_time
from gateway.gatt.uuids import (
    BATTERY_LEVEL,
    CURRENT_TIME,
    CURRENT_TIME_SERVICE,
    DEVICE_INFORMATION_SERVICE,
    MODEL_NUMBER,
    uuid128,
)
from gateway.vital_sign import Framing, GattSource, VitalSign
from gateway.vitals import BY_NAME, SIGNS
from tests.simulated import (
    CHINA,
    WITHIN_S,
    Ending,
    Subscription,
    all_heard,
    heard,
    model_of,
    simulated_home,
    typical,
)

pytestmark = pytest.mark.integration

CUFF = BY_NAME["blood_pressure"]
SCALE = BY_NAME["body_weight"]
TRACKER = BY_NAME["activity"]
INDICATED = CUFF.gatt[0]
STORED = next(s for s in TRACKER.gatt if s.framing is Framing.STORED_SEGMENTS)
LIVE = next(s for s in TRACKER.gatt if s.framing is Framing.SEGMENTS)
SIMPLE = [
    pytest.param(sign, source, id=sign.name)
    for sign in SIGNS
    for source in sign.gatt
    if source.framing is Framing.WHOLE
]


@pytest.mark.parametrize(("sign", "source"), SIMPLE)
async def test_readings_are_indicated_oldest_first_and_then_the_device_hangs_up(
    bluetooth: str, sign: VitalSign, source: GattSource
) -> None:
    async with simulated_home(bluetooth) as home:
        device = home.add(model_of(sign))
        taken = [device.take(typical(sign, more=i)).reading.values for i in range(3)]
        subscription, ending = Subscription(), Ending()
        async with BleakClient(await heard(), ending) as client:
            await subscription.subscribe(client, source)
            await ending.wait()
        assert [source.decode(value).values for value in subscription.values] == taken
        assert len(device.memory) == 0


async def test_two_equal_indications_both_arrive(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        device = home.add(replace(model_of(CUFF), clock=ClockModel(time_stamps=False)))
        for _ in range(2):
            device.take(typical(CUFF))
        subscription = Subscription()
        async with BleakClient(await heard()) as client:
            await subscription.subscribe(client, INDICATED)
            first, second = await subscription.wait_for(2)
        assert first == second


async def test_the_device_tells_what_it_is(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        home.add(replace(model_of(CUFF), battery_percent=80)).take(typical(CUFF))
        async with BleakClient(await heard()) as client:
            services = {service.uuid for service in client.services}
            assert {uuid128(INDICATED.service), uuid128(DEVICE_INFORMATION_SERVICE)} <= services
            assert uuid128(CURRENT_TIME_SERVICE) in services
            assert await client.read_gatt_char(uuid128(MODEL_NUMBER)) == b"simulated"
            assert await client.read_gatt_char(uuid128(BATTERY_LEVEL)) == bytes((80,))


async def test_a_wrong_clock_is_read_and_set(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        device = home.add(replace(model_of(CUFF), clock=ClockModel(fast_s=86_400)))
        device.take(typical(CUFF))
        async with BleakClient(await heard()) as client:
            assert await clock_error(client) > timedelta(hours=23)
            right = encode_current_time((datetime.now(UTC) + CHINA).replace(tzinfo=None))
            await client.write_gatt_char(uuid128(CURRENT_TIME), right, response=True)
            assert abs(await clock_error(client)) < timedelta(seconds=5)


async def test_a_clock_can_take_a_setting_and_go_on_as_before(bluetooth: str) -> None:
    clock = ClockModel(fast_s=86_400, setting=Setting.IGNORES)
    async with simulated_home(bluetooth) as home:
        home.add(replace(model_of(CUFF), clock=clock)).take(typical(CUFF))
        async with BleakClient(await heard()) as client:
            right = encode_current_time((datetime.now(UTC) + CHINA).replace(tzinfo=None))
            await client.write_gatt_char(uuid128(CURRENT_TIME), right, response=True)
            assert await clock_error(client) > timedelta(hours=23)


async def test_a_clock_can_refuse_to_be_set(bluetooth: str) -> None:
    clock = ClockModel(setting=Setting.REFUSES)
    async with simulated_home(bluetooth) as home:
        home.add(replace(model_of(CUFF), clock=clock)).take(typical(CUFF))
        async with BleakClient(await heard()) as client:
            right = encode_current_time(datetime(2026, 11, 23))  # noqa: DTZ001 - a device's wall time
            with pytest.raises(BleakGATTProtocolError):
                await client.write_gatt_char(uuid128(CURRENT_TIME), right, response=True)


async def test_a_reading_taken_while_connected_is_sent_at_once(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        device = home.add(replace(model_of(CUFF), idle_s=WITHIN_S))
        device.take(typical(CUFF))
        subscription = Subscription()
        async with BleakClient(await heard()) as client:
            await subscription.subscribe(client, INDICATED)
            await subscription.wait_for(1)
            device.take(typical(CUFF, more=1))
            await subscription.wait_for(2)


async def test_a_record_is_kept_until_it_is_confirmed(bluetooth: str) -> None:
    async with simulated_home(bluetooth) as home:
        device = home.add(model_of(CUFF))
        device.take(typical(CUFF))
        async with BleakClient(await heard()):
            pass  # a hub that connects and leaves without subscribing
        assert len(device.memory) == 1
        subscription = Subscription()
        async with BleakClient(await heard()) as client:
            await subscription.subscribe(client, INDICATED)
            await subscription.wait_for(1)


async def test_several_devices_are_read_at_once(bluetooth: str) -> None:
    signs = [CUFF, SCALE, BY_NAME["body_temperature"]]
    async with simulated_home(bluetooth) as home:
        addresses = [f"C0:26:DA:00:00:0{i}" for i in range(len(signs))]
        for sign, address in zip(signs, addresses, strict=True):
            home.add(model_of(sign), address).take(typical(sign))
        devices = await all_heard(addresses)
        values = await asyncio.gather(
            *(first_value(d, sign.gatt[0]) for d, sign in zip(devices, signs, strict=True))
        )
        for sign, value in zip(signs, values, strict=True):
            assert sign.gatt[0].decode(value).values[0] == typical(sign)[0]


async def test_stored_observations_are_sent_on_request_and_kept_until_deleted(
    bluetooth: str,
) -> None:
    clock = ClockModel(type=TimeType.UTC)
    async with simulated_home(bluetooth) as home:
        device = home.add(replace(model_of(TRACKER), clock=clock, idle_s=WITHIN_S))
        taken = [device.take(typical(TRACKER, more=i)).reading.values for i in range(3)]
        records, responses = Subscription(), Subscription()
        async with BleakClient(await heard()) as client:
            await records.subscribe(client, STORED)
            control = uuid128(record_access.CHARACTERISTIC)
            await client.start_notify(control, responses._on_value)
            await client.write_gatt_char(
                control, record_access.combined_report_request(), response=True
            )
            (response,) = await responses.wait_for(1)
            assert record_access.decode_response(response).records == len(taken)
            numbers, decoded = reassembled(records.values)
            assert decoded == taken
            assert len(device.memory) == len(taken)
            request = record_access.delete_up_to_request(numbers[1])
            await client.write_gatt_char(control, request, response=True)
            assert record_access.decode_response((await responses.wait_for(2))[1]).succeeded
            assert [record.number for record in device.memory] == numbers[2:]


async def test_live_observations_are_sent_once_they_are_started(bluetooth: str) -> None:
    clock = ClockModel(type=TimeType.UTC)
    async with simulated_home(bluetooth) as home:
        device = home.add(replace(model_of(TRACKER), clock=clock))
        taken = device.take(typical(TRACKER)).reading.values
        live, ending = Subscription(), Ending()
        async with BleakClient(await heard(), ending) as client:
            await live.subscribe(client, LIVE)
            await client.write_gatt_char(
                uuid128(ghs.CONTROL_POINT), ghs.CONTROL_START_LIVE, response=True
            )
            await ending.wait()
        reassembler = ghs.Reassembler()
        payloads = [p for p in map(reassembler.feed, live.values) if p is not None]
        assert [LIVE.decode(payload).values for payload in payloads] == [taken]


async def first_value(device: BLEDevice, source: GattSource) -> bytes:
    subscription = Subscription()
    async with BleakClient(device) as client:
        await subscription.subscribe(client, source)
        return (await subscription.wait_for(1))[0]


async def clock_error(client: BleakClient) -> timedelta:
    """Return how far ahead of the local time of China the device's clock is."""
    shown = decode_current_time(bytes(await client.read_gatt_char(uuid128(CURRENT_TIME))))
    assert shown is not None
    now = datetime.now(UTC) + CHINA
    return timedelta(milliseconds=shown.ms) - (now - datetime(1970, 1, 1, tzinfo=UTC))


def reassembled(segments: list[bytes]) -> tuple[list[int], list[object]]:
    """Return the record numbers and the values of stored observations."""
    reassembler = ghs.Reassembler()
    stored = [
        ghs.split_stored(payload)
        for payload in map(reassembler.feed, segments)
        if payload is not None
    ]
    return [n for n, _ in stored], [STORED.decode(payload).values for _, payload in stored]
