"""Tests the arithmetic and the pages of the benchmark commands. Measures nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.report import document
from benchmarks.rig.load import Sample, sample_of
from benchmarks.rig.numbers import TARGETS, outcomes, ratio, rows
from benchmarks.rig.systems import SYSTEMS
from benchmarks.rig.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]


def sample(
    system: str, number: int, rate: float, *, workload: str = "small", p99: float = 1000.0, cpu: float = 50.0
) -> Sample:
    return Sample(workload, system, number, rate, rate / 1e3, cpu, 500.0, p99, 2000.0, 0)


def test_ratio_is_taken_within_a_round() -> None:
    samples = [
        sample("sidecar", 0, 200),
        sample("envoy-oauth2", 0, 100),
        sample("sidecar", 1, 90),
        sample("envoy-oauth2", 1, 30),
    ]
    found = ratio(samples, "small", "sidecar", "envoy-oauth2")
    assert found is not None
    assert (found.median, found.least, found.most) == (2.5, 2.0, 3.0)
    assert str(found) == "2.50 (2.00..3.00)"


def test_there_is_no_ratio_without_a_common_round() -> None:
    assert (
        ratio([sample("sidecar", 0, 200), sample("envoy-oauth2", 1, 100)], "small", "sidecar", "envoy-oauth2") is None
    )


def test_rows_are_medians_in_the_order_of_measuring() -> None:
    samples = [sample(name, number, rate) for number, rate in enumerate((10, 30, 20)) for name in ("nginx", "envoy")]
    first, second = rows(samples, "small", "envoy")
    assert (first.system, second.system) == ("nginx", "envoy")
    assert (first.per_second, first.least, first.most) == (20, 10, 30)
    assert second.ratio is not None
    assert second.ratio.median == 1.0


def test_saved_cpu_is_the_reference_over_the_system() -> None:
    row = rows([sample("sidecar", 0, 1, cpu=25.0), sample("envoy-oauth2", 0, 1, cpu=100.0)], "small", "envoy-oauth2")[0]
    assert row.cpu_ratio is not None
    assert row.cpu_ratio.median == 4.0


def test_targets_compare_throughput_upwards_and_latencies_downwards() -> None:
    samples = [sample("sidecar", 0, 150, p99=900), sample("envoy-oauth2", 0, 100, p99=1000)]
    by_text = {outcome.target.what: outcome.reached for outcome in outcomes(samples)}
    assert by_text["small GET, sidecar / Envoy with oauth2"] is False
    assert by_text["p99 of small GET, at full speed, sidecar / Envoy with oauth2"] is True
    assert by_text["p99 of small GET, 5,000/s to each system, sidecar / Envoy with oauth2"] is None
    assert by_text["10 MB down, sidecar / Envoy"] is None


def test_best_of_several_references_counts() -> None:
    samples = [sample("sidecar-ed25519", 0, 60), sample("apache-cookie", 0, 50), sample("apache-cache", 0, 70)]
    found = next(outcome for outcome in outcomes(samples) if outcome.target.system == "sidecar-ed25519")
    assert found.reached is False


def test_every_target_and_workload_names_what_exists() -> None:
    for target in TARGETS:
        assert target.workload in WORKLOADS
        assert {target.system, *target.references} <= set(SYSTEMS)
    for workload in WORKLOADS.values():
        if not workload.variants:
            assert {*workload.systems, workload.reference} <= set(SYSTEMS)


def test_output_of_wrk_is_parsed_into_a_sample() -> None:
    result = {"requests": 1000, "micros": 2_000_000, "bytes": 4_000_000, "errors": 3, "p50": 1, "p99": 2, "p999": 3}
    one = sample_of(result, 0.05, "small", "sidecar", 2)
    assert (one.per_second, one.megabytes_per_second, one.cpu_us, one.errors) == (500, 2, 50, 3)


def test_page_names_what_was_missed_and_what_was_absent() -> None:
    compared = {
        "machine": {"cpu": "a slow one"},
        "settings": {"small": {"rounds": 1, "seconds": 2.0, "sessions": 10}},
        "absent": {"oauth2-proxy": "no oauth2-proxy on the PATH"},
        "samples": [asdict(sample("sidecar", 0, 100)), asdict(sample("envoy-oauth2", 0, 100))],
    }
    page = document(compared, None, {"lane": [9.0, 8.0, 12.04]}, "performance", "")
    assert "| the sidecar's fast lane | 9.0 | 8.0..12.0 |" in page
    assert "| small GET, sidecar / Envoy with oauth2 | >= 1.8 | 1.00 | 1.00 | missed |" in page
    assert "`oauth2-proxy` was not measured: no oauth2-proxy on the PATH." in page
    assert "![small](performance/small.png)" in page


def test_at_a_constant_rate_the_page_compares_p99() -> None:
    ours = replace(sample("sidecar", 0, 5000, workload="steady", p99=300.0), late=90.0, load_cpu=0.25)
    theirs = sample("envoy-oauth2", 0, 5000, workload="steady", p99=600.0)
    compared = {
        "machine": {},
        "settings": {"steady": {"rounds": 1, "seconds": 2.0, "sessions": 10}},
        "absent": {},
        "samples": [asdict(ours), asdict(theirs)],
    }
    page = document(compared, None, {}, "performance", "")
    assert "| sidecar | 5,000 | 0.50 | 0.30 | 0.30..0.30 | 0.50 | 2.00 | 50.0 | 1.00 | 0.09 | 25% | 0 |" in page
    assert (
        "| p99 of small GET, 5,000/s to each system, sidecar / Envoy with oauth2 | <= 1 | 0.50 | 0.50 | reached |"
        in page
    )


HELP = """
import contextlib, runpy, sys
commands, sys.argv[1:] = sys.argv[1:], ["--help"]
for command in commands:
    with contextlib.suppress(SystemExit):
        runpy.run_module(f"benchmarks.{command}", run_name="__main__")
"""


def test_each_command_explains_itself() -> None:
    """In one process, because each of them imports the gateway."""
    commands = ["compare", "footprint", "publish", "refresh", "report"]
    done = subprocess.run(
        [sys.executable, "-c", HELP, *commands], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [name for name in commands if f"python -m benchmarks.{name}" not in done.stdout] == []
