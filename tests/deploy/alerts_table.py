"""Print the table of alerts for docs/operations.md, made from deploy/prometheus/rules.yaml: `python -m tests.deploy.alerts_table`."""

from __future__ import annotations

from pathlib import Path

import yaml

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yaml"


def table(rules: Path) -> str:
    """Return the rules of a file as a Markdown table, with a line break at its end."""
    rows = ["| alert | fires on | meaning | what to do |", "|---|---|---|---|"]
    for rule in yaml.safe_load(rules.read_text("utf-8"))["groups"][0]["rules"]:
        if "alert" not in rule:
            continue
        expression = rule["expr"].replace("|", "\\|") + (f" for {rule['for']}" if "for" in rule else "")
        notes = rule["annotations"]
        rows.append(f"| `{rule['alert']}` | `{expression}` | {notes['summary']} | {notes['action']} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(RULES), end="")
