"""The REST API as an ASGI application: routes inside, what guards them around."""

from __future__ import annotations

from fastapi import FastAPI, Security

from api.archive import Archive
from api.auth import RequireToken
from api.boundary import Boundary
from api.enrolment import Office
from api.openapi import BEARER, ERRORS, describe
from api.problems import answer_problems
from api.routes import clinical, enrolment, equipment, operations, residents, signs


def create_app(archive: Archive, token: str, office: Office | None = None) -> FastAPI:
    """Return the application over an archive, for whoever bears `token`; `office` enrols hubs."""
    # FastAPI's own pages at /docs load scripts from other hosts, so there are none.
    app = FastAPI(docs_url=None, redoc_url=None)
    app.state.archive = archive
    app.state.enrolment = None if office is None else enrolment.Desk(office)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # as FastAPI documents it
    guarded = [Security(BEARER)]
    routers = (residents, clinical, equipment, signs, operations)
    for module in routers:
        app.include_router(module.router, dependencies=guarded, responses=ERRORS)
    app.include_router(operations.probes)
    app.include_router(enrolment.router)
    answer_problems(app)
    app.add_middleware(RequireToken, token=token)
    app.add_middleware(Boundary)
    return app
