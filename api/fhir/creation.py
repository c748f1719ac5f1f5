"""Observations that other gateways create: handed to ingest as a hub's batch, and what became of them.

The API judges no measurement. It turns Observations into wire records (api.fhir.received), puts them
as a batch of the hub that stands for the service into a table (ingest.inbox reads it), and waits for
ingest's COMMIT, which it sees in the ledger: so validation, attribution, exactly-once, quarantine and
ledger are those of every hub. In one transaction: the decision and its audit, what is known of the
identifiers, the batches, and by which identifier each is remembered.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from uuid import UUID

from api.access import ForbiddenError, Principal, SignedOutError
from api.archive import Archive
from api.cursor import Place, encode_place
from api.fhir.outcomes import Issue, OutcomeError
from api.fhir.parts import Part
from api.fhir.received import Identifier, Made, Member, Received, is_phd, measurements
from gateway import wire
from gateway.gatt.times import from_ms, ms_since_epoch
from gateway.measurement import Measurement, device_address
from gateway.platform.postgres import AsyncConnection, TupleRow, load_queries, sql, translated
from gateway.vital_sign import NO_USER_SLOT

WAITING_MAX = 10_000
"""So many batches wait for ingest at most; further ones are refused (503), nothing of them is kept."""
ENTRIES_MAX = 100
"""A bundle with more entries is refused."""
ANSWER_S_MAX = 10.0
"""If ingest has not committed by then the answer is 202: what was handed over is kept and goes on."""
LOOK_S = 0.05
"""How often it is looked whether ingest has."""

_HUB_REVOKED = 73
"""gateway.stored.QUARANTINE_REASONS."""
_SQL = load_queries(Path(__file__).parents[1] / "sql" / "fhir_creation.sql")


class Became(Enum):
    """What became of an Observation that was to be created."""

    CREATED = HTTPStatus.CREATED
    FOUND = HTTPStatus.OK
    """It was there already, by the identifier or because the same reading came before."""
    KEPT_APART = HTTPStatus.UNPROCESSABLE_ENTITY
    """Ingest's verdict: it waits in quarantine, with a reason."""
    WAITING = HTTPStatus.ACCEPTED
    """Handed over; ingest has not committed it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An Observation to create, unless one with the identifier `unless` is there."""

    received: Received
    unless: Identifier | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of one. `id`: the Observation's; `resident` None: it is nobody's yet.

    `reason`: ingest's (gateway.stored.QUARANTINE_REASONS); `detail`: the place that gave it, -1: none.
    """

    became: Became
    id: str | None = None
    resident: UUID | None = None
    reason: int | None = None
    sign: int = 0
    detail: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    hub: str
    epoch: int
    sequence: int


_NO_BATCH = _Batch(hub="", epoch=0, sequence=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handed:
    """A part of a record, and the batch that it went with."""

    batch: _Batch
    record: bytes
    """SHA-256."""
    device: int
    user_slot: int
    sign: int
    identity_ms: int
    measured_ms: int
    part: str


class Creations:
    """Creates Observations in an archive."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def create(self, principal: Principal, wishes: Sequence[Wish]) -> list[Done]:
        """Hand Observations over together, and tell what became of each.

        Before anything is handed over all of them are read and compared; from there on each reading
        has its own verdict.

        Raises:
            OutcomeError: one of them is refused; nothing is handed over.
            ForbiddenError: only a service may, within its account's scopes; this is audited.
            SignedOutError: the account is disabled.
            UnavailableError: the database is down; nothing is handed over, or the answer is not known:
                the same request again does no harm.
        """
        received_at = datetime.fromtimestamp(int(time.time() * 1000) / 1000, UTC)
        made = measurements([wish.received for wish in wishes], received_at)
        with translated():
            async with self._archive.pool.connection() as connection:
                async with connection.transaction():
                    addresses = [device_address(one.measurement.device) for one in made]
                    hubs, refusal = await _begin(connection, principal, len(wishes), addresses)
                    if refusal is None:
                        handed = await _Handover(connection, wishes, received_at, hubs).run(made)
                if refusal is not None:
                    raise refusal
        await self._committed({one.batch for one in handed})
        return [await self._became(one) for one in handed]

    async def _committed(self, batches: set[_Batch]) -> None:
        """Wait until ingest has committed, for `ANSWER_S_MAX` at most."""
        until_s = time.monotonic() + ANSWER_S_MAX
        for batch in batches - {_NO_BATCH}:
            while (  # noqa: ASYNC110 - another process settles it
                await self._state(batch) == "waiting" and time.monotonic() < until_s
            ):
                await asyncio.sleep(LOOK_S)

    async def _state(self, batch: _Batch) -> str:
        ((state,),) = await self._archive.rows(_SQL["handed_over"], _of(batch))
        return str(state)

    async def _became(self, one: _Handed) -> Done:
        kept = await self._archive.rows(
            _SQL["kept_apart"], _of(one.batch) | {"device": one.device, "record": one.record}
        )
        for reason, detail in kept:
            place = -1 if detail is None else detail
            return Done(became=Became.KEPT_APART, reason=reason, sign=one.sign, detail=place)
        rows = await self._archive.rows(_SQL["places"], _identity(one))
        for row in rows:
            return _found(row, one)
        state = await self._state(one.batch)
        if state == "refused":
            return Done(became=Became.KEPT_APART, reason=_HUB_REVOKED)
        return Done(became=Became.WAITING)


