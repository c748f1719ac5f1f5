"""Messages to arrays: what is no batch of its hub is set apart and costs nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway import wire
from gateway.errors import Fault
from gateway.measurement import Undecoded
from ingest.batches import RECORD_DTYPE, read_messages
from ingest.verdicts import Verdict
from tests.worlds import (
    CUFF,
    HUB,
    NOON,
    OTHER_HUB,
    a_message,
    a_pressure,
    a_registry,
    a_weight,
    as_message,
)


def test_the_array_reads_what_the_hub_wrote() -> None:
    flush = read_messages([a_message(a_pressure(), a_weight())], a_registry())
    assert flush.records["device"][0] == CUFF
    assert flush.records["mantissa"][0].tolist() == [128, 82, 0, 71, 0]
    assert flush.records["exponent"][1].tolist() == [-3, 0, 0, 0, 0]
    assert flush.batch_of.tolist() == [0, 0]


def test_the_dtype_is_the_wire_s_layout_field_by_field() -> None:
    offset = 0
    for name, code, count in wire.RECORD_FIELDS:
        assert RECORD_DTYPE.fields is not None
        dtype, at, *_ = RECORD_DTYPE.fields[name]
        size = wire.struct_of([(name, code, count)]).size
        assert (at, dtype.itemsize) == (offset, size)
        offset += size


def test_the_same_batch_twice_is_read_once() -> None:
    message = a_message(a_pressure())
    flush = read_messages([message, message], a_registry())
    assert len(flush.batches) == 1
    assert len(flush.records) == 1
    assert len(flush.messages) == 2


def test_another_hubs_batch_is_refused() -> None:
    message = a_message(a_pressure(), hub=OTHER_HUB)
    forged = as_message(message.payload, hub=HUB)
    (rejected,) = read_messages([forged], a_registry()).rejected
    assert rejected.reason is Verdict.HUB_FOREIGN


def test_a_hub_that_is_not_enrolled_is_refused() -> None:
    (rejected,) = read_messages([a_message(a_pressure(), hub=0xDEAD)], a_registry()).rejected
    assert rejected.reason is Verdict.HUB_UNKNOWN


def test_a_batch_on_a_strange_topic_is_refused() -> None:
    payload = a_message(a_pressure()).payload
    (rejected,) = read_messages([as_message(payload, hub=None)], a_registry()).rejected
    assert rejected.reason is Verdict.HUB_FOREIGN


def test_undecoded_payloads_are_kept_beside_the_records() -> None:
    entry = Undecoded(
        device=CUFF, source=0x2A35, fault=Fault.TRUNCATED, payload=b"\x01", received_at=NOON
    )
    header = wire.Header(
        hub=HUB,
        epoch=1,
        sequence=2,
        kind=wire.Kind.UNDECODED,
        count=1,
        reference_at=NOON,
    )
    message = as_message(wire.encode_batch(header, wire.encode_undecoded(entry, NOON)))
    flush = read_messages([a_message(a_pressure()), message], a_registry())
    assert [batch.undecoded for batch in flush.batches] == [(), (entry,)]
    assert len(flush.records) == 1


@given(st.lists(st.binary(max_size=200), max_size=8), st.data())
def test_rubbish_between_batches_costs_them_nothing(
    rubbish: list[bytes], data: st.DataObject
) -> None:
    messages = [a_message(a_pressure(), sequence=1), a_message(a_weight(), sequence=2)]
    for payload in rubbish:
        messages.insert(data.draw(st.integers(0, len(messages))), as_message(payload))
    flush = read_messages(messages, a_registry())
    assert len(flush.batches) == 2
    assert len(flush.records) == 2
    assert len(flush.rejected) == len(rubbish)
    assert {rejected.reason for rejected in flush.rejected} <= {Verdict.NO_BATCH}


def test_every_truncation_of_a_batch_is_set_apart() -> None:
    payload = a_message(a_pressure(), a_weight()).payload
    messages = [as_message(payload[:length]) for length in range(len(payload))]
    flush = read_messages(messages, a_registry())
    assert len(flush.rejected) == len(payload)
    assert not flush.batches
