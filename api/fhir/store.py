"""What FHIR reads of the archive: every read through `Archive.reading`, bound to who asks, audited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from api import clinical
from api.access import Needs, Principal
from api.archive import Archive
from api.cursor import BEFORE_ALL, BEHIND_ALL, Place
from api.fhir.dates import holds
from api.fhir.observations import Made, Row, Wanted, covered, observations
from api.fhir.parts import Coding, Part
from api.fhir.search import ObservationId, Search
from api.fhir.vocabulary import STATUS_OF
from api.measurement_rows import Order
from gateway.gatt.times import from_ms
from gateway.guidelines.home_pressure import PressureRules
from gateway.platform.postgres import (
    AsyncConnection,
    TupleRow,
    compiled,
    load_queries,
    sql,
)
from gateway.stored import FLAG_ARTEFACT
from gateway.vital_sign import VitalSign
from gateway.vitals import BY_CODE, QUANTITIES

_QUERIES = load_queries(Path(__file__).parents[1] / "sql" / "fhir.sql")
_FIXED = (
    "measured_at", "device_id", "user_slot", "sign", "identity_us", "stored_at",
    "received_after_s", "utc_offset", "time_quality", "unit_set", "digits", "status", "flags",
    "time_flags", "hub", "device",
)  # fmt: skip
_COLUMNS = sql.SQL(", ").join(
    [
        *(sql.Identifier("found", name) for name in _FIXED),
        sql.SQL("found.resident::text"),
        *(sql.Identifier("found", quantity.name) for quantity in QUANTITIES),
    ]
)
PAGE = {
    order: compiled(_QUERIES["page"].format(columns=_COLUMNS, direction=sql.SQL(direction)))
    for order, direction in ((Order.DESC, "descending"), (Order.ASC, "ascending"))
}
LAST = compiled(
    _QUERIES["last"].format(
        columns_of_last=sql.SQL(", ").join(
            [
                *(sql.SQL("(last.found).{}").format(sql.Identifier(name)) for name in _FIXED),
                sql.SQL("(last.found).resident::text"),
                *(sql.SQL("(last.found).{}").format(sql.Identifier(q.name)) for q in QUANTITIES),
            ]
        )
    )
)
_ONE = compiled(_QUERIES["one"].format(columns=_COLUMNS))
_ALL = compiled(_QUERIES["all"].format(columns=_COLUMNS))
_STORED_AT = compiled(_QUERIES["stored_at"].format(columns=_COLUMNS))
_STATISTICS = compiled(
    _QUERIES["statistics"].format(
        quantity=sql.SQL("CASE wanted.column_name {} END").format(
            sql.SQL(" ").join(
                sql.SQL("WHEN {} THEN {}").format(
                    sql.Literal(quantity.name), sql.Identifier("found", quantity.name)
                )
                for quantity in QUANTITIES
            )
        )
    )
)
ROWS_FETCHED = 2000
"""An export holds so many rows at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found: a page of Observations, whether there are more, and how many in all."""

    made: Sequence[Made]
    more: bool = False
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Of one quantity over some time, canonical; None where there are too few values."""

    count: int
    average: float | None
    minimum: float | None
    maximum: float | None
    deviation: float | None
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """A registered device."""

    address: str
    model: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientRecord:
    """A resident."""

    id: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One act upon a resident's data."""

    id: int
    at: datetime
    actor: str
    action: str
    reason: str | None
    origin: str | None
    detail: Mapping[str, Any]
    resident: str


