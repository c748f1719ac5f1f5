"""The families of error, by who must act.

The data is wrong: a `DataError`; the data is quarantined and counted, the service carries on.
The world is down: an `UnavailableError`; back off, acknowledge nothing, try again.
The person at the keyboard must act: a `UsageError`; its text says what to do.
We are wrong: an assertion; the process ends and is started again.
"""

from __future__ import annotations

from enum import Enum


class HearthError(Exception):
    """Every error that Hearth raises on purpose."""


class DataError(HearthError):
    """Bytes or values that came from outside are wrong."""


class Fault(Enum):
    """What is wrong with a payload, for counters. The numbers are the wire format's."""

    TRUNCATED = 1
    INVALID = 2
    TRAILING = 3
    TOO_LONG = 4
    UNSUPPORTED = 5
    """It follows its specification but says something that no decoder here reads yet."""
    CORRUPT = 6
    """A checksum or a length disagrees with the bytes."""
    INEXACT = 7
    """It decodes, but a value cannot travel without being altered."""


class DecodeError(DataError):
    """A payload does not follow its specification.

    `offset` is the byte where the fault lies and `field` the specification's name of the field
    that should stand there: "truncated: Pulse Rate at byte 14 needs 2, payload has 15".
    """

    def __init__(self, fault: Fault, field: str, offset: int, detail: str) -> None:
        super().__init__(f"{fault.name.lower()}: {field} at byte {offset} {detail}")
        self.fault = fault
        self.field = field
        self.offset = offset


class EncodeError(DataError):
    """A value cannot be written in the format asked for without altering it."""


class UnavailableError(HearthError):
    """Something outside this process (broker, database, adapter, disk) does not answer now."""


class UsageError(HearthError):
    """A setting, argument or machine is not as needed; the text says what to do."""
