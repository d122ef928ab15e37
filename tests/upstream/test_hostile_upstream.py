"""Tests of upstreams that send ambiguous responses, or fail in every phase of a response."""

from __future__ import annotations

import threading
import time

import pytest

from tests.upstream.harness import Caller, Client, RawUpstream, ask, eventually, fixed, forever, proxied

OK = b"HTTP/1.1 200 OK\r\n"

REFUSED = {
    "two_different_content_lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two_equal_content_lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a_list_of_content_lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "content_length_with_transfer_encoding": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer_encoding_with_content_length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a_signed_content_length": OK + b"Content-Length: +5\r\n\r\nhello",
    "a_negative_content_length": OK + b"Content-Length: -5\r\n\r\nhello",
    "a_hexadecimal_content_length": OK + b"Content-Length: 0x5\r\n\r\nhello",
    "a_content_length_beyond_64_bits": OK + b"Content-Length: 99999999999999999999\r\n\r\nhello",
    "an_empty_content_length": OK + b"Content-Length: \r\n\r\nhello",
    "a_content_length_with_a_blank_inside": OK + b"Content-Length: 5 5\r\n\r\nhello",
    "an_unknown_transfer_encoding": OK + b"Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "gzip_then_chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked_twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked_then_identity": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked_in_http_1_0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "obs_fold": OK + b"X-A: one\r\n two\r\nContent-Length: 2\r\n\r\nok",
    "obs_fold_in_content_length": OK + b"Content-Length:\r\n 2\r\n\r\nok",
    "a_space_before_the_colon": OK + b"Content-Length : 2\r\n\r\nok",
    "a_header_without_colon": OK + b"nonsense\r\nContent-Length: 2\r\n\r\nok",
    "an_empty_header_name": OK + b": x\r\nContent-Length: 2\r\n\r\nok",
    "a_bare_carriage_return_in_a_value": OK + b"X-A: one\rSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok",
    "a_bare_line_feed_after_a_value": OK + b"X-A: one\nContent-Length: 2\r\n\r\nok",
    "bare_line_feeds_throughout": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "nul_in_a_value": OK + b"X-A: o\0ne\r\nContent-Length: 2\r\n\r\nok",
    "nul_in_a_name": OK + b"X-\0A: one\r\nContent-Length: 2\r\n\r\nok",
    "a_control_character_in_a_value": OK + b"X-A: o\x01ne\r\nContent-Length: 2\r\n\r\nok",
    "delete_in_a_value": OK + b"X-A: o\x7fne\r\nContent-Length: 2\r\n\r\nok",
    "http_0_9": b"hello world, this is not HTTP at all\r\n\r\n",
    "http_2_status_line": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "an_http_2_preface": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00d",
    "status_099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "status_600": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
    "status_9999": b"HTTP/1.1 9999 OK\r\nContent-Length: 2\r\n\r\nok",
    "unasked_101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "bare_101": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "informational_with_a_body": b"HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\nhello" + OK + b"\r\n",
    "informational_without_end": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40 + OK + b"Content-Length: 2\r\n\r\nok",
    "too_many_headers": OK + b"".join(b"X-%d: a\r\n" % n for n in range(300)) + b"Content-Length: 2\r\n\r\nok",
    "too_large_a_header": OK + b"X-A: " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "an_endless_header_line": OK + b"X-A: " + b"a" * 400_000,
    "an_endless_header_name": OK + b"X" * 400_000,
    "an_endless_reason_phrase": b"HTTP/1.1 200 " + b"O" * 400_000,
}

CUT = {
    "a_chunk_size_that_is_no_number": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nok\r\n0\r\n\r\n",
    "a_negative_chunk_size": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n-1\r\n\r\n",
    "a_chunk_size_beyond_64_bits": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nfffffffffffffffff\r\n",
    "a_chunk_longer_than_it_says": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\r\nokay\r\n0\r\n\r\n",
    "a_chunk_that_ends_in_a_bare_line_feed": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\r\nok\n0\r\n\r\n",
    "a_chunk_size_that_ends_in_a_bare_line_feed": OK
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\nok\r\n0\r\n\r\n",
    "a_blank_before_a_chunk_size_ends": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2 \r\nok\r\n0\r\n\r\n",
    "an_endless_chunk_extension": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2;a=" + b"a" * 400_000,
    "an_endless_trailer": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: " + b"a" * 400_000,
    "a_bad_trailer": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A : a\r\n\r\n",
}


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
        status, headers, body = ask(proxy.port)
        assert status == 502, body
        assert headers["content-type"] == "application/problem+json"
        assert b"upstream-invalid-response" in body
        assert eventually(lambda: closed == [True])
        assert proxy.pool.size == 0


@pytest.mark.parametrize("response", CUT.values(), ids=CUT.keys())
def test_the_client_is_cut_and_never_gets_a_complete_looking_answer(response: bytes) -> None:
    with (
        RawUpstream(fixed(response)) as upstream,
        proxied(upstream.origin, read=1) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = client.rest()
        assert b" 502 " in answer or not answer.endswith(b"0\r\n\r\n")
        assert eventually(lambda: proxy.pool.size == 0)


ENDLESS = {
    "chunk_extension": (b"2;a=", b"a" * 65_536),
    "trailer": (b"0\r\nX-A: ", b"a" * 65_536),
    "trailers": (b"0\r\n", b"X-A: a\r\n" * 8192),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS.keys())
def test_what_never_ends_and_brings_no_content_is_cut_soon(begin: bytes, more: bytes) -> None:
    """The response is aborted without a timeout, because bytes keep arriving."""
    pieces = []

    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + begin)
        while len(pieces) < 1000:
            pieces.append(more)
            caller.send(more)

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not client.rest().endswith(b"0\r\n\r\n")
        assert eventually(lambda: proxy.pool.size == 0)
    # The upstream can send more than the gateway reads, because the kernel buffers some of it.
    assert len(pieces) < 200


