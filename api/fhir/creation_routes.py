"""The routes by which other gateways create Observations: one, or a transaction Bundle of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.access import CurrentPrincipal, ForbiddenError, Principal, Role
from api.archive import Archive
from api.fhir.access import CREATE, READ, granted, parts_for, require_scope
from api.fhir.creation import ENTRIES_MAX, Became, Creations, Done, Wish
from api.fhir.errors import PREFIX
from api.fhir.outcomes import Finding, Issue, OutcomeError, outcome
from api.fhir.received import Document, Identifier, Received, read_json, receive
from api.fhir.resources import instant
from api.fhir.routes import FhirResponse, base_of
from api.fhir.scopes import allows
from api.fhir.search import Search, parse_observation_id
from api.fhir.store import FhirStore
from api.fhir.tokens import parse_tokens
from api.fhir.vocabulary import MEDIA_TYPE
from gateway.stored import QUARANTINE_REASONS
from gateway.vitals import BY_CODE

JSON = frozenset({MEDIA_TYPE, "application/json"})

router = APIRouter(prefix=PREFIX, tags=["FHIR"], default_response_class=FhirResponse)


@router.post(
    "/Observation", summary="写入一项观察 / create an Observation", status_code=HTTPStatus.CREATED
)
async def create_observation(request: Request, principal: CurrentPrincipal) -> Response:
    """Create an Observation as another gateway; with If-None-Exist only if it is not there yet."""
    _require_create(principal)
    document = await _document(request)
    unless = request.headers.get("if-none-exist")
    wish = _wish(principal, document, unless)
    (done,) = await _creations(request).create(principal, [wish])
    headers = {} if done.id is None else {"Location": _address(request, done)}
    body = await _representation(request, principal, done)
    return FhirResponse(
        orjson.dumps(_outcome(done)) if body is None else body,
        status_code=done.became.value,
        headers=headers,
    )


@router.post("", summary="写入一组观察 / create a Bundle of Observations")
async def create_bundle(request: Request, principal: CurrentPrincipal) -> Response:
    """Create the Observations of a transaction together; each is then judged by itself."""
    _require_create(principal)
    wishes = _wishes(principal, await _document(request))
    done = await _creations(request).create(principal, wishes) if wishes else []
    bundle = {
        "resourceType": "Bundle",
        "id": str(uuid4()),
        "type": "transaction-response",
        "timestamp": instant(datetime.now(UTC)),
        "entry": [await _answered(request, principal, one) for one in done],
    }
    return FhirResponse(orjson.dumps(bundle))


def _creations(request: Request) -> Creations:
    archive: Archive = request.app.state.archive
    return Creations(archive)


def _require_create(principal: Principal) -> None:
    """Refuse whoever is no service with the scope to create."""
    if principal.role is not Role.SERVICE:
        raise ForbiddenError("role")
    if granted(principal) is None:
        raise ForbiddenError("scope")
    require_scope(principal, "Observation", CREATE)


async def _document(request: Request) -> Document:
    kind = request.headers.get("content-type", "").split(";")[0].strip()
    if kind not in JSON:
        raise OutcomeError(
            Issue.NOT_SUPPORTED, f"应为 / {MEDIA_TYPE}", status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        )
    return read_json(await request.body())


def _wish(principal: Principal, document: Document, unless: str | None) -> Wish:
    received = _within(principal, receive(document))
    if unless is None:
        return Wish(received=received)
    identifier = _identifier(unless)
    if identifier not in received.identifiers:
        raise OutcomeError(
            Issue.CONFLICT,
            "资源没有该标识 / the resource has not the identifier by which it is to be found again",
            parameter="If-None-Exist",
        )
    return Wish(received=received, unless=identifier)


def _within(principal: Principal, received: Received) -> Received:
    """Refuse a kind of Observation that the token's scopes leave out."""
    allowed = parts_for(principal, CREATE)
    if any(said.part not in allowed for said in received.said):
        raise OutcomeError(
            Issue.FORBIDDEN, "令牌的权限范围不含此类观察 / not within the token's scopes"
        )
    return received


def _identifier(text: str) -> Identifier:
    """Read If-None-Exist: `identifier=system|value`, and nothing else."""
    pairs = parse_qsl(text.removeprefix("Observation").removeprefix("?"), keep_blank_values=True)
    tokens = [
        token for name, value in pairs if name == "identifier" for token in parse_tokens(value)
    ]
    if len(pairs) == len(tokens) == 1:
        (token,) = tokens
        if token.system is not None and token.code is not None:
            return Identifier(system=token.system, value=token.code)
    raise OutcomeError(
        Issue.NOT_SUPPORTED, "应为 / identifier=system|value", parameter="If-None-Exist"
    )


