"""Medians, ratios within a round, spreads, and the targets."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.rig.load import Sample


@dataclass(frozen=True)
class Ratio:
    """Median, minimum and maximum of the ratios of all rounds, and the ratio of each round."""

    median: float
    least: float
    most: float
    each: tuple[float, ...] = ()

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{self.median:.2f}"
        return f"{self.median:.2f} ({self.least:.2f}..{self.most:.2f})"


@dataclass(frozen=True)
class Row:
    """One system under one workload: medians over the rounds. `least` and `most` are the extremes of `per_second`."""

    workload: str
    system: str
    per_second: float
    least: float
    most: float
    megabytes_per_second: float
    cpu_us: float
    p50: float
    p99: float
    p999: float
    errors: int
    ratio: Ratio | None
    cpu_ratio: Ratio | None
    """CPU time per request of the reference, divided by that of this system."""
    p99_ratio: Ratio | None
    p99_least: float
    p99_most: float
    late: float
    load_cpu: float


def rows(samples: Sequence[Sample], workload: str, reference: str) -> list[Row]:
    """Return one row per system, in the order of first appearance."""
    mine = [sample for sample in samples if sample.workload == workload]
    names = dict.fromkeys(sample.system for sample in mine)
    return [_row(mine, workload, name, reference) for name in names]


def _row(samples: list[Sample], workload: str, name: str, reference: str) -> Row:
    own = [sample for sample in samples if sample.system == name]
    rates = [sample.per_second for sample in own]
    return Row(
        workload,
        name,
        statistics.median(rates),
        min(rates),
        max(rates),
        _median(sample.megabytes_per_second for sample in own),
        _median(sample.cpu_us for sample in own),
        _median(sample.p50 for sample in own),
        _median(sample.p99 for sample in own),
        _median(sample.p999 for sample in own),
        sum(sample.errors for sample in own),
        ratio(samples, workload, name, reference),
        ratio(samples, workload, reference, name, "cpu_us"),
        ratio(samples, workload, name, reference, "p99"),
        min(sample.p99 for sample in own),
        max(sample.p99 for sample in own),
        _median(sample.late for sample in own),
        _median(sample.load_cpu for sample in own),
    )


def ratio(
    samples: Iterable[Sample], workload: str, system: str, reference: str, what: str = "per_second"
) -> Ratio | None:
    """Return the ratio of `system` to `reference`, or None if they have no round in common.

    Ratios are computed within a round, because a disturbance that affects both affects their ratio less.
    """
    found: dict[str, dict[int, float]] = {system: {}, reference: {}}
    for sample in samples:
        if sample.workload == workload and sample.system in found:
            found[sample.system][sample.round] = getattr(sample, what)
    each = [
        value / found[reference][number]
        for number, value in found[system].items()
        if found[reference].get(number, 0.0) > 0
    ]
    return Ratio(statistics.median(each), min(each), max(each), tuple(each)) if each else None


@dataclass(frozen=True)
class Target:
    """A performance target of the project: at least `factor` times the reference (at most, for latencies)."""

    what: str
    workload: str
    system: str
    references: tuple[str, ...]
    factor: float
    measure: str = "per_second"


TARGETS = (
    Target("small GET, sidecar / Envoy with oauth2", "small", "sidecar", ("envoy-oauth2",), 1.8),
    Target(
        "small GET with access logs, sidecar / Envoy with oauth2",
        "logged", "sidecar-logged", ("envoy-oauth2-logged",), 1.8,
    ),
    Target("small GET, sidecar with its access log / without", "logged", "sidecar-logged", ("sidecar",), 0.8),
    Target("GET that never repeats, sidecar / Envoy with oauth2", "varied", "sidecar", ("envoy-oauth2",), 1.6),
    Target("small GET, sidecar / mod_auth_openidc client-cookie", "small", "sidecar", ("apache-cookie",), 4.0),
    *(
        Target(f"p99 of small GET, {when}, sidecar / {whom}", workload, "sidecar", (peer,), 1.0, "p99")
        for workload, when in (
            ("steady", "5,000/s to each system"), ("half", "half of each system's maximum"), ("small", "at full speed"),
        )
        for peer, whom in (("envoy-oauth2", "Envoy with oauth2"), ("apache-cookie", "mod_auth_openidc client-cookie"))
    ),
    Target("small GET, plain ASGI path / Envoy with oauth2", "small", "sidecar-asgi", ("envoy-oauth2",), 1.1),
    Target(
        "small GET, sidecar with ed25519 / mod_auth_openidc's best", "small", "sidecar-ed25519",
        ("apache-cookie", "apache-cache"), 1.0,
    ),
    Target("small GET, sidecar with jwt and ed25519 / with hmac-sha256", "small", "sidecar-jwt", ("sidecar",), 1.0),
    Target("small GET, middleware / bare ASGI app", "small", "middleware", ("bare-asgi",), 0.85),
    Target("small GET, middleware with in_process: scope / bare", "small", "middleware-scope", ("bare-asgi",), 0.85),
    Target("forward-auth / bare ASGI response", "small", "forward-auth", ("bare-asgi",), 0.7),
    Target("10 MB down, sidecar / Envoy", "down", "sidecar", ("envoy",), 0.5),
    Target("10 MB up, sidecar / Envoy", "up", "sidecar", ("envoy",), 0.5),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A target and its measurement."""

    target: Target
    measured: Ratio | None
    """Ratio to the best of the references. None if it was not measured."""

    @property
    def reached(self) -> bool | None:
        """Whether the target was reached. None if it was not measured."""
        if self.measured is None:
            return None
        if self.target.measure == "p99":
            return self.measured.median <= self.target.factor
        return self.measured.median >= self.target.factor


def outcomes(samples: Sequence[Sample]) -> list[Outcome]:
    found = []
    for target in TARGETS:
        ratios = [
            one
            for reference in target.references
            if (one := ratio(samples, target.workload, target.system, reference, target.measure)) is not None
        ]
        found.append(Outcome(target, min(ratios, key=lambda one: one.median) if ratios else None))
    return found


def _median(values: Iterable[float]) -> float:
    return statistics.median(list(values))