class FhirStore:
    """The archive as FHIR's searches ask for it. `Archive.reading` names the errors of all."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def page(self, principal: Principal, resident: UUID, search: Search) -> Found:
        """Return a page of a resident's Observations."""
        async with self._archive.reading(
            principal, action="observation.search", resident=resident
        ) as connection:
            total = await _count(connection, resident, search) if _counts(search) else None
            if search.count_only:
                return Found(made=(), total=total)
            limit = search.count + 1
            rows = await _fetch(
                connection, PAGE[search.order], page_parameters(resident, search, limit)
            )
        wanted = Wanted(parts=search.by_sign, elements=search.elements)
        made = _behind(search, [one for row in rows for one in _ordered(row, wanted, search.order)])
        return Found(made=made[: search.count], more=len(made) > search.count, total=total)

    async def last(self, principal: Principal, resident: UUID, search: Search) -> Found:
        """Return the latest Observations of each code, by when they were measured."""
        async with self._archive.reading(
            principal, action="observation.lastn", resident=resident
        ) as connection:
            parameters = last_parameters(resident, search)
            rows = await _fetch(connection, LAST, parameters)
        made = [
            one
            for row in rows
            for one in observations(
                row,
                Wanted(parts={row[3]: (search.parts[row[-1] - 1],)}, elements=search.elements),
            )
        ]
        made = _last_of_each_code(made, search.last)
        return Found(made=made, total=len(made))

    async def by_ids(
        self, principal: Principal, ids: Sequence[ObservationId], search: Search
    ) -> list[Made]:
        """Return the Observations of some ids that are there and may be read; each is audited."""
        made = []
        for wanted in ids:
            parameters = _of_place(wanted.place)
            owner = await self.owner(wanted.place)
            if owner is None or search.resident not in {None, owner}:
                continue
            if wanted.part not in search.parts:
                continue
            async with self._archive.reading(
                principal, action="observation.read", resident=owner
            ) as connection:
                rows = await _fetch(connection, _ONE, parameters)
            parts = Wanted(parts={wanted.place.sign: (wanted.part,)}, elements=search.elements)
            made += [
                one for row in rows if _is_asked(row, search) for one in observations(row, parts)
            ]
        return made

    async def stored_at(
        self,
        principal: Principal,
        resident: UUID,
        search: Search,
        *,
        stored_at_ms: int,
        oldest_ms: int,
        newest_ms: int,
        limit: int,
    ) -> list[Made]:
        """Return the Observations that one transaction stored or changed, measured between bounds."""
        parameters = {
            "resident": resident,
            "signs": sorted(search.by_sign),
            "stored_at": from_ms(stored_at_ms),
            "from_at": from_ms(oldest_ms),
            "to_at": from_ms(newest_ms + 1),
            "limit": limit,
        }
        async with self._archive.reading(
            principal, action="observation.notify", resident=resident
        ) as connection:
            rows = await _fetch(connection, _STORED_AT, parameters)
        wanted = Wanted(parts=search.by_sign)
        return [one for row in rows for one in observations(row, wanted)][:limit]

    async def owner(self, place: Place) -> UUID | None:
        """Return whose a stored measurement is, None where there is none at this place."""
        ((owner,),) = await self._archive.rows(_QUERIES["owner"], _of_place(place))
        found: UUID | None = owner
        return found

    async def statistics(
        self,
        principal: Principal,
        resident: UUID,
        quantities: Sequence[tuple[VitalSign, str]],
        from_at: datetime,
        to_at: datetime,
    ) -> tuple[list[Statistics], dict[int, int]]:
        """Return the statistics of (sign, quantity's name) pairs over [from_at, to_at).

        And how many measurements of each sign were left out as artefacts.
        """
        parameters = {
            "resident": resident,
            "signs": [sign.code for sign, _name in quantities],
            "columns": [name for _sign, name in quantities],
            "from_at": from_at,
            "to_at": to_at,
            "artefact": FLAG_ARTEFACT,
        }
        async with self._archive.reading(
            principal, action="observation.stats", resident=resident
        ) as connection:
            rows = await _fetch(connection, _STATISTICS, parameters)
            signs = {"signs": sorted({sign.code for sign, _name in quantities})}
            left_out = await _fetch(connection, _QUERIES["excluded"], parameters | signs)
        statistics = [
            Statistics(
                count=count,
                average=average,
                minimum=minimum,
                maximum=maximum,
                deviation=deviation,
                first_at=first_at,
                last_at=last_at,
            )
            for _part, count, average, minimum, maximum, deviation, first_at, last_at in rows
        ]
        return statistics, dict((sign, count) for sign, count in left_out)  # noqa: C402 - two columns

    async def guideline_statistics(
        self, principal: Principal, resident: UUID, rules: PressureRules, day: date
    ) -> clinical.Statistics:
        """Return a resident's statistics by guidelines up to the end of a local day."""
        return await clinical.read_statistics(self._archive, principal, resident, rules, day)

    async def devices_of(self, principal: Principal, resident: UUID) -> list[DeviceRecord]:
        """Return the devices that are or were a resident's."""
        async with self._archive.reading(
            principal, action="device.search", needs=Needs.RECORD, resident=resident
        ) as connection:
            return await read_devices(connection, resident)

    async def devices(self, principal: Principal, addresses: Sequence[str]) -> list[DeviceRecord]:
        """Return those of some devices that the principal may see."""
        async with self._archive.reading(
            principal, action="device.read", needs=Needs.RECORD
        ) as connection:
            rows = await _fetch(connection, _QUERIES["devices"], {"addresses": list(addresses)})
        return [_device(row) for row in rows]

    async def hub(self, principal: Principal, name: str) -> bool:
        """Tell whether there is such a hub."""
        async with self._archive.reading(
            principal, action="hub.read", needs=Needs.EQUIPMENT
        ) as connection:
            return bool(await _fetch(connection, _QUERIES["hub"], {"name": name}))

    async def patient(self, principal: Principal, resident: UUID) -> PatientRecord | None:
        """Return one resident."""
        async with self._archive.reading(
            principal, action="patient.read", needs=Needs.RECORD, resident=resident
        ) as connection:
            return await read_patient(connection, resident)

    async def patients(
        self, principal: Principal, after: UUID | None, limit: int
    ) -> list[PatientRecord]:
        """Return residents whom the principal may see, in the order of their ids."""
        parameters = {"ids": None, "after": after, "limit": limit}
        async with self._archive.reading(
            principal, action="patient.search", needs=Needs.RECORD
        ) as connection:
            rows = await _fetch(connection, _QUERIES["patients"], parameters)
        return [_patient(row) for row in rows]

    async def audit(
        self, principal: Principal, resident: UUID, before: int | None, limit: int
    ) -> list[AuditRecord]:
        """Return who did what to a resident's data, the newest first."""
        parameters = {"resident": resident, "before": before, "limit": limit}
        async with self._archive.reading(
            principal, action="audit.read", needs=Needs.AUDIT, resident=resident
        ) as connection:
            rows = await _fetch(connection, _QUERIES["audit"], parameters)
        return [
            AuditRecord(
                id=audit_id,
                at=at,
                actor=actor,
                action=action,
                reason=reason,
                origin=origin,
                detail=detail,
                resident=whose,
            )
            for audit_id, at, actor, action, reason, origin, detail, whose in rows
        ]

    @asynccontextmanager
    async def everything(
        self, principal: Principal, resident: UUID, since: datetime | None, action: str
    ) -> AsyncIterator[AsyncIterator[Sequence[Row]]]:
        """Open all of a resident's rows, oldest first, `ROWS_FETCHED` at a time."""
        async with self._archive.reading(principal, action=action, resident=resident) as connection:
            yield read_rows(connection, resident, since)


