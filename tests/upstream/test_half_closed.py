"""Tests of a peer that closes its sending side (FIN) and still reads."""

from __future__ import annotations

import socket

import pytest

from tests.support.raw_http import Caller, Client, RawUpstream, fetch, proxied
from tests.support.waiting import until

OK = b"HTTP/1.1 200 OK\r\n"


def send_no_more(side: Caller | Client) -> None:
    side.sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    "response",
    [
        OK + b"Content-Length: 2\r\n\r\nok",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"\r\nok",
    ],
    ids=["length", "chunked", "until_close"],
)
def test_half_closed_upstream_gets_no_further_request(response: bytes) -> None:
    closed = []

    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(response)
        send_no_more(caller)
        closed.append(caller.closed_by_peer())

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        assert fetch(proxy.port)[::2] == (200, b"ok")
        until(lambda: proxy.pool.size == 0 and closed == [True])
        assert fetch(proxy.port)[::2] == (200, b"ok")
        assert upstream.connections == 2


def test_half_closed_upstream_that_refuses_an_upload_is_reported_to_the_client() -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 8\r\n\r\ntoo much")
        send_no_more(caller)
        caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhello")
        response = client.response()
        assert (response.status, response.body) == (413, b"too much")
        until(lambda: proxy.pool.size == 0)


def test_upstream_that_cannot_respond_is_502_at_once() -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        send_no_more(caller)
        caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin, read=30) as proxy:
        assert fetch(proxy.port, method="POST", body=b"x")[0] == 502


def test_truncated_response_is_never_completed_with_other_data() -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        send_no_more(caller)
        caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin, read=30) as proxy, Client(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        response = client.rest()
        assert response.startswith(OK)
        assert not response.endswith(b"0\r\n\r\n")


def test_client_that_will_send_no_more_has_left() -> None:
    """nginx and Envoy do the same: until the gateway writes, it cannot tell a client that still reads from a closed one."""
    left = []

    def handler(caller: Caller) -> None:
        caller.head()
        left.append(caller.closed_by_peer())

    with RawUpstream(handler) as upstream, proxied(upstream.origin, read=30) as proxy, Client(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: upstream.heads != [])
        send_no_more(client)
        until(lambda: left == [True])
        assert client.rest() == b""
