"""The numbers on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks.rig.numbers import Outcome, Row
from benchmarks.rig.workloads import Workload


def table(workload: Workload, found: Sequence[Row]) -> Table:
    made = Table(title=f"{workload.name}: {workload.what}", title_justify="left")
    made.add_column("system")
    for name in (f"{workload.unit}/s", "rounds", f"x {workload.reference}", "MB/s", "CPU us", "x less CPU"):
        made.add_column(name, justify="right")
    for name in ("p50 ms", "p99 ms", "p99.9 ms", "errors"):
        made.add_column(name, justify="right")
    for row in found:
        made.add_row(*cells(row))
    return made


def cells(row: Row) -> list[str]:
    return [
        row.system,
        f"{row.per_second:,.0f}",
        f"{row.least:,.0f}..{row.most:,.0f}",
        str(row.ratio or "-"),
        f"{row.megabytes_per_second:,.0f}",
        f"{row.cpu_us:,.1f}",
        str(row.cpu_ratio or "-"),
        f"{row.p50 / 1e3:.2f}",
        f"{row.p99 / 1e3:.2f}",
        f"{row.p999 / 1e3:.2f}",
        str(row.errors),
    ]


def targets(found: Sequence[Outcome]) -> Table:
    made = Table(title="What was aimed at", title_justify="left")
    for name in ("target", "aim", "measured", ""):
        made.add_column(name)
    for outcome in found:
        made.add_row(*target_cells(outcome))
    return made


def target_cells(outcome: Outcome) -> list[str]:
    target = outcome.target
    sign = "<=" if target.measure == "p99" else ">="
    words = {True: "reached", False: "missed", None: "not measured"}
    return [target.what, f"{sign} {target.factor:g}", str(outcome.measured or "-"), words[outcome.reached]]
