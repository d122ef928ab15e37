"""Draws one plot per workload: throughput with its spread or latencies at a constant rate, and CPU per request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rig.load import Sample
from benchmarks.rig.numbers import Row, rows
from benchmarks.rig.systems import SYSTEMS
from benchmarks.rig.workloads import WORKLOADS, Workload

_COLOURS = {"ours": "#1b6ca8", "peer": "#c2571a", "reference": "#8a8a8a"}


def draw(samples: Sequence[Sample], folder: Path) -> list[Path]:
    """Draw the plots and return their paths. Raises SystemExit if matplotlib is missing."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise SystemExit("plots need matplotlib: pip install 'akoya-gateway[bench]'") from None
    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, workload in WORKLOADS.items():
        found = rows(samples, name, workload.reference)
        if found:
            path = folder / f"{name}.png"
            _draw(workload, found, path)
            drawn.append(path)
    return drawn


def _draw(workload: Workload, found: list[Row], path: Path) -> None:
    import matplotlib.pyplot as plt

    found = sorted(found, key=lambda row: -row.p99 if workload.paced else row.per_second)
    names = [row.system for row in found]
    colours = [_COLOURS[_group(name)] for name in names]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.42 * len(found) + 1.3), sharey=True)
    if workload.paced:
        _latencies(left, names, colours, found)
    else:
        _rates(left, names, colours, found)
        left.set_xlabel(f"{workload.unit} per second (bar: median, line: all rounds)")
    right.barh(names, [row.cpu_us for row in found], color=colours)
    right.set_xlabel(f"server CPU for one of the {workload.unit}, microseconds")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    figure.suptitle(f"{workload.name}: {workload.what}", x=0.02, ha="left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _rates(axis: Any, names: list[str], colours: list[str], found: list[Row]) -> None:
    spread = [
        [row.per_second - row.least for row in found],
        [row.most - row.per_second for row in found],
    ]
    rates = [row.per_second for row in found]
    axis.barh(names, rates, xerr=spread, color=colours, ecolor="#333333", capsize=2)


def _latencies(axis: Any, names: list[str], colours: list[str], found: list[Row]) -> None:
    """Draw latencies. A bar ends at p99. The scale is logarithmic, so the length of a bar has no meaning."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    spread = [
        [row.p99 / 1e3 - row.p99_least / 1e3 for row in found],
        [row.p99_most / 1e3 - row.p99 / 1e3 for row in found],
    ]
    axis.barh(names, [row.p99 / 1e3 for row in found], xerr=spread, color=colours, ecolor="#333333", capsize=2)
    axis.plot([row.p50 / 1e3 for row in found], names, "|", color="white", markersize=9, markeredgewidth=2)
    axis.plot([row.p999 / 1e3 for row in found], names, "o", color="#333333", markersize=4)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("latency since the due time, ms (bar: p99, line: all rounds, white mark: p50, dot: p99.9)")


def _group(name: str) -> str:
    if name in SYSTEMS:
        return SYSTEMS[name].group
    return "peer" if name.startswith("envoy") else "ours"
