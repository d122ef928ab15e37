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
from dataclasses import dataclass
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
"""Returns True if a header, given its lower-case name and value, must not reach the client.

The value may matter only for `Set-Cookie`.
"""

_STATUS = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [\x20-\x7e]*")
_VALUE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): (" + _VALUE.pattern + rb")")
_END = b"\r\n\r\n"


class _LineRule(IntEnum):
    """How a header line is treated.

    OURS: it is one of the gateway's own headers. ODD: the head must be parsed by the HTTP parser.
    """

    PASS = 0
    OURS = 1
    DATE = 2
    LENGTH = 3
    DROP = 4
    ODD = 5


_PASS, _OURS, _DATE = int(_LineRule.PASS), int(_LineRule.OURS), int(_LineRule.DATE)
_LENGTH, _DROP, _ODD = int(_LineRule.LENGTH), int(_LineRule.DROP), int(_LineRule.ODD)

_Line = tuple[int, bytes, tuple[bytes, bytes]]
"""A parsed header line: its rule, the line as it is forwarded (empty if it is hidden), and its name and value."""

_ODD_LINE: _Line = (_ODD, b"", (b"", b""))
_BY_VALUE = frozenset({b"content-type", b"set-cookie"})
"""Names of headers that are treated by their values. All others are treated by their names alone."""


@dataclass(slots=True, eq=False)
class CachedResponseHead:
    """A parsed response head. Shared by many responses, so it must not be changed.

    Attributes:
        status: The status code.
        framing: `Framing.LENGTH`, or `Framing.NONE` for a 204 or 304.
        length: Length of the body in bytes.
        wire: The lines of the headers that reach the client.
        hidden: The gateway's own headers, which do not reach the client.
        has_date: The head contains a Date header.
    """

    status: int
    framing: Framing
    length: int
    _lines: list[_Line]
    wire: bytes
    hidden: tuple[tuple[bytes, bytes], ...]
    has_date: bool
    _head: ResponseHead | None = None
    _visible: Headers | None = None

    @property
    def head(self) -> ResponseHead:
        """The head with all headers, the same as `response_head.validate_head` returns."""
        if self._head is None:
            headers = [header for _, _, header in self._lines]
            self._head = ResponseHead(headers, self.framing, close=False, trailers=False)
        return self._head

    @property
    def visible_headers(self) -> Headers:
        """A new list of the headers of `wire`."""
        if self._visible is None:
            self._visible = [header for _, wire, header in self._lines if wire]
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
        self._lines: BoundedCache[bytes, _Line] = BoundedCache(MAX_ENTRIES, MAX_LINE_BYTES, on_repeat=True)
        self._names: BoundedCache[bytes, tuple[int, bytes, bool]] = BoundedCache(MAX_ENTRIES, MAX_LINE_BYTES)
        """Names, as received, that are not treated by their values: rule, name in lower case, whether it is hidden."""

    def read(self, data: bytes) -> tuple[CachedResponseHead, int] | None:
        """Return the head at the beginning of `data` and the position of the body.

        Return None if the head is incomplete or needs the HTTP parser.
        """
        end = data.find(_END, 0, MAX_HEAD_BYTES)
        if end < 0:
            return None
        written = data[:end]
        head = self._heads.get(written) or self._parse(written)
        return None if head is None else (head, end + 4)

    def _parse(self, head: bytes) -> CachedResponseHead | None:
        written = head.split(b"\r\n", MAX_HEADERS)
        status = self._statuses.get(written[0]) or self._read_status(written[0])
        cached = self._lines
        lines: list[_Line] = []
        wires: list[bytes] = []
        length: _Line | None = None
        is_new = has_date = False
        hidden: tuple[tuple[bytes, bytes], ...] = ()
        del written[0]
        for each in written:
            line = cached.get(each)
            if line is None:
                line, is_new = self._read_line(each), True
            rule = line[0]
            if rule <= _DATE:
                lines.append(line)
                wires.append(line[1])
                if rule == _OURS:
                    hidden += (line[2],)
                elif rule == _DATE:
                    has_date = True
            elif rule == _LENGTH and length is None:
                length = line
            elif rule != _DROP:
                return None
        if not status:
            return None
        framing, size = Framing.LENGTH, 0 if length is None else int(length[2][1])
        if status in BODILESS:
            if size or any(header[0] in DESCRIBE_BODY for _, _, header in lines):
                return None  # the connection must be closed, see `response_head`
            framing = Framing.NONE
        elif length is None:
            return None
        else:
            lines.append(length)
            wires.append(length[1])
        found = CachedResponseHead(status, framing, size, lines, b"".join(wires), hidden, has_date)
        # A head with a line that was not in the cache has not been received before.
        return found if is_new else self._heads.store(head, found, len(head))

    def _read_status(self, line: bytes) -> int:
        found = _STATUS.fullmatch(line)
        status = int(found[1]) if found else 0
        return self._statuses.store(line, status, len(line))

    def _read_line(self, written: bytes) -> _Line:
        name, _, value = written.partition(b": ")
        known = self._names.get(name)
        if known is None or not _VALUE.fullmatch(value):
            line = self._parse_line(written)
        else:
            rule, name, is_hidden = known
            line = rule, b"" if is_hidden else b"%b: %b\r\n" % (name, value), (name, value)
        return self._lines.store(written, line, len(written))

    def _parse_line(self, written: bytes) -> _Line:
        found = _FIELD.fullmatch(written)
        if found is None:
            return _ODD_LINE
        name, value = header = found[1].lower(), found[2]
        wire = b"%b: %b\r\n" % header
        if name == b"content-length":
            try:
                parse_content_length(value)
            except ValueError:
                return _ODD_LINE
            return _LENGTH, wire, header
        if name == b"keep-alive" or (name == b"connection" and value.lower() == b"keep-alive"):
            return _DROP, b"", header
        if name in HOP_BY_HOP or (name == b"content-type" and is_event_stream(value)):
            return _ODD_LINE
        if name == b"date":
            return _DATE, wire, header
        is_hidden = self._hides(name, value)
        rule = _OURS if is_hidden and is_ours_to_app(name) else _PASS
        if name not in _BY_VALUE:
            self._names.store(found[1], (rule, name, is_hidden), len(name))
        return rule, b"" if is_hidden else wire, header


def _hides_by_name(name: bytes, _: bytes) -> bool:
    return is_ours_to_app(name)
