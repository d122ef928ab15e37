"""Every configuration key that an error, a log event or `doctor` names exists in the schema."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import akoya_gateway
from akoya_gateway.config.schema_validation import load_schema

PACKAGE = Path(akoya_gateway.__file__).parent
SCHEMA = load_schema()
ANY = "*"
"""A part of a key that a program fills in, such as the name of a client."""
NAMED = re.compile(
    rf"(?<![\w./-])(?:{'|'.join(SCHEMA['properties'])})(?:\.[A-Za-z_*][\w*]*|\[[\w*]*\])+(?![\w*]*[(/-])"
)
"""A top-level key and what follows it: `sessions.store`, `clients.*.client_secret`, `access[3].upstream`."""
NOT_KEYS = {"signing.pem"}


def texts(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the string literals of a module with their line numbers, without its docstrings."""
    documentation = {
        id(node.value)
        for node in ast.walk(module)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    parts: set[int] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else ANY for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation | parts:
            yield node.lineno, node.value


def exists(node: Any, parts: list[str]) -> bool:
    """Return True if the schema has the key below `node`."""
    if "$ref" in node:
        node = {**SCHEMA["$defs"][node["$ref"].rpartition("/")[2]], **{k: v for k, v in node.items() if k != "$ref"}}
    if not parts:
        return True
    first, *rest = parts
    below = [node["properties"][first]] if first in node.get("properties", {}) else []
    if first == ANY:
        below += node.get("properties", {}).values()
    below += [each for each in node.get("patternProperties", {}).values() if isinstance(each, dict)]
    below += [node[name] for name in ("additionalProperties", "items") if isinstance(node.get(name), dict)]
    alternatives = [each for name in ("anyOf", "oneOf", "allOf") for each in node.get(name, ())]
    alternatives += [node[name] for name in ("then", "else") if name in node]
    return any(exists(each, rest) for each in below) or any(exists(each, parts) for each in alternatives)


def test_keys_that_texts_name_exist() -> None:
    missing = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in texts(ast.parse(path.read_text())):
            for found in NAMED.findall(text):
                parts = re.findall(r"[\w*]+", found)
                if found not in NOT_KEYS and not exists(SCHEMA, parts):
                    missing.append(f"{path.relative_to(PACKAGE)}:{line}: {found}")
    assert missing == []
