"""A resident's copy of the archive: one ZIP with the profile, all measurements as JSON, CSV and FHIR.

Personal Information Protection Law, article 45: the person may have a copy. Made in memory-bounded
steps: pages of measurements go into a file that leaves memory when it is large.
"""

from __future__ import annotations

import asyncio
import csv
import io
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import IO, Any
from uuid import UUID

import orjson

from api.access import Principal
from api.archive import Archive
from api.cursor import BEFORE_ALL, BEHIND_ALL
from api.documents import AbsentValue, MeasurementDocument
from api.fhir.copy import fhir_copy
from api.json_rows import measurement_document
from api.measurement_rows import VALUES, Order, Selection, stored_measurement
from api.people import QUERIES, PersonDocument, person, person_document
from api.resident_import import QUERIES as RESIDENTS
from api.vault import IdentityVault
from gateway import __version__
from gateway.errors import UsageError
from gateway.platform.audit import AuditEvent, command_actor, write_audit
from gateway.platform.postgres import AsyncConnection, translated
from gateway.vitals import QUANTITIES, SIGNS

MEDIA_TYPE = "application/zip"
FILE_NAME = "hearth-archive.zip"
"""The same for everyone: a name could reach a log."""
PAGE_ROWS = 5_000
"""Measurements that are read at once."""
MEMORY_BYTES_MAX = 4 * 1024 * 1024
"""A longer copy is put together on disk."""
COPIES_AT_ONCE_MAX = 2
"""Each packs for a while; further ones wait for their turn."""
PIECE_BYTES = 256 * 1024
"""So much of a copy is handed over at once."""

