"""Tests of upstreams that send ambiguous responses, or fail in every phase of a response."""

from __future__ import annotations

import threading
import time

import pytest

from tests.support.hostile_responses import BEHIND, CUT, OK, REFUSED
from tests.support.raw_http import Caller, Client, RawUpstream, fetch, fixed, forever, proxied
from tests.support.waiting import until


@pytest.mark.parametrize("response", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_with_502_and_the_connection_is_closed(response: bytes) -> None:
    closed: list[bool] = []

    def handler(caller: Caller) -> None:
        caller.head()
        try:
            caller.send(response)
        finally:
            closed.append(caller.closed_by_peer(3))

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        status, headers, body = fetch(proxy.port)
        assert status == 502, body
        assert headers["content-type"] == "application/problem+json"
        assert b"upstream-invalid-response" in body
        until(lambda: closed == [True])
        assert proxy.pool.size == 0


@pytest.mark.parametrize("response", CUT.values(), ids=CUT.keys())
def test_client_connection_is_aborted_so_that_no_response_looks_complete(response: bytes) -> None:
    with (
        RawUpstream(fixed(response)) as upstream,
        proxied(upstream.origin, read=1) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        reply = client.rest()
        assert b" 502 " in reply or not reply.endswith(b"0\r\n\r\n")
        until(lambda: proxy.pool.size == 0)


ENDLESS = {
    "chunk_extension": (b"2;a=", b"a" * 65_536),
    "trailer": (b"0\r\nX-A: ", b"a" * 65_536),
    "trailers": (b"0\r\n", b"X-A: a\r\n" * 8192),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS.keys())
def test_endless_response_without_content_is_cut(begin: bytes, more: bytes) -> None:
    """The response is aborted without a timeout, because bytes keep arriving."""
    pieces: list[bytes] = []

    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + begin)
        while len(pieces) < 1000:
            pieces.append(more)
            caller.send(more)

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not client.rest().endswith(b"0\r\n\r\n")
        until(lambda: proxy.pool.size == 0)
    # The upstream can send more than the gateway reads, because the kernel buffers some of it.
    assert len(pieces) < 200


@pytest.mark.parametrize("response", BEHIND.values(), ids=BEHIND.keys())
def test_bytes_after_a_response_never_become_the_next_response(response: bytes) -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        if caller.number == 1:
            caller.send(response)
        else:
            caller.respond(b"second")
        caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().body == b"ok"
        client.send(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().body == b"second"
        assert upstream.connections == 2


def test_unsolicited_response_on_an_idle_connection_reaches_no_request() -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        caller.respond(b"first")
        if caller.number == 1:
            time.sleep(0.2)
            caller.send(OK + b"Content-Length: 4\r\n\r\nevil")
            caller.closed_by_peer()
        else:
            caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        assert fetch(proxy.port)[2] == b"first"
        until(lambda: proxy.pool.size == 0)
        assert fetch(proxy.port)[2] == b"first"
        assert upstream.connections == 2


@pytest.mark.parametrize(
    "extra",
    [b"hello", b"\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"5"],
    ids=["body", "blank", "chunks", "half_a_chunk_size"],
)
@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X-None: 1"])
def test_head_response_with_a_body_closes_the_connection(extra: bytes, framing: bytes) -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        if caller.number == 1:
            caller.send(OK + framing + b"\r\n\r\n" + extra)
        else:
            caller.respond(b"second")
        caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        status, _, body = fetch(proxy.port, method="HEAD")
        assert (status, body) == (200, b"")
        assert fetch(proxy.port)[2] == b"second"
        assert upstream.connections == 2


def test_head_response_with_a_body_is_never_taken_for_the_next_response() -> None:
    """The body is an attacker's upload that looks like a response. It arrives after the next request was sent."""

    def handler(caller: Caller) -> None:
        while True:
            if caller.head().startswith(b"HEAD"):
                caller.send(OK + b"Content-Length: %d\r\n\r\n" % len(evil))
                time.sleep(0.01)
                caller.send(evil)
            else:
                caller.respond(b"right")

    evil = OK + b"Content-Length: 4\r\n\r\nevil"
    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        for _ in range(3):
            client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.until(b"\r\n\r\n")
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.response().body == b"right"
        time.sleep(0.1)
        assert proxy.pool.size == proxy.pool.idle


PHASES = {
    "before_a_byte": b"",
    "inside_the_status_line": b"HTTP/1.1 2",
    "inside_the_headers": OK + b"Content-Le",
    "behind_an_informational_response": b"HTTP/1.1 103 Early Hints\r\n\r\n",
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("sent", PHASES.values(), ids=PHASES.keys())
def test_upstream_closed_before_its_response_is_502(sent: bytes, reset: bool, method: str) -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(sent)
        if reset:
            time.sleep(0.05)
            caller.reset()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        status, _, body = fetch(proxy.port, method=method)
        assert status == 502
        assert b"upstream-closed" in body
        assert upstream.connections == 1


BODIES = {
    "in_a_body_of_known_length": OK + b"Content-Length: 100\r\n\r\nhello",
    "with_no_byte_of_a_body_of_known_length": OK + b"Content-Length: 100\r\n\r\n",
    "in_a_chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n64\r\nhello",
    "between_chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "before_the_last_line_of_the_last_chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
}


@pytest.mark.parametrize("sent", BODIES.values(), ids=BODIES.keys())
def test_upstream_closed_within_its_response_aborts_the_client_connection(sent: bytes) -> None:
    with (
        RawUpstream(fixed(sent, hold=False)) as upstream,
        proxied(upstream.origin) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        response = client.rest()
        assert not response.endswith(b"0\r\n\r\n")
        assert b"502" in response or b"content-length: 100" in response or b"chunked" in response


def test_reset_inside_a_body_that_ends_with_the_connection_cuts_the_client() -> None:
    read = threading.Event()

    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(OK + b"\r\nhello")
        read.wait(60)
        caller.reset()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.until(b"hello")
        read.set()
        assert not client.rest().endswith(b"0\r\n\r\n")


def test_upstream_that_is_not_there_is_502() -> None:
    with RawUpstream(fixed(b"")) as upstream:
        origin = upstream.origin
    with proxied(origin) as proxy:
        status, _, body = fetch(proxy.port)
        assert status == 502
        assert b"upstream-unreachable" in body


def test_silent_upstream_is_504() -> None:
    with RawUpstream(fixed(b"")) as upstream, proxied(upstream.origin, read=0.3) as proxy:
        status, _, body = fetch(proxy.port)
        assert status == 504
        assert b"upstream-timeout" in body
        assert proxy.pool.size == 0


def test_upstream_that_stalls_within_its_response_aborts_the_client_connection() -> None:
    response = OK + b"Content-Length: 100\r\n\r\nhello"
    with (
        RawUpstream(fixed(response)) as upstream,
        proxied(upstream.origin, read=1) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.rest().endswith(b"hello")


def test_response_on_a_keep_alive_connection_closed_early_is_not_lost() -> None:
    """`Connection: close` is honoured, and the next request gets a new connection."""

    def respond(caller: Caller) -> None:
        caller.respond(b"%d" % caller.number, b"Connection: close\r\n")

    with RawUpstream(forever(respond)) as upstream, proxied(upstream.origin) as proxy:
        assert [fetch(proxy.port)[2] for _ in range(3)] == [b"1", b"2", b"3"]
        assert upstream.connections == 3
