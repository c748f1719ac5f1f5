"""Entering residents by the million: lines of a file to sealed rows, a chunk at a time.

A line is rejected by its number and a reason, never by what it says. The same file again changes
nothing: each line leaves a keyed fingerprint. Memory is two chunks, whatever the file's length: one
is entered while the next is read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID, uuid4

from api.profile import Heading, Profile, ProfileError, targets_json
from api.vault import Identity, IdentityVault, Marks, Sealed
from gateway.errors import UnavailableError, UsageError
from gateway.platform.audit import audit_command, command_actor
from gateway.platform.postgres import (
    Connection,
    DuplicateKeyError,
    Jsonb,
    load_queries,
    translated,
)

QUERIES = load_queries(Path(__file__).parent / "sql" / "residents.sql")

CHUNK_LINES = 5_000
"""Lines that are committed together."""
CHUNK_ATTEMPTS_MAX = 5
"""When others enter the same residents meanwhile, a chunk is tried again so often."""
CELL_CHARS_MAX = 4_096
"""A line with a longer cell is rejected."""
SNIFFED_BYTES = 1 << 20
"""By so much of its beginning a file is judged to be UTF-8 or GB 18030."""

_TYPES = (
    *("int4", "uuid", "int2", "int2", "float4", "text", "jsonb"),
    *("bytea", "bytea", "bytea", "bytea", "bytea", "int2", "bytea", "text"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A line that was not entered, and why."""

    line: int
    column: str
    why: str


