"""Observers that report requests, grants and authorizations to metrics and log. Used by the sidecar."""

from __future__ import annotations

from functools import partial

from akoya_gateway.gateway.runtime import Observers
from akoya_gateway.grants.grant import Grant, GrantState
from akoya_gateway.observability.access_log import AccessLog, LoggedRequest
from akoya_gateway.observability.logs import Log
from akoya_gateway.observability.metrics import Metrics
from akoya_gateway.server.refusal_log import PARSER_LIMITS

IDENTITY_FAILURES = frozenset({"ambiguous-identity", "identity-keys", "identity-rejected", "untrusted-identity"})
"""Outcomes of requests whose identity header or token was refused."""

REFUSALS = {
    "body-timeout": "body_seconds",
    "body-too-large": "body_bytes",
    "headers-too-large": "max_header_bytes",
    "path-too-long": "path_bytes",
    "too-many-attempts": "attempts",
    "too-many-connects": "connects_per_minute",
    "upstream-busy": "pool",
}
"""The limits by the outcome of requests that they refuse."""
LIMITS = frozenset({*REFUSALS.values(), *PARSER_LIMITS.values()})
"""All values of the label `limit`."""

_ALARMING = frozenset({GrantState.UNCERTAIN, GrantState.NEEDS_RECONNECT})


def build_observers(metrics: Metrics, log: Log, access: AccessLog) -> Observers:
    """Return the observers that `Runtime` reports to."""
    return Observers(
        LoggingGrantObserver(metrics, log),
        LoggingAuthorizationObserver(metrics, log),
        LoggingRequestObserver(metrics, access),
        lambda operation, seconds: metrics.observe("store_duration_seconds", seconds, operation),
        partial(metrics.increment, "key_fetch_failures"),
        CountingDataApiObserver(metrics),
    )


class CountingDataApiObserver:
    """Counts the calls of data APIs. Implements `data_api.service.DataApiObserver`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def data_called(self, connector: str, product: str, result: str, seconds: float) -> None:
        self._metrics.increment("data_calls", connector, product, result)
        self._metrics.observe("data_call_duration_seconds", seconds, connector, product)


class LoggingRequestObserver:
    """Reports requests to the metrics and the access log. Implements `gateway.response_observer.RequestObserver`."""

    def __init__(self, metrics: Metrics, access: AccessLog) -> None:
        self._count = metrics.request
        self._metrics = metrics
        self._log_access = access if access.enabled else None

    def on_response(
        self, request: LoggedRequest, status: int, rule: str, outcome: str, began: float, now: float
    ) -> None:
        self._count(rule, outcome, status, now - began)
        if status >= 400:
            self._count_failure(status, rule, outcome)
        if self._log_access is not None:
            self._log_access(request, status, rule, outcome, began, now)

    def on_truncated(self, rule: str, problem: str) -> None:
        self._metrics.upstream_failed(rule, problem)

    def _count_failure(self, status: int, rule: str, outcome: str) -> None:
        """Count a refused or failed request in the metric of its cause, if it has one."""
        metrics = self._metrics
        if outcome in REFUSALS:
            metrics.increment("limit_refusals", REFUSALS[outcome])
        elif outcome in IDENTITY_FAILURES:
            metrics.increment("identity_failures", outcome)
        if status >= 500 and outcome.startswith("upstream-"):
            metrics.upstream_failed(rule, outcome)
        elif outcome == "store-unavailable":
            metrics.store_failed("request")


class LoggingGrantObserver:
    """Reports grants and the provider's circuit breaker. Implements `grants.observer.GrantObserver`."""

    def __init__(self, metrics: Metrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log

    def refreshed(self, environment: str, connector: str, outcome: str, seconds: float) -> None:
        self._metrics.refreshed(environment, connector, outcome, seconds)

    def moved(self, grant: Grant, before: GrantState | None) -> None:
        self._metrics.moved(grant, before)
        if grant.state in _ALARMING and before is not grant.state:
            self._log.warning(
                "grant degraded",
                grant=grant.public_id,
                environment=grant.key.environment,
                connector=grant.connector,
                grant_state=grant.state.value,
                reason=grant.reason,
            )

    def unsaved(self, count: int) -> None:
        self._metrics.unsaved(count)
        if count:
            self._log.error("refreshed tokens not saved", grants=count)

    def revoked(self, environment: str, outcome: str) -> None:
        self._metrics.revoked(environment, outcome)

    def breaker(self, environment: str, is_open: bool) -> None:
        self._metrics.breaker(environment, is_open)
        self._log.warning("provider circuit opened" if is_open else "provider circuit closed",
                          environment=environment)  # fmt: skip


class LoggingAuthorizationObserver:
    """Reports authorization attempts. Implements `endpoints.observer.AuthorizationObserver`."""

    def __init__(self, metrics: Metrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log

    def attempt_started(self, connector: str) -> None:
        self._metrics.attempt_started(connector)

    def attempt_ended(self, connector: str | None, result: str, request_id: str) -> None:
        self._metrics.attempt_ended(connector, result)
        self._log.info("authorization attempt finished", connector=connector, result=result, request_id=request_id)

    def disconnected(self, connector: str) -> None:
        self._metrics.disconnected(connector)
