"""Wire format v1: what goes in comes out; what is damaged is refused with its place."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import wire
from gateway.errors import DecodeError, EncodeError, Fault
from gateway.gatt.times import DeviceTime, TimeType, local_device_time
from gateway.measurement import Measurement, TimeQuality, Undecoded, device_address, device_id
from gateway.platform.settings import CHECKOUT
from gateway.quantity import Absent
from gateway.vital_sign import QUANTITIES_MAX, Reading

NOON = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
HUB = 0x00C0FFEE00C0FFEE

milliseconds = st.integers(0, 4_000_000_000_000)
moments = milliseconds.map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))
decimals = st.builds(
    lambda mantissa, exponent: Decimal(mantissa).scaleb(exponent),
    st.integers(-(1 << 23), (1 << 23) - 1),
    st.integers(-127, 127),
)
values = st.one_of(decimals, st.sampled_from(Absent))
device_times = st.builds(
    DeviceTime,
    type=st.sampled_from(TimeType),
    ms=st.integers(-(10**14), 10**14),
    resolution_ms=st.sampled_from(wire.RESOLUTIONS_MS),
)
measurements = st.builds(
    Measurement,
    device=st.integers(0, (1 << 64) - 1),
    sign=st.integers(1, 255),
    reading=st.builds(
        Reading,
        values=st.tuples(*[values] * QUANTITIES_MAX),
        unit_set=st.integers(0, 255),
        device_time=st.none() | device_times,
        user_slot=st.none() | st.integers(0, 254),
        status=st.integers(0, 0xFFFF),
    ),
    measured_at=moments,
    received_at=moments,
    time_quality=st.sampled_from(TimeQuality),
    utc_offset_min=st.none() | st.integers(-56, 56).map(lambda steps: steps * 15),
    stored_record=st.booleans(),
)


@given(measurement=measurements)
def test_a_measurement_survives_the_wire_digit_by_digit(measurement: Measurement) -> None:
    record = wire.encode_record(measurement, measurement.received_at)
    decoded = wire.decode_record(record, measurement.received_at)
    assert len(record) == wire.RECORD_BYTES
    assert decoded == measurement
    assert [str(v) for v in decoded.reading.values] == [str(v) for v in measurement.reading.values]


def test_the_offset_that_the_device_said_is_told_from_the_hubs() -> None:
    time = DeviceTime(type=TimeType.LOCAL, ms=1, utc_offset_min=480)
    measurement = replace(a_measurement(), utc_offset_min=480)
    of_device = replace(measurement, reading=replace(measurement.reading, device_time=time))
    assert through(of_device).reading.device_time == time
    by_hub = replace(time, utc_offset_min=None)
    of_hub = replace(measurement, reading=replace(measurement.reading, device_time=by_hub))
    assert through(of_hub).reading.device_time == by_hub


@pytest.mark.parametrize("value", [Decimal(3000000001), Decimal("1E+200"), Decimal("1E-200")])
def test_a_value_that_would_have_to_be_altered_is_refused(value: Decimal) -> None:
    measurement = a_measurement()
    reading = replace(measurement.reading, values=(value,))
    with pytest.raises(EncodeError):
        wire.encode_record(replace(measurement, reading=reading), NOON)


def test_an_offset_between_quarter_hours_is_refused() -> None:
    with pytest.raises(EncodeError):
        wire.encode_record(replace(a_measurement(), utc_offset_min=7), NOON)


def test_a_status_of_more_than_16_bits_is_refused() -> None:
    measurement = a_measurement()
    reading = replace(measurement.reading, status=1 << 16)
    with pytest.raises(EncodeError):
        wire.encode_record(replace(measurement, reading=reading), NOON)


def test_the_examples_of_docs_wire_md_are_what_is_sent() -> None:
    """Byte by byte, out of the specification; a change here is a new wire version."""
    measurement = replace(
        a_measurement(),
        reading=Reading(
            values=(Decimal(128), Decimal(82), Decimal(97), Decimal(71)),
            device_time=local_device_time(datetime(2026, 11, 23, 11, 59, 55, tzinfo=UTC)),
            user_slot=1,
            status=0x0004,
        ),
        measured_at=NOON - timedelta(seconds=5),
        received_at=NOON - timedelta(seconds=1),
        time_quality=TimeQuality.MAPPED,
        utc_offset_min=480,
        stored_record=True,
    )
    undecoded = Undecoded(
        device=measurement.device,
        source=0x2A35,
        fault=Fault.TRUNCATED,
        payload=bytes.fromhex("1e80005200"),
        received_at=NOON,
        clock_offset_ms=-5000,
        utc_offset_min=480,
    )
    first = a_header()
    second = replace(a_header(kind=wire.Kind.UNDECODED), sequence=2)
    receipts = [
        wire.Receipt(epoch=7, sequence=1, stored=1, duplicate=0, quarantined=0),
        wire.Receipt(epoch=7, sequence=2, stored=0, duplicate=0, quarantined=1),
    ]
    assert examples() == [
        wire.encode_batch(first, wire.encode_record(measurement, NOON)),
        wire.encode_batch(second, wire.encode_undecoded(undecoded, NOON)),
        wire.encode_receipts(7, receipts),
    ]


def examples() -> list[bytes]:
    """Return the bytes of each fenced block of the specification; words end the bytes of a line."""
    text = (CHECKOUT / "docs" / "wire.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [b"".join(map(_bytes_of, block.splitlines())) for block in blocks]


def _bytes_of(line: str) -> bytes:
    words = line[len("header") :].split()
    return bytes.fromhex(
        "".join(takewhile(lambda word: re.fullmatch(r"([0-9a-f]{2})+", word) is not None, words))
    )


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=5))
def test_undecoded_payloads_survive_the_wire(payloads: list[bytes]) -> None:
    entries = [
        Undecoded(device=7, source=0x2A35, fault=Fault.TRUNCATED, payload=payload, received_at=NOON)
        for payload in payloads
    ]
    body = b"".join(wire.encode_undecoded(entry, NOON) for entry in entries)
    header = a_header(kind=wire.Kind.UNDECODED, count=len(entries))
    decoded_header, decoded_body = wire.decode_batch(wire.encode_batch(header, body))
    assert decoded_header == header
    assert wire.decode_undecoded(decoded_body, decoded_header) == entries


@given(message=st.binary(max_size=300))
def test_random_bytes_are_no_batch_and_no_receipts(message: bytes) -> None:
    with pytest.raises(DecodeError):
        wire.decode_batch(message)
    with pytest.raises(DecodeError):
        wire.decode_receipts(message)


def test_every_truncation_of_a_batch_is_a_located_error() -> None:
    message = a_batch()
    for length in range(len(message)):
        with pytest.raises(DecodeError) as caught:
            wire.decode_batch(message[:length])
        assert caught.value.offset <= len(message)


@given(st.data())
def test_a_changed_bit_in_the_body_is_found(data: st.DataObject) -> None:
    message = bytearray(a_batch())
    bit = data.draw(st.integers(8 * wire.HEADER_BYTES, 8 * len(message) - 1))
    message[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecodeError) as caught:
        wire.decode_batch(bytes(message))
    assert caught.value.fault is Fault.CORRUPT


@given(record=st.binary(min_size=64, max_size=64))
def test_any_64_bytes_are_a_measurement_or_a_located_error(record: bytes) -> None:
    try:
        wire.decode_record(record, NOON)
    except DecodeError as error:
        assert error.offset == 0  # noqa: PT017 - most bytes are no record


def test_another_version_is_named() -> None:
    message = bytearray(a_batch())
    message[4] = 9
    with pytest.raises(DecodeError, match="version at byte 4 is 9, known: 1"):
        wire.decode_batch(bytes(message))


@given(
    st.lists(
        st.builds(
            wire.Receipt,
            epoch=st.just(99),
            sequence=st.integers(1, wire.COUNTER_END - 1),
            stored=st.integers(0, 1024),
            duplicate=st.integers(0, 1024),
            quarantined=st.integers(0, 1024),
        ),
        max_size=20,
    )
)
def test_receipts_survive_the_wire(receipts: list[wire.Receipt]) -> None:
    assert wire.decode_receipts(wire.encode_receipts(99, receipts)) == receipts


@pytest.mark.parametrize("counter", [0, wire.COUNTER_END, (1 << 64) - 1])
def test_receipts_for_numbers_that_no_batch_has_are_none(counter: int) -> None:
    """A hub could not even look for them: SQLite's integers have 64 bits, signed."""
    receipt = wire.Receipt(epoch=7, sequence=counter, stored=1, duplicate=0, quarantined=0)
    with pytest.raises(DecodeError, match="sequence at byte 16 is"):
        wire.decode_receipts(wire.encode_receipts(7, [receipt]))
    with pytest.raises(DecodeError, match="epoch at byte 8 is"):
        wire.decode_receipts(wire.encode_receipts(counter, []))


