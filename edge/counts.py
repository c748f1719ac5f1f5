"""What a hub counts while it runs; the one source of its metrics and of its state message.

Numbers only, under fixed names and one label, the hub: no device, no person, no value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.roster import Outcome
from gateway.wire import hub_name


@dataclass(slots=True, kw_only=True)
class Counts:
    """Counters of one hub since its process began; each only ever grows."""

    measurements: int = field(default=0, metadata={"says": "Readings taken and kept."})
    undecoded: int = field(default=0, metadata={"says": "Payloads kept that no decoder reads."})
    values_beyond: int = field(
        default=0,
        metadata={"says": "Values of readings that their sign has no quantity for; not stored."},
    )
    lost: int = field(default=0, metadata={"says": "Readings lost at a bound of this hub."})
    repeats: int = field(default=0, metadata={"says": "Advertised packets heard again."})
    adverts_ignored: int = field(
        default=0,
        metadata={"says": "Advertised packets not kept: unreadable too often, or no room."},
    )
    segments_lost: int = field(
        default=0, metadata={"says": "Payloads whose segments did not all arrive."}
    )
    clocks_set: int = field(default=0, metadata={"says": "Device clocks set, read back right."})
    clocks_refused: int = field(
        default=0, metadata={"says": "Device clocks that did not take the time."}
    )
    bonds_renewed: int = field(default=0, metadata={"says": "Lost bonds removed at this side."})
    discoveries_repeated: int = field(
        default=0, metadata={"says": "Service discoveries that came back incomplete."}
    )
    adapter_losses: int = field(default=0, metadata={"says": "Times an adapter went away."})
    storage_failures: int = field(default=0, metadata={"says": "Writes that the disk refused."})
    files_set_aside: int = field(default=0, metadata={"says": "Outbox files found damaged."})
    connections: int = field(default=0, metadata={"says": "Connections to the broker."})
    connection_failures: int = field(default=0, metadata={"says": "Broker lost or unreachable."})
    published: int = field(default=0, metadata={"says": "Batches published."})
    published_again: int = field(default=0, metadata={"says": "Of these, not for the first time."})
    unheard: int = field(default=0, metadata={"says": "Batches no subscriber was there for."})
    refused: int = field(default=0, metadata={"says": "Batches that the broker refused."})
    receipts: int = field(default=0, metadata={"says": "Receipts that removed a batch."})
    receipts_unknown: int = field(
        default=0, metadata={"says": "Receipts for no batch here: late, or of another epoch."}
    )
    messages_ignored: int = field(
        default=0, metadata={"says": "Messages from the broker that say nothing known."}
    )
    certificates_renewed: int = field(default=0, metadata={"says": "Renewals of the certificate."})
    certificate_failures: int = field(
        default=0, metadata={"says": "Renewals of the certificate that failed."}
    )
    sessions: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))

    def as_numbers(self) -> dict[str, int]:
        """Return all counters by name."""
        numbers = {name: getattr(self, name) for name, _says in _counters()}
        return numbers | {f"sessions_{o.value}": n for o, n in self.sessions.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What a hub shows at this moment."""

    entries: int = field(metadata={"says": "Readings kept, not yet in a batch."})
    batches: int = field(metadata={"says": "Batches without a receipt."})
    records: int = field(metadata={"says": "Readings in batches without a receipt."})
    undated: int = field(metadata={"says": "Readings that wait until the hub knows the time."})
    is_connected: bool = field(metadata={"says": "1 while the broker is connected."})
    certificate_left_s: float = field(metadata={"says": "Seconds until the certificate ends."})


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One hub whose counts and gauges are shown."""

    hub: int
    counts: Counts
    gauges: Callable[[], Gauges]


class HubMetrics(Collector):
    """The counters and gauges of all hubs of this process, for the Prometheus registry."""

    def __init__(self, hubs: Sequence[Watched]) -> None:
        self._hubs = hubs

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        for name, says in _counters():
            family = CounterMetricFamily(f"hearth_hub_{name}", says, labels=["hub"])
            for watched in self._hubs:
                family.add_metric([hub_name(watched.hub)], getattr(watched.counts, name))
            yield family
        sessions = CounterMetricFamily(
            "hearth_hub_sessions", "Sessions with devices.", labels=["hub", "outcome"]
        )
        for watched in self._hubs:
            for outcome, n in watched.counts.sessions.items():
                sessions.add_metric([hub_name(watched.hub), outcome.value], n)
        yield sessions
        for gauge in fields(Gauges):
            shown = GaugeMetricFamily(
                f"hearth_hub_{gauge.name}", gauge.metadata["says"], labels=["hub"]
            )
            for watched in self._hubs:
                shown.add_metric([hub_name(watched.hub)], getattr(watched.gauges(), gauge.name))
            yield shown


def _counters() -> Iterator[tuple[str, str]]:
    for counter in fields(Counts):
        if "says" in counter.metadata:
            yield counter.name, counter.metadata["says"]
