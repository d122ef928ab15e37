"""Response heads that were parsed and judged before, found again by their bytes.

An upstream answers many requests of one second with the very same head: status, Server, Date, Content-Type, length. The
same bytes mean the same, so parsing and judging them again is work for nothing: 1.5 us instead of 9 us for such a head
with six fields (3.11 on the machine of `docs/performance.md`). Kept are only heads whose body has a known length and
which leave the connection open; whether the body that came with one is as long as it says, is for the finder to check.
"""

from __future__ import annotations

from collections import OrderedDict

from akoya_gateway.upstream.response import ResponseHead

REMEMBERED = 256
LARGEST = 2048


class KnownHead:
    """`length`: bytes of the body that follows. `made`: what the one who is given it made of it, to be kept with it."""

    __slots__ = ("head", "length", "made", "status")

    def __init__(self, status: int, head: ResponseHead, length: int) -> None:
        self.status = status
        self.head = head
        self.length = length
        self.made = b""


class KnownHeads:
    """A bounded memory, first in, first out: most heads hold the time, and are not seen again in the next second."""

    __slots__ = ("_kept", "find")

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, KnownHead] = OrderedDict()
        self.find = self._kept.get
        """The head of these bytes, its empty line included, or None."""

    def keep(self, head: bytes, known: KnownHead) -> None:
        if len(head) <= LARGEST:
            self._kept[head] = known
            if len(self._kept) > REMEMBERED:
                self._kept.popitem(last=False)