README = """\
这是您在 Hearth 家庭体征档案中的全部数据。 / This is all that Hearth keeps of you.

profile.json        资料与个人目标 / who you are, and your own limits
measurements.json   全部测量, 每行一条 / every measurement, one JSON object a line
measurements.csv    同样的内容, 表格 / the same as a table (UTF-8)
fhir/*.ndjson       同样的内容, HL7 FHIR R4 资源, 每行一个 / the same as FHIR R4 resources, one a line:
                    Patient, Device, Observation

时间带有测量地的时差; 数值与设备所示位数一致。 / Times have the offset of where you measured; values
have the digits that the device showed.
"""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""By which a spreadsheet program knows that it is UTF-8."""
_EVERY = QUERIES["every_measurement"].format(values=VALUES)
_FIXED = ("measured_at", "sign", "device", "user_slot", "time_quality", "artefact", "statuses")


async def resident_file(
    archive: Archive, vault: IdentityVault, principal: Principal, resident: UUID
) -> IO[bytes]:
    """Return the archive file, at its beginning, to be closed; `Archive.reading` names the errors."""
    profile = await person(archive, vault, principal, resident)
    pages = _pages(archive, principal, resident)
    resources = _resources(archive, principal, resident)
    file = tempfile.SpooledTemporaryFile(MEMORY_BYTES_MAX)  # noqa: SIM115 - whoever reads it closes it
    try:
        await write_copy(file, profile, pages, resources)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


async def pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """Yield a file to its end, and close it."""
    with file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece


async def export_resident(
    connection: AsyncConnection, vault: IdentityVault, resident: UUID, file: IO[bytes]
) -> int:
    """Write the archive file as the schema's owner, audited; returns how many measurements it has.

    Raises:
        UsageError: there is no such resident.
        UnavailableError: the database is down.
    """
    actor, origin = command_actor()
    with translated():
        async with connection.transaction():
            # So that a measurement's times are written as everywhere (api.archive).
            await connection.execute("SET LOCAL timezone = 'UTC'")
            whom = {"resident": resident}
            found = await (await connection.execute(QUERIES["profile"], whom)).fetchone()
            key = await (await connection.execute(RESIDENTS["sealed_of"], whom)).fetchone()
            if found is None or key is None:
                raise UsageError(f"居民未登记 / resident {resident} is not entered")
            event = AuditEvent(
                actor=actor, action="resident.copy", resident_id=key[0], origin=origin
            )
            await write_audit(connection, [event])
            # The doors of the API show the owner what they show a reader of this one resident.
            await connection.execute(RESIDENTS["read_as_owner"], {"resident_id": key[0]})
            pages = _all_pages(connection, key[0])
            profile = person_document(vault, resident, found)
            return await write_copy(file, profile, pages, fhir_copy(connection, resident))


async def _all_pages(
    connection: AsyncConnection, resident_id: int
) -> AsyncIterator[Sequence[MeasurementDocument]]:
    async with connection.cursor(name="resident_copy") as cursor:
        await cursor.execute(_EVERY, {"resident_id": resident_id})
        while rows := await cursor.fetchmany(PAGE_ROWS):
            yield [measurement_document(stored_measurement(row)) for row in rows]


async def write_copy(
    file: IO[bytes],
    profile: PersonDocument,
    pages: AsyncIterator[Sequence[MeasurementDocument]],
    resources: AsyncIterator[tuple[str, bytes]],
) -> int:
    """Write the archive file and return how many measurements it has.

    `resources`: (kind, lines of NDJSON), all of one kind one after the other.
    """
    count = 0
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        tempfile.SpooledTemporaryFile(MEMORY_BYTES_MAX) as table,
    ):
        archive.writestr("README.txt", README)
        archive.writestr("profile.json", orjson.dumps(profile, option=orjson.OPT_INDENT_2))
        head = {"made_at": datetime.now(UTC), "hearth": __version__}
        archive.writestr("about.json", orjson.dumps(head))
        with archive.open("measurements.json", "w", force_zip64=True) as lines:
            table.write(_BYTE_ORDER_MARK + _row(_headings()))
            async for page in pages:
                count += len(page)
                lines_of_page, rows = await asyncio.to_thread(_rendered, page)
                await asyncio.to_thread(lines.write, lines_of_page)
                table.write(rows)
        table.seek(0)
        with archive.open("measurements.csv", "w", force_zip64=True) as rows_file:
            while piece := table.read(MEMORY_BYTES_MAX):
                await asyncio.to_thread(rows_file.write, piece)
        await _write_resources(archive, resources)
    return count


async def _write_resources(
    archive: zipfile.ZipFile, resources: AsyncIterator[tuple[str, bytes]]
) -> None:
    """Write a file a kind of resource; an archive holds one open file at a time."""
    file: IO[bytes] | None = None
    current = ""
    try:
        async for kind, lines in resources:
            if kind != current:
                if file is not None:
                    file.close()
                file = archive.open(f"fhir/{kind}.ndjson", "w", force_zip64=True)
                current = kind
            assert file is not None  # noqa: S101 - opened at the first kind
            await asyncio.to_thread(file.write, lines)
    finally:
        if file is not None:
            file.close()


def _rendered(page: Sequence[MeasurementDocument]) -> tuple[bytes, bytes]:
    lines = b"".join(orjson.dumps(document) + b"\n" for document in page)
    return lines, b"".join(_row(_cells(document)) for document in page)


async def _pages(
    archive: Archive, principal: Principal, resident: UUID
) -> AsyncIterator[Sequence[MeasurementDocument]]:
    after = None
    while True:
        rows = await archive.measurements(
            principal,
            resident,
            Selection(
                signs=SIGNS,
                from_at=BEFORE_ALL.measured_at,
                to_at=BEHIND_ALL.measured_at,
                order=Order.ASC,
                after=after,
                limit=PAGE_ROWS,
            ),
        )
        if rows:
            yield [measurement_document(row) for row in rows]
        if len(rows) < PAGE_ROWS:
            return
        after = rows[-1].place


async def _resources(
    archive: Archive, principal: Principal, resident: UUID
) -> AsyncIterator[tuple[str, bytes]]:
    async with archive.reading(
        principal, action="observation.export", resident=resident
    ) as connection:
        async for piece in fhir_copy(connection, resident):
            yield piece


def _headings() -> list[str]:
    return [*_FIXED, *(quantity.name for quantity in QUANTITIES)]


def _cells(document: MeasurementDocument) -> list[Any]:
    values = {
        name: value.absent if isinstance(value, AbsentValue) else value.value
        for name, value in document.values.items()
    }
    fixed = [getattr(document, name) for name in _FIXED[:-1]]
    return [
        *fixed,
        " ".join(document.statuses),
        *(_text(values.get(quantity.name)) for quantity in QUANTITIES),
    ]


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return orjson.dumps(value).decode()


def _row(cells: Iterable[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()
