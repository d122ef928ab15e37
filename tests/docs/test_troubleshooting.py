"""docs/troubleshooting.md lists exactly the codes and reasons that the product can print."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from akoya_gateway.grants.events import Reason
from tests.support.error_codes import possible_codes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
PACKAGE = ROOT / "akoya_gateway"

ROOTS = {"bad-request", "internal", "misconfigured", "provider-failed", "upstream-failed"}
"""Codes of the root classes (errors.py), which the page explains in a sentence."""


def first_cells(heading: str) -> set[str]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section, heading
    return {code for row in re.findall(r"^\| (.*?) \|", section, re.MULTILINE) for code in re.findall("`([^`]+)`", row)}


def test_every_code_has_a_row_and_every_row_a_code() -> None:
    possible = possible_codes() - ROOTS
    documented = set().union(*map(first_cells, ("Connecting a bank", "Requests to the app", "Behind another proxy")))
    assert documented == possible
    assert all(f"`{code}`" in PAGE for code in ROOTS)


def test_no_two_codes_differ_by_a_mark_alone() -> None:
    spoken: dict[str, str] = {}
    for code in sorted(possible_codes()):
        other = spoken.setdefault(re.sub("[^a-z]", "", code), code)
        assert other == code, "they sound the same on the telephone"


def test_every_reason_of_a_grant_has_a_row() -> None:
    assert first_cells("Users must connect again and again") == set(Reason)


def test_every_reason_of_a_refused_signature_is_here_and_in_the_reference() -> None:
    reasons = set()
    for path in (ROOT / "akoya-verify").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "NotVerified":
                assert isinstance(node.args[0], ast.Constant), path
                reasons.add(node.args[0].value)
    assert first_cells("The app rejects the headers") == reasons
    reference = (
        (ROOT / "docs" / "signed-headers.md")
        .read_text()
        .partition("`NotVerified.reason` is one of")[2]
        .partition("\n\n")[0]
    )
    assert set(re.findall("`([a-z-]+)`", reference)) == reasons


def test_quoted_startup_errors_are_those_of_the_code() -> None:
    """The fixed parts of each quoted message occur somewhere in the package."""
    text = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    section = PAGE.partition("\n## It does not start\n")[2].partition("\n## ")[0]
    for quote in re.findall(r"^\| `(.*?)` \|", section, re.MULTILINE):
        for part in re.split(
            r"…|\"|gateway\.yaml:1:1|AKOYA_\w+|127\.0\.0\.1:8080|[():;]|ed25519|akoya-gateway|listen", quote
        ):
            assert part.strip() in text, part
