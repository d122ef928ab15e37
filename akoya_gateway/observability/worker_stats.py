"""Metrics and readiness of all workers: live values of this worker, and what the others published last."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from prometheus_client.core import CounterMetricFamily

from akoya_gateway.observability.health import Readiness, Report, decoded
from akoya_gateway.observability.logs import Log
from akoya_gateway.observability.metric_table import METRICS, PREFIX
from akoya_gateway.observability.metrics import Metrics
from akoya_gateway.observability.metrics_aggregation import MetricsAggregator
from akoya_gateway.observability.shared_memory import SharedSlots, SlotValue

PUBLISH_INTERVAL = 1.0
"""Seconds between two publications, which is also how old the values of other workers may be."""
RESTART_REASONS = ("exited", "killed", "stuck")
"""Why a worker was replaced: it exited, it was killed by a signal, or it was killed because it was stuck."""
STALE_AFTER = 10.0
"""Seconds without a publication after which a worker is reported as stuck."""


class WorkerStats:
    """Publish the state of this worker and read that of the others.

    If `slots` is None, this is the only process. Otherwise this worker owns slot `slot`, and the last slot holds the
    totals of exited workers.
    """

    def __init__(
        self,
        metrics: Metrics,
        health: Readiness,
        log: Log,
        *,
        slots: SharedSlots | None = None,
        slot: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._log = log
        self._slots = slots
        self._slot = slot
        self._clock = clock
        self._too_long = False

    async def publish_forever(self) -> None:
        """Publish until cancelled. This is also the heartbeat: a worker with a blocked event loop publishes nothing."""
        while self._slots is not None:
            self.publish(await self._health.report())
            await asyncio.sleep(PUBLISH_INTERVAL)

    def publish(self, report: Report) -> None:
        """Write the report and the metrics to this worker's slot. Leaves out the metrics if they are too large."""
        if self._slots is None:
            return
        totals = MetricsAggregator()
        totals.add_registry(self._metrics.registry)
        content = encode_slot(report, totals.snapshot())
        if not self._slots.write(self._slot, self._clock(), os.getpid(), content):
            if not self._too_long:
                self._log.error("metrics aggregation limit reached", bytes=len(content))
            self._too_long = True
            self._slots.write(self._slot, self._clock(), os.getpid(), encode_slot(report, b"[]"))

    def metrics_text(self) -> bytes:
        """Return the metrics of all workers, including those that have exited."""
        totals = MetricsAggregator()
        totals.add_registry(self._metrics.registry)
        for place, value in self._other_workers():
            metrics = decode_slot(value)[1] if place != self._retained_slot else value.content
            totals.add(metrics)
        return totals.text()

    async def reports(self) -> list[Report]:
        """Return the reports of all workers, this one first.

        A stuck worker is reported with a problem. A worker that is being replaced is left out.
        """
        found = [await self._health.report()]
        for place, value in self._other_workers():
            if place == self._retained_slot:
                continue
            silent = self._clock() - value.written_at
            if silent > STALE_AFTER:
                problem = f"worker {value.pid} has been stuck for {silent:.0f} s; it will be replaced"
                found.append(Report(value.pid, ready=False, problems=[problem]))
            else:
                found.append(decode_slot(value)[0])
        return found

    @property
    def _retained_slot(self) -> int:
        return self._slots.slots - 1 if self._slots is not None else -1

    def _other_workers(self) -> list[tuple[int, SlotValue]]:
        if self._slots is None:
            return []
        posted = ((place, self._slots.read(place)) for place in range(self._slots.slots) if place != self._slot)
        return [(place, each) for place, each in posted if each is not None]


def encode_slot(report: Report, metrics: bytes) -> bytes:
    """Return the content of a worker's slot."""
    return report.encoded().encode() + b"\n" + metrics


def decode_slot(value: SlotValue) -> tuple[Report, bytes]:
    """Return the report and the metrics snapshot of a worker's slot."""
    report, _, metrics = value.content.partition(b"\n")
    return decoded(report.decode()), metrics


def retain_counters(slots: SharedSlots, slot: int) -> None:
    """Add an exited worker's counters to the retained totals, so that counters stay monotonic, and free its slot."""
    last = slots.read(slot)
    if last is None:
        return
    exited_slot = slots.slots - 1
    totals = MetricsAggregator()
    before = slots.read(exited_slot)
    if before is not None:
        totals.add(before.content)
    totals.add(decode_slot(last)[1])
    slots.write(exited_slot, last.written_at, 0, totals.snapshot(lasting=True))
    slots.clear(slot)


def count_restart(slots: SharedSlots, reason: str) -> None:
    """Count a worker that exited and will be replaced, in the retained totals. `reason` is in `RESTART_REASONS`."""
    totals = MetricsAggregator()
    before = slots.read(slots.slots - 1)
    if before is not None:
        totals.add(before.content)
    row = next(row for row in METRICS if row.name == "worker_restarts")
    family = CounterMetricFamily(f"{PREFIX}_{row.name}", row.text, labels=row.labels)
    family.add_metric((reason,), 1)
    totals.add_families([family])
    slots.write(slots.slots - 1, time.monotonic(), 0, totals.snapshot(lasting=True))


def last_published(slots: SharedSlots) -> dict[int, tuple[int, float]]:
    """Return, for each worker slot in use, the pid that published last and the time."""
    posted = {place: slots.read(place) for place in range(slots.slots - 1)}
    return {place: (each.pid, each.written_at) for place, each in posted.items() if each is not None}
