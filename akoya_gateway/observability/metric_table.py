"""The table of all metrics: names, labels, and how the values of several workers are combined.

To add a metric, add a row here and to the table of docs/operations.md, which a test compares with this one. A counter,
gauge or histogram is then updated by `Metrics.increment`, `set` or `observe`. A row with `sampled` has no value of its
own: each scrape asks the functions that `Metrics.sample` has registered, so it costs nothing between scrapes.

The counts and durations of requests are not in this table (`request_metrics`), because they are updated per request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

PREFIX = "akoya_gateway"


class Kind(Enum):
    """The types of metrics. A COUNTER only grows and is kept when its worker has exited."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


Combine = Callable[[float, float], float]
"""Combines the values of two workers."""


def _add(one: float, other: float) -> float:
    return one + other


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric. Its name in a scrape is `PREFIX`, `_` and `name`, and `_total` for a counter."""

    kind: Kind
    name: str
    text: str
    labels: tuple[str, ...] = ()
    combine: Combine = _add
    sampled: bool = False
    buckets: tuple[float, ...] = ()
    """Upper bounds in seconds, of a histogram."""


def _counter(name: str, text: str, *labels: str, combine: Combine = _add) -> MetricRow:
    return MetricRow(Kind.COUNTER, name, text, labels, combine)


def _gauge(name: str, text: str, *labels: str, combine: Combine = _add, sampled: bool = False) -> MetricRow:
    return MetricRow(Kind.GAUGE, name, text, labels, combine, sampled)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> MetricRow:
    return MetricRow(Kind.HISTOGRAM, name, text, labels, buckets=buckets)


METRICS = (
    # Grants and the provider
    _counter("refreshes", "Finished refresh requests.", "environment", "connector", "outcome"),
    _histogram(
        "refresh_duration_seconds", "Time from the refresh request to the stored result.", "environment",
        buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0),
    ),
    _gauge(
        "last_refresh_timestamp_seconds", "Time of the last granted refresh.", "environment", "connector", combine=max,
    ),
    _gauge("refreshes_unsaved", "Refreshed tokens held in memory because the store has not accepted them."),
    _counter("provider_answers", "Provider responses.", "environment", "operation", "answer"),
    _gauge("provider_breaker_open", "1 if the circuit breaker is open, else 0.", "environment", combine=max),
    _counter("grant_moves", "Grants that reached a state.", "environment", "connector", "state"),
    _gauge("grants_in_use", "Owners whose grants are cached in memory.", sampled=True),
    # Of one store, so each process reports the same values.
    _gauge("grants", "Grants in the store.", "environment", "connector", "state", combine=max, sampled=True),
    _gauge(
        "grant_tokens", "Grants by how long their token lasts.", "environment", "connector", "token",
        combine=max, sampled=True,
    ),
    _gauge("sessions", "Sessions of users in the store.", combine=max, sampled=True),
    _gauge("grants_counted_timestamp_seconds", "Time at which the grants were counted.", combine=max, sampled=True),
    _gauge("revocations_waiting", "Refresh tokens still to be revoked at the provider.", combine=max, sampled=True),
    _counter("key_fetch_failures", "Failed fetches of the keys that verify id_tokens or identities.", "source"),
    # Users
    _counter("attempts_started", "Authorization attempts started.", "connector"),
    _counter("attempts_finished", "Authorization attempts finished.", "connector", "result"),
    _counter("disconnects", "Grants disconnected by their users.", "connector"),
    _counter("identity_failures", "Requests whose identity header or token was refused.", "reason"),
    _counter("limit_refusals", "Requests that a limit refused.", "limit"),
    _counter("malformed_requests", "Requests that could not be parsed."),
    # Data APIs
    _counter("data_calls", "Data API calls.", "connector", "product", "result"),
    _histogram(
        "data_call_duration_seconds", "Time until the response is complete, including retries.", "connector", "product",
        buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0),
    ),
    # The store and the upstreams
    _histogram(
        "store_duration_seconds", "Duration of store calls.", "operation",
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5),
    ),
    _counter("store_errors", "Store calls that failed.", "operation"),
    _gauge("store_records", "Records in the store.", "kind", combine=max, sampled=True),
    _gauge("store_bytes", "Size of the store.", combine=max, sampled=True),
    _gauge("store_max_bytes", "Maximum size of the store.", combine=max, sampled=True),
    _counter("upstream_failures", "Failed upstream requests.", "upstream", "kind"),
    _gauge("upstream_connections", "Connections to the upstream.", "upstream", "state", sampled=True),
    _gauge("upstream_connections_max", "Maximum number of connections (`pool`).", "upstream", sampled=True),
    _gauge("upstream_requests_waiting", "Requests waiting for a connection.", "upstream", sampled=True),
    _gauge(
        "upstream_address_resting", "1 if the address gets no requests after failures, else 0.", "upstream", "address",
        combine=max, sampled=True,
    ),
    # Clients
    _gauge("client_connections", "Open client connections.", sampled=True),
    _gauge("requests_in_flight", "Requests whose response is not complete, excluding WebSockets.", sampled=True),
    _gauge("websockets", "Open WebSockets."),
    # Signing keys
    _gauge("signing_key_start_timestamp_seconds", "Start of validity (`nbf`).", "key", combine=max, sampled=True),
    _gauge("signing_key_end_timestamp_seconds", "End of validity (`exp`).", "key", combine=max, sampled=True),
    _gauge("signing_key_signs", "1 if this key signs now, else 0.", "key", combine=max, sampled=True),
    # The process
    _gauge("start_timestamp_seconds", "Time since which the counters count.", combine=min),
    _gauge("file_descriptors_used_ratio", "Open file descriptors by their limit.", combine=max, sampled=True),
    _counter("worker_restarts", "Workers that exited and were replaced.", "reason"),
    _gauge("draining", "1 if the process is shutting down, else 0.", combine=max, sampled=True),
    _counter("config_reloads", "Reloads of the configuration.", "result", combine=max),
    _gauge("config_loaded_timestamp_seconds", "Time at which the current configuration was loaded.", combine=min),
    _gauge("config_last_reload_successful", "1 if the last reload succeeded, else 0.", combine=min),
    _gauge("build_info", "Always 1. The version is in the labels.", "version", "python", combine=max),
)  # fmt: skip

_COMBINE: dict[str, Combine] = {
    **{f"{PREFIX}_{row.name}": row.combine for row in METRICS},
    "process_start_time_seconds": min,
}


def combine(name: str) -> Combine:
    """Return how the values of two workers are combined. Values of metrics that are not in the table are added."""
    return _COMBINE.get(name, _add)