@given(hub=st.integers(0, (1 << 64) - 1), channel=st.sampled_from(wire.Channel))
def test_a_topic_names_its_hub_and_no_other_topic_does(hub: int, channel: wire.Channel) -> None:
    topic = wire.topic(hub, channel)
    assert wire.hub_of_topic(topic) == hub
    lane = int(topic.split("/")[2])
    wrong = topic.replace(f"/{lane:02d}/", f"/{(lane + 1) % wire.LANES:02d}/", 1)
    assert wire.hub_of_topic(wrong) is None


@pytest.mark.parametrize(
    "topic", ["", "hearth/v1/07/00C0FFEE00C0FFEE/batch", "hearth/v2/07/00c0ffee00c0ffee/batch"]
)
def test_a_strange_topic_names_no_hub(topic: str) -> None:
    assert wire.hub_of_topic(topic) is None


def test_lanes_share_hubs_evenly() -> None:
    counts = [0] * wire.LANES
    for hub in range(64_000):
        counts[wire.lane_of(hub)] += 1
    assert min(counts) > 800
    assert max(counts) < 1200


@given(device=st.integers(0, (1 << 64) - 1))
def test_a_device_id_is_its_address(device: int) -> None:
    assert device_id(device_address(device)) == device


@pytest.mark.parametrize(
    "typed", ["C0:26:DA:01:02:_3", "C0:26:DA:01:0_:03", " 0:26:DA:01:02:03", "+C:26:DA:01:02:03"]
)
def test_an_address_with_anything_but_its_digits_names_no_device(typed: str) -> None:
    """Python would read them as numbers, of other devices."""
    with pytest.raises(ValueError, match="no Bluetooth address"):
        device_id(typed)


def a_measurement() -> Measurement:
    return Measurement(
        device=device_id("C0:26:DA:01:02:03"),
        sign=1,
        reading=Reading(values=(Decimal(128), Decimal(82), Decimal(97), Absent.NOT_SENT)),
        measured_at=NOON,
        received_at=NOON,
        time_quality=TimeQuality.RECEPTION,
        utc_offset_min=480,
    )


def a_header(*, kind: wire.Kind = wire.Kind.MEASUREMENTS, count: int = 1) -> wire.Header:
    return wire.Header(hub=HUB, epoch=7, sequence=1, kind=kind, count=count, reference_at=NOON)


def a_batch() -> bytes:
    return wire.encode_batch(a_header(), wire.encode_record(a_measurement(), NOON))


def through(measurement: Measurement) -> Measurement:
    return wire.decode_record(wire.encode_record(measurement, NOON), NOON)
