"""The Prometheus metrics of one process, as `metric_table` lists them. No global registry.

Labels are names from the configuration and words from fixed sets. They never contain a user, a path, a token or a
request ID. docs/operations.md documents the names and meanings.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from akoya_gateway.observability.metric_table import METRICS, PREFIX, Kind, MetricRow
from akoya_gateway.observability.request_metrics import RequestMetrics

MAX_LABEL_SETS = 1000
"""Maximum label combinations per metric. Further ones are counted under `other`."""

M = TypeVar("M", Counter, Gauge, Histogram)

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values, and the value of their series."""


class BoundedLabels(Generic[M]):
    """A metric with a bounded number of children, each found by one dictionary lookup."""

    def __init__(self, metric: M, width: int) -> None:
        self._metric: M = metric
        self._width = width
        self._children: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        """Return the child for these label values, or the one for `other` if there are too many."""
        child = self._children.get(values)
        return child if child is not None else self._child(values)

    def _child(self, values: tuple[str, ...]) -> M:
        if not self._width:
            return self._children.setdefault((), self._metric)
        if len(self._children) >= MAX_LABEL_SETS:
            values = ("other",) * self._width
        return self._children.setdefault(values, self._metric.labels(*values))


class _Sampled(Collector):
    """A metric whose values are computed at each scrape. At most `MAX_LABEL_SETS` series; the rest is left out."""

    def __init__(self, row: MetricRow) -> None:
        self.row = row
        self.sources: list[Callable[[], Samples]] = []

    def collect(self) -> Iterator[Metric]:
        """Yield the metric for prometheus-client."""
        made = CounterMetricFamily if self.row.kind is Kind.COUNTER else GaugeMetricFamily
        family = made(f"{PREFIX}_{self.row.name}", self.row.text, labels=self.row.labels)
        for source in self.sources:
            for values, value in source():
                if len(family.samples) < MAX_LABEL_SETS:
                    family.add_metric(values, value)
        yield family


class _Key(Protocol):
    @property
    def environment(self) -> str: ...
    @property
    def connector(self) -> str: ...


class _Moved(Protocol):
    """The attributes of `grants.grant.Grant` that `moved` reads. This package does not import `grants`."""

    @property
    def key(self) -> _Key: ...
    @property
    def state(self) -> str: ...


