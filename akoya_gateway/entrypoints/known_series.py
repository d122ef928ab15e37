"""Creates the series of all known labels at 0 when a configuration takes effect.

A counter that first appears with the value 1 hides that event, because `increase()` of Prometheus compares two samples.
With a series that was at 0 before, an alert sees the first event.
"""

from __future__ import annotations

from typing import TypeVar

from akoya_gateway.config.model import Config
from akoya_gateway.data_api.call import Outcome
from akoya_gateway.entrypoints.observers import IDENTITY_FAILURES, LIMITS
from akoya_gateway.grants.grant import GrantState
from akoya_gateway.grants.refresh_log import REFRESH_OUTCOMES
from akoya_gateway.observability.metrics import MAX_LABEL_SETS, Metrics
from akoya_gateway.observability.worker_stats import RESTART_REASONS
from akoya_gateway.store.encrypted_store import TIMED_OPERATIONS

T = TypeVar("T")

ATTEMPT_RESULTS = (
    "granted", "authorization-refused", "bad-callback", "certificate-not-trusted", "client-refused", "code-refused",
    "foreign-issuer", "internal", "other-owner", "outcome-unknown", "provider-redirects", "provider-unreachable",
    "proxy-refused", "server_error", "store-unavailable", "temporarily_unavailable", "untrusted-id-token",
    "wrong-callback",
)  # fmt: skip
"""How an authorization attempt ends: `granted`, or the code of an error of `endpoints.callback`."""

FAILURES = (
    "internal", "key-missing", "provider-unavailable", "registration-refused", "store-unavailable",
    "untrusted-response", "upstream-busy", "upstream-closed", "upstream-invalid-response", "upstream-timeout",
    "upstream-unreachable",
)  # fmt: skip
"""Outcomes of requests with a status of 500 or more."""


def create_known_series(metrics: Metrics, config: Config) -> None:
    """Create all series whose labels the configuration and the code name, without counting anything.

    A metric with more than half of `MAX_LABEL_SETS` such series gets none: with hundreds of connectors each scrape
    would be megabytes long.
    """
    connectors = [(each.client.environment.name, each.key) for each in config.connectors.values()]
    rules = [rule.label for rule in config.access]
    states = [str(state) for state in GrantState]
    refreshes = _bounded([(*each, outcome) for each in connectors for outcome in REFRESH_OUTCOMES])
    metrics.create("refreshes", refreshes)
    metrics.create("refresh_duration_seconds", [(name,) for name in config.environments])
    metrics.create(
        "provider_answers", [(name, "refresh", one) for name in config.environments for one in REFRESH_OUTCOMES]
    )
    metrics.create("provider_breaker_open", [(name,) for name in config.environments])
    metrics.create("grant_moves", _bounded([(*each, state) for each in connectors for state in states]))
    metrics.create("attempts_started", [(key,) for _, key in connectors])
    metrics.create(
        "attempts_finished", _bounded([(key, result) for _, key in connectors for result in ATTEMPT_RESULTS])
    )
    metrics.create("disconnects", [(key,) for _, key in connectors])
    metrics.create("data_calls", _bounded(_data_calls(config)))
    upstreams = [each.address for each in config.all_upstreams]
    failures = [code for code in FAILURES if code.startswith("upstream-")]
    metrics.create("upstream_failures", _bounded([(name, code) for name in upstreams for code in failures]))
    destinations = {rule.label: rule.upstream or rule.data_api for rule in config.access}
    metrics.set_upstreams({rule: each.address for rule, each in destinations.items() if each is not None})
    metrics.create("key_fetch_failures", [(name,) for name in _key_sources(config)])
    metrics.create("identity_failures", [(code,) for code in sorted(IDENTITY_FAILURES)])
    metrics.create("limit_refusals", [(limit,) for limit in sorted(LIMITS)])
    metrics.create("malformed_requests", [()])
    metrics.create("worker_restarts", [(reason,) for reason in RESTART_REASONS])
    metrics.create("store_errors", [("request",)])
    metrics.create("refreshes_unsaved", [()])
    metrics.create("store_duration_seconds", [(operation,) for operation in TIMED_OPERATIONS])
    metrics.create("config_reloads", [("ok",), ("failed",)])
    passed = [(rule, "passed", 200) for rule in rules]
    metrics.create_requests(_bounded([*passed, *((rule, code, 503) for rule in rules for code in FAILURES)]))


def _data_calls(config: Config) -> list[tuple[str, ...]]:
    """Return the connectors, products and results of all calls of data APIs that the configuration allows."""
    return [
        (connector.key, product, result.value)
        for api in config.data_apis.values()
        for connector in config.connectors.values()
        if connector.client.environment.name == api.environment.name
        for product in sorted(api.products)
        for result in Outcome
    ]


def _key_sources(config: Config) -> list[str]:
    """Return the names of the key sets that the configuration fetches (`Observers.keys_failed`)."""
    fetched = [name for name, each in config.environments.items() if each.jwks_uri is not None]
    return [*fetched, "identity"] if config.identity.jwks_uri is not None else fetched


def _bounded(series: list[T]) -> list[T]:
    return series if len(series) <= MAX_LABEL_SETS // 2 else []
