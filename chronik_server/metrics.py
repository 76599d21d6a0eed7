"""What a server counts, for Prometheus.

Place: under `session` and `health`; with `store_metrics` the owner of prometheus_client. Promise: a
registry of its own, so that two servers in one process do not meet; what every request moves is
plain numbers, which become metrics when somebody asks. Invariant: labels are verbs, reasons, roles,
limits and error codes, never topics: their number is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, make_wsgi_app
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from chronik_server.protocol.verbs import Verb

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class RequestTally:
    """The requests of one verb. Written by the event loop, read by anybody."""

    __slots__ = ("buckets", "count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(_BUCKETS) + 1)

    def note(self, seconds: float) -> None:
        """One more, which took so long."""
        self.count += 1
        self.seconds += seconds
        self.buckets[bisect_left(_BUCKETS, seconds)] += 1


class ServerMetrics:
    """Counters of one server. Plain numbers belong to the event loop, the rest is thread-safe."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.connections = Gauge("chronik_connections", "Connections now", registry=registry)
        self.refused = Counter(
            "chronik_connections_refused", "Connections hung up on", ["reason"], registry=registry
        )
        self.failures = Counter(
            "chronik_request_failures", "Requests not granted", ["verb", "code"], registry=registry
        )
        self.received_bytes = 0
        self.sent_bytes = 0
        self.by_verb = {verb: RequestTally() for verb in Verb}
        self.watch(self._plain)

    def _plain(self) -> Iterator[Metric]:
        yield CounterMetricFamily("chronik_received_bytes", "Bytes in", value=self.received_bytes)
        yield CounterMetricFamily("chronik_sent_bytes", "Bytes out", value=self.sent_bytes)
        requests = CounterMetricFamily("chronik_requests", "Requests", labels=["verb"])
        seconds = HistogramMetricFamily(
            "chronik_request_seconds",
            "From a request's last byte to its answer, long polls included",
            labels=["verb"],
        )
        limits = [*map(str, map(float, _BUCKETS)), "+Inf"]
        for verb, tally in self.by_verb.items():
            name = verb.name.lower()
            requests.add_metric([name], tally.count)
            rising = accumulate(list(tally.buckets))
            seconds.add_metric([name], list(zip(limits, rising, strict=True)), tally.seconds)
        yield requests
        yield seconds

    def watch(self, collect: Callable[[], Iterable[Any]]) -> None:
        """Also expose what `collect` yields (prometheus_client metric families) when asked."""

        class _Collector:
            def collect(self) -> Iterable[Any]:
                return collect()

        self.registry.register(_Collector())

    def wsgi(self) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
        """The library's own page."""
        return make_wsgi_app(self.registry)
