"""For whoever runs the service: /healthz, /readyz, /metrics, and the state of the schema."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api import metrics
from api.access import Needs, principal_of, require
from api.documents import Health
from api.problems import problem
from api.routes.parameters import PREFIX, ArchiveOfApp, json_response

probes = APIRouter(tags=["运行 / operations"])
router = APIRouter(tags=["运行 / operations"])


@probes.get(
    "/healthz",
    summary="存活 / liveness",
    response_class=PlainTextResponse,
)
async def read_liveness() -> Response:
    """Answer as long as the process lives."""
    return PlainTextResponse("ok\n")


@probes.get(
    "/readyz",
    summary="就绪 / readiness",
    response_class=PlainTextResponse,
)
async def read_readiness(archive: ArchiveOfApp) -> Response:
    """Answer when the database does and its schema has what this version reads."""
    lacking = await archive.lacking_columns()
    if lacking:
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "数据库结构较旧 / the schema is older than this Hearth: 请运行 / run `hearth db migrate`; "
            f"lacking: {', '.join(lacking)}",
        )
    return PlainTextResponse("ready\n")


@router.get(
    "/metrics",
    summary="指标 / metrics",
    response_class=PlainTextResponse,
)
async def read_metrics(request: Request) -> Response:
    """Return what Prometheus scrapes; no label names a person, a device or a value."""
    if not getattr(request.state, "is_scraper", False):  # api.auth has seen its token
        require(await principal_of(request), Needs.OPERATIONS)
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get(
    f"{PREFIX}/health",
    summary="版本 / version",
    response_model=Health,
)
async def read_health(archive: ArchiveOfApp) -> Response:
    """Tell which version answers, over which schema."""
    return json_response(await archive.health())
