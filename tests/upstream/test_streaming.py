"""Tests of bodies in both directions: complete, bounded in memory, flushed at once, and aborted when a side disconnects."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import threading
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest
from starlette.types import Message, Send

from akoya_gateway.upstream.client_send import ClientSend
from tests.support.processes import AppServer
from tests.support.raw_http import BARE, Caller, Client, Proxied, RawUpstream, fetch, proxied, standstill
from tests.support.waiting import until
from tests.upstream.apps import Backend

MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def backend() -> Iterator[tuple[Backend, AppServer]]:
    app = Backend()
    with AppServer(app, **BARE) as server:
        yield app, server


@pytest.fixture(scope="module")
def proxy(backend: tuple[Backend, AppServer]) -> Iterator[Proxied]:
    with proxied(origin_of(backend[1]), read=2) as proxy:
        yield proxy


def origin_of(server: AppServer):  # type: ignore[no-untyped-def]
    from akoya_gateway.config.model import Origin

    return Origin("http", "127.0.0.1", server.port)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_ten_megabytes_come_down_whole(proxy: Proxied, framing: str) -> None:
    size = 10 * MEGABYTE + 12345
    expected = (bytes(range(256)) * (size // 256 + 1))[:size]
    status, headers, body = fetch(proxy.port, f"/big/{framing}?{size}")
    assert status == 200
    assert ("content-length" in headers) == (framing == "length")
    assert hashlib.sha256(body).digest() == hashlib.sha256(expected).digest()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_ten_megabytes_go_up_whole(proxy: Proxied, framing: str) -> None:
    body = os.urandom(10 * MEGABYTE + 12345)
    sent = body if framing == "length" else iter([body[at : at + 70_000] for at in range(0, len(body), 70_000)])
    status, _, response = fetch(proxy.port, "/digest", method="POST", body=sent)
    assert status == 200
    assert response.decode() == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65_535, 65_536, 65_537, 300_000])
def test_bodies_of_awkward_sizes_are_whole(proxy: Proxied, size: int) -> None:
    body = os.urandom(size)
    for sent in (body, iter([body[:1000], body[1000:]] if size else [])):
        response = fetch(proxy.port, "/digest", method="PUT", body=sent)[2]
        assert response.decode() == hashlib.sha256(body).hexdigest()
    assert len(fetch(proxy.port, f"/big/length?{size}")[2]) == size
    assert len(fetch(proxy.port, f"/big/chunked?{size}")[2]) == size


def test_thousand_requests_on_one_connection_use_one_connection_to_the_upstream(
    backend: tuple[Backend, AppServer],
) -> None:
    app, server = backend
    with proxied(origin_of(server)) as proxy:
        app.clients.clear()
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
        for number in range(1000):
            connection.request("POST" if number % 7 == 0 else "GET", "/", body=b"x" if number % 7 == 0 else None)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"hello")
        connection.close()
        assert len(app.clients) == 1


def test_event_is_there_as_soon_as_it_is_sent(proxy: Proxied, backend: tuple[Backend, AppServer]) -> None:
    left = backend[0].left
    with Client(proxy.port) as client:
        client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        client.until(b"data: 0\n\n")
        client.until(b"data: 1\n\n")
    until(lambda: backend[0].left > left, "the upstream sees the client's disconnect")


def test_event_stream_outlives_the_read_timeout(backend: tuple[Backend, AppServer]) -> None:
    with proxied(origin_of(backend[1]), read=0.6) as proxy, Client(proxy.port) as client:
        client.send(b"GET /events?1.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.until(b"data: 1\n\n")


def test_client_disconnect_before_the_response_reaches_the_upstream(
    proxy: Proxied, backend: tuple[Backend, AppServer]
) -> None:
    hung, left = backend[0].hung, backend[0].left
    with Client(proxy.port) as client:
        client.send(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: backend[0].hung > hung)
    until(lambda: backend[0].left > left)


def test_client_that_leaves_in_the_middle_of_its_upload_is_noticed_by_the_upstream(
    proxy: Proxied, backend: tuple[Backend, AppServer]
) -> None:
    left = backend[0].left
    with Client(proxy.port) as client:
        client.send(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello")
        until(lambda: backend[0].received == 5)
    until(lambda: backend[0].left > left)


def test_slow_reader_does_not_make_the_proxy_hold_the_body(proxy: Proxied, backend: tuple[Backend, AppServer]) -> None:
    app = backend[0]
    before = resident()
    with Client(proxy.port) as client:
        client.send(b"GET /big/length?%d HTTP/1.1\r\nHost: a\r\n\r\n" % (200 * MEGABYTE))
        client.until(b"\r\n\r\n")
        held = standstill(lambda: app.sent)
        assert held < 40 * MEGABYTE, "the proxy accepted far more than the client read"
        assert resident() - before < 40 * MEGABYTE
        # The transfer continues where it stopped.
        total = len(client.buffer)
        while total < 60 * MEGABYTE:
            total += len(client.sock.recv(MEGABYTE))
        assert app.sent > held


def test_slow_upstream_does_not_make_the_proxy_hold_the_upload(backend: tuple[Backend, AppServer]) -> None:
    sent = 0
    before = resident()
    with proxied(origin_of(backend[1]), read=60) as proxy, Client(proxy.port, timeout=1) as client:
        client.send(b"POST /slow_read HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (200 * MEGABYTE))
        block = b"x" * 65536
        try:
            while sent < 200 * MEGABYTE:
                sent += client.sock.send(block)
        except TimeoutError:
            pass
        assert sent < 40 * MEGABYTE
        assert resident() - before < 40 * MEGABYTE


def test_upstream_that_takes_no_bytes_is_504_and_not_forever() -> None:
    gate = threading.Event()

    def handler(caller: Caller) -> None:
        caller.head()
        gate.wait(60)

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.origin, read=30, timeouts={"write_timeout": 0.4}) as proxy,
        Client(proxy.port) as client,
    ):
        client.sock.settimeout(0.2)
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (100 * MEGABYTE))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (proxy.pool.size != 0 or not upstream.heads):
            with contextlib.suppress(OSError):
                client.sock.send(b"x" * 65536)
        assert proxy.pool.size == 0
        client.sock.settimeout(60)
        assert client.until(b"\r\n").startswith(b"HTTP/1.1 504")
        gate.set()


def test_early_response_reaches_a_client_that_is_still_sending() -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\n\r\ntoo much")
        caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhello")
        response = client.response()
        assert (response.status, response.body) == (413, b"too much")
        # That connection still expects 995 bytes, so it must not be reused.
        until(lambda: proxy.pool.size == 0)
        assert fetch(proxy.port)[0] == 413
        assert upstream.connections == 2


def test_chunked_upload_is_passed_on_piece_by_piece() -> None:
    """The upstream responds to each piece before the client sends the next."""

    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(caller.until(b"\r\n"), 16):
            piece = caller.exactly(size + 2)[:-2]
            caller.send(b"%x\r\n%b\r\n" % (size, piece.upper()))
        caller.until(b"\r\n")
        caller.send(b"0\r\n\r\n")
        caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy, Client(proxy.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.until(b"\r\n\r\n")
        client.send(b"3\r\none\r\n")
        client.until(b"ONE")
        client.send(b"3\r\ntwo\r\n")
        client.until(b"TWO")
        client.send(b"0\r\n\r\n")
        client.until(b"0\r\n\r\n")
        assert b"transfer-encoding: chunked" in upstream.heads[0].lower()
        assert b"content-length" not in upstream.heads[0].lower()
        until(lambda: proxy.pool.idle == 1)


def test_stream_cancelled_from_outside_ends(backend: tuple[Backend, AppServer]) -> None:
    class Cancellable(ClientSend):
        def __init__(self, send: Send) -> None:
            self._send = send

        def __call__(self, message: Message) -> Awaitable[None]:
            return self._send(message)

    sends: list[Cancellable] = []
    left = backend[0].left

    def wrap(app):  # type: ignore[no-untyped-def]
        async def wrapped(scope, receive, send):  # type: ignore[no-untyped-def]
            if scope["type"] == "http":
                sends.append(Cancellable(send))
                await app.proxy(scope, receive, sends[-1])
            else:
                await app(scope, receive, send)

        return wrapped

    with proxied(origin_of(backend[1]), wrap=wrap) as proxy, Client(proxy.port) as client:
        client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        client.until(b"data: 0\n\n")
        loop = proxy.pool._loop
        assert loop is not None
        loop.call_soon_threadsafe(sends[0].cancel)
        assert not client.rest().endswith(b"0\r\n\r\n")
        until(lambda: backend[0].left > left)


def test_client_that_stops_in_its_upload_does_not_hold_a_connection_for_ever(
    backend: tuple[Backend, AppServer],
) -> None:
    with proxied(origin_of(backend[1]), read=0.8, pool=1) as proxy, Client(proxy.port) as client:
        client.send(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello")
        response = client.response()
        assert response.status == 408
        assert b"body-timeout" in response.body
        assert client.closed()
        assert fetch(proxy.port)[0] == 200


def test_event_streams_leave_the_pool_to_other_requests(backend: tuple[Backend, AppServer]) -> None:
    with proxied(origin_of(backend[1]), pool=2) as proxy, contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(Client(proxy.port))
            client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            client.until(b"data: 0\n\n")
        assert fetch(proxy.port)[0] == 200
        assert proxy.pool.size <= 2
        stack.close()
        until(lambda: len(proxy.pool._connections) <= 2)