class _Handover:
    """The part of a creation that is one transaction."""

    def __init__(
        self,
        connection: AsyncConnection[TupleRow],
        wishes: Sequence[Wish],
        received_at: datetime,
        hubs: Mapping[str, str],
    ) -> None:
        self._connection = connection
        self._wishes = wishes
        self._received_at = received_at
        self._hubs = hubs

    async def run(self, made: Sequence[Made]) -> list[_Handed]:
        """Hand over what is new, and return where each Observation is to be looked for."""
        known = await self._known()
        handed: dict[int, _Handed] = {}
        for one in made:
            for member in one.members:
                found = await self._found(one.measurement, member, known)
                if found is not None:
                    handed[member.index] = found
        new = [index for index in range(len(self._wishes)) if index not in handed]
        by_hub: dict[str, list[Made]] = defaultdict(list)
        for one in measurements([self._wishes[i].received for i in new], self._received_at):
            members = tuple(replace(m, index=new[m.index]) for m in one.members)
            await self._check_subjects(one.measurement, members)
            by_hub[self._hubs[device_address(one.measurement.device)]].append(
                replace(one, members=members)
            )
        for hub in sorted(by_hub):
            handed |= await self._hand_over(hub, by_hub[hub])
        return [handed[index] for index in range(len(self._wishes))]

    async def _known(self) -> dict[bytes, _Handed]:
        digests = [digest_of(wish.unless) for wish in self._wishes if wish.unless is not None]
        cursor = await self._connection.execute(_SQL["created"], {"identifiers": digests})
        return {
            bytes(identifier): _Handed(
                batch=_Batch(hub=hub, epoch=epoch, sequence=sequence),
                record=bytes(record),
                device=device,
                user_slot=user_slot,
                sign=sign,
                identity_ms=identity_ms,
                measured_ms=measured_ms,
                part=part,
            )
            for (identifier, record, hub, epoch, sequence, device, user_slot, sign, identity_ms,
                 measured_ms, part) in await cursor.fetchall()
        }  # fmt: skip

    async def _found(
        self, measurement: Measurement, member: Member, known: Mapping[bytes, _Handed]
    ) -> _Handed | None:
        """Return what is there under the identifier of an Observation, None where nothing is."""
        unless = self._wishes[member.index].unless
        if unless is None:
            return None
        now = _handed(measurement, member.part, _NO_BATCH)
        before = known.get(digest_of(unless))
        if before is not None:
            if await self._rows(_SQL["places"], _identity(before)):
                return replace(before, batch=_NO_BATCH)
            is_same = before.record == now.record
            return before if is_same and await self._is_pending(before) else None
        if is_phd(unless):
            places = await self._rows(_SQL["places"], _identity(now))
            if len(places) > 1:
                raise OutcomeError(
                    Issue.CONFLICT,
                    "该标识对应多个结果 / several Observations have this identifier: the device's "
                    "clock began anew",
                    parameter="If-None-Exist",
                )
            return now if places else None
        return None

    async def _is_pending(self, before: _Handed) -> bool:
        """Tell whether what was handed over still waits, for ingest or in quarantine."""
        ((state,),) = await self._rows(_SQL["handed_over"], _of(before.batch))
        if state == "waiting":
            return True
        about = _of(before.batch) | {"device": before.device, "record": before.record}
        return bool(await self._rows(_SQL["kept_apart"], about))

    async def _check_subjects(self, measurement: Measurement, members: Sequence[Member]) -> None:
        """Refuse what says that it is of somebody else than the device's link says."""
        subjects = {self._wishes[member.index].received.subject for member in members} - {None}
        if not subjects:
            return
        asked = {
            "address": device_address(measurement.device),
            "user_slot": _slot(measurement),
            "at": measurement.measured_at,
        }
        ((resident,),) = await self._rows(_SQL["linked"], asked)
        if resident is not None and subjects != {str(resident)}:
            raise OutcomeError(
                Issue.PROCESSING,
                "设备当时关联的是另一位居民 / the device is linked to another resident at that time",
                parameter="Observation.subject",
            )

    async def _hand_over(self, hub: str, made: Sequence[Made]) -> dict[int, _Handed]:
        """Make a batch of a hub's measurements, and remember what it was made of."""
        ((epoch, sequence),) = await self._rows(_SQL["next_batch"], {"hub": hub})
        batch = _Batch(hub=hub, epoch=epoch, sequence=sequence)
        payload = _payload(batch, [one.measurement for one in made], self._received_at)
        more = {"received_at": self._received_at, "payload": payload}
        await self._rows(_SQL["hand_over"], _of(batch) | more)
        handed = {
            member.index: _handed(one.measurement, member.part, batch)
            for one in made
            for member in one.members
        }
        for index, one in handed.items():
            await self._remember(self._wishes[index].unless, one)
        return handed

    async def _remember(self, identifier: Identifier | None, one: _Handed) -> None:
        if identifier is None:
            return
        about = _of(one.batch) | {
            "identifier": digest_of(identifier),
            "record": one.record,
            "device": one.device,
            "user_slot": one.user_slot,
            "sign": one.sign,
            "identity_ms": one.identity_ms,
            "measured_ms": one.measured_ms,
            "part": one.part,
        }
        await self._rows(_SQL["remember"], about)

    async def _rows(self, query: sql.SQL, parameters: Mapping[str, object]) -> list[TupleRow]:
        cursor = await self._connection.execute(query, parameters)
        return await cursor.fetchall()


