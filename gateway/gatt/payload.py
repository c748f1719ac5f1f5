"""Reading and writing little-endian GATT fields; every fault names its field and byte.

Bluetooth Core 5.4, Vol 3 Part G, 2.3: multi-octet fields are sent least significant octet first.
"""

from __future__ import annotations

from gateway.errors import DecodeError, EncodeError, Fault

PAYLOAD_BYTES_MAX = 4096
"""An attribute has at most 512 octets (Core 5.4, Vol 3 Part F, 3.2.9); what is sent in segments
may be longer. A longer payload is refused, and its first 4,096 bytes are kept."""


class PayloadReader:
    """Takes fields off a payload from the left; a payload that is too short is a `DecodeError`.

    Follow the specification's own field order: one call a field, then `finish`.
    """

    __slots__ = ("_payload", "offset")

    def __init__(self, payload: bytes) -> None:
        if len(payload) > PAYLOAD_BYTES_MAX:
            detail = f"has {len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} are read"
            raise DecodeError(Fault.TOO_LONG, "payload", PAYLOAD_BYTES_MAX, detail)
        self._payload = payload
        self.offset = 0

    @property
    def remaining(self) -> int:
        """How many bytes have not been read."""
        return len(self._payload) - self.offset

    def take(self, field: str, size: int) -> bytes:
        """Return the next `size` bytes, which hold `field`."""
        if self.remaining < size:
            detail = f"needs {size}, payload has {len(self._payload)}"
            raise DecodeError(Fault.TRUNCATED, field, self.offset, detail)
        start = self.offset
        self.offset += size
        return self._payload[start : self.offset]

    def unsigned(self, field: str, size: int) -> int:
        """Return the next `size` bytes as an unsigned integer."""
        return int.from_bytes(self.take(field, size), "little")

    def signed(self, field: str, size: int) -> int:
        """Return the next `size` bytes as a two's complement integer."""
        return int.from_bytes(self.take(field, size), "little", signed=True)

    def invalid(self, field: str, size: int, detail: str) -> DecodeError:
        """Return the error for the field of `size` bytes that was read last."""
        return DecodeError(Fault.INVALID, field, self.offset - size, detail)

    def finish(self) -> None:
        """Refuse bytes that no flag announced: they would mean that the flags lie.

        A device that pads its payloads is a dialect of its own; until that is written, its
        payloads wait in quarantine, whole.
        """
        if self.remaining:
            detail = f"starts here, payload has {len(self._payload)}"
            raise DecodeError(Fault.TRAILING, "unannounced data", self.offset, detail)


def unsigned_field(field: str, value: int, size: int) -> bytes:
    """Return `value` as `size` bytes; a value that does not fit is an `EncodeError`."""
    if not 0 <= value < 1 << (8 * size):
        raise EncodeError(f"{field} {value} does not fit {size} unsigned bytes")
    return value.to_bytes(size, "little")
