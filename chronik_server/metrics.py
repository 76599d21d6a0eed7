"""What a server counts, for Prometheus.

Place: under `session` and `health`; with `store_metrics` the owner of prometheus_client. Promise: a
registry of its own, so that two servers in one process do not meet. Invariant: labels are verbs,
reasons, roles, limits and error codes, never topics: their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from chronik_server.protocol.verbs import Verb

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ServerMetrics:
    """Counters of one server. Thread-safe."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.connections = Gauge("chronik_connections", "Connections now", registry=registry)
        self.refused = Counter(
            "chronik_connections_refused", "Connections hung up on", ["reason"], registry=registry
        )
        self.received_bytes = Counter("chronik_received_bytes", "Bytes in", registry=registry)
        self.sent_bytes = Counter("chronik_sent_bytes", "Bytes out", registry=registry)
        requests = Counter("chronik_requests", "Requests", ["verb"], registry=registry)
        seconds = Histogram(
            "chronik_request_seconds",
            "From a request's last byte to its answer, long polls included",
            ["verb"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self.failures = Counter(
            "chronik_request_failures", "Requests not granted", ["verb", "code"], registry=registry
        )
        self.by_verb = {
            verb: (requests.labels(verb.name.lower()), seconds.labels(verb.name.lower()))
            for verb in Verb
        }

    def watch(self, collect: Callable[[], Iterable[Any]]) -> None:
        """Also expose what `collect` yields (prometheus_client metric families) when asked."""

        class _Collector:
            def collect(self) -> Iterable[Any]:
                return collect()

        self.registry.register(_Collector())

    def wsgi(self) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
        """The library's own page."""
        return make_wsgi_app(self.registry)
