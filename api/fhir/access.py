"""What a token's SMART scopes leave of FHIR: the kinds of Observation, the kinds of resource."""

from __future__ import annotations

from collections.abc import Sequence

from api.access import Principal, Role
from api.fhir.outcomes import Issue, OutcomeError
from api.fhir.parts import PARTS, Part
from api.fhir.scopes import Scope, allows, parse_scopes, parts_allowed, says_anything

READ, SEARCH, CREATE, DELETE = "r", "s", "c", "d"


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


def require_scope(principal: Principal, resource: str, may: str) -> None:
    """Refuse what the token's scopes do not say.

    Raises:
        OutcomeError: forbidden.
    """
    scopes = granted(principal)
    if scopes is not None and not allows(scopes, resource, may):
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
