"""Every test that docs/security.md names exists, and every invariant names at least one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 20
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in defined, f"{path}::{name}"


def test_every_invariant_has_its_tests_and_every_link_leads_somewhere() -> None:
    section = PAGE.partition("## Invariants")[2].partition("\n## ")[0]
    invariants = re.split(r"^\d\. \*\*", section, flags=re.MULTILINE)[1:]
    assert len(invariants) >= 9
    for text in invariants:
        assert text.count("::") >= 3, text[:80]
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
