"""What the API counts. No label names a person, a device or a value: routes by their template.

Of several processes (`api.processes`) each counts in files of a common folder, named by `FOLDER`, and
whichever is asked tells the sums (prometheus_client's multiprocess mode).
"""

from __future__ import annotations

import os

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that prometheus_client reads when it is imported."""

REQUESTS = Counter(
    "hearth_api_requests",
    "Requests by method, route (its template) and status.",
    ["method", "route", "status"],
)
SECONDS = Histogram(
    "hearth_api_request_seconds",
    "Time from a request's head to the end of its response.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
LIVE_CLIENTS = Gauge(
    "hearth_api_live_clients",
    "Clients that follow live events.",
    multiprocess_mode="livesum",
)
LIVE_DROPPED = Counter(
    "hearth_api_live_dropped", "Clients that read live events too slowly and were dropped."
)


def exposition() -> bytes:
    """Return all metrics of the service in Prometheus's text format."""
    if FOLDER not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
