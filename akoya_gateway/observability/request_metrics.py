"""Request counters in plain lists. Each request costs one dictionary lookup and a few additions.

The counters of prometheus-client take one lock each and together cost ten times as much.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
"""Upper bounds in seconds."""
MAX_SERIES = 2000
"""Maximum combinations of rule, outcome and status class. Further ones are counted under `other`."""


class RequestMetrics(Collector):
    """Counts requests. Not thread-safe: use it in the event loop's thread only. Scrapes may read it at any time."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], list[int]] = {}
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def add(self, rule: str, outcome: str, status: int, seconds: float) -> None:
        """Count one request. `seconds` is the time until the beginning of its response."""
        key = (rule, outcome, status // 100)
        cell = self._counts.get(key)
        if cell is None:
            cell = self._cell(key)
        cell[0] += 1
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def create(self, rule: str, outcome: str, status: int) -> None:
        """Create a series at 0, if it does not exist."""
        self._cell((rule, outcome, status // 100))

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics for prometheus-client."""
        requests = CounterMetricFamily(
            "akoya_gateway_requests",
            "Requests, by access rule, outcome and status class.",
            labels=("rule", "outcome", "status"),
        )
        for (rule, outcome, status), cell in list(self._counts.items()):
            requests.add_metric((rule, outcome, f"{status}xx"), cell[0])
        yield requests
        yield self._histogram()

    def _histogram(self) -> Metric:
        total = 0
        cumulated: list[tuple[str, float]] = []
        for bound, count in zip((*BUCKETS, float("inf")), list(self._buckets), strict=True):
            total += count
            cumulated.append(("+Inf" if bound == float("inf") else str(bound), total))
        family = HistogramMetricFamily(
            "akoya_gateway_request_duration_seconds", "From a request to the beginning of its response."
        )
        family.add_metric((), cumulated, self._seconds)
        return family

    def _cell(self, key: tuple[str, str, int]) -> list[int]:
        if len(self._counts) >= MAX_SERIES:
            key = ("other", "other", key[2])
        return self._counts.setdefault(key, [0])
