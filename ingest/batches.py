"""Messages as they arrive, and a flush of them as arrays.

One flush takes the records of many messages as one NumPy array. A message that is no batch, or not
its hub's, is set apart here; it costs its neighbours nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zlib import crc32

import numpy as np
import numpy.typing as npt

from gateway import wire
from gateway.errors import DecodeError
from gateway.gatt.times import ms_since_epoch
from gateway.measurement import Undecoded
from ingest import senml
from ingest.registry import Registry
from ingest.verdicts import Verdict

_NUMPY_CODES = {"Q": "<u8", "q": "<i8", "I": "<u4", "i": "<i4", "H": "<u2", "B": "u1", "b": "i1"}


def _dtype_of(fields: Sequence[tuple[str, str, int]]) -> np.dtype[np.void]:
    return np.dtype(
        [
            (name, "u1", (count,)) if code == "s" else (name, _NUMPY_CODES[code], (count,))
            if count > 1 else (name, _NUMPY_CODES[code])
            for name, code, count in fields
        ]
    )  # fmt: skip


RECORD_DTYPE = _dtype_of(wire.RECORD_FIELDS)
"""A wire record (64 bytes), from the same table as the hub's struct."""
assert RECORD_DTYPE.itemsize == wire.RECORD_BYTES  # noqa: S101


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One MQTT message on a lane. `hub` is the one its topic names, None for a strange topic.

    `token` is what the lane acknowledges it by, in order of arrival.
    """

    lane: int
    token: int
    hub: int | None
    payload: bytes
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch whose hub is enrolled: its header, its hub's key, its undecoded payloads if any.

    `checksum`: the CRC-32 of its body, of the same batch the same, however often and by whatever message it
    comes. It is for telling of mistakes: a hub that forges it harms only what is its own.
    """

    message: Message
    header: wire.Header
    checksum: int
    hub_id: int
    home_id: int
    undecoded: tuple[Undecoded, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A message that is no batch of its hub, or another than came under its number, with the reason."""

    message: Message
    reason: Verdict
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush:
    """The messages that are committed together.

    `records`: (n,) RECORD_DTYPE, batch after batch; `batch_of`: (n,) intp, the place in `batches`
    of each record's batch.
    """

    messages: tuple[Message, ...]
    batches: tuple[Batch, ...]
    records: npt.NDArray[np.void]
    batch_of: npt.NDArray[np.intp]
    rejected: tuple[Rejected, ...]


def read_messages(messages: Sequence[Message], registry: Registry) -> Flush:
    """Take messages apart into the arrays of a flush.

    The same batch twice in one flush is read once: the second is a redelivery, and set apart where it
    holds something else.
    """
    batches: list[Batch] = []
    bodies: list[bytes] = []
    rejected: list[Rejected] = []
    seen: dict[tuple[int, int, int], Batch] = {}
    for message in messages:
        try:
            batch, body = _read_batch(message, registry)
        except _RejectedError as error:
            rejected.append(error.rejected)
            continue
        key = (batch.hub_id, batch.header.epoch, batch.header.sequence)
        former = seen.setdefault(key, batch)
        if former is batch:
            batches.append(batch)
            bodies.append(body)
        elif former.checksum != batch.checksum:
            rejected.append(differing(batch))
    counts = np.fromiter((len(body) // wire.RECORD_BYTES for body in bodies), np.intp, len(bodies))
    return Flush(
        messages=tuple(messages),
        batches=tuple(batches),
        records=np.frombuffer(b"".join(bodies), RECORD_DTYPE),
        batch_of=np.repeat(np.arange(len(bodies)), counts),
        rejected=tuple(rejected),
    )


def differing(batch: Batch) -> Rejected:
    """Set a batch apart that came under the number of another; its message is kept whole."""
    header = batch.header
    detail = f"epoch {header.epoch}, sequence {header.sequence}: another batch came before"
    return Rejected(message=batch.message, reason=Verdict.BATCH_DIFFERS, detail=detail)


def reference_ms(flush: Flush) -> npt.NDArray[np.int64]:
    """Return (n,) the reference time of each record's batch, in milliseconds."""
    per_batch = np.array(
        [ms_since_epoch(batch.header.reference_at) for batch in flush.batches], np.int64
    )
    return per_batch[flush.batch_of]


def hub_homes(flush: Flush) -> npt.NDArray[np.int32]:
    """Return (n,) the home of each record's hub."""
    return np.array([batch.home_id for batch in flush.batches], np.int32)[flush.batch_of]


class _RejectedError(Exception):
    def __init__(self, message: Message, reason: Verdict, detail: str) -> None:
        super().__init__(detail)
        self.rejected = Rejected(message=message, reason=reason, detail=detail)


def _decoded(message: Message) -> tuple[wire.Header, bytes]:
    """Return a batch's header and body; a SenML pack's are made of it."""
    if senml.is_pack(message.payload):
        return senml.decode_pack(message.payload, message.received_at)
    return wire.decode_batch(message.payload)


def _read_batch(message: Message, registry: Registry) -> tuple[Batch, bytes]:
    try:
        header, body = _decoded(message)
        undecoded = (
            tuple(wire.decode_undecoded(body, header)) if header.kind is wire.Kind.UNDECODED else ()
        )
    except DecodeError as error:
        raise _RejectedError(message, Verdict.NO_BATCH, str(error)) from error
    if header.hub != message.hub:
        raise _RejectedError(message, Verdict.HUB_FOREIGN, "the topic is another hub's")
    found = registry.find_hub(header.hub)
    if found is None:
        is_revoked = registry.is_revoked(header.hub)
        reason = Verdict.HUB_REVOKED if is_revoked else Verdict.HUB_UNKNOWN
        raise _RejectedError(message, reason, wire.hub_name(header.hub))
    hub_id, home_id = found
    batch = Batch(
        message=message,
        header=header,
        checksum=crc32(body),
        hub_id=hub_id,
        home_id=home_id,
        undecoded=undecoded,
    )
    return batch, b"" if undecoded or header.kind is wire.Kind.UNDECODED else body
