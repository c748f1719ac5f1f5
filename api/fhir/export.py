"""Bulk Data export: FHIR Bulk Data Access 2.0, kick-off, status, files, cancellation.

An export is a record in the store and files in a folder. It goes on resident by resident, each read
through `Archive.reading` as the one who asked, and notes after each how long the files are: a worker
that takes it over, after a restart of the API, goes on from there. It has files of its own, with a copy of
what was noted, and from then on only it can note anything: a worker that was taken for dead, and is not,
writes to files that nobody reads, until it learns of it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import orjson

from api.access import ForbiddenError, Principal, Role, SignedOutError
from api.archive import Archive, UnknownResidentError
from api.fhir.access import SEARCH, parts_for
from api.fhir.observations import Row, Wanted, observations
from api.fhir.outcomes import OutcomeError
from api.fhir.parts import PARTS_OF, Part
from api.fhir.resources import device, patient
from api.fhir.store import FhirStore
from gateway.errors import UnavailableError
from gateway.platform.logs import get_logger
from gateway.platform.postgres import Jsonb, TupleRow, load_queries
from gateway.platform.pruning import TOLD_KEPT_DAYS, Hourly, prune

KINDS = ("Patient", "Device", "Observation")
"""What can be exported."""
RUNNING_MAX = 4
"""So many exports are under way at once; a further one is refused (429)."""
KEPT_H = 24
"""The files of a finished export are kept so long, then removed; that it was asked for, `TOLD_KEPT_DAYS`."""
LEASE_S = 60
"""A worker that has noted nothing for so long is taken for dead, its export goes to another."""
LOOK_S = 5.0
"""How often a worker looks for exports that another left behind."""
PATIENTS_A_PAGE = 500
PATIENTS_BETWEEN_NOTES = 20
"""After so many residents the progress is noted; so many are read again after a crash at most."""

_SQL = load_queries(Path(__file__).parents[1] / "sql" / "fhir_export.sql")
_log = get_logger(__name__)


class TooManyExportsError(Exception):
    """So many exports are under way that a further one has to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far an export is. `counts`: resources by kind."""

    id: UUID
    request: str
    state: str
    started_at: datetime
    done: int
    all: int
    counts: Mapping[str, int]
    finished_at: datetime | None
    error: str | None
    files_of: int
    """Whose lease's files are the export's."""


@dataclass(slots=True, kw_only=True)
class _Job:
    id: UUID
    lease: int
    files_of: int
    principal: Principal
    kinds: Sequence[str]
    since: datetime | None
    behind: UUID | None
    done: int
    all: int
    sizes: dict[str, int]
    counts: dict[str, int]

    def begin_anew(self) -> None:
        """Forget how far it was."""
        self.behind, self.done, self.sizes, self.counts = None, 0, {}, {}


class Exports:
    """The exports of an archive, their files in `folder`."""

    def __init__(self, archive: Archive, folder: Path) -> None:
        self._archive = archive
        self._store = FhirStore(archive)
        self._folder = folder
        self._begun = asyncio.Event()

    async def begin(
        self, principal: Principal, request: str, kinds: Sequence[str], since: datetime | None
    ) -> UUID:
        """Enter an export; a worker takes it at once.

        Raises:
            SignedOutError: the account does not stand any more.
            TooManyExportsError: so many are under way already.
        """
        await self._archive.note(principal, "export.begin", kinds=list(kinds))
        rows = await self._archive.write(
            _SQL["begin"],
            {
                "account": principal.user,
                "principal": Jsonb(principal_to_json(principal)),
                "request": request,
                "kinds": list(kinds),
                "since": since,
                "running_max": RUNNING_MAX,
            },
        )
        if not rows:
            raise TooManyExportsError
        self._begun.set()
        found: UUID = rows[0][0]
        return found

    async def status(self, principal: Principal, export: UUID) -> Status | None:
        """Return how far an export of this principal is.

        Raises:
            SignedOutError: the account does not stand any more.
        """
        await self._archive.vouch(principal)
        rows = await self._archive.rows(_SQL["read"], {"export": export, "account": principal.user})
        return _status(rows[0]) if rows else None

    async def cancel(self, principal: Principal, export: UUID) -> bool:
        """End an export of this principal and remove its files; tells whether there was one.

        Raises:
            SignedOutError: the account does not stand any more.
        """
        await self._archive.vouch(principal)
        rows = await self._archive.write(
            _SQL["cancel"], {"export": export, "account": principal.user}
        )
        if rows:
            await asyncio.to_thread(shutil.rmtree, self._of(export), ignore_errors=True)
        return bool(rows)

    async def handed_over(self, principal: Principal, export: UUID, kind: str) -> Path | None:
        """Return a whole file of an export of this principal, audited; None: there is none.

        Raises:
            SignedOutError: the account does not stand any more.
        """
        status = await self.status(principal, export)
        if status is None or status.state != "complete" or kind not in KINDS:
            return None
        path = self._file(export, status.files_of, kind)
        if not path.is_file():
            return None
        await self._archive.note(principal, "export.read", export=str(export), kind=kind)
        return path

    async def run_forever(self) -> None:
        """Work on exports, one after the other, and remove what is old."""
        hourly = Hourly()
        while True:
            self._begun.clear()
            try:
                if hourly.is_due():
                    await self._forget()
                await self._sweep()
                while (job := await self._claim()) is not None:
                    await self._work(job)
            except UnavailableError as error:
                _log.warning("exports_wait", why=str(error))
            try:
                await asyncio.wait_for(self._begun.wait(), LOOK_S)
            except TimeoutError:
                continue

    def _of(self, export: UUID) -> Path:
        return self._folder / str(export)

    def _file(self, export: UUID, lease: int, kind: str) -> Path:
        """Return where the resources of a kind lie that a lease's worker writes."""
        return self._of(export) / str(lease) / f"{kind}.ndjson"

    async def _forget(self) -> None:
        async def remove(rows: int) -> int:
            kept = {"days": TOLD_KEPT_DAYS, "rows": rows}
            return len(await self._archive.write(_SQL["forget"], kept))

        await prune(remove)

    async def _sweep(self) -> None:
        # The folders first: what another worker begins from here on has none yet, or is asked about.
        folders = list(self._folder.iterdir()) if self._folder.is_dir() else []
        rows = await self._archive.rows(_SQL["kept"], {"hours": KEPT_H})
        kept = {str(export) for (export,) in rows}
        for folder in folders:
            if folder.name not in kept:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _claim(self) -> _Job | None:
        rows = await self._archive.write(_SQL["claim"], {"lease_s": LEASE_S})
        if not rows:
            return None
        (export, lease, files_of, principal, kinds, since, behind, done, everyone, sizes,
         counts) = rows[0]  # fmt: skip
        return _Job(
            id=export,
            lease=lease,
            files_of=files_of,
            principal=principal_from_json(principal),
            kinds=kinds,
            since=since,
            behind=behind,
            done=done,
            all=everyone,
            sizes=sizes,
            counts=counts,
        )

    async def _work(self, job: _Job) -> None:
        error = None
        try:
            parts = parts_for(job.principal, SEARCH) if "Observation" in job.kinds else ()
            async with self._files(job) as files:
                if not await self._write_all(job, files, parts):
                    return
        except (ForbiddenError, OutcomeError):
            error = "forbidden"
        except SignedOutError:
            error = "signed out"
        except OSError as failure:
            _log.exception("export_failed", export=str(job.id))
            error = failure.strerror or "disk"
        except asyncio.CancelledError:
            mine = {"export": job.id, "lease": job.lease}
            await asyncio.shield(self._archive.write(_SQL["release"], mine))
            raise
        ended = {"export": job.id, "lease": job.lease, "error": error}
        if await self._archive.write(_SQL["finish"], ended):
            _log.info("export_finished", export=str(job.id), residents=job.done, error=error)

    @asynccontextmanager
    async def _files(self, job: _Job) -> AsyncIterator[Mapping[str, BinaryIO]]:
        """Open files of this lease's own, with what was noted of the export.

        Where one does not reach that far (the folder is another's, or a power cut took what was noted)
        the export begins anew: a file is never filled up with what it lacks.
        """
        await asyncio.to_thread(self._copy_noted, job)
        files = {kind: self._file(job.id, job.lease, kind).open("ab") for kind in job.kinds}
        try:
            if any(file.tell() < job.sizes.get(kind, 0) for kind, file in files.items()):
                _log.warning("export_begins_anew", export=str(job.id))
                job.begin_anew()
            for kind, file in files.items():
                file.truncate(job.sizes.get(kind, 0))
                file.seek(0, os.SEEK_END)
            if await self._note(job, files):
                await asyncio.to_thread(self._remove_former, job)
            yield files
        finally:
            for file in files.values():
                file.close()

    def _copy_noted(self, job: _Job) -> None:
        """Copy what the worker before may still be writing to."""
        folder = self._of(job.id) / str(job.lease)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for kind in job.kinds:
            with suppress(FileNotFoundError):  # nothing was noted, or it is gone
                shutil.copyfile(
                    self._file(job.id, job.files_of, kind), self._file(job.id, job.lease, kind)
                )

    def _remove_former(self, job: _Job) -> None:
        """Remove the files of workers before; what one of them still has open goes with it."""
        for folder in self._of(job.id).iterdir():
            if not folder.name.isdecimal() or int(folder.name) < job.lease:
                shutil.rmtree(folder, ignore_errors=True)

    async def _write_all(
        self, job: _Job, files: Mapping[str, BinaryIO], parts: Sequence[Part]
    ) -> bool:
        """Write resident after resident; tells whether it went to the end (no: cancelled, or another's)."""
        while True:
            page = await self._store.patients(job.principal, job.behind, PATIENTS_A_PAGE)
            job.all = max(job.all, job.done + len(page))
            for number, record in enumerate(page, start=1):
                resident = UUID(record.id)
                if "Patient" in files:
                    _write(job, files, "Patient", [orjson.dumps(patient(record))])
                await self._write_resident(job, files, parts, resident)
                job.behind, job.done = resident, job.done + 1
                last = number == len(page)
                if (number % PATIENTS_BETWEEN_NOTES == 0 or last) and not await self._note(
                    job, files
                ):
                    return False
            if len(page) < PATIENTS_A_PAGE:
                return True

    async def _write_resident(
        self,
        job: _Job,
        files: Mapping[str, BinaryIO],
        parts: Sequence[Part],
        resident: UUID,
    ) -> None:
        try:
            if "Device" in files:
                records = await self._store.devices_of(job.principal, resident)
                _write(job, files, "Device", [orjson.dumps(device(r)) for r in records])
            if "Observation" in files:
                wanted = Wanted(parts=_by_sign(parts))
                async with self._store.everything(
                    job.principal, resident, job.since, "observation.export"
                ) as batches:
                    async for rows in batches:
                        await asyncio.to_thread(_write_rows, job, files, rows, wanted)
        except (UnknownResidentError, ForbiddenError):
            return  # no longer the reader's to see; what was written of them before stays theirs

    async def _note(self, job: _Job, files: Mapping[str, BinaryIO]) -> bool:
        await asyncio.to_thread(_keep, files.values())
        job.sizes = {kind: file.tell() for kind, file in files.items()}
        rows = await self._archive.write(
            _SQL["progress"],
            {
                "export": job.id,
                "lease": job.lease,
                "behind": job.behind,
                "done": job.done,
                "all": job.all,
                "sizes": Jsonb(job.sizes),
                "counts": Jsonb(job.counts),
                "lease_s": LEASE_S,
            },
        )
        return bool(rows)


