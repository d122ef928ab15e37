"""What is counted, with typed methods to count it. One object a process, no global registry.

Labels are names from the configuration and words of fixed sets: never a user, a path, a token or a request id.
Names and meanings are part of docs/operations.md.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from akoya_gateway.observability.request_metrics import RequestMetrics

REFRESH_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
PREFIX = "akoya_gateway"
MAX_LABEL_SETS = 1000
"""Label combinations of one metric; what comes after is counted under `other`."""

M = TypeVar("M", Counter, Gauge)


class BoundedLabels(Generic[M]):
    """A metric whose children are found by one dictionary look-up, and which cannot grow without end."""

    def __init__(self, metric: M, width: int) -> None:
        self._metric: M = metric
        self._width = width
        self._children: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
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
    """What `moved` reads of a `grants.grant.Grant`; operations do not import grants."""

    @property
    def key(self) -> _Key: ...
    @property
    def state(self) -> str: ...


class Metrics:
    """Implements `grants.observer.GrantObserver` and the counting half of
    `endpoints.observer.AuthorizationObserver`."""

    def __init__(self, version: str, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._tally = RequestMetrics()
        self.registry.register(self._tally)
        ProcessCollector(registry=self.registry)
        self.request = self._tally.add
        """`request(rule, outcome, status, seconds)`: one request was answered. `rule`: its label, `-` for none."""

        self._refreshes = self._counter("refreshes", "Refresh calls.", "environment", "connector", "outcome")
        self._refresh_seconds = Histogram(
            f"{PREFIX}_refresh_duration_seconds",
            "From the refresh request to the durable result.",
            ("environment",),
            registry=self.registry,
            buckets=REFRESH_BUCKETS,
        )
        self._answers = self._counter("provider_answers", "Provider answers.", "environment", "operation", "answer")
        self._moves = self._counter("grant_moves", "Grants that reached a state.", "environment", "connector", "state")
        self._unsaved = self._gauge("refreshes_unsaved", "Refreshed tokens held in memory: the store refuses them.")
        self._breakers = self._gauge("provider_breaker_open", "1: no calls for now.", "environment")
        self._in_use: BoundedLabels[Gauge] | None = None
        self._started = self._counter("attempts_started", "Authorization attempts begun.", "connector")
        self._finished = self._counter("attempts_finished", "Authorization attempts ended.", "connector", "result")
        self._disconnects = self._counter("disconnects", "Grants disconnected by their users.", "connector")
        self._store_errors = self._counter("store_errors", "Store calls that failed.", "operation")
        self._upstream = self._counter("upstream_failures", "Requests the upstream did not answer well.", "kind")
        self._websockets = self._gauge("websockets", "WebSockets open.").labels()
        self._reloads = self._counter("config_reloads", "Reloads of the configuration.", "result")
        self._loaded = self._gauge("config_loaded_timestamp_seconds", "When the present configuration was loaded.")
        self._good = self._gauge("config_last_reload_successful", "1: the last reload was taken over.")
        self._gauge("build_info", "1.", "version", "python").labels(version, platform.python_version()).set(1)
        self.loaded()

    def _counter(self, name: str, text: str, *labels: str) -> BoundedLabels[Counter]:
        return BoundedLabels(Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry), len(labels))

    def _gauge(self, name: str, text: str, *labels: str) -> BoundedLabels[Gauge]:
        return BoundedLabels(Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry), len(labels))

    # grants.observer.Observer

    def refreshed(self, environment: str, connector: str, outcome: str, seconds: float) -> None:
        """One refresh call was answered; `seconds` until its result was durable."""
        self._refreshes.labels(environment, connector, outcome).inc()
        self._refresh_seconds.labels(environment).observe(seconds)
        self._answers.labels(environment, "refresh", outcome).inc()

    def moved(self, grant: _Moved, before: object) -> None:
        """A grant is in another state."""
        if before != grant.state:
            self._moves.labels(grant.key.environment, grant.key.connector, str(grant.state)).inc()

    def unsaved(self, count: int) -> None:
        self._unsaved.labels().set(count)

    def revoked(self, environment: str, outcome: str) -> None:
        self._answers.labels(environment, "revoke", outcome).inc()

    def breaker(self, environment: str, is_open: bool) -> None:
        self._breakers.labels(environment).set(1 if is_open else 0)

    # endpoints.observer.Journal

    def attempt_started(self, connector: str) -> None:
        self._started.labels(connector).inc()

    def attempt_ended(self, connector: str | None, result: str) -> None:
        """`result`: `granted` or the stable code of the error."""
        self._finished.labels(connector or "none", result).inc()

    def disconnected(self, connector: str) -> None:
        self._disconnects.labels(connector).inc()

    # everybody else

    def provider_answered(self, environment: str, operation: str, answer: str) -> None:
        """`operation`: exchange, keys. Refreshes and revocations come by `refreshed` and `revoked`."""
        self._answers.labels(environment, operation, answer).inc()

    def store_failed(self, operation: str) -> None:
        """A store call raised; `operation` is its verb."""
        self._store_errors.labels(operation).inc()

    def upstream_failed(self, kind: str) -> None:
        """`kind`: the stable code of the `UpstreamError`."""
        self._upstream.labels(kind).inc()

    def grants_in_use(self, count: Callable[[], float]) -> None:
        """Asked at every scrape; not shown before it is known. A reload hands in the new engine's."""
        if self._in_use is None:
            self._in_use = self._gauge("grants_in_use", "Grants at hand in memory.")
        self._in_use.labels().set_function(count)

    def websocket_opened(self) -> None:
        self._websockets.inc()

    def websocket_closed(self) -> None:
        self._websockets.dec()

    def loaded(self) -> None:
        """A configuration was taken over at start."""
        self._loaded.labels().set(self._clock())
        self._good.labels().set(1)

    def reloaded(self, ok: bool) -> None:
        """A reload was tried; when it failed the last good configuration goes on."""
        self._reloads.labels("ok" if ok else "failed").inc()
        if ok:
            self.loaded()
        else:
            self._good.labels().set(0)
