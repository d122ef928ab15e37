"""Words that docstrings, comments and documentation do not use: they are private to this project, or odd English.

docs/design.md section 2 and CONTRIBUTING.md have the words to use instead.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORDS = (
    "whoever", "nobody's", "somebody's", "anybody's", "strangers", "torso", "anew", "of ours", "is had", "be had", "goes by",
    "gone by", "worth nothing", "heard of", "at hand", "answered", "for ever", "judge", "judges", "judged", "judgement", "judgment", "whatsoever", "graveyard", "farewell",
)  # fmt: skip
REFUSED = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)
EXCEPTIONS = {
    "CHANGELOG.md": "lists log events by their former names",
}


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and comments of a Python file, or all lines of another, with their line numbers."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


FOLDERS = ("akoya_gateway", "akoya-verify", "benchmarks", "docs")


@pytest.mark.parametrize("place", [*FOLDERS, "README.md", "CONTRIBUTING.md", "SECURITY.md", "gateway.yaml"])
def test_prose_has_no_refused_word(place: str) -> None:
    target = ROOT / place
    paths = [target] if target.is_file() else [*target.rglob("*.py"), *target.rglob("*.md")]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word[0]!r}"
        for path in paths
        if str(path.relative_to(ROOT)) not in EXCEPTIONS
        for line, text in prose(path)
        for word in REFUSED.finditer(text)
    ]
    assert not found, "say it in the words of docs/design.md:\n" + "\n".join(found)


@pytest.mark.parametrize("path", EXCEPTIONS)
def test_exception_still_has_a_refused_word(path: str) -> None:
    assert any(REFUSED.search(text) for _, text in prose(ROOT / path)), "it needs no exception any more"
