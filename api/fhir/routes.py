"""FHIR's routes: read, search, operations. HTTP only; what is asked and answered is made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response

from api.access import CurrentPrincipal, ForbiddenError, Principal
from api.archive import Archive, UnknownResidentError
from api.fhir.access import READ, SEARCH, has_scope, parts_for, require_scope
from api.fhir.asked import (
    form,
    is_strict,
    known,
    page_count,
    parameters,
    query,
    require_json,
    uuid_of,
)
from api.fhir.bundles import Entry, Link, bundle
from api.fhir.capability import capability, smart_configuration
from api.fhir.errors import PREFIX
from api.fhir.guideline_statistics import parameters_of
from api.fhir.observations import Made
from api.fhir.outcomes import (
    Finding,
    Issue,
    OutcomeError,
    not_found,
    outcome,
    patient_not_named,
)
from api.fhir.resources import (
    HUB_PREFIX,
    PROVENANCE_SUFFIX,
    Resource,
    audit_event,
    device,
    hub,
    patient,
    provenance,
)
from api.fhir.search import (
    COUNT_MAX,
    CURSOR,
    IDS_MAX,
    ObservationId,
    Search,
    device_of,
    parse_observation_id,
    parse_search,
    reference_id,
)
from api.fhir.statistics import parse_asked, stats_document
from api.fhir.store import DeviceRecord, FhirStore, Found
from api.fhir.tokens import alternatives, parse_tokens
from api.fhir.vocabulary import MEDIA_TYPE, RESIDENT_ID
from api.issuer.issuer import Issuer


class FhirResponse(Response):
    """JSON of FHIR."""

    media_type = MEDIA_TYPE


open_router = APIRouter(prefix=PREFIX, tags=["FHIR"], default_response_class=FhirResponse)
"""What says how to ask; nothing in it needs a token."""
router = APIRouter(prefix=PREFIX, tags=["FHIR"], default_response_class=FhirResponse)


async def _store(request: Request) -> FhirStore:
    archive: Archive = request.app.state.archive
    return FhirStore(archive)


StoreOfApp = Annotated[FhirStore, Depends(_store)]
Id = Annotated[str, Path(description="资源编号 / the resource's id", max_length=64)]


def base_of(request: Request) -> str:
    """Return FHIR's base address as the asker knows the server."""
    return f"{str(request.base_url).rstrip('/')}{PREFIX}"


@open_router.get("/metadata", summary="能力声明 / CapabilityStatement")
async def read_capability(request: Request) -> Response:
    """Tell what this server can do."""
    return _resource(capability(base_of(request)))


@open_router.get(
    "/.well-known/smart-configuration",
    summary="SMART 配置 / SMART configuration",
    response_class=JSONResponse,
)
async def read_smart_configuration(request: Request) -> Response:
    """Tell where tokens come from and what they can say; nothing where another issuer gives them."""
    issuer: Issuer | None = request.app.state.issuer
    if issuer is None:
        raise not_found()
    document = smart_configuration(issuer.url)
    return Response(orjson.dumps(document), media_type="application/json")


@router.get("/Observation", summary="查询观察 / search Observations")
async def search_observations(
    request: Request, store: StoreOfApp, principal: CurrentPrincipal
) -> Response:
    """Search a patient's Observations, by the time of measurement."""
    return await _search(request, store, principal, query(request))


@router.post("/Observation/_search", summary="查询观察 / search Observations")
async def post_search_observations(
    request: Request, store: StoreOfApp, principal: CurrentPrincipal
) -> Response:
    """Search as GET does, with the parameters in the body."""
    return await _search(request, store, principal, await form(request))


@router.get("/Observation/$lastn", summary="最新观察 / the latest of each code")
async def read_last(request: Request, store: StoreOfApp, principal: CurrentPrincipal) -> Response:
    """Return the latest Observations of each code, by when they were measured."""
    return await _last(request, store, principal, query(request))


@router.post("/Observation/$lastn", summary="最新观察 / the latest of each code")
async def post_last(request: Request, store: StoreOfApp, principal: CurrentPrincipal) -> Response:
    """Return what GET does, with the parameters in the body."""
    return await _last(request, store, principal, await parameters(request))


