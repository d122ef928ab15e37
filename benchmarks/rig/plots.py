"""Bars: one picture a workload, throughput with its spread, and the CPU of one request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.rig.load import Sample
from benchmarks.rig.numbers import Row, rows
from benchmarks.rig.systems import SYSTEMS
from benchmarks.rig.workloads import WORKLOADS, Workload

_COLOURS = {"ours": "#1b6ca8", "peer": "#c2571a", "reference": "#8a8a8a"}


def draw(samples: Sequence[Sample], folder: Path) -> list[Path]:
    """Raises SystemExit where matplotlib is missing."""
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
            _bars(workload, found, path)
            drawn.append(path)
    return drawn


def _bars(workload: Workload, found: list[Row], path: Path) -> None:
    import matplotlib.pyplot as plt

    found = sorted(found, key=lambda row: row.per_second)
    names = [row.system for row in found]
    colours = [_COLOURS[_group(name)] for name in names]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.42 * len(found) + 1.3), sharey=True)
    rates = [row.per_second for row in found]
    spread = [
        [row.per_second - row.least for row in found],
        [row.most - row.per_second for row in found],
    ]
    left.barh(names, rates, xerr=spread, color=colours, ecolor="#333333", capsize=2)
    left.set_xlabel(f"{workload.unit} per second (bar: median, line: all rounds)")
    right.barh(names, [row.cpu_us for row in found], color=colours)
    right.set_xlabel("server CPU for one of them, microseconds")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    figure.suptitle(f"{workload.name}: {workload.what}", x=0.02, ha="left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _group(name: str) -> str:
    if name in SYSTEMS:
        return SYSTEMS[name].group
    return "peer" if name.startswith("envoy") else "ours"
