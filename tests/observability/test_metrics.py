"""Tests of counting metrics, adding them up over processes, and keeping the totals of exited processes."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.config.model import Logging
from akoya_gateway.observability.health import Readiness, Report
from akoya_gateway.observability.logs import open_log
from akoya_gateway.observability.metrics import MAX_LABEL_SETS, Metrics
from akoya_gateway.observability.metrics_aggregation import MetricsAggregator, exposition
from akoya_gateway.observability.request_metrics import MAX_HISTOGRAMS, MAX_SERIES
from akoya_gateway.observability.shared_memory import HALF_BYTES, SharedSlots
from akoya_gateway.observability.worker_stats import WorkerStats, count_restart, decode_slot, retain_counters
from tests.support.metrics import values


async def fine() -> list[str]:
    return []


def worker_stats(metrics: Metrics, slots: SharedSlots | None = None, place: int = 0) -> WorkerStats:
    return WorkerStats(metrics, Readiness(fine), open_log(Logging(), lambda _: None), slots=slots, slot=place)


def test_requests_are_counted_by_rule_outcome_and_class() -> None:
    metrics = Metrics("1.2.3")
    metrics.request("0", "passed", 200, 0.004)
    metrics.request("0", "passed", 204, 0.02)
    metrics.request("-", "refused", 403, 0.0001)
    read = values(exposition(metrics.registry))
    assert read["akoya_gateway_requests_total{outcome=passed,rule=0,status=2xx}"] == 2
    assert read["akoya_gateway_requests_total{outcome=refused,rule=-,status=4xx}"] == 1
    assert read["akoya_gateway_request_duration_seconds_bucket{le=0.001,rule=-,upstream=-}"] == 1
    assert read["akoya_gateway_request_duration_seconds_bucket{le=0.005,rule=0,upstream=-}"] == 1
    assert read["akoya_gateway_request_duration_seconds_bucket{le=+Inf,rule=0,upstream=-}"] == 2
    assert read["akoya_gateway_request_duration_seconds_count{rule=0,upstream=-}"] == 2
    assert read["akoya_gateway_request_duration_seconds_sum{rule=0,upstream=-}"] == pytest.approx(0.024)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1000), max_size=30))
def test_histogram_agrees_with_prometheus_clients_own(durations: list[float]) -> None:
    from prometheus_client import CollectorRegistry, Histogram

    from akoya_gateway.observability.request_metrics import BUCKETS

    metrics = Metrics("1")
    reference = CollectorRegistry()
    labels = ("rule", "upstream")
    family = Histogram("akoya_gateway_request_duration_seconds", "x", labels, registry=reference, buckets=BUCKETS)
    theirs = family.labels("0", "-")
    metrics.create_requests([("0", "passed", 200)])
    for each in durations:
        metrics.request("0", "passed", 200, each)
        theirs.observe(each)
    ours, wanted = values(exposition(metrics.registry)), values(exposition(reference))
    for name, value in wanted.items():
        if "_sum{" in name:
            assert ours[name] == pytest.approx(value)
        elif "_created" not in name:
            assert ours[name] == value


@dataclass
class _Key:
    environment: str = "sandbox"
    connector: str = "mikomo"


@dataclass
class _Grant:
    state: str
    key: _Key


def test_other_events_are_counted_under_their_names() -> None:
    metrics = Metrics("1.2.3", clock=lambda: 1000.0)
    metrics.refreshed("sandbox", "mikomo", "granted", 0.3)
    metrics.moved(_Grant("uncertain", _Key()), "refreshing")
    metrics.moved(_Grant("live", _Key()), "live")
    metrics.unsaved(2)
    metrics.revoked("sandbox", "revoked")
    metrics.breaker("sandbox", True)
    metrics.attempt_started("mikomo")
    metrics.attempt_ended("mikomo", "granted")
    metrics.attempt_ended(None, "state-unknown")
    metrics.disconnected("mikomo")
    metrics.store_failed("put")
    metrics.set_upstreams({"reports": "upstreams.reports"})
    metrics.upstream_failed("reports", "upstream-timeout")
    metrics.sample("grants_in_use", lambda: [((), 7)])
    metrics.websocket_opened()
    metrics.websocket_opened()
    metrics.websocket_closed()
    metrics.reloaded(False)
    read = values(exposition(metrics.registry))
    wanted = {
        "akoya_gateway_refreshes_total{connector=mikomo,environment=sandbox,outcome=granted}": 1,
        "akoya_gateway_refresh_duration_seconds_count{environment=sandbox}": 1,
        "akoya_gateway_grant_moves_total{connector=mikomo,environment=sandbox,state=uncertain}": 1,
        "akoya_gateway_refreshes_unsaved{}": 2,
        "akoya_gateway_last_refresh_timestamp_seconds{connector=mikomo,environment=sandbox}": 1000,
        "akoya_gateway_provider_answers_total{answer=granted,environment=sandbox,operation=refresh}": 1,
        "akoya_gateway_provider_answers_total{answer=revoked,environment=sandbox,operation=revoke}": 1,
        "akoya_gateway_provider_breaker_open{environment=sandbox}": 1,
        "akoya_gateway_attempts_started_total{connector=mikomo}": 1,
        "akoya_gateway_attempts_finished_total{connector=mikomo,result=granted}": 1,
        "akoya_gateway_attempts_finished_total{connector=none,result=state-unknown}": 1,
        "akoya_gateway_disconnects_total{connector=mikomo}": 1,
        "akoya_gateway_store_errors_total{operation=put}": 1,
        "akoya_gateway_upstream_failures_total{kind=upstream-timeout,upstream=upstreams.reports}": 1,
        "akoya_gateway_grants_in_use{}": 7,
        "akoya_gateway_websockets{}": 1,
        "akoya_gateway_config_reloads_total{result=failed}": 1,
        "akoya_gateway_config_last_reload_successful{}": 0,
        "akoya_gateway_config_loaded_timestamp_seconds{}": 1000,
    }
    assert {name: read.get(name) for name in wanted} == wanted
    assert "akoya_gateway_grant_moves_total{connector=mikomo,environment=sandbox,state=live}" not in read
    assert any(name.startswith("akoya_gateway_build_info{python=3") and "version=1.2.3" in name for name in read)
    assert read["process_resident_memory_bytes{}"] > 1_000_000


def test_labels_cannot_grow_without_end() -> None:
    metrics = Metrics("1")
    for n in range(MAX_LABEL_SETS + 50):
        metrics.attempt_ended("mikomo", f"made-up-{n}")
    for n in range(MAX_SERIES + 50):
        metrics.request(str(n), "passed", 200, 0.0)
    read = values(exposition(metrics.registry))
    assert read["akoya_gateway_attempts_finished_total{connector=other,result=other}"] == 50
    assert read["akoya_gateway_requests_total{outcome=other,rule=other,status=2xx}"] == 50
    durations = {name: value for name, value in read.items() if "duration_seconds_count{rule" in name}
    assert len(durations) == MAX_HISTOGRAMS + 1
    assert sum(durations.values()) == MAX_SERIES + 50


def test_durations_after_a_reload_are_those_of_the_new_upstream() -> None:
    metrics = Metrics("1")
    for upstream in ("upstream", "upstreams.new"):
        metrics.set_upstreams({"accounts": upstream})
        metrics.request("accounts", "passed", 200, 0.01)
    read = values(exposition(metrics.registry))
    name = "akoya_gateway_request_duration_seconds_count{rule=accounts,upstream=%s}"
    assert (read[name % "upstream"], read[name % "upstreams.new"]) == (1, 1)
    assert read["akoya_gateway_requests_total{outcome=passed,rule=accounts,status=2xx}"] == 2


def test_two_metrics_share_nothing() -> None:
    one, two = Metrics("1"), Metrics("1")
    one.attempt_started("mikomo")
    assert b'attempts_started_total{connector="mikomo"}' not in exposition(two.registry)


def _one_sample(labels: tuple[str, ...], value: float) -> list[tuple[tuple[str, ...], float]]:
    return [(labels, value)]


class TestOverWorkers:
    def test_counters_and_gauges_are_added_and_facts_are_not(self) -> None:
        totals = MetricsAggregator()
        for moment in (2000.0, 1000.0):
            metrics = Metrics("1", clock=partial(float, moment))
            metrics.request("0", "passed", 200, 0.01)
            metrics.websocket_opened()
            metrics.breaker("sandbox", moment == 1000.0)
            totals.add_registry(metrics.registry)
        read = values(totals.text())
        assert read["akoya_gateway_requests_total{outcome=passed,rule=0,status=2xx}"] == 2
        assert read["akoya_gateway_websockets{}"] == 2
        assert read["akoya_gateway_provider_breaker_open{environment=sandbox}"] == 1
        assert read["akoya_gateway_config_loaded_timestamp_seconds{}"] == 1000
        assert next(value for name, value in read.items() if name.startswith("akoya_gateway_build_info")) == 1

    def test_snapshot_brings_back_the_same_text(self) -> None:
        metrics = Metrics("1")
        metrics.request("0", "passed", 200, 0.01)
        metrics.attempt_ended('mi"k\\o\nmo', "granted")
        metrics.increment("malformed_requests")
        first, second = MetricsAggregator(), MetricsAggregator()
        first.add_registry(metrics.registry)
        second.add(first.snapshot())
        assert second.text() == first.text()

    async def test_each_worker_shows_the_sum_of_all(self) -> None:
        slots = SharedSlots(3)
        figures = [Metrics("1"), Metrics("1")]
        stats = [worker_stats(metrics, slots, place) for place, metrics in enumerate(figures)]
        figures[0].request("0", "passed", 200, 0.01)
        figures[1].request("0", "passed", 200, 0.01)
        figures[1].request("0", "passed", 200, 0.01)
        for each in stats:
            each.publish(Report(os.getpid(), True))
        name = "akoya_gateway_requests_total{outcome=passed,rule=0,status=2xx}"
        assert [values(each.metrics_text())[name] for each in stats] == [3, 3]

    async def test_counters_of_an_exited_worker_stay_and_its_gauges_do_not(self) -> None:
        slots = SharedSlots(3)
        survivor = worker_stats(Metrics("1"), slots, 0)
        name = "akoya_gateway_requests_total{outcome=passed,rule=0,status=2xx}"
        for _ in range(3):
            metrics = Metrics("1")
            metrics.request("0", "passed", 200, 0.01)
            metrics.websocket_opened()
            worker_stats(metrics, slots, 1).publish(Report(os.getpid(), True))
            retain_counters(slots, 1)
        retain_counters(slots, 1)
        read = values(survivor.metrics_text())
        assert read[name] == 3
        assert read["akoya_gateway_request_duration_seconds_bucket{le=0.01,rule=0,upstream=-}"] == 3
        assert read["akoya_gateway_websockets{}"] == 0
        assert len(await survivor.reports()) == 1

    def test_restarts_of_workers_are_kept_with_the_counts_of_exited_workers(self) -> None:
        slots = SharedSlots(3)
        # A worker that exits before it has published anything is counted too.
        count_restart(slots, "exited")
        metrics = Metrics("1")
        metrics.request("0", "passed", 200, 0.01)
        worker_stats(metrics, slots, 1).publish(Report(os.getpid(), True))
        retain_counters(slots, 1)
        count_restart(slots, "killed")
        count_restart(slots, "killed")
        read = values(worker_stats(Metrics("1"), slots, 0).metrics_text())
        restarts = "akoya_gateway_worker_restarts_total{reason=%s}"
        assert (read[restarts % "exited"], read[restarts % "killed"]) == (1, 2)
        assert read["akoya_gateway_requests_total{outcome=passed,rule=0,status=2xx}"] == 1

    def test_values_of_one_store_are_not_added_up(self) -> None:
        totals = MetricsAggregator()
        for count in (7, 5):
            metrics = Metrics("1")
            metrics.sample("grants", partial(_one_sample, ("sandbox", "mikomo", "live"), count))
            metrics.sample("requests_in_flight", partial(_one_sample, (), count))
            totals.add_registry(metrics.registry)
        read = values(totals.text())
        assert read["akoya_gateway_grants{connector=mikomo,environment=sandbox,state=live}"] == 7
        assert read["akoya_gateway_requests_in_flight{}"] == 12

    async def test_stuck_worker_is_named(self) -> None:
        slots = SharedSlots(3)
        slots.write(1, time.monotonic() - 60, 4711, b'{"pid":4711,"ready":true}\n[]')
        reports = await worker_stats(Metrics("1"), slots, 0).reports()
        assert [report.ready for report in reports] == [True, False]
        assert "4711" in reports[1].problems[0]

    async def test_too_many_metrics_are_logged_once_and_the_heartbeat_continues(self) -> None:
        lines: list[bytes] = []
        slots = SharedSlots(2)
        metrics = Metrics("1")
        for n in range(MAX_LABEL_SETS):
            metrics.attempt_ended("x" * 400, str(n))
            metrics.attempt_started("x" * 400 + str(n))
        one = WorkerStats(metrics, Readiness(fine), open_log(Logging(), lines.append), slots=slots, slot=0)
        one.publish(Report(1, True))
        one.publish(Report(1, True))
        assert len(lines) == 1
        value = slots.read(0)
        assert value is not None
        assert decode_slot(value)[0].ready


class TestBoard:
    def test_posted_value_is_read_by_other_processes(self) -> None:
        slots = SharedSlots(2)
        if (child := os.fork()) == 0:
            slots.write(1, 1.5, 42, b"hello")
            os._exit(0)
        os.waitpid(child, 0)
        value = slots.read(1)
        assert value is not None
        assert (value.written_at, value.pid, value.content) == (1.5, 42, b"hello")
        assert slots.read(0) is None

    def test_writer_killed_at_any_moment_leaves_a_whole_post(self) -> None:
        slots = SharedSlots(1)
        for turn in range(10):
            if (child := os.fork()) == 0:
                for n in range(1_000_000):
                    slots.write(0, float(n), n, b"%d " % n * 5000)
                os._exit(0)
            deadline = time.monotonic() + 60
            while slots.read(0) is None and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(turn * 0.003)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            value = slots.read(0)
            assert value is not None
            assert set(value.content.split()) == {b"%d" % value.pid}

    def test_next_writer_of_a_slot_continues_its_sequence(self) -> None:
        slots = SharedSlots(1)
        for n in range(5):
            if (child := os.fork()) == 0:
                slots.write(0, 0.0, n, b"%d" % n)
                os._exit(0)
            os.waitpid(child, 0)
            value = slots.read(0)
            assert value is not None
            assert value.content == b"%d" % n

    def test_too_long_a_post_changes_nothing(self) -> None:
        slots = SharedSlots(1)
        assert slots.write(0, 1.0, 1, b"short")
        assert not slots.write(0, 2.0, 1, b"x" * HALF_BYTES)
        value = slots.read(0)
        assert value is not None
        assert value.content == b"short"
