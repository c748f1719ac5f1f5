"""Where a measurement stands in a resident's archive, as an opaque token: its id, and the cursor.

The place is what the pages are ordered by, (measured_at, device, user slot, sign, identity time):
the columns of the store's unique key. So a page that goes on behind a measurement neither skips nor
repeats one, whatever arrives between two pages, and wherever it belongs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_PLACE = struct.Struct(">qiBBq")
"""measured_at, device, user slot, sign, identity time; times in microseconds since 1970."""
TOKEN_CHARS = 2 * _PLACE.size
"""22 bytes as hexadecimal digits: every token is as long, and fit for FHIR's ids and for URLs."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """The unique key of a stored measurement, in the order of the pages.

    `device_id` is the store's key. `identity_us` is the device's own time, which may lie outside
    the years that a datetime can hold: microseconds since 1970.
    """

    measured_at: datetime
    device_id: int
    user_slot: int
    sign: int
    identity_us: int


BEFORE_ALL = Place(
    measured_at=datetime.min.replace(tzinfo=UTC), device_id=0, user_slot=0, sign=0, identity_us=0
)
BEHIND_ALL = Place(
    measured_at=datetime.max.replace(tzinfo=UTC), device_id=0, user_slot=0, sign=0, identity_us=0
)


def encode_place(place: Place) -> str:
    """Return the token of a place: `TOKEN_CHARS` of 0-9 and a-f."""
    return _PLACE.pack(
        (place.measured_at - EPOCH) // _MICROSECOND,
        place.device_id,
        place.user_slot,
        place.sign,
        place.identity_us,
    ).hex()


def decode_place(token: str) -> Place:
    """Return the place of a token.

    Raises:
        ValueError: `encode_place` makes no such token.
    """
    try:
        measured_us, device_id, user_slot, sign, identity_us = _PLACE.unpack(bytes.fromhex(token))
        place = Place(
            measured_at=EPOCH + measured_us * _MICROSECOND,
            device_id=device_id,
            user_slot=user_slot,
            sign=sign,
            identity_us=identity_us,
        )
    except (struct.error, OverflowError, ValueError) as error:
        raise ValueError("no such token was given out") from error
    if encode_place(place) != token:  # capitals, spaces
        raise ValueError("no such token was given out")
    return place
