"""The Prometheus metrics, with typed methods to update them. One object per process, no global registry.

Labels are names from the configuration and words from fixed sets. They never contain a user, a path, a token or a
request ID. docs/operations.md documents the names and meanings.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from akoya_gateway.observability.request_metrics import RequestMetrics

REFRESH_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
PREFIX = "akoya_gateway"
MAX_LABEL_SETS = 1000
"""Maximum label combinations per metric. Further ones are counted under `other`."""

M = TypeVar("M", Counter, Gauge)


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

        self._refreshes = self._counter("refreshes", "Refresh calls.", "environment", "connector", "outcome")
        self._refresh_seconds = Histogram(
            f"{PREFIX}_refresh_duration_seconds",
            "From the refresh request to the durable result.",
            ("environment",),
            registry=self.registry,
            buckets=REFRESH_BUCKETS,
        )
        self._answers = self._counter("provider_answers", "Provider responses.", "environment", "operation", "answer")
        self._moves = self._counter("grant_moves", "Grants that reached a state.", "environment", "connector", "state")
        self._unsaved = self._gauge("refreshes_unsaved", "Refreshed tokens held in memory: the store refuses them.")
        self._breakers = self._gauge("provider_breaker_open", "1: the circuit breaker is open.", "environment")
        self._in_use = self._gauge("grants_in_use", "Owners whose grants are cached in memory.")
        self._started = self._counter("attempts_started", "Authorization attempts begun.", "connector")
        self._finished = self._counter("attempts_finished", "Authorization attempts ended.", "connector", "result")
        self._disconnects = self._counter("disconnects", "Grants disconnected by their users.", "connector")
        self._store_errors = self._counter("store_errors", "Store calls that failed.", "operation")
        self._upstream = self._counter("upstream_failures", "Failed upstream requests.", "kind")
        self._websockets = self._gauge("websockets", "WebSockets open.").labels()
        self._reloads = self._counter("config_reloads", "Reloads of the configuration.", "result")
        self._loaded = self._gauge("config_loaded_timestamp_seconds", "When the current configuration was loaded.")
        self._good = self._gauge("config_last_reload_successful", "1: the last reload succeeded.")
        self._gauge("build_info", "1.", "version", "python").labels(version, platform.python_version()).set(1)
        self.loaded()

    def _counter(self, name: str, text: str, *labels: str) -> BoundedLabels[Counter]:
        return BoundedLabels(Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry), len(labels))

    def _gauge(self, name: str, text: str, *labels: str) -> BoundedLabels[Gauge]:
        return BoundedLabels(Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry), len(labels))

    # -- Series of known labels at 0, so that `increase()` sees the first event

    def create_refreshes(self, series: Iterable[tuple[str, str, str]]) -> None:
        """Create series of refreshes for these environments, connectors and outcomes."""
        for environment, connector, outcome in series:
            self._refreshes.labels(environment, connector, outcome)
            self._refresh_seconds.labels(environment)
            self._answers.labels(environment, "refresh", outcome)

    def create_moves(self, series: Iterable[tuple[str, str, str]]) -> None:
        """Create series of grants that reach a state, for these environments, connectors and states."""
        for environment, connector, state in series:
            self._moves.labels(environment, connector, state)

    def create_attempts(self, series: Iterable[tuple[str, str]]) -> None:
        """Create series of authorization attempts for these connectors and results."""
        for connector, result in series:
            self._started.labels(connector)
            self._finished.labels(connector, result)
            self._disconnects.labels(connector)

    def create_breakers(self, environments: Iterable[str]) -> None:
        """Create the circuit breaker's series of each environment."""
        for environment in environments:
            self._breakers.labels(environment)

    def create_failures(self, kinds: Iterable[str]) -> None:
        """Create series of failures of upstreams, the store and reloads."""
        for kind in kinds:
            self._upstream.labels(kind)
        self._store_errors.labels("request")
        self._unsaved.labels()
        for result in ("ok", "failed"):
            self._reloads.labels(result)

    def create_requests(self, series: Iterable[tuple[str, str, int]]) -> None:
        """Create series of requests for these rules, outcomes and statuses."""
        for rule, outcome, status in series:
            self._tally.create(rule, outcome, status)

    # -- grants.observer.GrantObserver

    def refreshed(self, environment: str, connector: str, outcome: str, seconds: float) -> None:
        """Count a token refresh. `seconds` is the time until its result was durable."""
        self._refreshes.labels(environment, connector, outcome).inc()
        self._refresh_seconds.labels(environment).observe(seconds)
        self._answers.labels(environment, "refresh", outcome).inc()

    def moved(self, grant: _Moved, before: object) -> None:
        """Count a grant that has changed its state."""
        if before != grant.state:
            self._moves.labels(grant.key.environment, grant.key.connector, str(grant.state)).inc()

    def unsaved(self, count: int) -> None:
        """Set the number of refreshed tokens that are only in memory because the store refuses them."""
        self._unsaved.labels().set(count)

    def revoked(self, environment: str, outcome: str) -> None:
        """Count a revocation request to the provider."""
        self._answers.labels(environment, "revoke", outcome).inc()

    def breaker(self, environment: str, is_open: bool) -> None:
        """Set whether the circuit breaker of an environment is open."""
        self._breakers.labels(environment).set(1 if is_open else 0)

    # -- endpoints.observer.AuthorizationObserver

    def attempt_started(self, connector: str) -> None:
        """Count the start of an authorization attempt."""
        self._started.labels(connector).inc()

    def attempt_ended(self, connector: str | None, result: str) -> None:
        """Count the end of an authorization attempt. `result` is `granted` or the stable code of the error."""
        self._finished.labels(connector or "none", result).inc()

    def disconnected(self, connector: str) -> None:
        """Count a grant that its user has disconnected."""
        self._disconnects.labels(connector).inc()

    # -- other callers

    def store_failed(self, operation: str) -> None:
        """Count a store call that raised. `operation` is its verb."""
        self._store_errors.labels(operation).inc()

    def upstream_failed(self, kind: str) -> None:
        """Count a failed upstream request. `kind` is the stable code of the `UpstreamError`."""
        self._upstream.labels(kind).inc()

    def grants_in_use(self, count: Callable[[], float]) -> None:
        """Set the function that each scrape calls for the number of owners whose grants are cached in memory."""
        self._in_use.labels().set_function(count)

    def websocket_opened(self) -> None:
        """Count an open WebSocket."""
        self._websockets.inc()

    def websocket_closed(self) -> None:
        """Stop counting a WebSocket."""
        self._websockets.dec()

    def loaded(self) -> None:
        """Record that a configuration is in force, at start or after a reload."""
        self._loaded.labels().set(self._clock())
        self._good.labels().set(1)

    def reloaded(self, ok: bool) -> None:
        """Record a reload. If it failed, the last valid configuration stays in force."""
        self._reloads.labels("ok" if ok else "failed").inc()
        if ok:
            self.loaded()
        else:
            self._good.labels().set(0)