def _wishes(principal: Principal, document: Document) -> list[Wish]:
    if (document.get("resourceType"), document.get("type")) != ("Bundle", "transaction"):
        raise OutcomeError(Issue.INVALID, "应为 transaction / a Bundle of type transaction")
    entries = document.get("entry", [])
    if not isinstance(entries, list) or len(entries) > ENTRIES_MAX:
        raise OutcomeError(
            Issue.TOO_COSTLY, f"最多 {ENTRIES_MAX} 项 / at most {ENTRIES_MAX} entries"
        )
    wishes = [_entry(principal, index, entry) for index, entry in enumerate(entries)]
    conditions = [wish.unless for wish in wishes if wish.unless is not None]
    if len(set(conditions)) < len(conditions):
        raise OutcomeError(
            Issue.INVALID, "条件重复 / two entries have one and the same ifNoneExist"
        )
    return wishes


def _entry(principal: Principal, index: int, entry: Any) -> Wish:  # noqa: ANN401 - JSON
    where = f"Bundle.entry[{index}]"
    try:
        request, resource = entry["request"], entry["resource"]
        method, url, unless = request["method"], request["url"], request.get("ifNoneExist")
        is_wish = (method, url) == ("POST", "Observation") and isinstance(resource, dict)
    except (KeyError, TypeError, AttributeError) as error:
        raise OutcomeError(
            Issue.INVALID, "应有 request 与 resource / request and resource", parameter=where
        ) from error
    if not is_wish or not isinstance(unless, str | None):
        raise OutcomeError(
            Issue.NOT_SUPPORTED, "只支持 / only POST Observation", parameter=f"{where}.request"
        )
    try:
        return _wish(principal, resource, unless)
    except OutcomeError as error:
        raise OutcomeError(
            error.finding.issue,
            error.finding.text,
            parameter=_within_entry(where, error.finding.parameter),
            status=error.status,
        ) from error


def _within_entry(entry: str, told: str | None) -> str:
    """Return the path of an element of an entry (FHIRPath)."""
    match told:
        case None:
            return entry
        case "If-None-Exist":
            return f"{entry}.request.ifNoneExist"
        case _:
            return f"{entry}.resource.{told.removeprefix('Observation.')}"


async def _answered(request: Request, principal: Principal, done: Done) -> Mapping[str, object]:
    """Return what a transaction's entry is answered."""
    status = done.became.value
    response: dict[str, object] = {
        "status": f"{status.value} {status.phrase}",
        "outcome": _outcome(done),
    }
    if done.id is None:
        return {"response": response}
    address = _address(request, done)
    body = await _representation(request, principal, done)
    resource = {} if body is None else {"resource": orjson.Fragment(body)}
    return {"fullUrl": address, **resource, "response": response | {"location": address}}


def _address(request: Request, done: Done) -> str:
    return f"{base_of(request)}/Observation/{done.id}"


async def _representation(request: Request, principal: Principal, done: Done) -> bytes | None:
    """Return the Observation, where it is wanted, somebody's, and the token may read it."""
    if done.id is None or done.resident is None or "return=minimal" in _preferred(request):
        return None
    scopes = granted(principal)
    if scopes is None or not allows(scopes, "Observation", READ):
        return None
    archive: Archive = request.app.state.archive
    search = Search(parts=parts_for(principal, READ))
    wanted = [parse_observation_id(done.id)]
    try:
        made = await FhirStore(archive).by_ids(principal, wanted, search)
    except ForbiddenError:
        return None  # the account's own scopes do not say so
    return made[0].json if made else None


def _preferred(request: Request) -> Sequence[str]:
    return [word.strip() for text in request.headers.getlist("prefer") for word in text.split(";")]


def _outcome(done: Done) -> Mapping[str, object]:
    match done.became:
        case Became.CREATED if done.resident is None:
            text, issue = (
                "已入库, 尚未归属 / stored; whose it is is not settled yet",
                Issue.INFORMATIONAL,
            )
        case Became.CREATED:
            text, issue = "已入库 / stored", Issue.INFORMATIONAL
        case Became.FOUND:
            text, issue = "已存在 / it was there already", Issue.INFORMATIONAL
        case Became.WAITING:
            text = "已接收, 尚未入库 / kept, not stored yet: the same request again tells"
            issue = Issue.INFORMATIONAL
        case Became.KEPT_APART:
            reason = QUARANTINE_REASONS.get(done.reason or 0, "unknown")
            text, issue = f"已隔离待查 / kept apart: {reason}{_place(done)}", Issue.PROCESSING
    severity = "error" if done.became is Became.KEPT_APART else "information"
    return outcome(Finding(issue=issue, severity=severity, text=text))


def _place(done: Done) -> str:
    """Return which quantity or rule gave the reason."""
    sign = BY_CODE.get(done.sign)
    names = {
        "implausible": () if sign is None else [quantity.name for quantity in sign.quantities],
        "cross_field": () if sign is None else [rule.name for rule in sign.rules],
    }.get(QUARANTINE_REASONS.get(done.reason or 0, ""), ())
    return f" ({names[done.detail]})" if 0 <= done.detail < len(names) else ""
