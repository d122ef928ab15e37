"""Bounded cache for results derived from untrusted input."""

from __future__ import annotations

import sys
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedCache(dict[Key, Value]):
    """A dictionary with a bounded number of entries, which are added with `store`.

    It is cleared when it is full, which is cheaper than tracking the least recently used entry. Every cache of the
    request path is one of these.

    Args:
        max_entries: the number of entries at which the cache is cleared.
        max_key_bytes: keys of this size or more are not stored.
    """

    __slots__ = ("_max_entries", "_max_key_bytes")

    def __init__(self, max_entries: int, max_key_bytes: int = sys.maxsize) -> None:
        super().__init__()
        self._max_entries = max_entries
        self._max_key_bytes = max_key_bytes

    def store(self, key: Key, value: Value, size: int = 0) -> Value:
        """Store the value if its key is small enough, and return the value. `size` is the key's size in bytes."""
        if size < self._max_key_bytes:
            if len(self) >= self._max_entries and key not in self:
                self.clear()
            self[key] = value
        return value
