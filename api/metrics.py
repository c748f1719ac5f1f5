"""What the API counts. No label names a person, a device or a value: routes by their template."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

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
LIVE_CLIENTS = Gauge("hearth_api_live_clients", "Clients that follow live events.")
LIVE_DROPPED = Counter(
    "hearth_api_live_dropped", "Clients that read live events too slowly and were dropped."
)
