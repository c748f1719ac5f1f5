"""The REST API as an ASGI application: routes inside, what guards them around."""

from __future__ import annotations

import asyncio
from functools import cache

from fastapi import Depends, FastAPI, Security

from api.archive import Archive
from api.auth import RequireToken, Verifier
from api.boundary import Boundary
from api.conditional import Conditional
from api.enrolment import Office
from api.fhir import creation_routes, export_routes, subscription_routes
from api.fhir import routes as fhir
from api.fhir.access import hold_outside_of_fhir
from api.fhir.described import describe_fhir
from api.fhir.errors import SpeakOutcomes, answer_outcomes
from api.fhir.webhooks import Webhooks
from api.idempotency import Idempotent
from api.issuer.issuer import Issuer
from api.limits import RATE_PER_S, LimitRate
from api.live import Feed
from api.openapi import BEARER, ERRORS, describe
from api.problems import answer_problems
from api.resident_file import COPIES_AT_ONCE_MAX
from api.routes import (
    access,
    clinical,
    enrolment,
    equipment,
    issuer,
    lists,
    live,
    operations,
    people,
    residents,
    signs,
    worklist,
)
from api.vault import IdentityVault

GUARDED = (people, residents, live, lists, worklist, access, clinical, equipment, signs, operations)
"""The modules whose routes need a token."""


def create_app(
    archive: Archive,
    verifier: Verifier,
    own_issuer: Issuer | None = None,
    office: Office | None = None,
    *,
    identities: IdentityVault | None = None,
    webhooks: Webhooks | None = None,
    rate_per_s: float = RATE_PER_S,
    scrape_token: str | None = None,
) -> FastAPI:
    """Return the application over an archive, for whoever bears a token that `verifier` takes.

    `own_issuer`: the built-in one, where it is used. `office` enrols hubs; None: not here.
    `identities` opens the residents' names and numbers; None: they stay sealed here (503).
    `webhooks` tells subscribers; None: nobody subscribes here (503). One principal may ask
    `rate_per_s` times (0: no limit). `scrape_token` opens /metrics; None: only an account does.
    """
    # FastAPI's own pages at /docs load scripts from other hosts, so there are none.
    app = FastAPI(
        docs_url=None, redoc_url=None, generate_unique_id_function=lambda route: route.name
    )
    app.state.archive = archive
    app.state.exports = None  # whoever serves it gives it a folder for them
    app.state.issuer = own_issuer
    app.state.enrolment = None if office is None else enrolment.Desk(office)
    app.state.identities = identities
    app.state.webhooks = webhooks
    app.state.copies = asyncio.Semaphore(COPIES_AT_ONCE_MAX)
    app.state.feed = Feed(archive)
    app.openapi = cache(lambda: describe_fhir(describe(app)))  # type: ignore[method-assign]  # as FastAPI documents it
    guarded = [Security(BEARER)]
    for module in GUARDED:
        held = [*guarded, Depends(hold_outside_of_fhir)]
        app.include_router(module.router, dependencies=held, responses=ERRORS)
    for router in (
        creation_routes.router,
        export_routes.router,
        subscription_routes.router,
        fhir.router,
    ):
        app.include_router(router, dependencies=guarded)
    app.include_router(fhir.open_router)
    app.include_router(operations.probes)
    app.include_router(enrolment.router)
    if own_issuer is not None:
        app.include_router(issuer.router)
        issuer.answer_refusals(app)
    answer_problems(app)
    answer_outcomes(app)
    # The last one added is the first that a request meets.
    app.add_middleware(Conditional)
    app.add_middleware(Idempotent, pool=archive.pool)
    app.add_middleware(LimitRate, rate_per_s=rate_per_s)
    app.add_middleware(RequireToken, verifier=verifier, scrape_token=scrape_token)
    app.add_middleware(Boundary)
    app.add_middleware(SpeakOutcomes)
    return app
