"""Which hubs stand for services that create Observations through FHIR."""

from __future__ import annotations

import time
from pathlib import Path

from api import registry
from gateway.errors import UsageError
from gateway.platform.audit import audit_command
from gateway.platform.postgres import Connection, load_queries, translated

_QUERIES = load_queries(Path(__file__).parent / "sql" / "gateways.sql")


def stand_in(connection: Connection, hub: str, service: str) -> None:
    """Let a hub stand for a service in the hub's home; audited.

    The hub is in the registry and nothing else: no box has its certificate, nothing came from it, so
    its batches are numbered here alone.

    Raises:
        UsageError: there is no such hub or service, or the hub is another's already.
    """
    name = registry.canonical_hub(hub)
    asked = {"hub": name, "service": service, "epoch": time.time_ns() // 1_000_000}
    with translated():
        row = connection.execute(_QUERIES["stand_in"], asked).fetchone()
    if row is None:
        raise UsageError(
            f"无此服务或网关, 或网关已有用途 / no such service or hub, or the hub is in use: {name}"
        )
    audit_command(connection, "hub.stand_in", detail={"hub": name, "service": service})
