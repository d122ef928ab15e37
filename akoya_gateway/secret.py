"""A string type for secrets that keeps them out of logs and tracebacks."""

from __future__ import annotations

import hmac
from typing import final


@final
class Secret:
    """A string that is shown as `[secret]` by `repr`, `str` and `format`, and so in tracebacks. It cannot be pickled.

    Only `reveal()` returns the text, so a search for that word finds every place where a secret is used.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text. Call this only where the text goes directly to its single destination."""
        return self._text

    def __repr__(self) -> str:
        return "[secret]"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "[secret]"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")

    def __eq__(self, other: object) -> bool:
        """Compare the texts, in constant time if they have the same length."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __len__(self) -> int:
        return len(self._text)
