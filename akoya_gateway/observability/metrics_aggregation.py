"""Aggregates the metrics of several workers: snapshots as plain data, sums, and the Prometheus text format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from akoya_gateway.observability.metric_table import combine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Kept after a worker has exited: totals (counters), not current values (gauges).
_RETAINED_KINDS = frozenset({"counter", "histogram"})

Labels = tuple[tuple[str, str], ...]


class Collector(Protocol):
    """Anything that yields metrics, such as a `CollectorRegistry`."""

    def collect(self) -> Iterable[Metric]: ...


class MetricsAggregator:
    """Samples by metric, name and labels. Add registries and snapshots, then call `text` or `snapshot`."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, str]] = {}
        self._samples: dict[str, dict[tuple[str, Labels], float]] = {}

    def add_registry(self, registry: Collector) -> None:
        """Add the metrics of this process."""
        self.add_families(registry.collect())

    def add_families(self, families: Iterable[Metric]) -> None:
        """Add metrics."""
        for metric in families:
            self._declare(metric.name, metric.type, metric.documentation)
            for sample in metric.samples:
                # The creation time of a counter is meaningless for a sum of several.
                if not sample.name.endswith("_created"):
                    labels = tuple(sorted(sample.labels.items()))
                    self._add(metric.name, sample.name, labels, sample.value)

    def add(self, snapshot: bytes) -> None:
        """Add a snapshot made by `snapshot()`. Raises ValueError if it is not one."""
        for name, kind, text, samples in json.loads(snapshot):
            self._declare(name, kind, text)
            for sample, labels, value in samples:
                pairs = tuple((str(label), str(each)) for label, each in labels)
                self._add(name, sample, pairs, float(value))

    def snapshot(self, *, lasting: bool = False) -> bytes:
        """Return all metrics as bytes. If `lasting` is true, only those that are kept after a worker has exited.

        Counters at 0 are left out: the process that adds the snapshot has created them too, and the space is limited.
        """
        return json.dumps(
            [
                [
                    name,
                    kind,
                    text,
                    [
                        [sample, labels, value]
                        for (sample, labels), value in samples.items()
                        if value or kind != "counter"
                    ],
                ]
                for (name, (kind, text)), samples in zip(self._kinds.items(), self._samples.values(), strict=True)
                if not lasting or kind in _RETAINED_KINDS
            ],
            separators=(",", ":"),
        ).encode()

    def collect(self) -> Iterator[Metric]:
        """Yield the aggregated metrics."""
        for name, (kind, text) in self._kinds.items():
            metric = Metric(name, text, kind)
            for (sample, labels), value in self._samples[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric

    def text(self) -> bytes:
        """Return the metrics in the Prometheus text format."""
        registry: Any = self  # generate_latest only calls `collect`
        return generate_latest(registry)

    def _declare(self, name: str, kind: str, text: str) -> None:
        if name not in self._kinds:
            self._kinds[name] = (kind, text)
            self._samples[name] = {}

    def _add(self, name: str, sample: str, labels: Labels, value: float) -> None:
        samples = self._samples[name]
        key = (sample, labels)
        before = samples.get(key)
        samples[key] = value if before is None else combine(name)(before, value)


def exposition(registry: CollectorRegistry) -> bytes:
    """Return the metrics of one process in the Prometheus text format."""
    totals = MetricsAggregator()
    totals.add_registry(registry)
    return totals.text()
