"""Response heads of the plain form, read line by line, each line judged once.

Most responses consist of lines that were seen a moment ago (Server, Content-Type, this second's Date) and a few that
were not. A head of five lines is put together in 1.2 us where the parser, its callbacks, judging and writing it anew
take 2.9 (on the machine of `docs/performance.md`); one that was seen a moment ago as a whole is found in 0.2.

A line is looked at only if there is one way to read it: a token, a colon, one blank, visible ASCII that neither begins
nor ends with a blank. Everything else, and every response that is not simply so many bytes long and leaves the
connection open, is the parser's (`connection`). `tests/upstream/test_response_head_cache.py` holds both together.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum

from akoya_gateway.bounded_cache import Memory
from akoya_gateway.client_headers import is_ours_to_app
from akoya_gateway.upstream.http.response_head import BODILESS, HOP_BY_HOP, Headers, judge_length

REMEMBERED = 4096
"""Lines kept; after so many it is begun anew, since half a second's own lines are of no use in the next."""
MANY = 512
"""Whole heads kept: an app that says the same within a second says it with the same head."""
LONGEST, LONGEST_HEAD = 512, 2048
"""Bytes of a line and of a head that is kept."""
LARGEST = 16_384
"""Bytes of a head that is read here."""
MOST = 100
"""Lines of one."""

Hides = Callable[[bytes, bytes], bool]

_STATUS = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [\x20-\x7e]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_END = b"\r\n\r\n"


class _Does(IntEnum):
    PASS = 0
    DATE = 1
    LENGTH = 2
    DROP = 3
    ODD = 4


_PASS, _DATE, _LENGTH, _ODD = int(_Does.PASS), int(_Does.DATE), int(_Does.LENGTH), int(_Does.ODD)


class _Line:
    """A header line. `wire`: as it is passed on. `ours`: its name is one that no client is to see."""

    __slots__ = ("does", "length", "ours", "pair", "wire")

    def __init__(self, name: bytes, value: bytes, does: int, length: int = 0, *, ours: bool = False) -> None:
        self.pair = (name, value)
        self.does = does
        self.length = length
        self.wire = b"%b: %b\r\n" % (name, value)
        self.ours = ours


_NO_LINE = _Line(b"", b"", _ODD)


class PlainHead:
    """`length` bytes of body follow. `special`: a line of it is more than to be passed on (see `headers`). `wire`: its
    lines, as they are passed on. Shared, so nobody changes it."""

    __slots__ = ("_headers", "_lines", "dated", "length", "special", "status", "wire")

    def __init__(self, status: int, lines: list[_Line], length: int, *, dated: bool, special: bool) -> None:
        self.status = status
        self.length = length
        self.dated = dated
        self.special = special
        self.wire = b"".join([line.wire for line in lines])
        self._lines = lines
        self._headers: Headers | None = None

    @property
    def headers(self) -> Headers:
        """As `response.judge_head` gives them; a list of your own."""
        if self._headers is None:
            self._headers = [line.pair for line in self._lines]
        return self._headers.copy()


class PlainHeads:
    """Shared by all connections of a pool."""

    def __init__(self, hides: Hides | None = None) -> None:
        """`hides`: whether a header is one that no client is to see, by name and value."""
        self._hides = hides or _hides_by_name
        self._heads: Memory[bytes, PlainHead] = Memory(MANY, LONGEST_HEAD)
        self._statuses: dict[bytes, int] = {}
        self._lines: Memory[bytes, _Line] = Memory(REMEMBERED, LONGEST)

    def read(self, data: bytes) -> tuple[PlainHead, int] | None:
        """The head at the beginning of `data`, and where its body starts. None: it is not plain, or not whole."""
        end = data.find(_END, 0, LARGEST)
        if end < 0:
            return None
        written = data[:end]
        head = self._heads.get(written)
        if head is None:
            head = self._put_together(written)
            if head is None:
                return None
            self._heads.keep(written, head, end)
        return head, end + 4

    def _put_together(self, head: bytes) -> PlainHead | None:
        written = head.split(b"\r\n", MOST)
        status = self._statuses.get(written[0]) or self._learn_status(written[0])
        known = self._lines
        lines: list[_Line] = []
        length: _Line | None = None
        dated = special = False
        del written[0]
        for each in written:
            line = known.get(each) or self._learn(each)
            does = line.does
            if does == _PASS:
                lines.append(line)
                special |= line.ours
            elif does == _DATE:
                dated = True
                lines.append(line)
            elif does == _LENGTH and length is None:
                length = line
            elif does in (_LENGTH, _ODD):
                return None
        if length is None or not status:
            return None
        lines.append(length)
        return PlainHead(status, lines, length.length, dated=dated, special=special)

    def _learn_status(self, line: bytes) -> int:
        found = _STATUS.fullmatch(line)
        status = int(found[1]) if found else 0
        if status in BODILESS:
            status = 0
        if len(self._statuses) < MOST and len(line) <= LONGEST:
            self._statuses[line] = status
        return status

    def _learn(self, written: bytes) -> _Line:
        return self._lines.keep(written, _judge(written, self._hides), len(written))


def _judge(written: bytes, hides: Hides) -> _Line:
    found = _FIELD.fullmatch(written)
    if found is None:
        return _NO_LINE
    name, value = found[1].lower(), found[2]
    if name == b"content-length":
        try:
            return _Line(name, value, _LENGTH, judge_length(value))
        except ValueError:
            return _NO_LINE
    if name == b"connection":
        return _Line(name, value, int(_Does.DROP)) if value.lower() == b"keep-alive" else _NO_LINE
    if name == b"keep-alive":
        return _Line(name, value, int(_Does.DROP))
    if name in HOP_BY_HOP or (name == b"content-type" and value[:17].lower() == b"text/event-stream"):
        return _NO_LINE
    return _Line(name, value, _DATE if name == b"date" else _PASS, ours=hides(name, value))


def _hides_by_name(name: bytes, _: bytes) -> bool:
    return is_ours_to_app(name)
