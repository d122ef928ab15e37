"""The error codes that the gateway can send, collected from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from akoya_gateway.access.policy import DenyReason
from akoya_gateway.endpoints.failures import OPERATOR_ERRORS

PACKAGE = Path(__file__).parents[2] / "akoya_gateway"


def possible_codes() -> set[str]:
    return {*codes(), *DenyReason, *OPERATOR_ERRORS, "server_error"}


def codes() -> Iterator[str]:
    """Yield `code = "..."` of the error classes, and `code="..."` where an error is created."""
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] == "sandbox":
            continue
        if "code" not in (source := path.read_text()):
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                yield str(node.value.value)
            if isinstance(node, ast.ClassDef):
                for line in node.body:
                    if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "code":
                        assert isinstance(line.value, ast.Constant)
                        yield str(line.value.value)
