"""docs/operations.md lists exactly the metrics with their labels and the log events with their levels."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from akoya_gateway.observability.metric_table import METRICS, PREFIX
from akoya_gateway.observability.metrics import Metrics
from akoya_gateway.observability.redaction import redact_event

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
PACKAGE = ROOT / "akoya_gateway"
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
ELSEWHERE = ("sandbox",)
"""Packages that run in other processes than the gateway."""


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading."""
    section = re.split(r"^#", PAGE.read_text().partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(lines) > 2, heading
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def ticked(cell: str) -> tuple[str, ...]:
    return tuple(re.findall("`([^`]+)`", cell))


def known_metrics() -> dict[str, tuple[str, ...]]:
    """Return the labels of each metric, by the name under which it is scraped."""
    metrics = Metrics("1.2.3")
    metrics.request("0", "passed", 200, 0.1)
    labels = {f"{PREFIX}_{row.name}": row.labels for row in METRICS}
    known = {}
    for family in metrics.registry.collect():
        if family.name.startswith(PREFIX):
            counted = f"{family.name}_total" if family.type == "counter" else family.name
            shown = dict.fromkeys(name for s in family.samples for name in s.labels if name != "le")
            known[counted] = labels.get(family.name, tuple(shown))
    assert set(labels) <= {name.removesuffix("_total") for name in known}
    return known


def test_every_metric_is_listed_with_its_labels() -> None:
    listed = {ticked(name)[0]: ticked(labels) for name, labels, _ in rows("## Metrics")}
    assert listed.pop("process_*") == ()
    assert listed == known_metrics()


def test_alert_expressions_use_existing_metrics_and_labels() -> None:
    known, possible = known_metrics(), {event for event, _ in events()}
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text("utf-8"))["groups"][0]["rules"]
    for rule in rules:
        for name, label in re.findall(r"(?<!instance:)(akoya_gateway_\w+)(?:\{(\w+)=)?", rule["expr"]):
            assert name in known
            assert not label or label in known[name]
    # A recorded series has the labels of the counter that it is made of, and its name.
    recorded = {
        rule["record"]: re.findall(r"akoya_gateway_\w+_total", rule["expr"])[0] for rule in rules if "record" in rule
    }
    for name, counter in recorded.items():
        assert name.startswith(f"instance:{counter.removesuffix('_total')}:")
    for rule in rules:
        for name, label in re.findall(r"(instance:\w+:\w+)(?:\{(\w+)=)?", rule["expr"]):
            assert not label or label in known[recorded[name]]
        assert set(re.findall(r"log event `([^`]+)`", rule.get("annotations", {}).get("action", ""))) <= possible


def events() -> Iterator[tuple[str, str]]:
    """Yield (event, level) of every log call in the gateway, with an ellipsis for the variable parts of an event."""
    yield "request", "info"  # Written without a logger: observability.access_log.
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ELSEWHERE:
            continue
        tree = ast.parse(path.read_text())
        chosen = dict(methods_chosen(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield from ((event, level) for level, argument in spoken(node, chosen) for event in texts_of(argument))


def methods_chosen(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield name and levels of each method chosen at run time.

    `say = log.info if fine else log.warning` yields ("say", "info or warning").
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.IfExp) and isinstance(node.targets[0], ast.Name):
            levels = [level_of(node.value.body), level_of(node.value.orelse)]
            if all(levels):
                yield node.targets[0].id, " or ".join(sorted(levels, key=LEVELS.index))


def spoken(call: ast.Call, chosen: dict[str, str]) -> Iterator[tuple[str, ast.expr]]:
    """Yield the level and the message of a log call."""
    if isinstance(call.func, ast.Name) and call.func.id in chosen:
        yield chosen[call.func.id], call.args[0]
    elif level := level_of(call.func):
        yield level, call.args[0]
    elif isinstance(call.func, ast.Attribute) and call.func.attr == "log" and len(call.args) == 2:
        yield "error", call.args[1]  # A failed reload. A worker uses a lower level if its supervisor logged it.


def level_of(called: ast.expr) -> str:
    """Return the level of `log.error` or `self._log.exception` (`error` for both), or "" if it is no logger method."""
    if not isinstance(called, ast.Attribute) or called.attr not in LEVELS:
        return ""
    owner = called.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return {"exception": "error"}.get(called.attr, called.attr) if name.strip("_") == "log" else ""


def texts_of(argument: ast.expr) -> list[str]:
    if isinstance(argument, ast.IfExp):
        return texts_of(argument.body) + texts_of(argument.orelse)
    if isinstance(argument, ast.JoinedStr):
        return ["".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in argument.values)]
    return (
        [argument.value.replace("%s", "…")]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        else []
    )


def test_every_log_event_is_listed_with_its_level() -> None:
    listed = {(ticked(event)[0], level) for event, level, _ in rows("## Log events")}
    assert listed == set(events())


def test_no_field_of_an_event_has_a_name_that_is_masked() -> None:
    """Fields called `code=` and `state=`, which are secrets in OAuth, would be redacted."""
    masked = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        chosen = dict(methods_chosen(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and any(True for _ in spoken(node, chosen)):
                names = [keyword.arg for keyword in node.keywords if keyword.arg]
                shown = redact_event(dict.fromkeys(names, "word"))
                masked += [f"{path.name}:{node.lineno} {name}" for name in names if shown[name] != "word"]
    assert masked == []


def test_levels_of_a_row_match_the_responsible_party() -> None:
    """Each error says what to do about it."""
    assert [
        event for event, level, meaning in rows("## Log events") if level in ("error", "critical") and not meaning
    ] == []
