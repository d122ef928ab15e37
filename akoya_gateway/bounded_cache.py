"""What was judged once and is kept for the next time, within bounds: strangers choose what they send."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Memory(dict[Key, Value]):
    """A dictionary whose entries are made with `keep`. After `most` of them it is begun anew, which costs less than to
    know which was used last; what is `longest` bytes or more is judged each time."""

    __slots__ = ("_longest", "_most")

    def __init__(self, most: int, longest: int) -> None:
        super().__init__()
        self._most = most
        self._longest = longest

    def keep(self, key: Key, value: Value, size: int) -> Value:
        """`value`, and kept if it fits. `size` in bytes."""
        if size < self._longest:
            if len(self) >= self._most:
                self.clear()
            self[key] = value
        return value
