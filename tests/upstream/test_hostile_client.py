"""Tests of clients that try to make proxy and upstream disagree on the end of a request or on its sender."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Iterator

import pytest

from tests.support.processes import AppServer
from tests.support.raw_http import BARE, Caller, Client, Proxied, RawUpstream, fetch, forever, proxied
from tests.support.waiting import until
from tests.upstream.apps import Backend

HOST = b"Host: app.example\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
GET = b"GET / HTTP/1.1\r\n" + HOST

SMUGGLING = {
    "content_length_and_transfer_encoding": POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "transfer_encoding_and_content_length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST / HTTP/1.1\r\n\r\n",
    "two_content_lengths": POST + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "two_equal_content_lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a_list_of_content_lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a_signed_content_length": POST + b"Content-Length: +5\r\n\r\nhello",
    "a_content_length_with_underscore": POST + b"Content-Length: 1_0\r\n\r\nhello",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked_with_vertical_tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "quoted_chunked": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked_then_identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "identity_then_chunked": POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "gzip_then_chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked_twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked_and_a_second_coding": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "chunked_in_http_1_0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a_space_before_the_colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a_folded_transfer_encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a_folded_header": GET + b"X-A: a\r\n Transfer-Encoding: chunked\r\n\r\n",
    "a_header_before_the_first": b"GET / HTTP/1.1\r\n X-A: a\r\n" + HOST + b"\r\n",
    "a_bare_line_feed": GET + b"X-A: a\nX-B: b\r\n\r\n",
    "a_bare_carriage_return": GET + b"X-A: a\rX-B: b\r\n\r\n",
    "nul_in_a_value": GET + b"X-A: a\0b\r\n\r\n",
    "nul_in_the_target": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a_chunk_size_with_a_sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "a_chunk_size_with_a_prefix": POST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "a_chunk_size_beyond_64_bits": POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n",
    "a_chunk_without_its_end": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\naX0\r\n\r\n",
    "no_host": b"GET / HTTP/1.1\r\n\r\n",
    "two_hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two_equal_hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "a_host_with_a_path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a_host_with_a_user": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "a_host_with_a_blank": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a_list_of_hosts": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "connect": b"CONNECT app.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an_unmeetable_expectation": POST + b"Expect: 200-ok\r\nContent-Length: 0\r\n\r\n",
    "an_upgrade_with_a_body": POST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 28\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n",
    "a_trailer_that_becomes_a_header": POST
    + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nContent-Length: 7\r\n\r\n",
    "a_trailer_that_becomes_a_host": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nHost: evil\r\n\r\n",
}


COMPLETE: list[bytes] = []
"""Requests that the upstream below has read completely."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    def handler(caller: Caller) -> None:
        while True:
            head = caller.head()
            if b"transfer-encoding" in head.lower():
                caller.until(b"0\r\n\r\n")
            COMPLETE.append(head)
            caller.respond(b"ok")

    with RawUpstream(handler) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def strict(upstream: RawUpstream) -> Iterator[Proxied]:
    with proxied(upstream.origin) as proxy:
        yield proxy