@router.get("/Observation/$stats", summary="统计 / statistics")
async def read_stats(request: Request, store: StoreOfApp, principal: CurrentPrincipal) -> Response:
    """Return statistics of quantities over a time, without artefacts."""
    return await _stats(store, principal, query(request))


@router.post("/Observation/$stats", summary="统计 / statistics")
async def post_stats(request: Request, store: StoreOfApp, principal: CurrentPrincipal) -> Response:
    """Return what GET does, with the parameters in the body."""
    return await _stats(store, principal, await parameters(request))


@router.get("/Observation/{id}", summary="一项观察 / one Observation")
async def read_observation(
    request: Request,
    store: StoreOfApp,
    principal: CurrentPrincipal,
    id: Id,  # noqa: A002 - FHIR's
) -> Response:
    """Return one Observation."""
    made = await _one(request, store, principal, id)
    return FhirResponse(made.json)


@router.get("/Patient", summary="查询居民 / search Patients")
async def search_patients(
    request: Request, store: StoreOfApp, principal: CurrentPrincipal
) -> Response:
    """List the residents whom the asker may see, or find one by its identifier."""
    return await _patients(request, store, principal, query(request))


@router.post("/Patient/_search", summary="查询居民 / search Patients")
async def post_search_patients(
    request: Request, store: StoreOfApp, principal: CurrentPrincipal
) -> Response:
    """Search as GET does, with the parameters in the body."""
    return await _patients(request, store, principal, await form(request))


@router.get("/Patient/{resident}", summary="一位居民 / one Patient")
async def read_patient(store: StoreOfApp, principal: CurrentPrincipal, resident: Id) -> Response:
    """Return one resident."""
    require_scope(principal, "Patient", READ)
    record = await store.patient(principal, uuid_of(resident))
    if record is None:
        raise UnknownResidentError
    return _resource(patient(record))


@router.get("/Patient/{resident}/$everything", summary="全部资料 / everything of a Patient")
async def read_everything(
    request: Request,
    store: StoreOfApp,
    principal: CurrentPrincipal,
    resident: Id,
) -> Response:
    """Return a resident, their devices, and page by page all their Observations."""
    return await _everything(request, store, principal, uuid_of(resident))


@router.get("/Device", summary="查询设备 / search Devices")
async def search_devices(
    request: Request, store: StoreOfApp, principal: CurrentPrincipal
) -> Response:
    """Find devices by their ids or by whose they are."""
    require_scope(principal, "Device", SEARCH)
    named: list[list[DeviceRecord]] = []
    used = known(request, query(request), {"_id", "patient", "_count", CURSOR})
    for name, value in used:
        if name == "_id":
            addresses = [a for a in map(device_of, alternatives(value)) if a is not None]
            named.append(await store.devices(principal, addresses))
        elif name == "patient":
            resident = uuid_of(reference_id(value, "Patient"))
            named.append(await store.devices_of(principal, resident))
    first, *others = named or [[]]
    found = [device(record) for record in first if all(record in other for other in others)]
    return _paged(request, "Device", used, found)


@router.get("/Device/{id}", summary="一台设备 / one Device")
async def read_device(store: StoreOfApp, principal: CurrentPrincipal, id: Id) -> Response:  # noqa: A002
    """Return one device, or a hub."""
    require_scope(principal, "Device", READ)
    if id.startswith(HUB_PREFIX):
        name = id.removeprefix(HUB_PREFIX)
        if await store.hub(principal, name):
            return _resource(hub(name))
        raise not_found()
    address = device_of(id)
    records = [] if address is None else await store.devices(principal, [address])
    if not records:
        raise not_found()
    return _resource(device(records[0]))


@router.get("/Provenance", summary="查询来源 / search Provenance")
async def search_provenance(
    request: Request, store: StoreOfApp, principal: CurrentPrincipal
) -> Response:
    """Tell how Observations came to be, by `target`."""
    require_scope(principal, "Provenance", SEARCH)
    used = known(request, query(request), {"target", "_count", CURSOR})
    targets = [
        reference_id(value, "Observation")
        for name, values in used
        if name == "target"
        for value in alternatives(values)
    ]
    search = Search(parts=parts_for(principal, READ))
    ids = _ids(targets)[:COUNT_MAX]
    made = await store.by_ids(principal, ids, search)
    return _paged(request, "Provenance", used, [provenance(one) for one in made])


