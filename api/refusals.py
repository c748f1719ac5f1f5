"""Refusals that the API decides by itself, audited: who asked, by which route, and what stood in the way.

What the database refuses it audits in its own transaction (`access.begin`). What a role, a scope or a
route refuses before that is written here, before the answer goes out. The route is told by its
template: an address could hold what no audit may.
"""

from __future__ import annotations

from fastapi import Request

from api.access import Principal
from api.archive import Archive
from gateway.errors import UnavailableError
from gateway.platform.audit import write_audit
from gateway.platform.logs import get_logger
from gateway.platform.postgres import translated

ACTION = "request.refused"

_log = get_logger(__name__)


async def audit_refusal(request: Request, why: str) -> None:
    """Write that the one who asks was refused. A database that is down refuses them just the same."""
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None:
        return
    archive: Archive = request.app.state.archive
    route = f"{request.method} {_template(request)}"
    event = principal.event(ACTION, route=route, refused=why)
    try:
        with translated():
            async with archive.pool.connection() as connection, connection.transaction():
                await write_audit(connection, [event])
    except UnavailableError as error:
        _log.error("refusal_not_audited", route=_template(request), why=type(error).__name__)


def _template(request: Request) -> str:
    return getattr(request.scope.get("route"), "path", "unmatched")
