"""SenML packs become batches, digit by digit, or are refused with their place."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import wire
from gateway.errors import DecodeError, Fault
from gateway.gatt.times import from_ms
from gateway.measurement import Measurement, TimeQuality
from gateway.platform.settings import CHECKOUT
from gateway.quantity import Absent
from gateway.vitals import BY_NAME
from ingest.batches import read_messages
from ingest.senml import NUMBER_CHARS_MAX, PACK_BYTES_MAX, RECORDS_MAX, decode_pack, is_pack
from ingest.verdicts import Verdict
from tests.worlds import CUFF, HUB, NOON, OTHER_HUB, SCALE, a_registry, as_message

AT_S = 1795406395
CUFF_NAME = "urn:dev:mac:c026dafffe010203:"
COUNTERS = (
    {"n": f"hearth:{wire.hub_name(HUB)}:epoch", "v": 7},
    {"n": f"hearth:{wire.hub_name(HUB)}:sequence", "v": 1},
)


def pack(*records: dict[str, Any]) -> bytes:
    return json.dumps([*COUNTERS, *records], default=str).encode()


def pressure(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {"n": f"{CUFF_NAME}systolic_mmhg", "u": "mm[Hg]", "t": AT_S, "v": 128} | more


def measurements(payload: bytes) -> list[Measurement]:
    header, body = decode_pack(payload, NOON)
    size = wire.RECORD_BYTES
    assert len(body) == header.count * size
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return [wire.decode_record(piece, header.reference_at) for piece in pieces]


def refusal(payload: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode_pack(payload, NOON)
    assert 0 <= caught.value.offset <= len(payload)
    return caught.value


def test_the_example_of_docs_wire_md_is_what_it_says() -> None:
    text = (CHECKOUT / "docs" / "wire.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    header, _body = decode_pack(example.encode(), NOON)
    assert (header.hub, header.epoch, header.sequence, header.count) == (0xC0FFEE00C0FFEE, 7, 3, 2)
    cuff, thermometer = measurements(example.encode())
    assert (cuff.device, cuff.sign, cuff.reading.user_slot) == (CUFF, 1, 1)
    assert list(map(str, cuff.reading.values[:4])) == ["128", "82", "97", "71"]
    assert cuff.measured_at == from_ms(1_795_406_395_250)
    assert cuff.time_quality is TimeQuality.SYNCHRONISED
    assert cuff.received_at == NOON
    assert (thermometer.device, thermometer.sign) == (SCALE, 2)
    assert str(thermometer.reading.values[0]) == "36.60"


def test_base_fields_are_put_in_as_rfc_8428_says() -> None:
    """Section 4.6, the resolved records of its example: bases last until the next, and add up."""
    base = {"bn": CUFF_NAME, "bt": AT_S, "bu": "mm[Hg]", "bv": 100, "bver": 10}
    first, second = measurements(
        pack(
            base | {"n": "systolic_mmhg", "v": 28.5},
            {"n": "diastolic_mmhg", "v": -20},
            {"bv": 0, "n": "systolic_mmhg", "t": 60, "v": 130},
        )
    )
    assert first.reading.values[:2] == (Decimal("128.5"), Decimal(80))
    assert first.reading.values[2:4] == (Absent.NOT_SENT, Absent.NOT_SENT)
    assert second.reading.values[0] == Decimal(130)
    assert second.measured_at == from_ms((AT_S + 60) * 1000)


def test_the_units_choose_the_unit_set() -> None:
    (kpa,) = measurements(pack(pressure(u="kPa", v=17.1)))
    assert kpa.reading.unit_set == 1
    pulse = {"n": f"{CUFF_NAME}pulse_rate_per_min", "t": AT_S, "v": 71}
    (reading,) = measurements(pack(pressure(), pulse | {"u": "beat/min"}))
    assert reading.reading.values[3] == Decimal(71)
    assert "units" in str(refusal(pack(pressure(), pulse | {"u": "Hz"})))
    mixed = pack(pressure(u="kPa"), pressure(n=f"{CUFF_NAME}diastolic_mmhg"))
    assert "units" in str(refusal(mixed))


def test_an_eui_64_that_was_no_eui_48_stays_one() -> None:
    (reading,) = measurements(pack(pressure(n="urn:dev:mac:0123456789abcdef:systolic_mmhg")))
    assert reading.device == 0x0123456789ABCDEF


@pytest.mark.parametrize(
    ("record", "fault", "says"),
    [
        (pressure(n="systolic_mmhg"), Fault.INVALID, "names no device"),
        (pressure(n=f"{CUFF_NAME}mood"), Fault.INVALID, "names no device"),
        (pressure(n=f"{CUFF_NAME}255/systolic_mmhg"), Fault.INVALID, "slot"),
        (
            pressure(n=f"{CUFF_NAME}1/body_temperature_celsius", u="Cel"),
            Fault.INVALID,
            "slot",
        ),
        (pressure(t=-3600), Fault.INVALID, "not absolute"),
        (pressure(t=3e11), Fault.INVALID, "not absolute"),
        (pressure(v="128"), Fault.INVALID, "no number"),
        (pressure(v=True), Fault.INVALID, "no number"),
        (pressure(v=float("nan")), Fault.INVALID, "JSON"),
        (pressure(v=1.2345678901), Fault.INEXACT, "altered"),
        (pressure(v=10**50), Fault.INVALID, "JSON"),
        (pressure(bv=1, v=Decimal(1)), Fault.INEXACT, "exactly"),
        (pressure(vs="high"), Fault.INVALID, "text"),
        (pressure(s=3), Fault.INVALID, "sum"),
        (pressure(bver=11), Fault.UNSUPPORTED, "version"),
        (pressure(dose_=1), Fault.UNSUPPORTED, "understood"),
        ({"n": f"{CUFF_NAME}systolic_mmhg"}, Fault.INVALID, "no v"),
        (COUNTERS[0], Fault.INVALID, "another epoch"),
        ({"n": "hearth:00000000000000b2:epoch", "v": 7}, Fault.INVALID, "another epoch"),
    ],
)  # fmt: skip
def test_a_pack_with_a_wrong_record_is_refused_at_that_record(
    record: dict[str, Any], fault: Fault, says: str
) -> None:
    text = pack(pressure(t=AT_S + 9, n=f"{CUFF_NAME}diastolic_mmhg"), record)
    if isinstance(record.get("v"), Decimal):  # no JSON encoder writes it
        text = text.replace(b'"v": "1"', b'"v": 1e-90')
    refused = refusal(text)
    assert refused.fault is fault
    assert says in str(refused)
    assert text[refused.offset :].startswith(b'{"n": ')


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"[", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b"[{}", "neither"),
        (b"[{}]", "no record hearth"),
        (b"[]x", "goes on"),
        (b"[]", "no record hearth"),
        (b'["\xff"]', "UTF-8"),
        (b'[{"n": "a", "n": "b"}]', "no JSON object"),
        (b"[" + b"[" * 100_000, "no JSON object"),
        (b"[" + b" " * PACK_BYTES_MAX, "at most"),
        (b"[" + b"{}," * RECORDS_MAX + b"{}]", "at most"),
        (b'[{"v":' + b"1" * (NUMBER_CHARS_MAX + 1) + b"}]", "no JSON object"),
        (b'[{"v":1e99999999999999999999}]', "no JSON object"),
    ],
)
def test_what_is_no_pack_is_refused_with_its_place(payload: bytes, says: str) -> None:
    assert is_pack(payload)
    assert says in str(refusal(payload))


def test_no_more_readings_than_a_batch_has() -> None:
    many = [pressure(t=AT_S + number) for number in range(wire.BATCH_RECORDS_MAX + 1)]
    assert len(measurements(pack(*many[1:]))) == wire.BATCH_RECORDS_MAX
    assert refusal(pack(*many)).fault is Fault.TOO_LONG


def test_a_value_twice_at_one_time_is_refused() -> None:
    assert "came before" in str(refusal(pack(pressure(), pressure(v=129))))


def test_a_pack_that_is_written_in_another_way_and_later_is_the_same_batch() -> None:
    """A third-party hub makes its JSON anew: other spaces, other order of labels."""
    payload = pack(pressure(), pressure(n=f"{CUFF_NAME}diastolic_mmhg", v=82))
    spaced = json.dumps([dict(reversed(one.items())) for one in json.loads(payload)], indent=1)
    later = replace(as_message(spaced.encode()), received_at=NOON + timedelta(hours=1))
    flush = read_messages([as_message(payload), later], a_registry())
    assert (len(flush.batches), flush.rejected) == (1, ())


def test_a_pack_stands_beside_batches_in_a_flush() -> None:
    good = as_message(pack(pressure(), pressure(n=f"{CUFF_NAME}diastolic_mmhg", v=82)), token=1)
    foreign = as_message(good.payload, hub=OTHER_HUB, token=2)
    broken = as_message(good.payload[:-1], token=3)
    flush = read_messages([good, foreign, broken], a_registry())
    assert [batch.header.sequence for batch in flush.batches] == [1]
    assert flush.records["device"].tolist() == [CUFF]
    assert flush.records["sign"].tolist() == [BY_NAME["blood_pressure"].code]
    assert [r.reason for r in flush.rejected] == [Verdict.HUB_FOREIGN, Verdict.NO_BATCH]


@given(data=st.data())
def test_a_damaged_pack_is_a_located_error_or_a_batch(data: st.DataObject) -> None:
    damaged = bytearray(pack(pressure(), pressure(n=f"{CUFF_NAME}diastolic_mmhg", v=82.5)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(1, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    kept = bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    try:
        header, body = decode_pack(kept, NOON)
    except DecodeError as error:
        assert 0 <= error.offset <= len(kept)  # noqa: PT017 - most damage is found
    else:
        assert len(body) == header.count * wire.RECORD_BYTES


numbers = st.integers(-(10**30), 10**30) | st.floats() | st.sampled_from((0, 7, AT_S, 2**63))
labels = st.sampled_from(["bn", "bt", "bu", "bv", "bver", "n", "u", "v", "t", "ut", "vs", "x_"])
texts = st.sampled_from([CUFF_NAME, "1/systolic_mmhg", "mm[Hg]", COUNTERS[0]["n"]]) | st.text()


@given(records=st.lists(st.dictionaries(labels, numbers | texts | st.booleans()), max_size=8))
def test_any_json_is_a_located_error_or_a_batch(records: list[dict[str, Any]]) -> None:
    payload = pack(*records)
    try:
        header, body = decode_pack(payload, NOON)
    except DecodeError as error:
        assert 0 <= error.offset <= len(payload)  # noqa: PT017 - most is no pack
    else:
        assert len(body) == header.count * wire.RECORD_BYTES
