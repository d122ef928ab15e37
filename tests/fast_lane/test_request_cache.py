"""Tests that the fast parser reads a request exactly as the HTTP parser and the functions of the ASGI path do."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_network
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.admission.request_headers import RequestHeaders
from akoya_gateway.admission.request_target import RequestTarget
from akoya_gateway.client_headers import ClientHeaders
from akoya_gateway.config.model import Cookie, Origin, Seconds, Upstream
from akoya_gateway.errors import GatewayError
from akoya_gateway.fast_lane.request_cache import CachedHeaders, CachedTarget, RequestParser
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.trusted_proxies import Networks
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.http.forwarded_headers import ForwardedHeaders
from akoya_gateway.upstream.http.request_head import Body, Hop, RequestWriter
from akoya_gateway.upstream.reverse_proxy import ReverseProxy

JAR = GatewayCookies(Cookie("akoya", secure=False, idle=Seconds(1.0), lifetime=Seconds(1.0)), Seconds(1.0))
TOKEN = b"A" * 43
GOOD = (
    b"GET /x?y=1 HTTP/1.1\r\nHost: app.example:80\r\nCookie: a=b; akoya="
    + TOKEN
    + b"\r\nAccept: */*\r\nX-Trace: 1\r\n\r\n"
)
TRUSTED: Networks = (ip_network("10.0.0.0/8"),)
PLAIN = ReverseProxy(ConnectionPool(Upstream((Origin("http", "127.0.0.1", 3000),))))
SECURE = ReverseProxy(ConnectionPool(Upstream((Origin("https", "127.0.0.1", 3000),))))


def line_of(method: str, raw_path: bytes, query: bytes, start: bytes, proxy: ReverseProxy = PLAIN) -> CachedTarget:
    secure = proxy.pool.upstream.secure
    target = RequestTarget(method, method.encode(), raw_path, raw_path.decode(), False, None, None, secure, True)
    return CachedTarget(target, query, proxy, start)


def requests(proxy: ReverseProxy = PLAIN) -> RequestParser:
    validate = partial(line_of, proxy=proxy)
    return RequestParser(validate, RequestWriter(ForwardedHeaders(TRUSTED), b"default"), JAR, 65536)


class Parsed:
    """The result of the HTTP parser, `RequestHeaders` and `RequestWriter.section`, as on the ASGI path."""

    def __init__(self, data: bytes, peer: str) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = self.complete = 0
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.method = parser.get_method().decode()
        assert parser.get_http_version() == "1.1"
        assert parser.should_keep_alive()
        assert not parser.should_upgrade()
        request_headers = RequestHeaders(self.headers, JAR, ClientHeaders())
        assert not request_headers.override
        writer = RequestWriter(ForwardedHeaders(TRUSTED), b"default")
        section = writer.section(request_headers.filter_for(is_trusted=True), Hop(peer, False, "http"))
        assert section.body is Body.NONE
        self.session, self.authorities = request_headers.session, request_headers.authorities
        self.before, self.after = section.lines, section.forwarded

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.complete += 1


def agrees(data: bytes, peer: str = "192.0.2.1") -> bool:
    """Return whether the fast parser read the request. If it did, assert that the ASGI path gives the same result."""
    plain, secure = (agrees_with(proxy, data, peer) for proxy in (PLAIN, SECURE))
    assert plain == secure
    return plain


def agrees_with(proxy: ReverseProxy, data: bytes, peer: str) -> bool:
    reader, primed = requests(proxy), requests(proxy)
    # This reader has cached the names of the headers. It parses their next lines by their names alone.
    assert primed.read(GOOD, peer) is not None
    found = reader.read(data, peer)
    if found is None:
        assert (reader.read(data, peer), primed.read(data, peer)) == (None, None)
        return False
    parsed = Parsed(data, peer)
    assert (parsed.begun, parsed.complete) == (1, 1)
    # From the third time on each line is cached, and from the fifth time on the whole section.
    for cached_target, headers in (found, *(each.read(data, peer) for each in (reader, primed) for _ in range(4))):  # type: ignore[misc]
        target = cached_target.target.raw_path + (b"?" + cached_target.query if cached_target.query else b"")
        assert (cached_target.target.method, cached_target.start) == (
            parsed.method,
            b"%b %b HTTP/1.1\r\n" % (cached_target.target.verb, target),
        )
        assert parsed.url.rstrip(b"?") == target.rstrip(b"?")
        assert headers.headers == parsed.headers
        assert (headers.session, headers.authorities) == (parsed.session, parsed.authorities)
        assert (headers.before, headers.after) == (parsed.before, parsed.after)
    return True


def sender_of(data: bytes, peer: str) -> CachedHeaders:
    found = requests().read(data, peer)
    assert found is not None
    return found[1]


def test_browsers_request_is_plain() -> None:
    assert agrees(GOOD)
    headers = sender_of(GOOD, "192.0.2.1")
    assert headers.session == TOKEN.decode()
    assert TOKEN not in headers.before


@pytest.mark.parametrize("peer", ["10.1.2.3", "192.0.2.1"])
@pytest.mark.parametrize(
    "added",
    [
        b"X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n",
        b"X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-For: 198.51.100.8\r\n",
        b"X-Real-IP: 198.51.100.7\r\nX-Forwarded-Custom: a\r\n",
        b"X_Forwarded_For: 198.51.100.7\r\n",
        b"SCRIPT_NAME: /x\r\nPath_Info: /y\r\nX_Own: 1\r\n",
        b"Daphne-Root-Path: /x\r\nX-Script-Name: /x\r\nX-Original-Path: /y\r\nX-Envoy-Original-Path: /y\r\n",
        b"Remote-User: root\r\nX-Remote-User: root\r\nX-Auth-Request-User: root\r\n$WSRU: root\r\n",
        b"True-Client-IP: 6.6.6.6\r\nCF-Connecting-IP: 6.6.6.6\r\nX-Client-IP: 6.6.6.6\r\nX-Proxied-Https: on\r\n",
        b"X!Forwarded!For: 6.6.6.6\r\nScript.Name: /x\r\nContent.Length: 5\r\n",
        b"Forwarded: for=198.51.100.7\r\n",
        b"Akoya-Owner: me\r\nakoya_owner: me\r\n",
        b"TE: trailers\r\nKeep-Alive: 5\r\nProxy: evil\r\nConnection: keep-alive\r\n",
        b'Upgrade-Insecure-Requests: 1\r\nIf-None-Match: "x"\r\n',
        b"Cookie2: x\r\nAuthorization: Bearer x\r\n",
    ],
)
def test_validated_headers_equal_those_of_the_general_path(added: bytes, peer: str) -> None:
    assert agrees(GOOD.replace(b"Accept: */*\r\n", b"Accept: */*\r\n" + added), peer)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GET", b"get"),
        (b"GET", b"BREW"),
        (b"GET", b"CONNECT"),
        (b"GET /", b"GET  /"),
        (b"GET /x", b"GET http://a/x"),
        (b"GET /x", b"GET /x#y"),
        (b"GET /x", b"GET /\\x"),
        (b"GET /x", b"GET /\xc3\xa9"),
        (b"GET /x", b"GET *"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"HTTP/1.1", b"HTTP/2.0"),
        (b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
        (b"GET", b"\r\nGET"),
        (b"Accept: */*", b"Accept:*/*"),
        (b"Accept: */*", b"Accept:  */*"),
        (b"Accept: */*", b"Accept: */* "),
        (b"Accept: */*", b"Accept: "),
        (b"Accept: */*", b"Accept: a\r\n b"),
        (b"Accept: */*\r\n", b"Accept: */*\n"),
        (b"Accept: */*", b"Accept: a\rb"),
        (b"Accept: */*", b"Accept: \xe9"),
        (b"Accept: */*", b"Acc ept: x"),
        (b"Accept: */*", b"Content-Length: 0"),
        (b"Accept: */*", b"Content-Length: 5"),
        (b"Accept: */*", b"Transfer-Encoding: chunked"),
        (b"Accept: */*", b"Expect: 100-continue"),
        (b"Accept: */*", b"Upgrade: websocket"),
        (b"Accept: */*", b"Connection: close"),
        (b"Accept: */*", b"Connection: keep-alive, X-Trace"),
        (b"Accept: */*", b"Proxy-Connection: close"),
        (b"Accept: */*", b"X-HTTP-Method-Override: DELETE"),
        (b"Accept: */*", b"X_Method.Override: DELETE"),
        (b"Accept: */*", b"Host: app.example:80"),
        (b"Accept: */*", b"Cookie: akoya=" + b"B" * 43),
        (b"Accept: */*", b"Signature: a=:AA==:\r\nSignature: b=:AA==:"),
        (b"Accept: */*", b"Signature-Input: a=(1)\r\nSignature-Input: a=(1)"),
        (b"Accept: */*", b"Signature: a=:AA==:"),
        (b"Accept: */*", b'Signature-Input: a=("@path");keyid="k"'),
        (b"Host: app.example:80", b"Host: a b"),
        (b"Host: app.example:80", b"Host: user@app.example"),
        (b"Host: app.example:80\r\n", b""),
        (b"\r\n\r\n", b"\r\n\r\n" + GOOD),
        (b"\r\n\r\n", b"\r\n\r\nbody"),
        (b"\r\n\r\n", b"\r\n"),
        (b"\r\n\r\n", b"\n\n"),
        (b"X-Trace: 1", b"X-Trace: " + b"1" * 20_000),
        (b"X-Trace: 1\r\n", b"X-Trace: 1\r\n" * 200),
    ],
)
def test_complex_head_is_left_to_the_parser(old: bytes, new: bytes) -> None:
    assert old in GOOD
    assert not agrees(GOOD.replace(old, new, 1))


def test_line_refused_by_the_rules_stays_refused_and_what_is_kept_is_bounded() -> None:
    def refuse(method: str, raw_path: bytes, query: bytes, start: bytes) -> CachedTarget:
        if raw_path.startswith(b"/no"):
            raise GatewayError("no")
        return line_of(method, raw_path, query, start)

    reader = RequestParser(refuse, RequestWriter(ForwardedHeaders(), b"default"), JAR, 65536)
    for number in range(6_000):
        assert reader.read(GOOD.replace(b"/x", b"/no%d" % number, 1), None) is None
        assert reader.read(GOOD.replace(b"X-Trace: 1", b"X-Trace: %d" % number, 1), None) is not None
    assert len(reader._target_cache) <= 4096
    assert len(reader._lines.headers) <= 4096
    for number in range(3_000):
        for _ in range(4):
            assert reader.read(GOOD.replace(b"X-Trace: 1", b"X-Trace: %d" % number, 1), None) is not None
    assert 0 < len(reader._lines.sections) <= 1024


def test_cached_section_counts_for_the_peer_that_sent_it_only() -> None:
    data = GOOD.replace(b"X-Trace: 1", b"X-Forwarded-For: 192.0.2.77", 1)
    reader = requests()
    read = {peer: [reader.read(data, peer) for _ in range(5)] for peer in ("10.1.2.3", "192.0.2.1")}
    for peer, found in read.items():
        for one in found:
            assert one is not None
            assert (one[1].peer, b"192.0.2.77" in one[1].after) == (peer, peer == "10.1.2.3")


def test_head_larger_than_the_limit_is_left_to_the_parser() -> None:
    reader = RequestParser(line_of, RequestWriter(ForwardedHeaders(), b"default"), JAR, len(GOOD) - 1)
    assert reader.read(GOOD, None) is None


PIECES = [
    b"GET /x HTTP/1.1", b"HEAD /x?y HTTP/1.1", b"GET / HTTP/1.0", b"POST /x HTTP/1.1", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r",
    b"Host: a", b"host: A:80", b"Host: b", b"Cookie: akoya=" + TOKEN, b"Cookie: x=y", b"Accept: */*", b"X-Trace: 1", b"Akoya-Owner: me",
    b"Connection: keep-alive", b"Connection: close", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"TE: trailers", b" folded",
    b"X-Forwarded-For: 1.2.3.4", b"Signature: akoya=:AA==:", b"Upgrade: h2c", b":", b": ", b"x", b"\0", b"\xff", b"\r\n\r\n",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=20), st.sampled_from(["10.0.0.1", "192.0.2.1"]))
def test_any_mixture_is_read_as_on_the_other_path(pieces: list[bytes], peer: str) -> None:
    agrees(b"".join(pieces), peer)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.from_regex(rb"[A-Za-z0-9_.-]{1,14}", fullmatch=True), st.binary(max_size=10)), max_size=6))
def test_any_headers_are_read_as_on_the_other_path(headers: list[Any]) -> None:
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    agrees(b"GET /x HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
