"""Who asks, and what a role may ask for at all: the API's half of what is held twice.

The other half is the database's (schema `access`): whom a reader may see is decided there, in the
transaction that reads, and what this module forgets the database refuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from gateway.errors import DataError
from gateway.platform.audit import AuditEvent


class Role(Enum):
    """What someone is to the archive."""

    RESIDENT = "resident"
    """Sees their own archive, and who looked at it."""
    CLINICIAN = "clinician"
    """Sees the residents of their care teams."""
    COORDINATOR = "coordinator"
    """Sees worklists, links and equipment, no values."""
    ADMINISTRATOR = "administrator"
    """Runs the installation and reads the audit; sees no clinical values."""
    SERVICE = "service"
    """A program, within its scopes."""


class Needs(Enum):
    """What a read is of. access.permission has the same words."""

    VALUES = "values"
    """Measured values of residents."""
    RECORD = "record"
    """Residents and their links, without values."""
    AUDIT = "audit"
    """Who looked at a resident's data."""
    WORKLIST = "worklist"
    """Who of a care team needs attention."""
    EQUIPMENT = "equipment"
    """Homes, hubs, devices, the ledger."""
    OPERATIONS = "operations"
    """The installation itself."""
    LINKS = "links"
    """Changing who is measured by what."""
    TARGETS = "targets"
    """Changing a resident's own limits."""
    CLAIMS = "claims"
    """Saying whose readings are that wait for a person."""


MAY: Mapping[Role, frozenset[Needs]] = {
    Role.RESIDENT: frozenset({Needs.VALUES, Needs.RECORD, Needs.AUDIT, Needs.CLAIMS}),
    Role.CLINICIAN: frozenset({Needs.VALUES, Needs.RECORD, Needs.WORKLIST, Needs.TARGETS}),
    Role.COORDINATOR: frozenset(
        {Needs.RECORD, Needs.WORKLIST, Needs.EQUIPMENT, Needs.LINKS, Needs.CLAIMS}
    ),
    Role.ADMINISTRATOR: frozenset(
        {
            Needs.RECORD,
            Needs.AUDIT,
            Needs.EQUIPMENT,
            Needs.OPERATIONS,
            Needs.LINKS,
            Needs.CLAIMS,
        }
    ),
    Role.SERVICE: frozenset(
        {
            Needs.VALUES,
            Needs.RECORD,
            Needs.AUDIT,
            Needs.WORKLIST,
            Needs.EQUIPMENT,
            Needs.OPERATIONS,
            Needs.LINKS,
            Needs.TARGETS,
            Needs.CLAIMS,
        }
    ),
}
"""What each role may ask for; of whom, the database decides."""
_READS = r"\.(\*|[cud]*[rs][a-z]*)(\?.+)?"
SCOPES: Mapping[Needs, re.Pattern[str]] = {
    Needs.VALUES: re.compile(rf"system/(\*|Observation){_READS}"),
    Needs.RECORD: re.compile(rf"system/(\*|Patient){_READS}"),
    Needs.AUDIT: re.compile(rf"system/(\*|AuditEvent){_READS}"),
    Needs.WORKLIST: re.compile(rf"system/(\*|Observation){_READS}"),
    Needs.EQUIPMENT: re.compile(rf"system/(\*|Device){_READS}"),
    Needs.OPERATIONS: re.compile("hearth/operations"),
    Needs.LINKS: re.compile("hearth/links"),
    Needs.TARGETS: re.compile("hearth/targets"),
    Needs.CLAIMS: re.compile("hearth/links"),
}
"""Which scope of a service's token admits it to what; access.scope says the same of its account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a request comes from, as its token says.

    `user` is the account's public id; `session` None where the token belongs to none (a service);
    `resident` is the own archive of a resident; `origin` the address the request came from.
    """

    user: UUID
    role: Role
    session: UUID | None = None
    resident: UUID | None = None
    scopes: frozenset[str] = frozenset()
    origin: str | None = None

    def event(self, action: str, **detail: object) -> AuditEvent:
        """Return an act of theirs that touches no one resident."""
        kind = "service" if self.role is Role.SERVICE else "user"
        return AuditEvent(
            actor=f"{kind}:{self.user}", action=action, origin=self.origin, detail=detail
        )


class ForbiddenError(DataError):
    """The one who asks may not have this; `why` is the word of access.begin for it.

    `is_audited`: the database has refused it, and written that down.
    """

    def __init__(self, why: str, *, is_audited: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.is_audited = is_audited


class SignedOutError(DataError):
    """The account or session of a token is not good any more."""


async def principal_of(request: Request) -> Principal:
    """Return who a request comes from; api.auth has put it there."""
    principal: Principal = request.state.principal
    return principal


CurrentPrincipal = Annotated[Principal, Depends(principal_of)]


def require(principal: Principal, needs: Needs, resident: UUID | None = None) -> None:
    """Refuse what no one of this role may ask for.

    Raises:
        ForbiddenError: the role or the service's scopes do not admit to it, or a resident asks for
            another.
    """
    if needs not in MAY[principal.role]:
        raise ForbiddenError("role")
    if principal.role is Role.SERVICE and not any(
        SCOPES[needs].fullmatch(scope) for scope in principal.scopes
    ):
        raise ForbiddenError("scope")
    if principal.role is Role.RESIDENT and resident not in {None, principal.resident}:
        raise ForbiddenError("other")
