"""Request counters in plain lists. Each request costs one dictionary lookup and a few additions.

The counters of prometheus-client take one lock each and together cost ten times as much.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
"""Upper bounds in seconds."""
MAX_SERIES = 2000
"""Maximum combinations of rule, outcome and status class. Further ones are counted under `other`."""
MAX_HISTOGRAMS = 100
"""Maximum combinations of rule and upstream with durations of their own, 13 series each."""
NO_UPSTREAM = "-"
"""Label of requests that the gateway does not forward."""


class _Cell:
    """The requests of one rule, outcome and status class."""

    __slots__ = ("count", "durations")

    def __init__(self, durations: list[float]) -> None:
        self.count = 0
        self.durations = durations
        """The number of requests in each bucket, then the sum of their seconds. Shared by all cells of the rule."""


class RequestMetrics(Collector):
    """Counts requests. Not thread-safe: use it in the event loop's thread only. Scrapes may read it at any time."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str, int], _Cell] = {}
        self._durations: dict[tuple[str, str], list[float]] = {}
        self._upstreams: Mapping[str, str] = {}

    def add(self, rule: str, outcome: str, status: int, seconds: float) -> None:
        """Count one request. `seconds` is the time until the beginning of its response."""
        key = (rule, outcome, status // 100)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cell(key)
        cell.count += 1
        durations = cell.durations
        durations[bisect_left(BUCKETS, seconds)] += 1
        durations[-1] += seconds

    def create(self, rule: str, outcome: str, status: int) -> None:
        """Create a series at 0, if it does not exist."""
        self._cell((rule, outcome, status // 100))

    def set_upstreams(self, upstreams: Mapping[str, str]) -> None:
        """Set the upstream of each rule, at start and after a reload. Earlier durations keep their label."""
        self._upstreams = upstreams
        for (rule, _, _), cell in self._cells.items():
            cell.durations = self._durations_of(rule)

    def upstream_of(self, rule: str) -> str:
        """Return the label of the upstream to which requests under this rule are forwarded."""
        return self._upstreams.get(rule, NO_UPSTREAM)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics for prometheus-client."""
        requests = CounterMetricFamily(
            "akoya_gateway_requests",
            "Requests, by access rule, outcome and status class.",
            labels=("rule", "outcome", "status"),
        )
        for (rule, outcome, status), cell in list(self._cells.items()):
            requests.add_metric((rule, outcome, f"{status}xx"), cell.count)
        yield requests
        family = HistogramMetricFamily(
            "akoya_gateway_request_duration_seconds",
            "From a request to the beginning of its response.",
            labels=("rule", "upstream"),
        )
        for labels, durations in list(self._durations.items()):
            *counts, seconds = durations
            family.add_metric(labels, _cumulated(counts), seconds)
        yield family

    def _cell(self, key: tuple[str, str, int]) -> _Cell:
        if key not in self._cells and len(self._cells) >= MAX_SERIES:
            key = ("other", "other", key[2])
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Cell(self._durations_of(key[0]))
        return cell

    def _durations_of(self, rule: str) -> list[float]:
        labels = (rule, self.upstream_of(rule))
        if labels not in self._durations and len(self._durations) >= MAX_HISTOGRAMS:
            labels = ("other", "other")
        return self._durations.setdefault(labels, [0] * (len(BUCKETS) + 2))


def _cumulated(counts: list[float]) -> list[tuple[str, float]]:
    """Return the buckets as Prometheus counts them: each includes those before it."""
    total = 0.0
    found: list[tuple[str, float]] = []
    for bound, count in zip((*BUCKETS, float("inf")), counts, strict=True):
        total += count
        found.append(("+Inf" if bound == float("inf") else str(bound), total))
    return found