@router.get("/Provenance/{id}", summary="一项来源 / one Provenance")
async def read_provenance(
    request: Request,
    store: StoreOfApp,
    principal: CurrentPrincipal,
    id: Id,  # noqa: A002
) -> Response:
    """Tell how one Observation came to be."""
    require_scope(principal, "Provenance", READ)
    made = await _one(request, store, principal, id.removesuffix(PROVENANCE_SUFFIX))
    return _resource(provenance(made))


@router.get("/AuditEvent", summary="查询审计 / search AuditEvents")
async def search_audit(
    request: Request, store: StoreOfApp, principal: CurrentPrincipal
) -> Response:
    """Tell who looked at a resident's data, by `patient`; the newest first."""
    require_scope(principal, "AuditEvent", SEARCH)
    used = dict(known(request, query(request), {"patient", "_count", CURSOR}))
    if "patient" not in used:
        raise patient_not_named()
    count = page_count(used)
    before = used.pop(CURSOR, None)
    records = await store.audit(
        principal,
        uuid_of(reference_id(used["patient"], "Patient")),
        int(before) if before and before.isdecimal() and len(before) < 19 else None,  # noqa: PLR2004 - int64
        count + 1,
    )
    after = str(records[count - 1].id) if len(records) > count else None
    found = [audit_event(record) for record in records[:count]]
    return _searchset(request, "AuditEvent", list(used.items()), found, after=after)


async def _search(
    request: Request,
    store: FhirStore,
    principal: Principal,
    pairs: Sequence[tuple[str, str]],
) -> Response:
    search = _parsed(request, principal, pairs)
    if search.ids is not None:
        made = await store.by_ids(principal, search.ids, search)
        found = Found(made=() if search.count_only else made, total=len(made))
    elif search.resident is None:
        raise patient_not_named()
    else:
        try:
            found = await store.page(principal, search.resident, search)
        except UnknownResidentError:
            found = Found(made=(), total=0)
    base = base_of(request)
    links = [Link(relation="self", url=_url(f"{base}/Observation", search))]
    if found.more:
        url = _url(f"{base}/Observation", search, after=found.made[-1].id)
        links.append(Link(relation="next", url=url))
    return await _bundle(store, principal, base, search, found, links)


async def _last(
    request: Request,
    store: FhirStore,
    principal: Principal,
    pairs: Sequence[tuple[str, str]],
) -> Response:
    search = _parsed(request, principal, pairs, last_n=True)
    if search.resident is None:
        raise patient_not_named()
    try:
        found = await store.last(principal, search.resident, search)
    except UnknownResidentError:
        found = Found(made=(), total=0)
    base = base_of(request)
    links = [Link(relation="self", url=_url(f"{base}/Observation/$lastn", search))]
    return await _bundle(store, principal, base, search, found, links)


async def _bundle(
    store: FhirStore,
    principal: Principal,
    base: str,
    search: Search,
    found: Found,
    links: Sequence[Link],
) -> Response:
    entries = [Entry(url=f"{base}/Observation/{made.id}", json=made.json) for made in found.made]
    included = await _included(store, principal, search, found)
    entries += [_entry(base, kind, resource, "include") for kind, resource in included]
    if search.ignored:
        finding = Finding(
            issue=Issue.NOT_SUPPORTED,
            severity="warning",
            text="忽略了未知参数 / unknown parameters were ignored",
        )
        entries.append(
            Entry(
                url=f"urn:uuid:{UUID(int=1)}",
                json=orjson.dumps(outcome(finding)),
                mode="outcome",
            )
        )
    text = bundle(entries, links=links, total=found.total, now=datetime.now(UTC))
    return FhirResponse(text)


