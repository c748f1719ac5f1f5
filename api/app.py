"""The REST API as an ASGI application: routes inside, what guards them around."""

from __future__ import annotations

from fastapi import FastAPI, Security

from api.archive import Archive
from api.auth import RequireToken, Verifier
from api.boundary import Boundary
from api.enrolment import Office
from api.issuer.issuer import Issuer
from api.openapi import BEARER, ERRORS, describe
from api.problems import answer_problems
from api.routes import (
    access,
    clinical,
    enrolment,
    equipment,
    issuer,
    operations,
    residents,
    signs,
)

GUARDED = (residents, access, clinical, equipment, signs, operations)
"""The modules whose routes need a token."""


def create_app(
    archive: Archive,
    verifier: Verifier,
    own_issuer: Issuer | None = None,
    office: Office | None = None,
) -> FastAPI:
    """Return the application over an archive, for whoever bears a token that `verifier` takes.

    `own_issuer`: the built-in one, where it is used. `office` enrols hubs; None: not here.
    """
    # FastAPI's own pages at /docs load scripts from other hosts, so there are none.
    app = FastAPI(docs_url=None, redoc_url=None)
    app.state.archive = archive
    app.state.issuer = own_issuer
    app.state.enrolment = None if office is None else enrolment.Desk(office)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # as FastAPI documents it
    guarded = [Security(BEARER)]
    for module in GUARDED:
        app.include_router(module.router, dependencies=guarded, responses=ERRORS)
    app.include_router(operations.probes)
    app.include_router(enrolment.router)
    if own_issuer is not None:
        app.include_router(issuer.router)
        issuer.answer_refusals(app)
    answer_problems(app)
    app.add_middleware(RequireToken, verifier=verifier)
    app.add_middleware(Boundary)
    return app