def digest_of(identifier: Identifier) -> bytes:
    """Return what an identifier is remembered by."""
    return sha256(f"{identifier.system}|{identifier.value}".encode()).digest()


async def _begin(
    connection: AsyncConnection[TupleRow],
    principal: Principal,
    entries: int,
    addresses: Sequence[str],
) -> tuple[Mapping[str, str], Exception | None]:
    """Return the hub for each device, or why there is none."""
    asked = {
        "reader": principal.user,
        "session": principal.session,
        "origin": principal.origin,
        "entries": entries,
        "addresses": sorted(set(addresses)),
        "waiting_max": WAITING_MAX,
    }
    cursor = await connection.execute(_SQL["begin"], asked)
    rows = await cursor.fetchall()
    for _address, _hub, admitted, why in rows:
        if not admitted:
            return {}, _refused(why)
    return {address: hub for address, hub, _admitted, _why in rows}, None


def _refused(why: str) -> Exception:
    match why:
        case "account":
            return SignedOutError()
        case "gateway":
            text = (
                "没有代表该服务的网关 / no hub stands for this service (hearth admin hub stand-in)"
            )
            return OutcomeError(Issue.FORBIDDEN, text)
        case "full":
            text = "等待入库的批次过多 / too much waits for ingest; later"
            return OutcomeError(Issue.TRANSIENT, text)
        case _:
            return ForbiddenError(why)


def _handed(measurement: Measurement, part: Part, batch: _Batch) -> _Handed:
    told = measurement.reading.device_time
    measured_ms = ms_since_epoch(measurement.measured_at)
    record = wire.encode_record(measurement, measurement.received_at)
    return _Handed(
        batch=batch,
        record=sha256(record).digest(),
        device=_signed(measurement.device),
        user_slot=_slot(measurement),
        sign=measurement.sign,
        identity_ms=measured_ms if told is None else told.ms,
        measured_ms=measured_ms,
        part=part.suffix,
    )


def _payload(batch: _Batch, measured: Sequence[Measurement], received_at: datetime) -> bytes:
    header = wire.Header(
        hub=wire.hub_id(batch.hub),
        epoch=batch.epoch,
        sequence=batch.sequence,
        kind=wire.Kind.MEASUREMENTS,
        count=len(measured),
        reference_at=received_at,
    )
    body = b"".join(wire.encode_record(one, received_at) for one in measured)
    return wire.encode_batch(header, body)


def _found(row: TupleRow, one: _Handed) -> Done:
    measured_at, device_id, identity_us, resident, is_new = row
    place = Place(
        measured_at=measured_at,
        device_id=device_id,
        user_slot=one.user_slot,
        sign=one.sign,
        identity_us=identity_us,
    )
    return Done(
        became=Became.CREATED if is_new else Became.FOUND,
        id=f"{encode_place(place)}-{one.part}",
        resident=resident,
    )


def _of(batch: _Batch) -> dict[str, object]:
    return {"hub": batch.hub, "epoch": batch.epoch, "sequence": batch.sequence}


def _identity(one: _Handed) -> dict[str, object]:
    return _of(one.batch) | {
        "device": one.device,
        "user_slot": one.user_slot,
        "sign": one.sign,
        "identity_ms": one.identity_ms,
        "measured_at": from_ms(one.measured_ms),
    }


def _slot(measurement: Measurement) -> int:
    slot = measurement.reading.user_slot
    return NO_USER_SLOT if slot is None else slot


def _signed(device: int) -> int:
    """Return an address as the store's 64-bit integers hold it."""
    return device - (1 << 64) if device >> 63 else device