async def _included(
    store: FhirStore, principal: Principal, search: Search, found: Found
) -> list[tuple[str, Resource]]:
    """Return what goes with a page, of the kinds that the token may read."""
    included: list[tuple[str, Resource]] = []
    if search.includes & {"subject", "patient"} and has_scope(principal, "Patient", READ):
        for resident in sorted({made.resident for made in found.made}):
            record = await store.patient(principal, UUID(resident))
            if record is not None:
                included.append(("Patient", patient(record)))
    if found.made and "device" in search.includes and has_scope(principal, "Device", READ):
        addresses = sorted({made.device for made in found.made if made.device is not None})
        included += [("Device", device(r)) for r in await store.devices(principal, addresses)]
    if search.provenance and has_scope(principal, "Provenance", READ):
        included += [("Provenance", provenance(made)) for made in found.made]
    return included


async def _everything(
    request: Request, store: FhirStore, principal: Principal, resident: UUID
) -> Response:
    names = {
        "start": "date",
        "end": "date",
        "_since": "_lastUpdated",
        "_count": "_count",
        CURSOR: CURSOR,
    }
    prefixes = {"start": "ge", "end": "le", "_since": "ge"}
    used = [*known(request, query(request), {*names, "_type"})]
    pairs = [(names[n], f"{prefixes.get(n, '')}{v}") for n, v in used if n in names]
    kinds = {kind for n, v in used if n == "_type" for kind in v.split(",")}
    search = parse_search(
        [("patient", str(resident)), *pairs],
        allowed=parts_for(principal, SEARCH),
        now=datetime.now(UTC),
        strict=True,
    )

    def wants(kind: str) -> bool:
        return (not kinds or kind in kinds) and has_scope(principal, kind, READ)

    base = base_of(request)
    entries: list[Entry] = []
    if search.after is None:
        if has_scope(principal, "Patient", READ):
            record = await store.patient(principal, resident)
            if record is None:
                raise UnknownResidentError
            if wants("Patient"):
                entries.append(_entry(base, "Patient", patient(record), "match"))
        if wants("Device"):
            records = await store.devices_of(principal, resident)
            entries += [_entry(base, "Device", device(r), "match") for r in records]
    found = Found(made=())
    if wants("Observation"):
        found = await store.page(principal, resident, search)
    entries += [Entry(url=f"{base}/Observation/{one.id}", json=one.json) for one in found.made]
    address = f"{base}/Patient/{resident}/$everything"
    kept = [(name, value) for name, value in used if name != CURSOR]
    links = [Link(relation="self", url=_with(address, used))]
    if found.more:
        links.append(
            Link(relation="next", url=_with(address, [*kept, (CURSOR, found.made[-1].id)]))
        )
    text = bundle(entries, links=links, total=None, now=datetime.now(UTC))
    return FhirResponse(text)


async def _stats(
    store: FhirStore, principal: Principal, pairs: Sequence[tuple[str, str]]
) -> Response:
    allowed = parts_for(principal, SEARCH)
    resident, asked = parse_asked(pairs, datetime.now(UTC), allowed)
    found, left_out = await store.statistics(
        principal,
        resident,
        [(sign, quantity.name) for sign, quantity in asked.quantities],
        asked.from_at,
        asked.to_at,
    )
    more = []
    if asked.guidelines:
        statistics = await store.guideline_statistics(principal, resident, asked.rules, asked.day)
        more = parameters_of(resident, statistics, asked.guidelines)
    return _resource(stats_document(resident, asked, found, left_out, more))


async def _patients(
    request: Request,
    store: FhirStore,
    principal: Principal,
    pairs: Sequence[tuple[str, str]],
) -> Response:
    require_scope(principal, "Patient", SEARCH)
    used = dict(known(request, pairs, {"_id", "identifier", "_count", CURSOR}))
    count = page_count(used)
    after = used.pop(CURSOR, None)
    asked = [used[name] for name in ("_id", "identifier") if name in used]
    if not asked:
        records = await store.patients(principal, uuid_of(after) if after else None, count + 1)
        more = records[count - 1].id if len(records) > count else None
        found = [patient(record) for record in records[:count]]
        return _searchset(request, "Patient", list(used.items()), found, after=more)
    residents = sorted(set.intersection(*map(_identified, asked)))
    found = []
    for resident in residents:
        try:
            record = await store.patient(principal, resident)
        except UnknownResidentError:
            continue
        except ForbiddenError:
            if len(residents) == 1:
                raise
            continue  # of several those that may be seen
        if record is not None:
            found.append(patient(record))
    used = {"_id": ",".join(str(one["id"]) for one in found)} if found else {}
    return _searchset(request, "Patient", list(used.items()), found)


