"""A minimal Markdown parser for the tests of the documentation."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ELLIPSIS = "…"
"""Stands for any text in a shown output, including line breaks."""

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is the number of the first line of its text."""

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
    """Return the text without its fenced blocks."""
    return _FENCE.sub("", text)


def commands(console: str) -> Iterator[tuple[str, str]]:
    """Yield each `$ command` with the output shown for it."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def pattern(shown: str) -> re.Pattern[str]:
    """Return a regular expression for a shown output: an ellipsis matches anything, line ends are ignored."""
    lines = "\n".join(line.rstrip() for line in shown.strip().splitlines())
    return re.compile(re.escape(lines).replace(re.escape(ELLIPSIS), ".*?"), re.DOTALL)


def trimmed(printed: str) -> str:
    return "\n".join(line.rstrip() for line in printed.strip().splitlines())