@dataclass(slots=True, kw_only=True)
class Counts:
    """What became of the lines."""

    lines: int = 0
    entered: int = 0
    changed: int = 0
    unchanged: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    number: int
    profile: Profile
    marks: Marks
    fingerprint: bytes
    numbers: Sequence[bytes]
    """The marks that tell whose line it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    resident_id: int
    resident: UUID
    fingerprint: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """Lines that were read: those that can be entered by themselves, and the faults of the others."""

    lines: Sequence[_Line]
    faults: Sequence[Rejected]
    ends_at: int
    """So many bytes of the file were read by then."""


def import_residents(
    connection: Connection,
    vault: IdentityVault,
    file: BinaryIO,
    today: date,
    reject: Callable[[Rejected], None],
    progress: Callable[[Counts, int], None],
) -> Counts:
    """Enter the residents of a CSV file and return what became of its lines.

    `connection` is in autocommit mode; each chunk is a transaction of its own. `progress` is told
    after each, with how many bytes of the file were read for it.

    Raises:
        UsageError: the heading is not as needed, or the vault's key is not the archive's.
        UnavailableError: the database is down; what was committed stays, run it again.
    """
    with translated():
        require_right_key(connection, vault)
        connection.execute(QUERIES["make_incoming"])
        connection.execute(QUERIES["make_seen"])
        rows = _rows(file)
        heading = _heading(rows)
        counts = Counts()

        def read_on() -> _Chunk | None:
            return _read(islice(rows, CHUNK_LINES), file, heading, vault, today)

        with ThreadPoolExecutor(1) as reader:  # reads on while the database works
            following = reader.submit(read_on)
            while (chunk := following.result()) is not None:
                following = reader.submit(read_on)
                _enter(connection, vault, chunk, counts, reject)
                progress(counts, chunk.ends_at)
    return counts


def require_right_key(connection: Connection, vault: IdentityVault) -> None:
    """Refuse to seal with a key that is not the one the archive was sealed with.

    Raises:
        UsageError: it is another one.
    """
    found = connection.execute(QUERIES["any_key"], {"key_id": vault.key_id}).fetchone()
    if found is not None:
        vault.rewrap(*found)


def _rows(file: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of lines that are not empty; no cells where it is no CSV."""
    beginning = file.read(SNIFFED_BYTES)
    file.seek(0)
    # Bytes that are neither become lone surrogates, which no cell may hold: the line is rejected.
    text = io.TextIOWrapper(
        file, encoding=_encoding(beginning), errors="surrogateescape", newline=""
    )
    csv.field_size_limit(CELL_CHARS_MAX)
    reader = csv.reader(text, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            text.detach()  # else the file, which is the caller's, would be closed with it
            return
        except csv.Error:
            yield reader.line_num, []
        else:
            if cells:
                yield reader.line_num, cells


def _encoding(beginning: bytes) -> str:
    cut = beginning.rfind(b"\n") + 1 or len(beginning)  # not in the middle of a character
    try:
        beginning[:cut].decode("utf-8-sig")
    except UnicodeDecodeError:
        return "gb18030"
    return "utf-8-sig"


def _heading(rows: Iterator[tuple[int, list[str]]]) -> Heading:
    _number, cells = next(rows, (0, []))
    try:
        return Heading(cells)
    except ProfileError as error:
        raise UsageError(
            f"表头有误 / the heading is wrong ({error}): 首行应为列名 / the first line names the columns, "
            "姓名,身份证号,健康卡号,出生日期,性别,机构,团队,身高,目标:systolic_mmhg or "
            "name,national_id,health_card,birth_date,sex,clinic,care_team,height_cm,"
            "target:systolic_mmhg"
        ) from error


def _read(
    rows: Iterable[tuple[int, list[str]]],
    file: BinaryIO,
    heading: Heading,
    vault: IdentityVault,
    today: date,
) -> _Chunk | None:
    """Read lines; None: there are no more."""
    lines: list[_Line] = []
    faults: list[Rejected] = []
    for number, cells in rows:
        try:
            profile = heading.read(cells, today)
        except ProfileError as error:
            faults.append(Rejected(line=number, column=error.column, why=error.why))
            continue
        marks = vault.marks(profile.identity)
        lines.append(
            _Line(
                number=number,
                profile=profile,
                marks=marks,
                fingerprint=vault.fingerprint(profile.canonical()),
                numbers=[mark for mark in (marks.national_id, marks.health_card) if mark],
            )
        )
    if not lines and not faults:
        return None
    return _Chunk(lines=lines, faults=faults, ends_at=file.tell())


def _enter(
    connection: Connection,
    vault: IdentityVault,
    chunk: _Chunk,
    counts: Counts,
    reject: Callable[[Rejected], None],
) -> None:
    entered, changed, refused = _committed(connection, vault, chunk.lines)
    faults = sorted([*chunk.faults, *refused], key=lambda fault: fault.line)
    for fault in faults:
        reject(fault)
    total = len(chunk.lines) + len(chunk.faults)
    counts.lines += total
    counts.entered += entered
    counts.changed += changed
    counts.unchanged += total - entered - changed - len(faults)
    counts.rejected += len(faults)


def _committed(
    connection: Connection, vault: IdentityVault, lines: Sequence[_Line]
) -> tuple[int, int, list[Rejected]]:
    """Commit a chunk; returns how many were entered, how many changed, and who was refused."""
    for _attempt in range(CHUNK_ATTEMPTS_MAX):
        try:
            with connection.transaction(), translated():
                return _commit_once(connection, vault, lines)
        except DuplicateKeyError:
            continue  # another import was faster: look again
    raise UnavailableError("database: the same residents are being entered by another import")


def _commit_once(
    connection: Connection, vault: IdentityVault, lines: Sequence[_Line]
) -> tuple[int, int, list[Rejected]]:
    seen, known = _seen(connection, lines), _known(connection, lines)
    teams = _known_teams(connection, lines)
    taken, refused = _without_doubles(
        [line for line in lines if line.profile.care_team in teams], seen, known
    )
    refused += [
        Rejected(line=line.number, column="care_team", why="unknown")
        for line in lines
        if line.profile.care_team not in teams
    ]
    noted = {mark: line.number for line in taken for mark in line.numbers}
    if noted:
        see = {"marks": list(noted), "lines": list(noted.values())}
        connection.execute(QUERIES["see"], see)
    owned = [(line, _owner(line, known)) for line in taken]
    new = [line for line, owner in owned if owner is None]
    changed = [
        (line, owner)
        for line, owner in owned
        if owner is not None and owner.fingerprint != line.fingerprint
    ]
    sealed = _sealed(connection, [owner.resident_id for _line, owner in changed])
    rows = [_row(vault, None, uuid4(), line.profile, line.marks, line.fingerprint) for line in new]
    rows += [
        _changed_row(vault, owner, sealed.get(owner.resident_id), line) for line, owner in changed
    ]
    if rows:
        with connection.cursor() as cursor, cursor.copy(QUERIES["copy_incoming"]) as copy:
            copy.set_types(_TYPES)
            for row in rows:
                copy.write_row(row)
        for statement in _statements(new=bool(new), changed=bool(changed)):
            connection.execute(QUERIES[statement])
        cared = connection.execute(QUERIES["enter_care"]).fetchall()
        audit_command(connection, "care_team.care", (resident_id for (resident_id,) in cared))
        actor, origin = command_actor()
        connection.execute(QUERIES["audit_lines"], {"actor": actor, "origin": origin})
    return len(new), len(changed), refused


def _statements(*, new: bool, changed: bool) -> list[str]:
    """Return what enters the lines of a chunk, of which some are new or some have changed."""
    return [
        *(("enter_residents", "enter_profiles", "enter_keys") if new else ()),
        *(("change_profiles", "change_keys") if changed else ()),
    ]


def _without_doubles(
    lines: list[_Line], seen: dict[bytes, int], known: dict[bytes, _Known]
) -> tuple[list[_Line], list[Rejected]]:
    """Part the lines that can be entered from those that contradict others. Changes `seen`."""
    taken, refused = [], []
    for line in lines:
        before = next((seen[mark] for mark in line.numbers if mark in seen), None)
        owners = {known[mark].resident for mark in line.numbers if mark in known}
        if before is not None:
            refused.append(_refused(line, f"same_number_as_line_{before}"))
        elif len(owners) > 1:
            refused.append(_refused(line, "numbers_of_two_residents"))
        else:
            taken.append(line)
            seen.update(dict.fromkeys(line.numbers, line.number))
    return taken, refused


def _owner(line: _Line, known: dict[bytes, _Known]) -> _Known | None:
    return next((known[mark] for mark in line.numbers if mark in known), None)


def _known_teams(connection: Connection, lines: Sequence[_Line]) -> set[str | None]:
    """Return the care teams that the lines may name; None: they need not."""
    named = {line.profile.care_team for line in lines} - {None}
    known: set[str | None] = {None}
    if named:
        found = connection.execute(QUERIES["known_care_teams"], {"names": list(named)})
        known |= {name for (name,) in found}
    return known


def _seen(connection: Connection, lines: Sequence[_Line]) -> dict[bytes, int]:
    marks = [mark for line in lines for mark in line.numbers]
    found = connection.execute(QUERIES["seen_before"], {"marks": marks}, binary=True)
    return dict(found.fetchall())


def _known(connection: Connection, lines: Sequence[_Line]) -> dict[bytes, _Known]:
    given = {
        "national_ids": [line.marks.national_id for line in lines if line.marks.national_id],
        "health_cards": [line.marks.health_card for line in lines if line.marks.health_card],
    }
    return {
        mark: _Known(resident_id=resident_id, resident=resident, fingerprint=fingerprint)
        for resident_id, resident, *marks, fingerprint in connection.execute(
            QUERIES["find_marked"], given, binary=True
        )
        for mark in marks
        if mark is not None
    }


def _sealed(connection: Connection, residents: Sequence[int]) -> dict[int, Sealed]:
    """Return what is sealed of residents, by their keys of the store."""
    if not residents:
        return {}
    found = connection.execute(QUERIES["sealed_of_many"], {"residents": residents}, binary=True)
    return {
        resident_id: Sealed(key_id=key_id, wrapped=wrapped, content=content)
        for resident_id, key_id, wrapped, content in found
    }


def _changed_row(
    vault: IdentityVault, known: _Known, sealed: Sealed | None, line: _Line
) -> tuple[Any, ...]:
    profile = line.profile
    if sealed is not None:
        profile = _completed(profile, vault.unseal(known.resident, sealed))
    marks = vault.marks(profile.identity)
    return _row(vault, known.resident_id, known.resident, profile, marks, line.fingerprint)


def _completed(profile: Profile, before: Identity) -> Profile:
    """Keep what the archive knows and the line does not say."""
    said = profile.identity
    return replace(
        profile,
        identity=Identity(
            name=said.name,
            national_id=said.national_id or before.national_id,
            health_card=said.health_card or before.health_card,
            birth_date=said.birth_date or before.birth_date,
        ),
    )


def _row(
    vault: IdentityVault,
    resident_id: int | None,
    resident: UUID,
    profile: Profile,
    marks: Marks,
    fingerprint: bytes,
) -> tuple[Any, ...]:
    sealed = vault.seal(resident, profile.identity)
    born = profile.identity.birth_date
    return (
        resident_id,
        resident,
        None if born is None else born.year,
        profile.sex.value,
        profile.height_cm,
        profile.clinic,
        Jsonb(targets_json(profile.targets)),
        fingerprint,
        marks.national_id,
        marks.health_card,
        marks.name,
        sealed.content,
        sealed.key_id,
        sealed.wrapped,
        profile.care_team,
    )


def _refused(line: _Line, why: str) -> Rejected:
    return Rejected(line=line.number, column="national_id", why=why)
