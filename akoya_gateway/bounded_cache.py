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
        on_repeat: True to store a value only when its key comes a second time. Values of keys that never repeat are
            then freed at once and their memory is used again, which takes less time than keeping them until the cache
            is full. Requests that never repeat do not evict those that do.
    """

    __slots__ = ("_max_entries", "_max_key_bytes", "_seen")

    def __init__(self, max_entries: int, max_key_bytes: int = sys.maxsize, *, on_repeat: bool = False) -> None:
        super().__init__()
        self._max_entries = max_entries
        self._max_key_bytes = max_key_bytes
        self._seen: set[int] | None = set() if on_repeat else None
        """The hashes of keys that came once."""

    def store(self, key: Key, value: Value, size: int = 0) -> Value:
        """Store the value if its key is small enough, and return the value. `size` is the key's size in bytes."""
        if size >= self._max_key_bytes:
            return value
        seen = self._seen
        if seen is not None:
            mark = hash(key)
            if mark not in seen:
                if len(seen) >= self._max_entries:
                    seen.clear()
                seen.add(mark)
                return value
        if len(self) >= self._max_entries and key not in self:
            self.clear()
        self[key] = value
        return value
