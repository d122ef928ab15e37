"""Tests of the address parser and the trusted-peer check that all entry points share."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.authentication.user_identity import is_trusted_peer
from akoya_gateway.config.model import Origin, Upstream
from akoya_gateway.endpoints.rate_limit import client_key
from akoya_gateway.gateway.request_id import RequestIds
from akoya_gateway.trusted_proxies import UNIX, Networks, TrustedProxies, parse_address, peer_of
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.http.forwarded_headers import ForwardedHeaders
from akoya_gateway.upstream.reverse_proxy import ReverseProxy
from tests.support.config_documents import validated

TEN: Networks = [ip_network("10.0.0.0/8")]


@pytest.mark.parametrize(
    ("text", "address"),
    [("203.0.113.7", "203.0.113.7"), ("203.0.113.7:51234", "203.0.113.7"), ("2001:db8::1", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1"),
     ("[2001:db8::1]:80", "2001:db8::1"), ("::ffff:1.2.3.4", "1.2.3.4"), ("[::ffff:1.2.3.4]:9", "1.2.3.4"), ("fe80::1%eth0", "fe80::1"),
     ("", None), ("unknown", None), ("1.2.3.4:x", None), ("1.2.3.4:123456", None), ("[::1", None), ("[::1]x", None), ("localhost:80", None)],
)  # fmt: skip
def test_address_is_read_with_and_without_a_port(text: str, address: str | None) -> None:
    assert str(parse_address(text)) == str(address)


def test_address_with_a_port_in_x_forwarded_for_is_named_in_forwarded() -> None:
    forwarded_for = {b"x-forwarded-for": [b"203.0.113.7:51234, [2001:db8::1]:80"]}
    lines = ForwardedHeaders(TEN).lines("10.0.0.1", "http", b"a", forwarded_for)
    assert b'forwarded: for=203.0.113.7, for="[2001:db8::1]", for=10.0.0.1;host="a";proto=http\r\n' in lines


@pytest.mark.parametrize(
    ("peers", "peer", "forwarded", "trusted"),
    [([], None, False, False), (TEN, None, False, False), ([UNIX], None, False, True), ([*TEN, UNIX], None, False, True),
     ([ip_network("127.0.0.1/32")], None, False, True), ([ip_network("::1/128")], None, False, True), ([UNIX], None, True, False),
     ([UNIX], "127.0.0.1", False, False), (TEN, "10.0.0.1", False, True), (TEN, "10.0.0.1", True, False), (TEN, "11.0.0.1", False, False)],
)  # fmt: skip
def test_every_part_agrees_whether_a_peer_is_trusted(
    peers: Networks, peer: str | None, forwarded: bool, trusted: bool
) -> None:
    request = RequestInfo(
        "GET", b"/", b"", [(b"x-forwarded-for", b"198.51.100.9")], peer, "id", peer_is_forwarded=forwarded
    )
    assert TrustedProxies(peers)(peer, is_forwarded=forwarded) is trusted
    assert ForwardedHeaders(peers).trusts(peer, is_forwarded=forwarded) is trusted
    assert is_trusted_peer(TrustedProxies(peers), request) is trusted
    assert (client_key(request, peers) == "198.51.100.9") is trusted
    given = RequestIds(peers).for_headers(peer, [(b"x-request-id", b"given")], is_forwarded=forwarded)
    assert (given == b"given") is trusted


def test_peer_that_the_server_took_from_a_header_is_marked_by_port_0() -> None:
    assert peer_of(("10.0.0.1", 0)) == ("10.0.0.1", True)
    assert peer_of(["10.0.0.1", 4000]) == ("10.0.0.1", False)
    assert peer_of(None) == peer_of(("", 5)) == (None, False)


async def test_forwarded_headers_of_a_peer_from_a_header_are_not_trusted() -> None:
    pool = ConnectionPool(Upstream((Origin("http", "127.0.0.1", 1),)))
    proxy = ReverseProxy(pool, trusted_proxies=TEN)
    scope = {"method": "GET", "raw_path": b"/", "headers": [(b"host", b"a"), (b"x-forwarded-proto", b"https"), (b"x-real-ip", b"6.6.6.6")],
             "http_version": "1.1", "scheme": "http"}  # fmt: skip
    forwarded = proxy.build_request({**scope, "client": ("10.0.0.1", 0)}).head
    assert b"x-forwarded-proto: http\r\n" in forwarded
    assert b"6.6.6.6" not in forwarded
    seen = proxy.build_request({**scope, "client": ("10.0.0.1", 4000)}).head
    assert b"x-forwarded-proto: https\r\n" in seen
    assert b"x-real-ip: 6.6.6.6\r\n" in seen


@pytest.mark.parametrize(
    ("host", "proto", "port"),
    [(b"app.example", b"https", b"443"), (b"APP.example:443", b"https", b"443"), (b"app.example:8080", b"http", b"8080"), (b"other.example", b"http", b"80"),
     (b"127.0.0.1:9000", b"http", b"9000")],
)  # fmt: skip
def test_app_gets_the_scheme_of_public_url_for_requests_to_its_host(host: bytes, proto: bytes, port: bytes) -> None:
    forwarding = ForwardedHeaders((), Origin("https", "app.example", 443))
    lines = forwarding.lines("192.0.2.1", "http", host)
    assert b"x-forwarded-proto: %b\r\n" % proto in lines
    assert b"x-forwarded-port: %b\r\n" % port in lines
    assert lines.count(b"proto=" + proto) == 1


def test_trusted_proxys_word_on_the_scheme_counts_more_than_public_url() -> None:
    forwarding = ForwardedHeaders(TEN, Origin("https", "app.example", 443))
    assert b"x-forwarded-proto: http\r\n" in forwarding.lines(
        "10.0.0.1", "http", b"app.example", {b"x-forwarded-proto": [b"http"]}
    )
    assert b"x-forwarded-proto: https\r\n" in forwarding.lines(
        "10.0.0.1", "http", b"app.example", {b"x-forwarded-for": [b"1.2.3.4"]}
    )


def test_unix_is_an_entry_of_trusted_proxies(tmp_path: Path) -> None:
    result = validated(
        tmp_path, {"trusted_proxies": ["unix", "10.0.0.0/8"], "identity": {"header": "X-Forwarded-User"}}
    )
    assert result.config is not None
    assert result.config.trusted_proxies == ("unix", ip_network("10.0.0.0/8"))
