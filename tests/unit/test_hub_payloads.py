"""From payload to item: what is read, what is kept unread, what is passed over; and its repeats."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from edge.adverts import UNREADABLE_MAX, UNREADABLE_S, _Rate
from edge.clock import Pair, with_pair
from edge.counts import Counts
from edge.heard import (
    DEVICES_MAX,
    PACKETS_PER_SOURCE,
    Heard,
    Packets,
    has_what_it_advertises,
    is_talkative,
    packet_of,
)
from edge.intake import VALUES_MAX, Intake
from edge.outbox import Packet
from edge.payloads import (
    Decoded,
    Payload,
    decode_advertised,
    decode_indicated,
    measured,
)
from gateway.errors import Fault
from gateway.gatt import bthome, record_access
from gateway.gatt import health_observation as ghs
from gateway.gatt.times import DeviceTime, TimeType, local_device_time, ms_since_epoch
from gateway.gatt.uuids import BATTERY_LEVEL, BATTERY_SERVICE
from gateway.measurement import Measurement, TimeQuality, Undecoded
from gateway.vital_sign import Framing, GattSource, Reading
from gateway.vitals import SERVICES, SIGNS
from tests.outboxes import NOON

CHINA = ZoneInfo("Asia/Shanghai")
DEVICE = 0xC026DA010203
(TRACKER,) = [s for s in SIGNS if any(g.framing is Framing.STORED_SEGMENTS for g in s.gatt)]
(WHOLE, *_others) = [
    (sign, source) for sign in SIGNS for source in sign.gatt if source.framing is Framing.WHOLE
]
(BOTTLE,) = [sign for sign in SIGNS if sign.advertised]


def payload(source: int, data: bytes) -> Payload:
    return Payload(device=DEVICE, source=source, data=data, received_at=NOON)


def an_observation(time: DeviceTime | None = None) -> bytes:
    source = TRACKER.gatt[0]
    values = tuple(100 * step for step in TRACKER.unit_sets[0].steps)
    return source.encode(Reading(values=values, device_time=time))


def intake(*, has_clock: bool = True) -> Intake:
    return Intake(DEVICE, Counts(), zone=CHINA, has_clock=has_clock)


def stored(number: int, *, counter: int = 0) -> list[bytes]:
    return ghs.segments(number.to_bytes(4, "little") + an_observation(), 20, counter)


@given(data=st.binary(max_size=600))
def test_any_bytes_on_a_known_characteristic_are_kept_in_some_form(data: bytes) -> None:
    for sign in SIGNS:
        for source in sign.gatt:
            read = decode_indicated(payload(source.characteristic, data))
            item = read if isinstance(read, Undecoded) else measured(read, lines=(), zone=CHINA)
            if isinstance(item, Undecoded):
                assert item.payload == data
                assert item.source == source.characteristic


@given(data=st.binary(max_size=60))
def test_any_advertised_bytes_are_a_reading_or_kept_or_no_vital_sign(data: bytes) -> None:
    read = decode_advertised(payload(BOTTLE.advertised[0].service_data, data))
    assert read is None or isinstance(read, Decoded | Undecoded)


def test_an_observation_that_no_sign_recognises_is_kept() -> None:
    strange = ghs.encode_observation(ghs.Observation(mdc=12345, components=()))
    read = decode_indicated(payload(ghs.LIVE_OBSERVATIONS, strange))
    assert isinstance(read, Undecoded)
    assert read.fault is Fault.UNSUPPORTED


def test_a_thermometers_advertisement_is_passed_over() -> None:
    temperature = bthome.encode_objects({0x02: 2150})
    assert decode_advertised(payload(bthome.SERVICE_DATA, temperature)) is None


def test_a_value_that_cannot_travel_unaltered_is_kept_as_bytes() -> None:
    sign, source = WHOLE
    values = tuple(100 * step for step in sign.unit_sets[0].steps)
    time = DeviceTime(type=TimeType.LOCAL, ms=0, resolution_ms=7)  # no resolution of the wire's
    reading = Reading(values=values, device_time=time)
    decoded = Decoded(
        payload=payload(source.characteristic, b"as sent"), sign=sign, reading=reading
    )
    item = measured(decoded, lines=(), zone=CHINA)
    assert isinstance(item, Undecoded)
    assert (item.fault, item.payload) == (Fault.INEXACT, b"as sent")


def test_the_offset_told_is_the_one_that_the_time_goes_with() -> None:
    """A mapped time goes with the hub's offset, so the device's own is not claimed for it."""
    wrong = DeviceTime(
        type=TimeType.UTC,
        ms=ms_since_epoch(NOON - timedelta(days=2)),
        utc_offset_min=60,
        current=True,
        synced=False,
    )
    decoded = decode_indicated(payload(ghs.LIVE_OBSERVATIONS, an_observation(wrong)))
    assert isinstance(decoded, Decoded)
    lines = with_pair((), Pair(shown=wrong, at=NOON))
    item = measured(decoded, lines=lines, zone=CHINA)
    assert isinstance(item, Measurement)
    assert item.utc_offset_min == 480
    assert item.reading.device_time is not None
    assert item.reading.device_time.utc_offset_min is None


def test_segments_are_joined_and_stored_records_gathered_with_their_highest_number() -> None:
    taken = intake()
    for number in (7, 9, 8):
        for segment in stored(number):
            taken.put(ghs.STORED_OBSERVATIONS, segment, NOON)
    assert taken.take() == []
    report = taken.end_report()
    assert (len(report.items), report.last_number, report.is_whole) == (3, 9, True)
    assert all(isinstance(item, Measurement) and item.stored_record for item in report.items)
    assert taken.taken == 3


def test_a_stored_record_with_a_lost_segment_is_left_to_the_device() -> None:
    taken = intake()
    first, _lost, *rest = stored(1)
    for segment in (first, *rest, *stored(2, counter=len(rest) + 2)):
        taken.put(ghs.STORED_OBSERVATIONS, segment, NOON)
    taken.take()
    report = taken.end_report()
    assert len(report.items) == 1
    assert not report.is_whole


def test_a_live_payload_with_a_lost_segment_is_kept_as_far_as_it_came() -> None:
    taken = intake()
    first, _lost, last = ghs.segments(an_observation(), 20, 0)[:3]
    taken.put(ghs.LIVE_OBSERVATIONS, first, NOON)
    taken.put(ghs.LIVE_OBSERVATIONS, last, NOON)
    (item,) = taken.take()
    assert isinstance(item, Undecoded)
    assert item.payload == first + last
    assert taken.take_unfinished() == []


def test_a_live_payload_that_never_ends_is_kept_as_far_as_it_came() -> None:
    taken = intake()
    first, second = ghs.segments(an_observation(), 20, 0)[:2]
    taken.put(ghs.LIVE_OBSERVATIONS, first, NOON)
    taken.put(ghs.LIVE_OBSERVATIONS, second, NOON)
    assert taken.take() == []
    (item,) = taken.take_unfinished()
    assert isinstance(item, Undecoded)
    assert (item.payload, item.fault) == (first + second, Fault.TRUNCATED)


def test_a_live_payload_that_breaks_off_is_kept_when_the_next_one_begins() -> None:
    counts = Counts()
    taken = Intake(DEVICE, counts, zone=CHINA, has_clock=True)
    first, second, *_lost = ghs.segments(an_observation(), 20, 0)
    for segment in (first, second, *ghs.segments(an_observation(), 20, 9)):
        taken.put(ghs.LIVE_OBSERVATIONS, segment, NOON)
    broken, whole = taken.take()
    assert isinstance(broken, Undecoded)
    assert (broken.payload, broken.fault) == (first + second, Fault.TRUNCATED)
    assert isinstance(whole, Measurement)
    assert counts.segments_lost == 1
    assert taken.take_unfinished() == []


def test_a_stored_record_that_breaks_off_is_left_to_the_device_when_the_next_one_begins() -> None:
    taken = intake()
    first, second, *_lost = stored(1)
    for segment in (first, second, *stored(2, counter=9)):
        taken.put(ghs.STORED_OBSERVATIONS, segment, NOON)
    taken.take()
    report = taken.end_report()
    assert (len(report.items), report.is_whole) == (1, False)


def test_a_stored_record_that_knows_no_time_is_not_of_now() -> None:
    """It may be months old; and it comes again, at another time, in the next session."""
    taken = intake()
    for segment in stored(1):
        taken.put(ghs.STORED_OBSERVATIONS, segment, NOON)
    taken.take()
    (item,) = taken.end_report().items
    assert isinstance(item, Measurement)
    assert item.time_quality is TimeQuality.UNPLACED


def test_a_stored_record_without_even_a_number_is_kept_and_does_not_block_the_others() -> None:
    taken = intake()
    (segment,) = ghs.segments(b"\x01\x02", 20, 0)
    taken.put(ghs.STORED_OBSERVATIONS, segment, NOON)
    taken.take()
    report = taken.end_report()
    assert [type(item) for item in report.items] == [Undecoded]
    assert report.is_whole


def test_answers_of_the_record_access_control_point_are_told_apart_from_readings() -> None:
    taken = intake()
    taken.put(record_access.CHARACTERISTIC, b"\x08\x00\x03\x00\x00\x00", NOON)
    taken.put(record_access.CHARACTERISTIC, b"\xff", NOON)
    assert taken.take() == []
    (answer,) = taken.answers
    assert answer.records == 3


def test_what_no_decoder_reads_goes_with_the_clock_of_its_connection() -> None:
    taken = intake()
    clock = local_device_time(NOON.astimezone(CHINA) - timedelta(days=1))
    taken.pair = Pair(shown=clock, at=NOON)
    _sign, source = WHOLE
    taken.put(source.characteristic, b"\xff", NOON)
    (item,) = taken.take()
    assert isinstance(item, Undecoded)
    assert item.clock_offset_ms == (24 - 8) * 3600 * 1000
    assert item.utc_offset_min == 480


def test_a_device_without_a_clock_is_believed_by_its_time_stamps_of_now() -> None:
    taken = intake(has_clock=False)
    sign, source = WHOLE
    values = tuple(100 * step for step in sign.unit_sets[0].steps)
    for at in (NOON, NOON - timedelta(days=5)):
        time = local_device_time(at.astimezone(CHINA))
        encoded = source.encode(Reading(values=values, device_time=time))
        taken.put(source.characteristic, encoded, NOON)
    now, old = taken.take()
    assert isinstance(now, Measurement)
    assert isinstance(old, Measurement)
    assert now.time_quality is old.time_quality is TimeQuality.SYNCHRONISED
    assert old.measured_at == NOON - timedelta(days=5)


def test_a_session_that_brings_more_than_any_device_has_is_cut_off_and_counted() -> None:
    counts = Counts()
    taken = Intake(DEVICE, counts, zone=CHINA, has_clock=False)
    source: GattSource = WHOLE[1]
    for _ in range(VALUES_MAX + 5):
        taken.put(source.characteristic, b"\xff", NOON)
    assert taken.is_full
    assert counts.lost == 5
    assert len(taken.take()) == VALUES_MAX


def test_a_payload_whose_segments_bring_nothing_and_never_end_is_cut_off_and_counted() -> None:
    counts = Counts()
    taken = Intake(DEVICE, counts, zone=CHINA, has_clock=True)
    for number in range(VALUES_MAX + 5):
        header = number % 64 << 2 | (number == 0)
        taken.put(ghs.LIVE_OBSERVATIONS, bytes((header,)), NOON)
        taken.take()
    assert taken.is_full
    assert counts.lost == 5


def packet(device: int, data: bytes) -> Packet:
    return packet_of(Payload(device=device, source=0xFCD2, data=data, received_at=NOON))


def test_a_repeat_is_known_and_the_next_packet_is_not_one() -> None:
    packets = Packets(())
    packets.remember(packet(1, b"first"))
    assert packets.is_repeat(packet(1, b"first"))
    assert not packets.is_repeat(packet(1, b"second"))
    assert not packets.is_repeat(packet(2, b"first"))


def test_packets_sent_in_turns_are_repeats_all_of_them() -> None:
    packets = Packets([packet(1, bytes((n,))) for n in range(PACKETS_PER_SOURCE)])
    assert all(packets.is_repeat(packet(1, bytes((n,)))) for n in range(PACKETS_PER_SOURCE))
    packets.remember(packet(1, b"one more"))
    assert not packets.is_repeat(packet(1, b"\0"))


def test_the_memory_of_packets_is_bounded() -> None:
    packets = Packets([packet(device, b"x") for device in range(DEVICES_MAX + 1)])
    assert not packets.is_repeat(packet(0, b"x"))
    assert packets.is_repeat(packet(1, b"x"))


def heard(services: set[int], service_data: dict[int, bytes]) -> Heard:
    return Heard(
        address="C0:26:DA:01:02:03",
        services=frozenset(services),
        service_data=service_data,
        heard_at=NOON,
    )


def test_whom_to_connect_to() -> None:
    a_service = min(SERVICES)
    bottle = {bthome.SERVICE_DATA: b""}
    assert is_talkative(heard({a_service}, {}), is_listed=False)
    assert not is_talkative(heard({BATTERY_SERVICE}, {}), is_listed=False)
    assert is_talkative(heard(set(), {}), is_listed=True)
    assert not is_talkative(heard(set(), bottle), is_listed=True)


def test_discovery_is_complete_when_each_known_service_has_its_characteristic() -> None:
    _sign, source = WHOLE
    service, characteristic = frozenset({source.service}), frozenset({source.characteristic})
    assert has_what_it_advertises(service, characteristic)
    assert not has_what_it_advertises(service, frozenset({BATTERY_LEVEL}))
    assert not has_what_it_advertises(service, frozenset())
    assert has_what_it_advertises(frozenset(), characteristic)
    assert not has_what_it_advertises(frozenset(), frozenset({BATTERY_LEVEL}))


def test_a_neighbours_encrypted_sensor_cannot_fill_the_outbox() -> None:
    rate = _Rate()
    allowed = [rate.allows(DEVICE, now_s=float(n)) for n in range(UNREADABLE_MAX + 3)]
    assert allowed == [True] * UNREADABLE_MAX + [False] * 3
    assert rate.allows(DEVICE + 1, now_s=1.0)
    assert rate.allows(DEVICE, now_s=UNREADABLE_S + 1.0)
