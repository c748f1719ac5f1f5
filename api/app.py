"""The REST API as an ASGI application: routes inside, what guards them around."""

from __future__ import annotations

from fastapi import FastAPI, Security

from api.archive import Archive
from api.auth import RequireToken
from api.boundary import Boundary
from api.fhir import export_routes, subscription_routes
from api.fhir import routes as fhir
from api.fhir.errors import SpeakOutcomes, answer_outcomes
from api.fhir.export import Exports
from api.openapi import BEARER, ERRORS, describe
from api.problems import answer_problems
from api.routes import equipment, operations, residents, signs


def create_app(archive: Archive, token: str, exports: Exports | None = None) -> FastAPI:
    """Return the application over an archive, for whoever bears `token`.

    Without `exports` it refuses bulk exports; whoever serves it runs them.
    """
    # FastAPI's own pages at /docs load scripts from other hosts, so there are none.
    app = FastAPI(docs_url=None, redoc_url=None)
    app.state.archive = archive
    app.state.exports = exports
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # as FastAPI documents it
    guarded = [Security(BEARER)]
    for router in (residents.router, equipment.router, signs.router, operations.router):
        app.include_router(router, dependencies=guarded, responses=ERRORS)
    app.include_router(export_routes.router, dependencies=guarded)
    app.include_router(subscription_routes.router, dependencies=guarded)
    app.include_router(fhir.router, dependencies=guarded)
    app.include_router(fhir.open_router)
    app.include_router(operations.probes)
    answer_problems(app)
    answer_outcomes(app)
    app.add_middleware(RequireToken, token=token)
    app.add_middleware(Boundary)
    app.add_middleware(SpeakOutcomes)
    return app
