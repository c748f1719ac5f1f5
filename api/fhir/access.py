"""What a token's SMART scopes leave of FHIR: the kinds of Observation, the kinds of resource."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastapi import Request

from api.access import ForbiddenError, Principal, Role
from api.fhir.outcomes import Issue, OutcomeError
from api.fhir.parts import PARTS, Part
from api.fhir.scopes import Scope, allows, parse_scopes, parts_allowed, says_anything

READ, SEARCH, CREATE, DELETE = "r", "s", "c", "d"


async def hold_outside_of_fhir(request: Request) -> None:
    """Hold a token with SMART scopes to them on routes that know nothing of compartments and kinds.

    What a person has granted an app is FHIR's alone; of a service's scopes those count that no query
    narrows.

    Raises:
        ForbiddenError: a person's token has such scopes.
    """
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None or not says_anything(principal.scopes):
        return
    if principal.role is not Role.SERVICE:
        raise ForbiddenError("scope")
    whole = frozenset(scope for scope in principal.scopes if "?" not in scope)
    request.state.principal = replace(principal, scopes=whole)


def granted(principal: Principal) -> Sequence[Scope] | None:
    """Return the scopes that are good for whom the token names; None: its role alone decides.

    `system/` is a service's; `patient/` is of the one resident whose token it is; `user/` of people.
    """
    if not says_anything(principal.scopes):
        return None
    if principal.role is Role.SERVICE:
        good = {"system"}
    elif principal.resident is None:
        good = {"user"}
    else:
        good = {"user", "patient"}
    return [scope for scope in parse_scopes(principal.scopes) if scope.who in good]


def has_scope(principal: Principal, resource: str, may: str) -> bool:
    """Tell whether the token's scopes leave something that may be done with a kind of resource."""
    scopes = granted(principal)
    return scopes is None or allows(scopes, resource, may)


def require_scope(principal: Principal, resource: str, may: str) -> None:
    """Refuse what the token's scopes do not say.

    Raises:
        OutcomeError: forbidden.
    """
    if not has_scope(principal, resource, may):
        raise OutcomeError(
            Issue.FORBIDDEN, "令牌的权限范围不含此操作 / the token's scopes do not say so"
        )


def parts_for(principal: Principal, may: str) -> tuple[Part, ...]:
    """Return the kinds of Observation that the token may read or search.

    Raises:
        OutcomeError: none.
    """
    scopes = granted(principal)
    if scopes is None:
        return PARTS
    parts = parts_allowed(scopes, may)
    if not parts:
        raise OutcomeError(
            Issue.FORBIDDEN, "令牌的权限范围不含此操作 / the token's scopes do not say so"
        )
    return parts
