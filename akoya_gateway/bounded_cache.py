"""What was judged once and is kept for the next time, within bounds: strangers choose what they send."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedCache(dict[Key, Value]):
    """A dictionary whose entries are made with `store`. After `max_entries` of them it is begun anew, which costs less
    than to know which was used last; what is `max_key_bytes` bytes or more is judged each time."""

    __slots__ = ("_max_entries", "_max_key_bytes")

    def __init__(self, max_entries: int, max_key_bytes: int) -> None:
        super().__init__()
        self._max_entries = max_entries
        self._max_key_bytes = max_key_bytes

    def store(self, key: Key, value: Value, size: int) -> Value:
        """`value`, and kept if it fits. `size` in bytes."""
        if size < self._max_key_bytes:
            if len(self) >= self._max_entries:
                self.clear()
            self[key] = value
        return value
