"""Caches parsed response heads and header lines, so that simple responses need no HTTP parser.

Most lines of a response head have been received shortly before (Server, Content-Type, the Date of this second). A head
of five lines is assembled from cached lines in 1.2 us, whereas the parser with its callbacks, validation and writing
the head again take 2.9 us (on the machine of `docs/performance.md`). A head that is cached as a whole is found in 0.2
us.

Only lines that can be interpreted in one way are handled here: a token, a colon, one space, and visible ASCII that does
not begin or end with a space. All other heads are left to the parser (`connection`), and so is every response after
which the connection may close, or whose body has no Content-Length. `tests/upstream/test_response_head_cache.py` checks
that both give the same results.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum

from akoya_gateway.bounded_cache import BoundedCache
from akoya_gateway.client_headers import is_ours_to_app
from akoya_gateway.upstream.http.response_head import (
    BODILESS,
    DESCRIBE_BODY,
    HOP_BY_HOP,
    Framing,
    Headers,
    ResponseHead,
    is_event_stream,
    parse_content_length,
)

MAX_ENTRIES = 4096
"""Maximum number of cached lines."""
MAX_HEADS = 512
"""Maximum number of cached heads. An app often sends identical heads, as long as the second in Date is the same."""
MAX_LINE_BYTES, MAX_HEAD_KEY_BYTES = 512, 2048
"""Maximum size of a cached line and of a cached head in bytes."""
MAX_HEAD_BYTES = 16_384
"""Maximum size in bytes of a head that is parsed here."""
MAX_HEADERS = 100
"""Maximum number of lines of a head that is parsed here, and of cached status lines."""

Hides = Callable[[bytes, bytes], bool]
"""Returns True if a header, given its name and value, must not reach the client."""

_STATUS = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [\x20-\x7e]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_END = b"\r\n\r\n"


class _HeaderRule(IntEnum):
    """How a header line is treated. ODD: the head must be parsed by the HTTP parser."""

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
    """A parsed header line.

    `wire` is the line as it is forwarded, and empty if the header must not reach the client.
    """

    __slots__ = ("header", "length", "rule", "wire")

    def __init__(self, name: bytes, value: bytes, rule: int, length: int = 0, *, hidden: bool = False) -> None:
        self.header = (name, value)
        self.rule = rule
        self.length = length
        self.wire = b"" if hidden else b"%b: %b\r\n" % (name, value)


_NO_LINE = _CachedLine(b"", b"", _ODD)


class CachedResponseHead:
    """A parsed response head. Shared by many responses, so it must not be changed.

    Attributes:
        status: The status code.
        framing: `Framing.LENGTH`, or `Framing.NONE` for a 204 or 304.
        length: Length of the body in bytes.
        has_date: The head contains a Date header.
        hidden: The headers that must not reach the client.
        wire: The lines of the other headers.
    """

    __slots__ = ("_head", "_lines", "_visible", "framing", "has_date", "hidden", "length", "status", "wire")

    def __init__(
        self,
        status: int,
        framing: Framing,
        lines: list[_CachedLine],
        length: int,
        *,
        dated: bool,
        hidden: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self.status = status
        self.framing = framing
        self.length = length
        self.has_date = dated
        self.hidden = hidden
        self.wire = b"".join([line.wire for line in lines])
        self._lines = lines
        self._head: ResponseHead | None = None
        self._visible: Headers | None = None

    @property
    def head(self) -> ResponseHead:
        """The head with all headers, the same as `response_head.validate_head` returns."""
        if self._head is None:
            headers = [line.header for line in self._lines]
            self._head = ResponseHead(headers, self.framing, close=False, trailers=False)
        return self._head

    @property
    def visible_headers(self) -> Headers:
        """A new list of the headers of `wire`."""
        if self._visible is None:
            self._visible = [line.header for line in self._lines if line.wire]
        return self._visible.copy()


class ResponseHeadCache:
    """Parses and caches response heads. Shared by all connections of a pool."""

    def __init__(self, hides: Hides | None = None) -> None:
        """Create the cache. `hides` decides which headers must not reach the client."""
        self._hides = hides or _hides_by_name
        self._heads: BoundedCache[bytes, CachedResponseHead] = BoundedCache(
            MAX_HEADS, MAX_HEAD_KEY_BYTES, on_repeat=True
        )
        self._statuses: BoundedCache[bytes, int] = BoundedCache(MAX_HEADERS, MAX_LINE_BYTES)
        self._lines: BoundedCache[bytes, _CachedLine] = BoundedCache(MAX_ENTRIES, MAX_LINE_BYTES, on_repeat=True)

    def read(self, data: bytes) -> tuple[CachedResponseHead, int] | None:
        """Return the head at the beginning of `data` and the position of the body.

        Return None if the head is incomplete or needs the HTTP parser.
        """
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
        dated = False
        hidden: tuple[tuple[bytes, bytes], ...] = ()
        del written[0]
        for each in written:
            line = cached.get(each) or self._read_line(each)
            rule = line.rule
            if rule == _PASS:
                lines.append(line)
                if not line.wire:
                    hidden += (line.header,)
            elif rule == _DATE:
                dated = True
                lines.append(line)
            elif rule == _LENGTH and length is None:
                length = line
            elif rule in (_LENGTH, _ODD):
                return None
        if not status:
            return None
        if status in BODILESS:
            if (length is not None and length.length) or any(line.header[0] in DESCRIBE_BODY for line in lines):
                return None  # the connection must be closed, see `response_head`
            return CachedResponseHead(status, Framing.NONE, lines, 0, dated=dated, hidden=hidden)
        if length is None:
            return None
        lines.append(length)
        return CachedResponseHead(status, Framing.LENGTH, lines, length.length, dated=dated, hidden=hidden)

    def _read_status(self, line: bytes) -> int:
        found = _STATUS.fullmatch(line)
        status = int(found[1]) if found else 0
        return self._statuses.store(line, status, len(line))

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
    if name in HOP_BY_HOP or (name == b"content-type" and is_event_stream(value)):
        return _NO_LINE
    return _CachedLine(name, value, _DATE if name == b"date" else _PASS, hidden=hides(name, value))


def _hides_by_name(name: bytes, _: bytes) -> bool:
    return is_ours_to_app(name)