BEHIND = {
    "a_second_response": OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 4\r\n\r\nevil",
    "a_second_response_behind_chunks": OK
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    + OK
    + b"Content-Length: 4\r\n\r\nevil",
    "junk": OK + b"Content-Length: 2\r\n\r\nokjunk",
    "half_a_response": OK + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 O",
    "a_response_behind_one_that_closes": OK
    + b"Content-Length: 2\r\nConnection: close\r\n\r\nok"
    + OK
    + b"Content-Length: 4\r\n\r\nevil",
}


@pytest.mark.parametrize("response", BEHIND.values(), ids=BEHIND.keys())
def test_what_comes_behind_an_answer_never_becomes_the_next_answer(response: bytes) -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        if caller.number == 1:
            caller.send(response)
        else:
            caller.answer(b"second")
        caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().body == b"ok"
        client.send(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().body == b"second"
        assert upstream.connections == 2


def test_a_response_that_comes_unasked_on_an_idle_connection_poisons_nobody() -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        caller.answer(b"first")
        if caller.number == 1:
            time.sleep(0.2)
            caller.send(OK + b"Content-Length: 4\r\n\r\nevil")
            caller.closed_by_peer()
        else:
            caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        assert ask(proxy.port)[2] == b"first"
        assert eventually(lambda: proxy.pool.size == 0)
        assert ask(proxy.port)[2] == b"first"
        assert upstream.connections == 2


@pytest.mark.parametrize(
    "extra",
    [b"hello", b"\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"5"],
    ids=["body", "blank", "chunks", "half_a_chunk_size"],
)
@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X-None: 1"])
def test_an_answer_to_head_that_brings_a_body_costs_the_connection(extra: bytes, framing: bytes) -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        if caller.number == 1:
            caller.send(OK + framing + b"\r\n\r\n" + extra)
        else:
            caller.answer(b"second")
        caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        status, _, body = ask(proxy.port, method="HEAD")
        assert (status, body) == (200, b"")
        assert ask(proxy.port)[2] == b"second"
        assert upstream.connections == 2


def test_a_body_that_follows_an_answer_to_head_never_becomes_the_next_answer() -> None:
    """The body is an attacker's upload that looks like a response. It arrives after the next request was sent."""

    def handler(caller: Caller) -> None:
        while True:
            if caller.head().startswith(b"HEAD"):
                caller.send(OK + b"Content-Length: %d\r\n\r\n" % len(evil))
                time.sleep(0.01)
                caller.send(evil)
            else:
                caller.answer(b"right")

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
def test_an_upstream_that_dies_before_its_answer_is_502(sent: bytes, reset: bool, method: str) -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(sent)
        if reset:
            time.sleep(0.05)
            caller.reset()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        status, _, body = ask(proxy.port, method=method)
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
def test_an_upstream_that_dies_inside_its_answer_cuts_the_client(sent: bytes) -> None:
    with (
        RawUpstream(fixed(sent, hold=False)) as upstream,
        proxied(upstream.origin) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = client.rest()
        assert not answer.endswith(b"0\r\n\r\n")
        assert b"502" in answer or b"content-length: 100" in answer or b"chunked" in answer


def test_a_reset_inside_a_body_that_ends_with_the_connection_cuts_the_client() -> None:
    read = threading.Event()

    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(OK + b"\r\nhello")
        read.wait(10)
        caller.reset()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.until(b"hello")
        read.set()
        assert not client.rest().endswith(b"0\r\n\r\n")


def test_an_upstream_that_is_not_there_is_502() -> None:
    with RawUpstream(fixed(b"")) as upstream:
        origin = upstream.origin
    with proxied(origin) as proxy:
        status, _, body = ask(proxy.port)
        assert status == 502
        assert b"upstream-unreachable" in body


def test_an_upstream_that_never_answers_is_504() -> None:
    with RawUpstream(fixed(b"")) as upstream, proxied(upstream.origin, read=0.3) as proxy:
        status, _, body = ask(proxy.port)
        assert status == 504
        assert b"upstream-timeout" in body
        assert proxy.pool.size == 0


def test_an_upstream_that_stops_inside_its_answer_cuts_the_client() -> None:
    response = OK + b"Content-Length: 100\r\n\r\nhello"
    with (
        RawUpstream(fixed(response)) as upstream,
        proxied(upstream.origin, read=1) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.rest().endswith(b"hello")


def test_the_answer_to_an_early_closed_keep_alive_connection_is_not_lost() -> None:
    """`Connection: close` is honoured, and the next request gets a new connection."""

    def answer(caller: Caller) -> None:
        caller.answer(b"%d" % caller.number, b"Connection: close\r\n")

    with RawUpstream(forever(answer)) as upstream, proxied(upstream.origin) as proxy:
        assert [ask(proxy.port)[2] for _ in range(3)] == [b"1", b"2", b"3"]
        assert upstream.connections == 3
