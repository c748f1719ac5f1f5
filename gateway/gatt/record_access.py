"""Record Access Control Point (0x2A52): how a device's stored records are asked for and deleted.

GATT Specification Supplement, Record Access Control Point, as the Glucose and Generic Health Sensor
services use it. The width of a number of records is the service's: two bytes or four.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import DecodeError, Fault
from gateway.gatt.payload import PayloadReader, unsigned_field

CHARACTERISTIC = 0x2A52

_REPORT, _DELETE, _COMBINED_REPORT = 0x01, 0x02, 0x07
_NUMBER_RESPONSE, _RESPONSE_CODE, _COMBINED_RESPONSE = 0x05, 0x06, 0x08
_ALL, _LESS_OR_EQUAL = 0x01, 0x02
_FILTER_RECORD_NUMBER = 0x01
_SUCCESS, _NO_RECORDS = 0x01, 0x06
_NUMBER_BYTES_MAX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAccessResponse:
    """What ends a procedure: how many records there are or were reported, or a response code."""

    request: int | None
    """The op code that is answered; None where the answer is a number of records."""
    code: int | None
    records: int | None

    @property
    def succeeded(self) -> bool:
        """Whether it was done; that there was nothing to report is no failure."""
        return self.code in (None, _SUCCESS, _NO_RECORDS)


def combined_report_request() -> bytes:
    """Return the request "report all stored records, and how many there were"."""
    return bytes((_COMBINED_REPORT, _ALL))


def report_request() -> bytes:
    """Return the request "report all stored records", as the Glucose service has it."""
    return bytes((_REPORT, _ALL))


def delete_up_to_request(record_number: int) -> bytes:
    """Return the request "delete the records up to and including this number"."""
    head = bytes((_DELETE, _LESS_OR_EQUAL, _FILTER_RECORD_NUMBER))
    return head + unsigned_field("Record Number", record_number, 4)


def decode_response(payload: bytes) -> RecordAccessResponse:
    """Return what an indication says: Op Code, Operator (null), then its operand."""
    reader = PayloadReader(payload)
    opcode = reader.unsigned("Op Code", 1)
    reader.unsigned("Operator", 1)
    if opcode in (_NUMBER_RESPONSE, _COMBINED_RESPONSE):
        size = min(max(reader.remaining, 1), _NUMBER_BYTES_MAX)
        records = reader.unsigned("Number of Records", size)
        reader.finish()
        return RecordAccessResponse(request=None, code=None, records=records)
    if opcode == _RESPONSE_CODE:
        request = reader.unsigned("Request Op Code", 1)
        code = reader.unsigned("Response Code", 1)
        reader.finish()
        return RecordAccessResponse(request=request, code=code, records=None)
    raise DecodeError(Fault.UNSUPPORTED, "Op Code", 0, f"is {opcode}; awaited are 5, 6 and 8")
