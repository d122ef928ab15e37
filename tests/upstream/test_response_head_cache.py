"""Tests that the response head cache reads a head exactly as the parser does, or leaves it to the parser."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.upstream.errors import InvalidResponse
from akoya_gateway.upstream.http.response_head import ResponseHead, check_size, validate_head
from akoya_gateway.upstream.http.response_head_cache import MAX_HEAD_BYTES, MAX_HEADS, ResponseHeadCache

GOOD = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Parsed:
    """The result of the parser and `validate_head` for the same bytes.

    `complete` is 1 only if the bytes are one complete valid response.
    """

    def __init__(self, data: bytes) -> None:
        self.raw: list[tuple[bytes, bytes]] = []
        self.head: ResponseHead | None = None
        self.status = 0
        self.body = b""
        self.begun = self.complete = 0
        parser = self.parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.complete = -1

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        self.raw.append((name, value))

    def on_headers_complete(self) -> None:
        check_size(self.raw, 256, 65536)
        self.status = self.parser.get_status_code()
        self.head = validate_head(self.status, self.parser.get_http_version(), self.raw, head_only=False)

    def on_body(self, chunk: bytes) -> None:
        self.body += chunk

    def on_message_complete(self) -> None:
        self.complete += 1


def agrees(data: bytes) -> bool:
    """Return whether the cache read the response. If it did, assert that the parser gives the same result."""
    # This cache contains the names of the headers. It parses their next lines by their names alone.
    primed = ResponseHeadCache()
    assert primed.read(GOOD) is not None
    new, by_name = (_parsed_by(cache, data) for cache in (ResponseHeadCache(), primed))
    assert new == by_name
    return new


def _parsed_by(cache: ResponseHeadCache, data: bytes) -> bool:
    found = cache.read(data)
    if found is None or len(data) - found[1] != found[0].length:
        return False
    head, start = found
    parsed = Parsed(data)
    assert parsed.head is not None
    assert (parsed.begun, parsed.complete) == (1, 1)
    assert parsed.head == head.head
    assert (parsed.status, parsed.body) == (head.status, data[start:])
    visible = [(name, value) for name, value in parsed.head.headers if not name.startswith(b"akoya-")]
    assert head.visible_headers == visible
    assert head.wire == b"".join(b"%b: %b\r\n" % pair for pair in visible)
    assert head.has_date == any(name == b"date" for name, _ in parsed.head.headers)
    assert head.hidden == tuple(pair for pair in parsed.head.headers if pair[0].startswith(b"akoya-"))
    return True


def test_common_response_is_plain() -> None:
    assert agrees(GOOD)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize(
    ("rest", "plain"),
    [
        (b"\r\n", True),
        (b'ETag: "a"\r\nDate: now\r\n\r\n', True),
        (b"Content-Length: 0\r\n\r\n", True),
        (b"Set-Cookie: a=b\r\nConnection: keep-alive\r\n\r\n", True),
        (b"Content-Length: 2\r\n\r\n", False),
        (b"CONTENT-TYPE: a/b\r\n\r\n", False),
        (b"Content-Encoding: gzip\r\n\r\n", False),
        (b"Content-Range: bytes 0-4/9\r\n\r\n", False),
        (b"Transfer-Encoding: chunked\r\n\r\n", False),
        (b"Connection: close\r\n\r\n", False),
        (b"\r\nok", False),
        (b"\r\n" + GOOD, False),
        (b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", False),
    ],
)
def test_bodiless_response_is_plain_only_if_its_head_describes_no_body(status: bytes, rest: bytes, plain: bool) -> None:
    assert agrees(b"HTTP/1.1 %b\r\n%b" % (status, rest)) is plain


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Server: x", b"Server:x"),
        (b"Server: x", b"Server:  x"),
        (b"Server: x", b"Server: x "),
        (b"Server: x", b"Server: "),
        (b"Server: x", b"Server : x"),
        (b"Server: x", b"Server: a\tb"),
        (b"Server: x", b"Server: \xc3\xa9"),
        (b"Server: x", b"Server: x\r\n y"),
        (b"Server: x\r\n", b"Server: x\n"),
        (b"Server: x", b"Ser\0ver: x"),
        (b"Server: x", b"Server: \x7f"),
        (b"Server: x", b"Transfer-Encoding: chunked"),
        (b"Server: x", b"Connection: close"),
        (b"Server: x", b"Connection: X-Secret"),
        (b"Server: x", b"Content-Length: 2"),
        (b"Server: x", b"Content-Length: 3"),
        (b"Server: x", b"Trailer: X-T"),
        (b"Server: x", b"Upgrade: h2c"),
        (b"Server: x", b"Proxy-Connection: close"),
        (b"Content-Length: 2", b"Content-Length: +2"),
        (b"Content-Length: 2", b"Content-Length: 2, 2"),
        (b"Content-Length: 2", b"Content-Length: 0x2"),
        (b"Content-Length: 2", b"X-Length: 2"),
        (b"Content-Type: text/plain", b"Content-Type: text/event-stream"),
        (b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK"),
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Continue"),
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 101 Switching Protocols"),
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No Content"),
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 304 Not Modified"),
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 600 Odd"),
        (b"HTTP/1.1 200 OK", b"HTTP/1.1  200 OK"),
        (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\n"),
        (b"HTTP/1.1 200 OK", b"\r\nHTTP/1.1 200 OK"),
        (b"\r\n\r\nok", b"\r\n\r\no"),
        (b"\r\n\r\nok", b"\r\n\r\nok" + GOOD),
        (b"\r\n\r\nok", b"\n\nok"),
    ],
)
def test_complex_head_is_left_to_the_parser(old: bytes, new: bytes) -> None:
    assert old in GOOD
    assert not agrees(GOOD.replace(old, new, 1))


def test_head_without_end_and_one_of_many_lines_are_left_to_the_parser() -> None:
    assert ResponseHeadCache().read(b"HTTP/1.1 200 OK\r\nServer: x\r\n") is None
    assert ResponseHeadCache().read(GOOD.replace(b"Server: x", b"X: " + b"x" * MAX_HEAD_BYTES, 1)) is None
    assert ResponseHeadCache().read(GOOD.replace(b"Server: x\r\n", b"Server: x\r\n" * 200, 1)) is None


def test_cache_is_bounded_and_evicted_entries_are_computed_again() -> None:
    heads = ResponseHeadCache()
    for number in range(10_000):
        found = heads.read(GOOD.replace(b"Server: x", b"X-Request-Id: %d" % number, 1))
        assert found is not None
        assert found[0].head.headers[0] == (b"x-request-id", b"%d" % number)
    assert len(heads._lines) <= 4096
    assert len(heads._heads) <= MAX_HEADS


def test_change_of_one_cached_head_does_not_affect_the_next() -> None:
    heads = ResponseHeadCache()
    for _ in range(3):
        found = heads.read(GOOD)
        assert found is not None
        assert (b"x-mine", b"1") not in found[0].visible_headers
        found[0].visible_headers.append((b"x-mine", b"1"))


def test_head_that_is_not_simple_is_parsed_each_time_and_not_cached() -> None:
    heads = ResponseHeadCache()
    for _ in range(3):
        assert heads.read(GOOD.replace(b"Server: x", b"Transfer-Encoding: chunked", 1)) is None
    assert heads._heads == {}


PIECES = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 404 ", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.0 200 OK",
    b"HTTP/1.1 200", b"Content-Type: a/b", b"\r\n", b"\n", b"\r",
    b"\r\n\r\n", b"Server: x", b"Content-Length: 2", b"content-length: 0", b"Content-Length: 02", b"Date: now", b"Akoya-Id-Token: t",
    b"Connection: keep-alive", b"Connection: close", b"Keep-Alive: timeout=5", b"Transfer-Encoding: chunked", b" folded", b"\tx",
    b"ok", b"0\r\n\r\n", b":", b": ", b"x", b"Set-Cookie: a=b; Path=/", b"Set-Cookie: c=d", b"\0", b"\xff", b"a b: c",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24))
def test_any_mixture_is_read_as_the_parser_reads_it(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    try:
        agrees(data)
    except InvalidResponse as refused:
        raise AssertionError(data) from refused


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.from_regex(rb"[A-Za-z0-9-]{1,12}", fullmatch=True), st.binary(max_size=12)), max_size=8),
    st.binary(max_size=5),
)
def test_any_headers_are_read_as_the_parser_reads_them(headers: list[Any], body: bytes) -> None:
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    agrees(b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body)
