"""The REST API as an ASGI application: routes inside, what guards them around."""

from __future__ import annotations

from functools import cache

from fastapi import FastAPI, Security

from api.archive import Archive
from api.auth import RequireToken
from api.boundary import Boundary
from api.conditional import Conditional
from api.idempotency import Idempotent
from api.limits import RATE_PER_S, LimitRate
from api.live import Feed
from api.openapi import BEARER, ERRORS, describe
from api.problems import answer_problems
from api.routes import equipment, lists, live, operations, people, residents, signs
from api.vault import Vault


def create_app(
    archive: Archive, token: str, vault: Vault, rate_per_s: float = RATE_PER_S
) -> FastAPI:
    """Return the application over an archive, for whoever bears `token`.

    `vault` opens the residents' identities; one principal may ask `rate_per_s` times (0: no limit).
    """
    # FastAPI's own pages at /docs load scripts from other hosts, so there are none.
    app = FastAPI(
        docs_url=None, redoc_url=None, generate_unique_id_function=lambda route: route.name
    )
    app.state.archive = archive
    app.state.vault = vault
    app.state.feed = Feed(archive)
    app.openapi = cache(lambda: describe(app))  # type: ignore[method-assign]  # as FastAPI documents it
    guarded = [Security(BEARER)]
    for router in (
        people.router, residents.router, live.router, lists.router, equipment.router, signs.router,
        operations.router,
    ):  # fmt: skip
        app.include_router(router, dependencies=guarded, responses=ERRORS)
    app.include_router(operations.probes)
    answer_problems(app)
    # The last one added is the first that a request meets.
    app.add_middleware(Conditional)
    app.add_middleware(Idempotent, pool=archive.pool)
    app.add_middleware(LimitRate, rate_per_s=rate_per_s)
    app.add_middleware(RequireToken, token=token)
    app.add_middleware(Boundary)
    return app
