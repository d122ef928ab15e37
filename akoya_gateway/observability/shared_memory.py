"""Shared memory with one slot per worker and one for the totals of exited workers.

It is created before the workers are forked and needs no file, socket or lock. Each slot has two halves that are written
in turn, each with a sequence number and a checksum. If a writer is killed while it writes, the other half stays valid.
"""

from __future__ import annotations

import mmap
import struct
import time
import zlib
from dataclasses import dataclass

_HEAD = struct.Struct("<QdQII")  # sequence number, time, pid, length, checksum
HALF_BYTES = 512 * 1024
"""Bytes of one half. Pages that were never written use no memory."""


@dataclass(frozen=True, slots=True)
class SlotValue:
    """The content of a slot."""

    written_at: float
    """Time of writing, by the clock of the writer."""
    pid: int
    """Process ID of the writer."""
    content: bytes


class SharedSlots:
    """Slots 0 to `slots` - 1 in shared memory. Each has one writer at a time and any number of readers."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.created_at = time.time()
        """Unix seconds. The totals of exited workers begin at this time."""
        self._memory = mmap.mmap(-1, slots * 2 * HALF_BYTES)
        self._numbers = [0] * slots

    def write(self, slot: int, at: float, pid: int, content: bytes) -> bool:
        """Write a slot. Returns False, and changes nothing, if `content` is too long."""
        if len(content) > HALF_BYTES - _HEAD.size:
            return False
        number = max(self._numbers[slot], self._newest(slot)) + 1
        self._numbers[slot] = number
        start = self._start(slot, number % 2)
        head = _HEAD.pack(number, at, pid, len(content), _checksum(number, at, pid, content))
        # Write the head last: until then, the checksum in the old head does not match the new content.
        self._memory[start + _HEAD.size : start + _HEAD.size + len(content)] = content
        self._memory[start : start + _HEAD.size] = head
        return True

    def read(self, slot: int) -> SlotValue | None:
        """Return the newest complete value, or None if the slot was never written or has been cleared."""
        halves = [half for half in (self._read(slot, 0), self._read(slot, 1)) if half is not None]
        newest = max(halves, key=lambda half: half[0], default=None)
        return None if newest is None or not newest[1].content else newest[1]

    def clear(self, slot: int) -> None:
        """Clear the slot of an exited writer."""
        self.write(slot, 0.0, 0, b"")

    def _read(self, slot: int, half: int) -> tuple[int, SlotValue] | None:
        start = self._start(slot, half)
        number, at, pid, length, checksum = _HEAD.unpack(self._memory[start : start + _HEAD.size])
        if not number or length > HALF_BYTES - _HEAD.size:
            return None
        content = self._memory[start + _HEAD.size : start + _HEAD.size + length]
        if _checksum(number, at, pid, content) != checksum:
            return None
        return number, SlotValue(at, pid, content)

    def _newest(self, slot: int) -> int:
        return max((half[0] for half in (self._read(slot, 0), self._read(slot, 1)) if half is not None), default=0)

    def _start(self, slot: int, half: int) -> int:
        return (slot * 2 + half) * HALF_BYTES


def _checksum(number: int, at: float, pid: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(struct.pack("<QdQI", number, at, pid, len(content))))