class Metrics:
    """All metrics of a process.

    Implements `grants.observer.GrantObserver` and the methods of `endpoints.observer.AuthorizationObserver` that count.
    """

    def __init__(self, version: str, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._tally = RequestMetrics()
        self.registry.register(self._tally)
        ProcessCollector(registry=self.registry)
        self.request = self._tally.add
        """`request(rule, outcome, status, seconds)` counts one request. `rule`: label of its access rule, or `-`."""
        self._counters: dict[str, BoundedLabels[Counter]] = {}
        self._gauges: dict[str, BoundedLabels[Gauge]] = {}
        self._histograms: dict[str, BoundedLabels[Histogram]] = {}
        self._sampled: dict[str, _Sampled] = {}
        for row in METRICS:
            self._register(row)
        self.set("build_info", 1, version, platform.python_version())
        self.loaded()

    def _register(self, row: MetricRow) -> None:
        name, width, registry = f"{PREFIX}_{row.name}", len(row.labels), self.registry
        if row.sampled:
            self._sampled[row.name] = _Sampled(row)
            registry.register(self._sampled[row.name])
        elif row.kind is Kind.COUNTER:
            self._counters[row.name] = BoundedLabels(Counter(name, row.text, row.labels, registry=registry), width)
        elif row.kind is Kind.GAUGE:
            self._gauges[row.name] = BoundedLabels(Gauge(name, row.text, row.labels, registry=registry), width)
        else:
            histogram = Histogram(name, row.text, row.labels, registry=registry, buckets=row.buckets)
            self._histograms[row.name] = BoundedLabels(histogram, width)

    # -- For every row of the table. `name` is that of the row, and `labels` are the values in its order.

    def create(self, name: str, series: Iterable[tuple[str, ...]]) -> None:
        """Create series at 0, so that `increase()` of Prometheus sees the first event."""
        family = self._counters.get(name) or self._gauges.get(name) or self._histograms[name]
        for labels in series:
            family.labels(*labels)

    def increment(self, name: str, *labels: str) -> None:
        """Add 1 to a counter."""
        self._counters[name].labels(*labels).inc()

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._gauges[name].labels(*labels).set(value)

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Add a duration to a histogram."""
        self._histograms[name].labels(*labels).observe(seconds)

    def sample(self, name: str, source: Callable[[], Samples]) -> None:
        """Add a function that each scrape calls for values of a sampled metric. It must neither block nor raise."""
        self._sampled[name].sources.append(source)

    def set_upstreams(self, upstreams: Mapping[str, str]) -> None:
        """Set the upstream of each rule, by their labels, at start and after a reload."""
        self._tally.set_upstreams(upstreams)

    def create_requests(self, series: Iterable[tuple[str, str, int]]) -> None:
        """Create series of requests for these rules, outcomes and statuses."""
        for rule, outcome, status in series:
            self._tally.create(rule, outcome, status)

    # -- grants.observer.GrantObserver

    def refreshed(self, environment: str, connector: str, outcome: str, seconds: float) -> None:
        """Count a token refresh. `seconds` is the time until its result was durable."""
        self.increment("refreshes", environment, connector, outcome)
        self.observe("refresh_duration_seconds", seconds, environment)
        self.increment("provider_answers", environment, "refresh", outcome)
        if outcome == "granted":
            self.set("last_refresh_timestamp_seconds", self._clock(), environment, connector)

    def moved(self, grant: _Moved, before: object) -> None:
        """Count a grant that has changed its state."""
        if before != grant.state:
            self.increment("grant_moves", grant.key.environment, grant.key.connector, str(grant.state))

    def unsaved(self, count: int) -> None:
        """Set the number of refreshed tokens that are only in memory because the store refuses them."""
        self.set("refreshes_unsaved", count)

    def revoked(self, environment: str, outcome: str) -> None:
        """Count a revocation request to the provider."""
        self.increment("provider_answers", environment, "revoke", outcome)

    def breaker(self, environment: str, is_open: bool) -> None:
        """Set whether the circuit breaker of an environment is open."""
        self.set("provider_breaker_open", 1 if is_open else 0, environment)

    # -- endpoints.observer.AuthorizationObserver

    def attempt_started(self, connector: str) -> None:
        """Count the start of an authorization attempt."""
        self.increment("attempts_started", connector)

    def attempt_ended(self, connector: str | None, result: str) -> None:
        """Count the end of an authorization attempt. `result` is `granted` or the stable code of the error."""
        self.increment("attempts_finished", connector or "none", result)

    def disconnected(self, connector: str) -> None:
        """Count a grant that its user has disconnected."""
        self.increment("disconnects", connector)

    # -- other callers

    def store_failed(self, operation: str) -> None:
        """Count a store call that raised. `operation` is its verb."""
        self.increment("store_errors", operation)

    def upstream_failed(self, rule: str, kind: str) -> None:
        """Count a request under this rule that its upstream failed. `kind` is the code of the `UpstreamError`."""
        self.increment("upstream_failures", self._tally.upstream_of(rule), kind)

    def websocket_opened(self) -> None:
        """Count an open WebSocket."""
        self._gauges["websockets"].labels().inc()

    def websocket_closed(self) -> None:
        """Stop counting a WebSocket."""
        self._gauges["websockets"].labels().dec()

    def loaded(self) -> None:
        """Record that a configuration is in force, at start or after a reload."""
        self.set("config_loaded_timestamp_seconds", self._clock())
        self.set("config_last_reload_successful", 1)

    def reloaded(self, ok: bool) -> None:
        """Record a reload. If it failed, the last valid configuration stays in force."""
        self.increment("config_reloads", "ok" if ok else "failed")
        if ok:
            self.loaded()
        else:
            self.set("config_last_reload_successful", 0)
