"""Request counters in plain lists. Each request costs one dictionary lookup and two additions.

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


_BUCKETS = len(BUCKETS) + 1

_Cell = list[float]
"""The number of requests in each bucket, then the sum of their seconds."""


class RequestMetrics(Collector):
    """Counts requests. Not thread-safe: use it in the event loop's thread only. Scrapes may read it at any time.

    Each rule, outcome and status class has one list, from which a scrape derives both metrics, so that a request costs
    one lookup and two additions.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str, str, int], _Cell] = {}
        """By rule, upstream, outcome and status class."""
        self._current: dict[tuple[str, str, int], _Cell] = {}
        """By rule, outcome and status, with the upstreams that the rules have now."""
        self._histograms: set[tuple[str, str]] = set()
        self._upstreams: Mapping[str, str] = {}

    def add(self, rule: str, outcome: str, status: int, seconds: float) -> None:
        """Count one request. `seconds` is the time until the beginning of its response."""
        key = (rule, outcome, status)
        cell = self._current.get(key)
        if cell is None:
            cell = self._cell(key)
        cell[bisect_left(BUCKETS, seconds)] += 1
        cell[-1] += seconds

    def create(self, rule: str, outcome: str, status: int) -> None:
        """Create a series at 0, if it does not exist."""
        self._cell((rule, outcome, status))

    def set_upstreams(self, upstreams: Mapping[str, str]) -> None:
        """Set the upstream of each rule, at start and after a reload. Earlier durations keep their label."""
        self._upstreams = upstreams
        self._current.clear()
        for rule, _, outcome, status in list(self._cells):
            self._cell((rule, outcome, status * 100))

    def upstream_of(self, rule: str) -> str:
        """Return the label of the upstream to which requests under this rule are forwarded."""
        return self._upstreams.get(rule, NO_UPSTREAM)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics for prometheus-client."""
        counts: dict[tuple[str, str, int], float] = {}
        durations: dict[tuple[str, str], list[float]] = {}
        for (rule, upstream, outcome, status), cell in list(self._cells.items()):
            *buckets, seconds = cell
            labels = (rule, outcome, status)
            counts[labels] = counts.get(labels, 0) + sum(buckets)
            series = (rule, upstream) if (rule, upstream) in self._histograms else ("other", "other")
            sums = durations.setdefault(series, [0] * (_BUCKETS + 1))
            if any(buckets):
                durations[series] = [one + other for one, other in zip(sums, cell, strict=True)]
        requests = CounterMetricFamily(
            "akoya_gateway_requests",
            "Requests, by access rule, outcome and status class.",
            labels=("rule", "outcome", "status"),
        )
        for (rule, outcome, status), count in counts.items():
            requests.add_metric((rule, outcome, f"{status}xx"), count)
        yield requests
        family = HistogramMetricFamily(
            "akoya_gateway_request_duration_seconds",
            "From a request to the beginning of its response.",
            labels=("rule", "upstream"),
        )
        for series, sums in durations.items():
            *buckets, seconds = sums
            family.add_metric(series, _cumulated(buckets), seconds)
        yield family

    def _cell(self, key: tuple[str, str, int]) -> _Cell:
        rule, outcome, status = key
        place = (rule, self.upstream_of(rule), outcome, status // 100)
        if place not in self._cells and len(self._cells) >= MAX_SERIES:
            place = ("other", "other", "other", status // 100)
        if len(self._histograms) < MAX_HISTOGRAMS:
            self._histograms.add(place[:2])
        cell = self._cells.setdefault(place, [0] * (_BUCKETS + 1))
        if len(self._current) < MAX_SERIES:
            self._current[key] = cell
        return cell


def _cumulated(counts: list[float]) -> list[tuple[str, float]]:
    """Return the buckets as Prometheus counts them: each includes those before it."""
    total = 0.0
    found: list[tuple[str, float]] = []
    for bound, count in zip((*BUCKETS, float("inf")), counts, strict=True):
        total += count
        found.append(("+Inf" if bound == float("inf") else str(bound), total))
    return found
