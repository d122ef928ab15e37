"""What is wrong in a configuration, where, and what to do about it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

PathKey = str | int
Path = tuple[PathKey, ...]
"""The way from the top of the document to a value: keys and list indexes."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_*-][A-Za-z0-9_.*-]*\Z")


def dotted(path: Path) -> str:
    """`access[2].require`; keys that would be unreadable are quoted, so that a fault is always one line."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            name = key if _PLAIN_KEY.match(key) and len(key) <= 64 else quoted(key)
            text += f".{name}" if text else name
    return text


def quoted(value: object) -> str:
    """A value as it may stand in a message: JSON, ASCII only, on one line, cut when long."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The nearest of the known names as a remedy, or None when nothing is near."""
    by_folded = {each.lower().replace("-", "_"): each for each in known}
    near = difflib.get_close_matches(name[:100].lower().replace("-", "_"), by_folded, n=1, cutoff=0.6)
    return f"did you mean {quoted(by_folded[near[0]])}?" if near else None


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake. `line` and `column` start at 1; faults of the file as a whole stand at 1:1 with an empty path.

    `message` says what is wrong, `remedy` what to do. Neither ever holds the value of a secret.
    """

    file: str
    line: int
    column: int
    path: Path
    message: str
    remedy: str | None = None

    @property
    def location(self) -> str:
        return dotted(self.path)

    def __str__(self) -> str:
        """`gateway.yaml:31:13: connectors.mikomo.client: no client named "demo-ap" (did you mean "demo-app"?)`"""
        where = f"{self.location}: " if self.path else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.file}:{self.line}:{self.column}: {where}{self.message}{remedy}"


def sorted_by_position(faults: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """By position, each once."""
    return tuple(
        sorted(dict.fromkeys(faults), key=lambda diagnostic: (diagnostic.line, diagnostic.column, diagnostic.location))
    )


class ConfigurationError(Exception):
    """The configuration cannot be used. `diagnostics` has every mistake that was found, in the order of the file."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = sorted_by_position(diagnostics)
        super().__init__("\n".join(map(str, self.diagnostics)))