def _identified(value: str) -> set[UUID]:
    """Return whom any of the tokens of a parameter may mean; one that is no id means nobody."""
    tokens = parse_tokens(value)
    if len(tokens) > IDS_MAX:
        raise OutcomeError(Issue.TOO_COSTLY, f"最多 / at most {IDS_MAX}", parameter="_id")
    found = set()
    for token in tokens:
        with suppress(ValueError):
            if token.system in {None, RESIDENT_ID}:
                found.add(UUID(token.code or ""))
    return found


async def _one(request: Request, store: FhirStore, principal: Principal, text: str) -> Made:
    search = _parsed(request, principal, query(request), may=READ)
    try:
        wanted = parse_observation_id(text)
    except ValueError as error:
        raise not_found() from error
    made = await store.by_ids(principal, [wanted], search)
    if not made:
        raise not_found()
    return made[0]


def _ids(texts: Sequence[str]) -> list[ObservationId]:
    found = []
    for text in texts:
        try:
            found.append(parse_observation_id(text))
        except ValueError:
            continue
    return found


def _parsed(
    request: Request,
    principal: Principal,
    pairs: Sequence[tuple[str, str]],
    *,
    last_n: bool = False,
    may: str = SEARCH,
) -> Search:
    require_json(pairs)
    return parse_search(
        pairs,
        allowed=parts_for(principal, may),
        now=datetime.now(UTC),
        strict=is_strict(request),
        last_n=last_n,
    )


def _url(address: str, search: Search, after: str | None = None) -> str:
    """Return a search as an address: the patient by the opaque id, however it was named."""
    names = {"patient", "subject", "patient.identifier", "subject.identifier", CURSOR}
    pairs = [(name, value) for name, value in search.used if name.split(":")[0] not in names]
    if search.resident is not None:
        pairs.insert(0, ("patient", str(search.resident)))
    if after is not None:
        pairs.append((CURSOR, after))
    elif search.after is not None:
        pairs += [pair for pair in search.used if pair[0] == CURSOR]
    return _with(address, pairs)


def _with(address: str, pairs: Sequence[tuple[str, str]]) -> str:
    return f"{address}?{urlencode(pairs, safe=':|,/$')}" if pairs else address


def _entry(base: str, kind: str, resource: Resource, mode: str) -> Entry:
    return Entry(
        url=f"{base}/{kind}/{resource['id']}",
        json=orjson.dumps(resource),
        mode=mode,
    )


def _paged(
    request: Request, kind: str, used: Sequence[tuple[str, str]], found: Sequence[Resource]
) -> Response:
    """Return a page of the few that were found, in the order of their ids."""
    asked = dict(used)
    count, after = page_count(asked), asked.get(CURSOR, "")
    rest = sorted((one for one in found if str(one["id"]) > after), key=lambda one: str(one["id"]))
    last = str(rest[count - 1]["id"]) if len(rest) > count else None
    kept = [(name, value) for name, value in used if name != CURSOR]
    return _searchset(request, kind, kept, rest[:count], after=last)


def _searchset(
    request: Request,
    kind: str,
    used: Sequence[tuple[str, str]],
    found: Sequence[Resource],
    *,
    after: str | None = None,
) -> Response:
    base = base_of(request)
    links = [Link(relation="self", url=_with(f"{base}/{kind}", used))]
    if after is not None:
        links.append(Link(relation="next", url=_with(f"{base}/{kind}", [*used, (CURSOR, after)])))
    entries = [_entry(base, kind, resource, "match") for resource in found]
    return FhirResponse(bundle(entries, links=links, total=None, now=datetime.now(UTC)))


def _resource(resource: Resource) -> Response:
    return FhirResponse(orjson.dumps(resource))
