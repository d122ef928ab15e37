"""A value that must not print."""

from __future__ import annotations

import hmac
from typing import final


@final
class Secret:
    """A string that never shows itself: `repr`, `str`, `format`, pickling and tracebacks give `[secret]`.

    The text is had by `reveal()` alone, so a search for that word finds every place a secret leaves its box.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Call it only where the text goes straight to its one destination."""
        return self._text

    def __repr__(self) -> str:
        return "[secret]"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "[secret]"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")

    def __eq__(self, other: object) -> bool:
        """Constant-time for texts of the same length."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __len__(self) -> int:
        return len(self._text)
