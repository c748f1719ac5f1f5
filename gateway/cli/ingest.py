"""`hearth ingest`: one ingest worker."""

from __future__ import annotations

import typer
import uvloop

from gateway.platform.embedded.services import find_services
from gateway.platform.settings import load_settings
from ingest.app import IngestConfig, run
from ingest.pipeline import FlushRule

app = typer.Typer(help="接收服务 / the ingest service.")


@app.command(epilog="例 / example:\n\nHEARTH_METRICS_PORT=9102 hearth ingest")
def ingest() -> None:
    """运行一个接收进程, 直到 SIGTERM; 可同时运行多个 / run one worker until SIGTERM; any number may run."""
    settings = load_settings()
    services = find_services(settings)
    config = IngestConfig(
        dsn=services.database_url,
        broker=services.mqtt.address,
        rule=FlushRule(rows_max=settings.ingest_flush_rows, age_s=settings.ingest_flush_ms / 1000),
        metrics_port=settings.metrics_port,
    )
    uvloop.run(run(config))
