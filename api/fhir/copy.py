"""A resident's archive as FHIR, for the copy that they may have: NDJSON, as Bulk Data has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import orjson

from api.fhir.export import lines_of
from api.fhir.observations import EVERYTHING
from api.fhir.resources import device, patient
from api.fhir.store import read_devices, read_patient, read_rows
from gateway.platform.postgres import AsyncConnection


async def fhir_copy(
    connection: AsyncConnection, resident: UUID
) -> AsyncIterator[tuple[str, bytes]]:
    """Yield (kind of resource, lines), kind after kind, of what the open transaction may read."""
    whom = await read_patient(connection, resident)
    if whom is not None:
        yield "Patient", orjson.dumps(patient(whom)) + b"\n"
    devices = await read_devices(connection, resident)
    yield "Device", b"".join(orjson.dumps(device(one)) + b"\n" for one in devices)
    yield "Observation", b""  # the file is there where there is nothing in it, too
    async for rows in read_rows(connection, resident):
        lines, _count = await asyncio.to_thread(lines_of, rows, EVERYTHING)
        yield "Observation", lines
