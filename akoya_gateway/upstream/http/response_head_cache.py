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

from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.client_headers import is_ours_to_app
from akoya_gateway.upstream.http.response_head import BODILESS, HOP_BY_HOP, Headers, parse_content_length

MAX_ENTRIES = 4096
"""Lines kept; after so many it is begun anew, since half a second's own lines are of no use in the next."""
MAX_HEADS = 512
"""Whole heads kept: an app that says the same within a second says it with the same head."""
MAX_LINE_BYTES, MAX_HEAD_KEY_BYTES = 512, 2048
"""Bytes of a line and of a head that is kept."""
MAX_HEAD_BYTES = 16_384
"""Bytes of a head that is read here."""
MAX_HEADERS = 100
"""Lines of one."""

Hides = Callable[[bytes, bytes], bool]

_STATUS = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [\x20-\x7e]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_END = b"\r\n\r\n"


class _HeaderRule(IntEnum):
    PASS = 0
    DATE = 1
    LENGTH = 2
    DROP = 3
    ODD = 4


_PASS, _DATE, _LENGTH, _ODD = (
    int(_HeaderRule.PASS),
    int(_HeaderRule.DATE),
    int(_HeaderRule.LENGTH),
    int(_HeaderRule.ODD),
)


class _CachedLine:
    """A header line. `wire`: as it is passed on. `is_gateway_header`: its name is one that no client is to see."""

    __slots__ = ("header", "is_gateway_header", "length", "rule", "wire")

    def __init__(self, name: bytes, value: bytes, does: int, length: int = 0, *, ours: bool = False) -> None:
        self.header = (name, value)
        self.rule = does
        self.length = length
        self.wire = b"%b: %b\r\n" % (name, value)
        self.is_gateway_header = ours


_NO_LINE = _CachedLine(b"", b"", _ODD)


class CachedResponseHead:
    """`length` bytes of body follow. `special`: a line of it is more than to be passed on (see `headers`). `wire`: its
    lines, as they are passed on. Shared, so nobody changes it."""

    __slots__ = ("_headers", "_lines", "has_date", "length", "special", "status", "wire")

    def __init__(self, status: int, lines: list[_CachedLine], length: int, *, dated: bool, special: bool) -> None:
        self.status = status
        self.length = length
        self.has_date = dated
        self.special = special
        self.wire = b"".join([line.wire for line in lines])
        self._lines = lines
        self._headers: Headers | None = None

    @property
    def headers(self) -> Headers:
        """As `response_head.validate_head` gives them; a list of your own."""
        if self._headers is None:
            self._headers = [line.header for line in self._lines]
        return self._headers.copy()


class ResponseHeadCache:
    """Shared by all connections of a pool."""

    def __init__(self, hides: Hides | None = None) -> None:
        """`hides`: whether a header is one that no client is to see, by name and value."""
        self._hides = hides or _hides_by_name
        self._heads: BoundedCache[bytes, CachedResponseHead] = BoundedCache(MAX_HEADS, MAX_HEAD_KEY_BYTES)
        self._statuses: dict[bytes, int] = {}
        self._lines: BoundedCache[bytes, _CachedLine] = BoundedCache(MAX_ENTRIES, MAX_LINE_BYTES)

    def read(self, data: bytes) -> tuple[CachedResponseHead, int] | None:
        """The head at the beginning of `data`, and where its body starts. None: it is not plain, or not whole."""
        end = data.find(_END, 0, MAX_HEAD_BYTES)
        if end < 0:
            return None
        written = data[:end]
        head = self._heads.get(written)
        if head is None:
            head = self._parse(written)
            if head is None:
                return None
            self._heads.store(written, head, end)
        return head, end + 4

    def _parse(self, head: bytes) -> CachedResponseHead | None:
        written = head.split(b"\r\n", MAX_HEADERS)
        status = self._statuses.get(written[0]) or self._read_status(written[0])
        cached = self._lines
        lines: list[_CachedLine] = []
        length: _CachedLine | None = None
        dated = special = False
        del written[0]
        for each in written:
            line = cached.get(each) or self._read_line(each)
            does = line.rule
            if does == _PASS:
                lines.append(line)
                special |= line.is_gateway_header
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
        return CachedResponseHead(status, lines, length.length, dated=dated, special=special)

    def _read_status(self, line: bytes) -> int:
        found = _STATUS.fullmatch(line)
        status = int(found[1]) if found else 0
        if status in BODILESS:
            status = 0
        if len(self._statuses) < MAX_HEADERS and len(line) <= MAX_LINE_BYTES:
            self._statuses[line] = status
        return status

    def _read_line(self, written: bytes) -> _CachedLine:
        return self._lines.store(written, _parse_line(written, self._hides), len(written))


def _parse_line(written: bytes, hides: Hides) -> _CachedLine:
    found = _FIELD.fullmatch(written)
    if found is None:
        return _NO_LINE
    name, value = found[1].lower(), found[2]
    if name == b"content-length":
        try:
            return _CachedLine(name, value, _LENGTH, parse_content_length(value))
        except ValueError:
            return _NO_LINE
    if name == b"connection":
        return _CachedLine(name, value, int(_HeaderRule.DROP)) if value.lower() == b"keep-alive" else _NO_LINE
    if name == b"keep-alive":
        return _CachedLine(name, value, int(_HeaderRule.DROP))
    if name in HOP_BY_HOP or (name == b"content-type" and value[:17].lower() == b"text/event-stream"):
        return _NO_LINE
    return _CachedLine(name, value, _DATE if name == b"date" else _PASS, ours=hides(name, value))


def _hides_by_name(name: bytes, _: bytes) -> bool:
    return is_ours_to_app(name)
