"""Formats the numbers as table cells, and as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks.rig.numbers import Outcome, Row
from benchmarks.rig.workloads import Workload


def table(workload: Workload, found: Sequence[Row]) -> Table:
    made = Table(title=f"{workload.name}: {workload.what}", title_justify="left")
    first, *rest = header(workload)
    made.add_column(first)
    for name in rest:
        made.add_column(name, justify="right")
    for row in found:
        made.add_row(*cells(workload, row))
    return made


def header(workload: Workload) -> list[str]:
    """Return the column names. At a constant rate all systems have the same throughput, so latencies come first."""
    if workload.paced:
        return [
            "system", f"{workload.unit}/s", "p50 ms", "p99 ms", "least..most", f"x {workload.reference}", "p99.9 ms",
            "CPU us", "x less CPU", "load late ms", "load CPU", "errors",
        ]  # fmt: skip
    return [
        "system", f"{workload.unit}/s", "least..most", f"x {workload.reference}", "MB/s", "CPU us", "x less CPU",
        "p50 ms", "p99 ms", "p99.9 ms", "errors",
    ]  # fmt: skip


def cells(workload: Workload, row: Row) -> list[str]:
    return [row.system, f"{row.per_second:,.0f}", *(_paced(row) if workload.paced else _racing(row)), str(row.errors)]


def _paced(row: Row) -> list[str]:
    return [
        _ms(row.p50),
        _ms(row.p99),
        f"{_ms(row.p99_least)}..{_ms(row.p99_most)}",
        str(row.p99_ratio or "-"),
        _ms(row.p999),
        f"{row.cpu_us:,.1f}",
        str(row.cpu_ratio or "-"),
        _ms(row.late),
        f"{row.load_cpu:.0%}",
    ]


def _racing(row: Row) -> list[str]:
    return [
        f"{row.least:,.0f}..{row.most:,.0f}",
        str(row.ratio or "-"),
        f"{row.megabytes_per_second:,.0f}",
        f"{row.cpu_us:,.1f}",
        str(row.cpu_ratio or "-"),
        _ms(row.p50),
        _ms(row.p99),
        _ms(row.p999),
    ]


def _ms(microseconds: float) -> str:
    return f"{microseconds / 1e3:.2f}"


TARGET_HEADER = ("target", "aim", "measured", "each round", "")


def targets(found: Sequence[Outcome]) -> Table:
    made = Table(title="What was aimed at", title_justify="left")
    for name in TARGET_HEADER:
        made.add_column(name)
    for outcome in found:
        made.add_row(*target_cells(outcome))
    return made


def target_cells(outcome: Outcome) -> list[str]:
    target = outcome.target
    sign = "<=" if target.measure == "p99" else ">="
    words = {True: "reached", False: "missed", None: "not measured"}
    each = outcome.measured.each if outcome.measured is not None else ()
    return [
        target.what,
        f"{sign} {target.factor:g}",
        str(outcome.measured or "-"),
        ", ".join(f"{ratio:.2f}" for ratio in each),
        words[outcome.reached],
    ]