def lines_of(rows: Sequence[Row], wanted: Wanted) -> tuple[bytes, int]:
    """Return the Observations of rows as NDJSON, and how many they are."""
    texts = [made.json for row in rows for made in observations(row, wanted)]
    return b"".join([text + b"\n" for text in texts]), len(texts)


def _status(row: TupleRow) -> Status:
    (export, request, state, started_at, done, everyone, counts, finished_at, error,
     files_of) = row  # fmt: skip
    return Status(
        id=export,
        request=request,
        state=state,
        started_at=started_at,
        done=done,
        all=everyone,
        counts=counts,
        finished_at=finished_at,
        error=error,
        files_of=files_of,
    )


def _write_rows(
    job: _Job, files: Mapping[str, BinaryIO], rows: Sequence[Row], wanted: Wanted
) -> None:
    text, count = lines_of(rows, wanted)
    files["Observation"].write(text)
    job.counts["Observation"] = job.counts.get("Observation", 0) + count


def _write(job: _Job, files: Mapping[str, BinaryIO], kind: str, lines: Sequence[bytes]) -> None:
    files[kind].write(b"".join(line + b"\n" for line in lines))
    job.counts[kind] = job.counts.get(kind, 0) + len(lines)


def _keep(files: Iterable[BinaryIO]) -> None:
    """Bring files to the disk, so that no more of them is noted than is there after a power cut."""
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def _by_sign(parts: Sequence[Part]) -> dict[int, tuple[Part, ...]]:
    chosen = set(map(id, parts))
    return {
        code: tuple(part for part in known if id(part) in chosen)
        for code, known in PARTS_OF.items()
    }


def principal_to_json(principal: Principal) -> dict[str, Any]:
    """Return who asked, to be kept with what works for them later."""
    return {
        "user": str(principal.user),
        "role": principal.role.value,
        "session": None if principal.session is None else str(principal.session),
        "resident": None if principal.resident is None else str(principal.resident),
        "scopes": sorted(principal.scopes),
        "origin": principal.origin,
    }


def principal_from_json(document: Mapping[str, Any]) -> Principal:
    """Return who asked; what they may see is decided anew with each read."""
    session, resident = document["session"], document["resident"]
    return Principal(
        user=UUID(document["user"]),
        role=Role(document["role"]),
        session=None if session is None else UUID(session),
        resident=None if resident is None else UUID(resident),
        scopes=frozenset(document["scopes"]),
        origin=document["origin"],
    )