async def read_rows(
    connection: AsyncConnection[TupleRow], resident: UUID, since: datetime | None = None
) -> AsyncIterator[Sequence[Row]]:
    """Yield all of a resident's rows that the transaction may read, oldest first, `ROWS_FETCHED` at a time."""
    async with connection.cursor(name="everything", binary=True) as cursor:
        parameters = {"resident": resident, "since": since or BEFORE_ALL.measured_at}
        await cursor.execute(_ALL, parameters)
        while rows := await cursor.fetchmany(ROWS_FETCHED):
            yield rows


async def read_devices(connection: AsyncConnection[TupleRow], resident: UUID) -> list[DeviceRecord]:
    """Return the devices that are or were a resident's."""
    rows = await _fetch(connection, _QUERIES["devices_of_resident"], {"resident": resident})
    return [_device(row) for row in rows]


async def read_patient(
    connection: AsyncConnection[TupleRow], resident: UUID
) -> PatientRecord | None:
    """Return one resident; None: the transaction may not see them."""
    parameters = {"ids": [resident], "after": None, "limit": 1}
    rows = await _fetch(connection, _QUERIES["patients"], parameters)
    return _patient(rows[0]) if rows else None


def page_parameters(resident: UUID, search: Search, limit: int) -> dict[str, Any]:
    """Return the parameters of the statements in `PAGE`."""
    place = BEHIND_ALL if search.order is Order.DESC else BEFORE_ALL
    if search.after is not None:
        place = search.after.place
    by_sign = [_merged(parts) for parts in search.by_sign.values()]
    # The row of the place comes again, where some of its parts may have been shown already.
    return _filter(resident, search, by_sign) | _of_place(place) | {"limit": limit + 1}


def last_parameters(resident: UUID, search: Search) -> dict[str, Any]:
    """Return the parameters of the statement `LAST`."""
    by_part = [_merged([part]) for part in search.parts]
    return _filter(resident, search, by_part) | {"limit": search.last}


def _counts(search: Search) -> bool:
    return search.total or search.count_only


async def _count(connection: AsyncConnection[TupleRow], resident: UUID, search: Search) -> int:
    by_part = [_merged([part]) for part in search.parts]
    rows = await _fetch(connection, _QUERIES["count"], _filter(resident, search, by_part))
    return int(rows[0][0]) if rows else 0


