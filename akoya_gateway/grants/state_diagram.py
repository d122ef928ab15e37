"""Generates the diagram of docs/grants.md from the table: `python -m akoya_gateway.grants.state_diagram`."""

from __future__ import annotations

import re

from akoya_gateway.grants.grant import GrantState
from akoya_gateway.grants.state_machine import TABLE, Transition


def mermaid() -> str:
    """Return a Mermaid state diagram with one arrow per pair of states, labeled with its events."""
    arrows: dict[tuple[GrantState, GrantState], list[str]] = {}
    for state, row in TABLE.items():
        for event, cell in row.items():
            for target in cell.targets if isinstance(cell, Transition) else ():
                arrows.setdefault((state, target), []).append(_event_label(event))
    lines = ["stateDiagram-v2", "    [*] --> live: connected"]
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in arrows.items()]
    return "\n".join([*lines, "    revoked --> [*]", ""])


def _event_label(event: type) -> str:
    """Return the label of an event: `RefreshRequested` becomes `refresh requested`."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", event.__name__).lower()


if __name__ == "__main__":
    print(mermaid(), end="")
