"""Markdown, as far as the tests of the documentation need it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ELLIPSIS = "…"
"""In a shown output: anything, lines included."""

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is where its text begins."""

    language: str
    text: str
    line: int


def pages() -> list[Path]:
    """Every Markdown file of the repository."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in found.stdout.split()]


def blocks(text: str) -> Iterator[Block]:
    for match in _FENCE.finditer(text):
        yield Block(match[1].strip(), match[2], text.count("\n", 0, match.start(2)) + 1)


def prose(text: str) -> str:
    """Without the fenced blocks."""
    return _FENCE.sub("", text)


def commands(console: str) -> Iterator[tuple[str, str]]:
    """`$ command` and what it is shown to print."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def pattern(shown: str) -> re.Pattern[str]:
    """An expression for a shown output: an ellipsis stands for anything, ends of lines are not looked at."""
    lines = "\n".join(line.rstrip() for line in shown.strip().splitlines())
    return re.compile(re.escape(lines).replace(re.escape(ELLIPSIS), ".*?"), re.DOTALL)


def trimmed(printed: str) -> str:
    return "\n".join(line.rstrip() for line in printed.strip().splitlines())
