"""An ingest worker as `hearth ingest` runs it, but for its clock, which orders may set back.

python -m bench.chaos.ingest ORDERS EVENTS
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import uvloop

from bench.chaos.orders import Events, read_orders
from gateway.platform.embedded.services import find_services
from gateway.platform.logs import configure_logs
from gateway.platform.settings import load_settings
from ingest.app import IngestConfig, run
from ingest.pipeline import FlushRule, wall_clock_ms


class Clock:
    """The machine's clock, moved as the orders say; tells when it was set back."""

    def __init__(self, orders: Path, events: Path) -> None:
        self._orders = orders
        self._events = Events(events)
        self._told: Counter[str] = Counter()
        self._offset_ms = 0

    def now_ms(self) -> int:
        """Return the worker's time."""
        offset_ms = read_orders(self._orders).clock_ms
        if offset_ms < self._offset_ms:
            self._told["clock_back"] += 1
            self._events.tell(self._told)
        self._offset_ms = offset_ms
        return wall_clock_ms() + offset_ms


def main() -> None:
    """Run until SIGTERM or a kill."""
    settings = load_settings()
    configure_logs(settings)
    services = find_services(settings)
    config = IngestConfig(
        dsn=services.database_url,
        broker=services.mqtt.address,
        rule=FlushRule(rows_max=settings.ingest_flush_rows, age_s=settings.ingest_flush_ms / 1000),
        metrics_port=settings.metrics_port,
        now_ms=Clock(Path(sys.argv[1]), Path(sys.argv[2])).now_ms,
    )
    uvloop.run(run(config))


if __name__ == "__main__":
    main()