@pytest.mark.parametrize("request_bytes", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_it_is_refused_and_never_reaches_the_upstream_complete(
    upstream: RawUpstream, strict: Proxied, request_bytes: bytes
) -> None:
    COMPLETE.clear()
    with Client(strict.port) as client:
        client.send(request_bytes)
        status = client.until(b"\r\n")
        assert status.split()[1] in (b"400", b"405", b"417"), status
        assert client.closed(), "the connection stayed open"
    time.sleep(0.02)
    assert COMPLETE == []
    until(lambda: strict.pool.size == strict.pool.idle)


@pytest.fixture(scope="module")
def echo() -> Iterator[Proxied]:
    with AppServer(Backend(), **BARE) as server, proxied(RawUpstreamOrigin(server)) as proxy:
        yield proxy


def RawUpstreamOrigin(server: AppServer):  # type: ignore[no-untyped-def]
    from akoya_gateway.config.model import Origin

    return Origin("http", "127.0.0.1", server.port)


def seen(port: int, lines: bytes, start: bytes = b"GET /echo HTTP/1.1\r\n") -> dict[str, list[str]]:
    with Client(port) as client:
        client.send(start + HOST + lines + b"\r\n")
        response = client.response()
        assert response.status == 200, response
        found: dict[str, list[str]] = {}
        for name, value in json.loads(response.body)["headers"]:
            found.setdefault(name, []).append(value)
        return found


def test_hop_by_hop_fields_end_here(echo: Proxied) -> None:
    headers = seen(
        echo.port,
        b"Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: Basic eDp5\r\n"
        b"Proxy-Connection: keep-alive\r\nTE: trailers, deflate\r\nTrailer: X-T\r\nX-Hop: 1\r\nX-Stay: 2\r\n",
    )
    assert headers["x-stay"] == ["2"]
    gone = {"connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "x-hop", "upgrade"}
    assert not gone & headers.keys()


@pytest.mark.parametrize(
    "name",
    [
        "Akoya-Id-Token",
        "akoya-anything",
        "Signature",
        "Signature-Input",
        "X-Request-Id",
        "X-Forwarded-For",
        "Forwarded",
        "Host",
        "Via",
    ],
)
def test_connection_cannot_take_away_what_the_upstream_trusts(echo: Proxied, name: str) -> None:
    """Regression test for the attack of CVE-2024-45410: `Connection` must not remove trusted headers."""
    headers = seen(
        echo.port,
        b"Connection: close, %b\r\nAkoya-Id-Token: t\r\nakoya-anything: t\r\nSignature: t\r\nSignature-Input: t\r\n"
        b"X-Request-Id: t\r\n" % name.encode(),
    )
    assert name.lower() in headers


def test_unsupported_upgrade_is_dropped_and_the_request_is_served(echo: Proxied) -> None:
    headers = seen(echo.port, b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n")
    assert not {"upgrade", "http2-settings", "connection"} & headers.keys()


def test_client_value_of_a_gateway_header_is_dropped_in_every_spelling(echo: Proxied) -> None:
    headers = seen(
        echo.port,
        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n"
        b"Forwarded: for=6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX.Forwarded.For: 6.6.6.6\r\nx_forwarded-host: evil\r\n"
        b"X-Forwarded-User: root\r\nX_Forwarded_User: root\r\nX-Forwarded-Prefix: /evil\r\nX-Real-IP: 6.6.6.6\r\n"
        b"X-Original-URL: /admin\r\nX_Original_URL: /admin\r\nX-Rewrite-URL: /admin\r\n"
        b"Proxy: http://evil/\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n",
    )
    assert headers["x-forwarded-for"] == ["127.0.0.1"]
    assert headers["x-forwarded-proto"] == ["http"]
    assert headers["x-forwarded-host"] == ["app.example"]
    assert headers["x-forwarded-port"] == ["80"]
    assert headers["forwarded"] == ['for=127.0.0.1;host="app.example";proto=http']
    assert headers["via"] == ["1.1 akoya-gateway"]
    folded = [name.replace("_", "-").replace(".", "-") for name in headers]
    assert len(folded) == len(set(folded))
    assert not {
        "x-forwarded-user",
        "x-real-ip",
        "x-original-url",
        "x-rewrite-url",
        "x-forwarded-prefix",
        "proxy",
    } & set(folded)
    assert not {"content_length", "transfer_encoding"} & headers.keys()


def test_forwarded_values_of_a_trusted_proxy_are_kept_and_extended() -> None:
    loopback = [ipaddress.ip_network("127.0.0.0/8")]
    with AppServer(Backend(), **BARE) as server, proxied(RawUpstreamOrigin(server), trusted_proxies=loopback) as proxy:
        headers = seen(
            proxy.port,
            b"X-Forwarded-For: 203.0.113.7, 2001:db8::1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n"
            b"Forwarded: for=6.6.6.6;proto=http\r\nX_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 203.0.113.7\r\nVia: 1.1 edge\r\n",
        )
        assert headers["x-forwarded-for"] == ["203.0.113.7, 2001:db8::1, 127.0.0.1"]
        assert headers["x-forwarded-proto"] == ["https"]
        assert headers["x-forwarded-host"] == ["shop.example"]
        assert headers["x-forwarded-port"] == ["443"]
        assert headers["forwarded"] == [
            'for=203.0.113.7, for="[2001:db8::1]", for=127.0.0.1;host="shop.example";proto=https'
        ]
        assert headers["x-real-ip"] == ["203.0.113.7"]
        assert headers["via"] == ["1.1 edge", "1.1 akoya-gateway"]
        assert "x_forwarded_for" not in headers
        nonsense = seen(
            proxy.port, b"X-Forwarded-Proto: javascript\r\nX-Forwarded-Host: a b\r\nX-Forwarded-Port: x\r\n"
        )
        assert nonsense["x-forwarded-proto"] == ["http"]
        assert nonsense["x-forwarded-host"] == ["app.example"]
        assert nonsense["x-forwarded-port"] == ["80"]


def test_headers_of_one_name_keep_their_order(echo: Proxied) -> None:
    assert seen(echo.port, b"X-A: 1\r\nX-B: 0\r\nX-A: 2\r\nX-A: 3\r\n")["x-a"] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "target", ["/echo/a%2Fb%20c?x=%00&y=a+b", "/echo//a/./b/../c", "/echo/%7euser;p=1?", "/echo?a?b&&"]
)
def test_target_is_forwarded_byte_for_byte(echo: Proxied, target: str) -> None:
    response = json.loads(fetch(echo.port, target)[2])
    assert response["target"].rstrip("?") == target.rstrip("?")


def test_client_of_http_1_0_is_served_and_its_connection_closed(echo: Proxied) -> None:
    with Client(echo.port) as client:
        client.send(b"GET /echo HTTP/1.0\r\n\r\n")
        response = client.rest()
        assert response.startswith(b"HTTP/1.1 200")
        assert f'["host", "127.0.0.1:{echo.pool.upstream.origins[0].port}"]'.encode() in response


def test_pipelined_requests_get_responses_in_order(echo: Proxied) -> None:
    with Client(echo.port) as client:
        client.send(b"".join(b"GET /echo?%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(20)))
        for number in range(20):
            assert json.loads(client.response().body)["target"] == f"/echo?{number}"


def test_expect_100_continue_gets_100_and_is_not_forwarded(echo: Proxied) -> None:
    with Client(echo.port) as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        response = json.loads(client.response().body)
        assert response["body"] == "hello"
        assert "expect" not in dict(response["headers"])


def test_expect_100_continue_with_the_upstream_down_gets_502_first() -> None:
    with RawUpstream(lambda caller: None) as gone:
        origin = gone.origin
    with proxied(origin) as proxy, Client(proxy.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.until(b"\r\n").startswith(b"HTTP/1.1 502")


def test_informational_responses_are_not_taken_for_the_final_one() -> None:
    def respond(caller: Caller) -> None:
        caller.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        caller.respond(b"final")

    with RawUpstream(forever(respond)) as upstream, proxied(upstream.origin) as proxy:
        for _ in range(3):
            status, headers, body = fetch(proxy.port)
            assert (status, body) == (200, b"final")
            assert "link" not in headers
        assert upstream.connections == 1


BODILESS = {
    "head_with_length": (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 200),
    "head_chunked": (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
    "head_without_framing": (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n", 200),
    "304_with_length": (b"GET", b'HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: "a"\r\n\r\n', 304),
    "204": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    "204_with_length_0": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204),
    "200_with_length_0": (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
}


@pytest.mark.parametrize(("method", "response", "status"), BODILESS.values(), ids=BODILESS.keys())
def test_responses_without_a_body_keep_the_clients_connection(method: bytes, response: bytes, status: int) -> None:
    with (
        RawUpstream(forever(lambda caller: caller.send(response))) as upstream,
        proxied(upstream.origin) as proxy,
        Client(proxy.port) as client,
    ):
        for _ in range(3):
            client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
            head = client.until(b"\r\n\r\n")
            assert int(head.split()[1]) == status
            assert (b"content-length: 1000" in head) == (b"1000" in response and method == b"HEAD")


def test_hop_by_hop_fields_of_the_response_are_removed() -> None:
    def respond(caller: Caller) -> None:
        caller.respond(
            b"ok",
            b"Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nProxy-Authenticate: Basic\r\n"
            b"Upgrade: h2c\r\nTrailer: X-T\r\nX-Stay: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n",
        )

    with RawUpstream(forever(respond)) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        found = client.response()
        assert found.names() == {b"content-length", b"x-stay", b"set-cookie", b"via"}
        assert [value for name, value in found.headers if name == b"set-cookie"] == [b"a=1", b"b=2"]


def test_response_trailers_are_dropped_if_the_server_cannot_send_them() -> None:
    def respond(caller: Caller) -> None:
        caller.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n"
            b"Set-Cookie: evil=1\r\n\r\n"
        )

    with RawUpstream(forever(respond)) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.response().body == b"ok"
        assert b"X-T" not in client.buffer
        until(lambda: upstream.connections == 1)


async def test_response_trailers_reach_a_server_that_can_send_them() -> None:
    from akoya_gateway.config.model import Upstream
    from akoya_gateway.upstream.http.connection_pool import ConnectionPool
    from akoya_gateway.upstream.reverse_proxy import ReverseProxy

    def respond(caller: Caller) -> None:
        caller.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n"
            b"Set-Cookie: evil=1\r\nContent-Type: text/html\r\n\r\n"
        )

    events = []

    async def receive():  # type: ignore[no-untyped-def]
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):  # type: ignore[no-untyped-def]
        events.append(message)

    with RawUpstream(forever(respond)) as upstream:
        pool = ConnectionPool(Upstream((upstream.origin,)))
        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "https",
            "http_version": "1.1",
            "raw_path": b"/",
            "query_string": b"",
            "headers": [(b"host", b"a"), (b"te", b"trailers")],
            "client": ("::1", 1),
            "extensions": {"http.response.trailers": {}},
        }
        await ReverseProxy(pool)(scope, receive, send)
        await pool.close()
        assert b"\r\nte: trailers\r\n" in upstream.heads[0]
        assert b'for="[::1]"' in upstream.heads[0]
    assert events[0]["trailers"] is True
    assert events[-1] == {"type": "http.response.trailers", "headers": [(b"x-t", b"1")], "more_trailers": False}