def _filter(resident: UUID, search: Search, wanted: Sequence[Mapping[str, int]]) -> dict[str, Any]:
    from_at, to_at = search.bounds()
    # Each named column once, also where nothing is wanted.
    columns = {
        name: [entry[source] for entry in wanted]
        for name, source in (
            ("signs", "sign"),
            ("sent_masks", "sent_mask"),
            ("not_sent", "not_sent"),
            ("status_bits", "status_bits"),
            ("retracted", "retracted"),
            ("preliminary", "preliminary"),
        )
    }
    clauses = {
        name: [getattr(clause, name) for _of_stored, clause in search.clauses]
        for name in ("starts_from", "starts_before", "ends_from", "ends_before", "either")
    }
    return (
        columns
        | clauses
        | {
            "resident": resident,
            "of_stored": [of_stored for of_stored, _clause in search.clauses],
            "from_at": from_at,
            "to_at": to_at,
            "statuses": None if search.statuses is None else list(search.statuses),
            "devices": None if search.devices is None else list(search.devices),
        }
    )


def _merged(parts: Sequence[Part]) -> dict[str, int]:
    """Return what tells that a row has one of some parts of one sign."""
    sign = parts[0].sign
    entry = {
        "sign": sign.code,
        "retracted": _bits(sign, "entered-in-error"),
        "preliminary": _bits(sign, "preliminary"),
    }
    for name in ("sent_mask", "not_sent", "status_bits"):
        bits = 0
        for part in parts:
            bits |= getattr(part, name)
        entry[name] = bits
    return entry


def _bits(sign: VitalSign, status: str) -> int:
    meanings = {meaning for meaning, told in STATUS_OF.items() if told == status}
    bits = 0
    for entry in sign.statuses:
        if entry.meaning in meanings:
            bits |= entry.mask
    return bits


def _of_place(place: Place) -> dict[str, Any]:
    return {
        "measured_at": place.measured_at,
        "device_id": place.device_id,
        "user_slot": place.user_slot,
        "sign": place.sign,
        "identity_us": place.identity_us,
    }


def _is_asked(row: Row, search: Search) -> bool:
    """Tell whether a row found by an id is what else the search asks for; as `matches` says it in SQL."""
    sign, stored_at, status, device = BY_CODE[row[3]], row[5], row[11], row[15]
    told = next(
        (name for name in ("entered-in-error", "preliminary") if status & _bits(sign, name)),
        "final",
    )
    times = {False: covered(row), True: (stored_at, stored_at)}
    return (
        (search.statuses is None or told in search.statuses)
        and (search.devices is None or device in search.devices)
        and all(holds(clause, *times[of_stored]) for of_stored, clause in search.clauses)
    )


def _ordered(row: Row, wanted: Wanted, order: Order) -> list[Made]:
    made = list(observations(row, wanted))
    return made if order is Order.ASC else made[::-1]


def _behind(search: Search, made: list[Made]) -> list[Made]:
    """Leave out what stands before the page: the parts of the place's row that were shown."""
    after = search.after
    if after is None:
        return made
    order = [part.suffix for part in search.by_sign.get(after.place.sign, ())]
    if search.order is Order.DESC:
        order.reverse()
    shown = order[: order.index(after.part.suffix) + 1] if after.part.suffix in order else []
    return [one for one in made if one.place != after.place or one.part.suffix not in shown]


def _last_of_each_code(made: Sequence[Made], most: int) -> list[Made]:
    """Return the latest of each code: two signs can measure the same (a cuff's pulse, an oximeter's)."""
    groups: dict[Coding, list[Made]] = {}
    for one in made:
        groups.setdefault(one.part.codes[0], []).append(one)
    return [
        one
        for group in groups.values()
        for one in sorted(group, key=lambda one: one.place, reverse=True)[:most]
    ]


async def _fetch(
    connection: AsyncConnection[TupleRow],
    query: sql.SQL | bytes,
    parameters: Mapping[str, object],
) -> list[TupleRow]:
    async with connection.cursor(binary=True) as cursor:
        # Prepared at once: over years of chunks, planning takes longer than running.
        await cursor.execute(query, parameters, prepare=True)
        return await cursor.fetchall()


def _device(row: TupleRow) -> DeviceRecord:
    address, model, created_at = row
    return DeviceRecord(address=address, model=model, created_at=created_at)


def _patient(row: TupleRow) -> PatientRecord:
    public_id, created_at = row
    return PatientRecord(id=public_id, created_at=created_at)
