"""Diagnostics: what is wrong in a configuration, where, and how to fix it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

PathKey = str | int
Path = tuple[PathKey, ...]
"""The keys and list indexes that lead from the top of the document to a value."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_*-][A-Za-z0-9_.*-]*\Z")


def dotted(path: Path) -> str:
    """Format a path as in `access[2].require`.

    Keys with unusual characters are quoted, so that a diagnostic is always one line.
    """
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            name = key if _PLAIN_KEY.match(key) and len(key) <= 64 else quoted(key)
            text += f".{name}" if text else name
    return text


def quoted(value: object) -> str:
    """Format a value for a message: as JSON, in ASCII, on one line, truncated if it is long."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return a remedy that suggests the most similar of the known names, or None if none is similar."""
    by_folded = {each.lower().replace("-", "_"): each for each in known}
    near = difflib.get_close_matches(name[:100].lower().replace("-", "_"), by_folded, n=1, cutoff=0.6)
    return f"did you mean {quoted(by_folded[near[0]])}?" if near else None


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error or warning.

    `line` and `column` start at 1. Errors about the file as a whole are at 1:1 with an empty path. `message` says what
    is wrong, `remedy` what to do. Neither ever contains the value of a secret.
    """

    file: str
    line: int
    column: int
    path: Path
    message: str
    remedy: str | None = None

    @property
    def location(self) -> str:
        """The path in dotted form."""
        return dotted(self.path)

    def __str__(self) -> str:
        """Format the diagnostic on one line.

        `gateway.yaml:31:13: connectors.mikomo.client: no client named "demo-ap" (did you mean "demo-app"?)`
        """
        where = f"{self.location}: " if self.path else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.file}:{self.line}:{self.column}: {where}{self.message}{remedy}"


def sorted_by_position(faults: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Sort the diagnostics by position and remove duplicates."""
    return tuple(
        sorted(dict.fromkeys(faults), key=lambda diagnostic: (diagnostic.line, diagnostic.column, diagnostic.location))
    )


class ConfigurationError(Exception):
    """The configuration cannot be used. `diagnostics` has all errors that were found, in the order of the file."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = sorted_by_position(diagnostics)
        super().__init__("\n".join(map(str, self.diagnostics)))
