"""Tests of when an upstream connection may be reused, and of what happens to unsolicited bytes on it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from akoya_gateway.config.model import Seconds, Upstream, UpstreamTLS
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.http.response_head import validate_head
from akoya_gateway.upstream.http.response_stream import ResponseStream
from tests.support.certificates import Authority, server_context
from tests.support.connection_in_memory import new_connection
from tests.support.raw_http import Caller, Client, RawUpstream, fetch, forever, proxied
from tests.support.waiting import until

CLEAN = {
    "204": (b"GET", b"204 No Content", b""),
    "204 of length 0": (b"GET", b"204 No Content", b"Content-Length: 0\r\n"),
    "204 of length 00": (b"GET", b"204 No Content", b"Content-Length: 00\r\n"),
    "204 with a cookie": (b"GET", b"204 No Content", b"Set-Cookie: a=b\r\nContent-Language: de\r\n"),
    "304": (b"GET", b"304 Not Modified", b'ETag: "a"\r\nCache-Control: no-cache\r\n'),
    "304 to a POST": (b"POST", b"304 Not Modified", b""),
    "200 of length 0": (b"GET", b"200 OK", b"Content-Type: text/plain\r\nContent-Length: 0\r\n"),
    "205 of length 0": (b"GET", b"205 Reset Content", b"Content-Length: 0\r\n"),
}
DOUBTFUL = {
    "HEAD": (b"HEAD", b"200 OK", b""),
    "HEAD with a length": (b"HEAD", b"200 OK", b"Content-Length: 1000\r\n"),
    "HEAD of length 0": (b"HEAD", b"200 OK", b"Content-Length: 0\r\n"),
    "HEAD with chunks": (b"HEAD", b"200 OK", b"Transfer-Encoding: chunked\r\n"),
    "HEAD with 204": (b"HEAD", b"204 No Content", b""),
    "HEAD with 304": (b"HEAD", b"304 Not Modified", b'ETag: "a"\r\n'),
    "HEAD with 404": (b"HEAD", b"404 Not Found", b"Content-Type: text/html\r\n"),
    "204 with a type": (b"GET", b"204 No Content", b"Content-Type: text/html\r\n"),
    "204 with a type and length 0": (b"GET", b"204 No Content", b"Content-Type: text/html\r\nContent-Length: 0\r\n"),
    "204 with a length": (b"DELETE", b"204 No Content", b"Content-Length: 5\r\n"),
    "204 with chunks": (b"GET", b"204 No Content", b"Transfer-Encoding: chunked\r\n"),
    "204 with an encoding": (b"GET", b"204 No Content", b"Content-Encoding: gzip\r\n"),
    "304 with a type": (b"GET", b"304 Not Modified", b"CONTENT-TYPE: text/html\r\n"),
    "304 with a length": (b"GET", b"304 Not Modified", b'Content-Length: 1000\r\nETag: "a"\r\n'),
    "304 with chunks": (b"GET", b"304 Not Modified", b"Transfer-Encoding: chunked\r\n"),
    "304 with a range": (b"GET", b"304 Not Modified", b"Content-Range: bytes 0-4/9\r\n"),
    "304 to a POST": (b"POST", b"304 Not Modified", b"Content-Type: a/b\r\n"),
    "204 that closes": (b"GET", b"204 No Content", b"Connection: close\r\n"),
}


def connections_for_three(method: bytes, response: bytes) -> int:
    """Send three requests one after the other and return how many connections the upstream accepted."""
    with (
        RawUpstream(forever(lambda caller: caller.send(response))) as upstream,
        proxied(upstream.origin) as proxy,
        Client(proxy.port) as client,
    ):
        for _ in range(3):
            client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.until(b"\r\n\r\n").split()[1] == response.split()[1]
            until(lambda: proxy.pool.size == proxy.pool.idle)
        return upstream.connections


@pytest.mark.parametrize(("method", "status", "lines"), CLEAN.values(), ids=CLEAN.keys())
def test_connection_after_a_response_whose_end_is_certain_is_reused(method: bytes, status: bytes, lines: bytes) -> None:
    assert connections_for_three(method, b"HTTP/1.1 %b\r\n%b\r\n" % (status, lines)) == 1


@pytest.mark.parametrize(("method", "status", "lines"), DOUBTFUL.values(), ids=DOUBTFUL.keys())
def test_connection_after_a_response_whose_end_is_in_doubt_is_closed(
    method: bytes, status: bytes, lines: bytes
) -> None:
    assert connections_for_three(method, b"HTTP/1.1 %b\r\n%b\r\n" % (status, lines)) == 3


@pytest.mark.parametrize("cases", [CLEAN, DOUBTFUL], ids=["clean", "doubtful"])
def test_validated_head_states_whether_the_connection_must_be_closed(
    cases: dict[str, tuple[bytes, bytes, bytes]],
) -> None:
    for method, status, lines in cases.values():
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines.split(b"\r\n") if line)]
        head = validate_head(int(status[:3]), "1.1", headers, head_only=method == b"HEAD")
        assert head.close is (cases is DOUBTFUL)


def test_head_request_is_sent_with_connection_close() -> None:
    with RawUpstream(forever(lambda caller: caller.respond(b""))) as upstream, proxied(upstream.origin) as proxy:
        fetch(proxy.port, method="HEAD")
        fetch(proxy.port)
        assert [b"\r\nconnection: close\r\n" in head for head in upstream.heads] == [True, False]


def test_keep_alive_false_opens_a_connection_for_each_request() -> None:
    with (
        RawUpstream(forever(lambda caller: caller.respond(b"%d" % caller.number))) as upstream,
        proxied(upstream.origin, keep_alive=False, pool=2) as proxy,
        Client(proxy.port) as client,
    ):
        for number in (b"1", b"2", b"3"):
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.response().body == number
        assert fetch(proxy.port, method="POST", body=b"x")[2] == b"4"
        assert all(head.count(b"\r\nconnection: close\r\n") == 1 for head in upstream.heads)
        until(lambda: proxy.pool.size == 0)


EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


class Strays:
    """An upstream that sends EVIL behind its first response once `now` is set. It then sets `sent`."""

    def __init__(
        self, *, first: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst", stray: bytes = EVIL
    ) -> None:
        self.first, self.stray = first, stray
        self.now, self.sent = threading.Event(), threading.Event()

    def __call__(self, caller: Caller) -> None:
        caller.head()
        if caller.number == 1:
            caller.send(self.first)
            self.now.wait(60)
            caller.send(self.stray)
            self.sent.set()
            caller.head()
            caller.respond(b"shifted")
        else:
            caller.respond(b"right")
        caller.closed_by_peer()

    def send(self) -> None:
        """Return once the bytes are in the other socket's buffer. The event loop does not run meanwhile."""
        self.now.set()
        assert self.sent.wait(60)
        time.sleep(0.02)


Transport = tuple[ssl.SSLContext | None, UpstreamTLS, str | None]
"""The upstream's TLS context, the gateway's TLS settings, and the path of the upstream's socket."""


@pytest.fixture(params=["plain", "tls", "unix"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Transport]:
    kind: str = request.param
    authority = Authority(tmp_path)
    context = server_context(authority) if kind == "tls" else None
    yield context, UpstreamTLS(ca=authority.file), str(tmp_path / "app.sock") if kind == "unix" else None


@contextlib.asynccontextmanager
async def pool_of(upstream: RawUpstream, tls: UpstreamTLS, size: int) -> AsyncIterator[ConnectionPool]:
    pool = ConnectionPool(Upstream((upstream.origin,), Seconds(5), Seconds(5), size, tls=tls))
    try:
        yield pool
    finally:
        await pool.close()


def request(connection: Connection) -> ResponseStream:
    stream = ResponseStream(asyncio.get_running_loop())
    stream.begin(connection, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    return stream


async def body(stream: ResponseStream) -> bytes:
    found = b""
    while not stream.ended:
        await stream.wait_readable()
        found += stream.read_buffered()
    return found + stream.read_buffered()


async def test_unread_bytes_close_an_idle_connection_before_it_is_handed_out(
    transport: Transport,
) -> None:
    context, tls, path = transport
    strays = Strays()
    with RawUpstream(strays, tls=context, path=path) as upstream:
        async with pool_of(upstream, tls, 5) as pool:
            assert await body(request(await pool.acquire())) == b"first"
            assert pool.idle == 1
            strays.send()
            assert pool.get_nowait() is None
            assert pool.size == 0
            assert await body(request(await pool.acquire())) == b"right"
            assert upstream.connections == 2


async def test_unread_bytes_close_a_connection_that_a_waiter_was_to_get(
    transport: Transport,
) -> None:
    """The bytes arrive right behind the response, before the waiter's task runs."""
    context, tls, path = transport
    strays = Strays()

    class Slow(ResponseStream):
        def on_end(self) -> None:
            super().on_end()
            strays.send()

    with RawUpstream(strays, tls=context, path=path) as upstream:
        async with pool_of(upstream, tls, 1) as pool:
            connection = await pool.acquire()
            waiter = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0)
            assert pool.waiting == 1
            first = Slow(asyncio.get_running_loop())
            first.begin(connection, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            second = await asyncio.wait_for(waiter, 60)
            assert first.ended
            assert second is not connection
            assert await body(request(second)) == b"right"
            assert pool.size == 1


async def test_unread_bytes_close_a_connection_that_was_handed_to_a_waiter(transport: Transport) -> None:
    """The bytes arrive after the waiter was given the connection and before its task runs."""
    context, tls, path = transport
    strays = Strays()
    with RawUpstream(strays, tls=context, path=path) as upstream:
        async with pool_of(upstream, tls, 1) as pool:
            connection = await pool.acquire()
            waiter = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0)
            handed = pool._waiters[0][1]
            serve = pool._serve_waiters

            def serve_and_send() -> None:
                serve()
                strays.send()

            pool._serve_waiters = serve_and_send  # type: ignore[method-assign]
            stream = request(connection)
            second = await asyncio.wait_for(waiter, 60)
            assert handed.result() is connection
            assert stream.ended
            assert second is not connection
            assert await body(request(second)) == b"right"
            assert pool.size == 1


async def test_waiter_does_not_get_a_connection_in_the_turn_in_which_its_response_ends() -> None:
    with RawUpstream(forever(lambda caller: caller.respond(b"%d" % caller.number))) as upstream:
        async with pool_of(upstream, UpstreamTLS(), 1) as pool:
            connection = await pool.acquire()
            waiter = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0)
            given: list[bool] = []

            class Looking(ResponseStream):
                def on_end(self) -> None:
                    super().on_end()
                    given.append(pool.waiting == 0)

            Looking(asyncio.get_running_loop()).begin(connection, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await asyncio.wait_for(waiter, 60) is connection
            assert given == [False]


async def test_waiters_of_a_retired_pool_are_served_and_nothing_is_kept() -> None:
    with RawUpstream(forever(lambda caller: caller.respond(b"%d" % caller.number))) as upstream:
        async with pool_of(upstream, UpstreamTLS(), 1) as pool:
            first = request(await pool.acquire())
            waiters = [asyncio.create_task(pool.acquire()) for _ in range(2)]
            await asyncio.sleep(0)
            pool.retire()
            assert await body(first) == b"1"
            for waiter in waiters:
                assert await body(request(await asyncio.wait_for(waiter, 60))) == b"1"
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert (pool.size, pool.idle, pool.waiting) == (0, 0, 0)


async def test_waiters_that_have_all_left_leave_the_connection_idle() -> None:
    with RawUpstream(forever(lambda caller: caller.respond(b"ok"))) as upstream:
        async with pool_of(upstream, UpstreamTLS(), 1) as pool:
            connection = await pool.acquire()
            waiter = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0)

            class Leaving(ResponseStream):
                """Cancels the waiter in the loop iteration that ends the response, before the connection is handed out."""

                def on_end(self) -> None:
                    super().on_end()
                    waiter.cancel()

            first = Leaving(asyncio.get_running_loop())
            first.begin(connection, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await body(first) == b"ok"
            await asyncio.gather(waiter, return_exceptions=True)
            await asyncio.sleep(0)
            assert (pool.size, pool.idle, pool.waiting) == (1, 1, 0)
            assert pool.get_nowait() is not None


async def test_response_before_the_first_request_is_refused(transport: Transport) -> None:
    """Otherwise an upstream that starts with a response would be one response ahead from then on."""
    context, tls, path = transport
    seen: list[bytes] = []

    def greeting(caller: Caller) -> None:
        caller.send(EVIL)
        seen.append(caller.head())
        caller.respond(b"right")

    with RawUpstream(greeting, tls=context, path=path) as upstream, proxied(upstream.origin, tls=tls) as proxy:
        for _ in range(3):
            status, _, response = fetch(proxy.port)
            # A response that arrives before the request was sent is detected. A later one is taken for the response to it.
            assert (status, response) in [(200, b"evil")] or status == 502
            until(lambda: proxy.pool.size == 0)


WITH_BODY = {
    "HEAD": (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n"),
    "HEAD without a length": (b"HEAD", b"HTTP/1.1 404 Not Found\r\n\r\n"),
    "204": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with a length": (b"DELETE", b"HTTP/1.1 204 No Content\r\nContent-Length: 42\r\n\r\n"),
    "204 with a type": (b"POST", b"HTTP/1.1 204 No Content\r\nContent-Type: text/html\r\n\r\n"),
    "304": (b"GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'),
    "304 with chunks": (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "205 of length 0": (b"GET", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
}
"""Responses that cannot have a body, after which the upstream sends one nevertheless."""


@pytest.mark.parametrize("together", [True, False], ids=["one write", "two writes"])
def test_body_of_a_bodiless_response_reaches_no_other_request(transport: Transport, together: bool) -> None:
    """Under TLS, one write is one record."""
    context, tls, path = transport

    def handler(caller: Caller) -> None:
        is_dirty = False
        while True:
            name = caller.head().split(b" ", 2)[1].removeprefix(b"/").decode()
            if not name:
                caller.respond(b"shifted" if is_dirty else b"right")
                continue
            is_dirty = True
            response = WITH_BODY[name.replace("_", " ")][1]
            with contextlib.suppress(OSError):  # The gateway may have closed the connection after the head.
                for piece in (response + EVIL,) if together else (response, EVIL):
                    caller.send(piece)

    with RawUpstream(handler, tls=context, path=path) as upstream, proxied(upstream.origin, tls=tls) as proxy:
        for name, (method, response) in WITH_BODY.items():
            status = fetch(proxy.port, "/" + name.replace(" ", "_"), method=method.decode())[0]
            assert status == int(response.split()[1])
            until(lambda: proxy.pool.size == 0)
            assert fetch(proxy.port)[::2] == (200, b"right"), name


BETWEEN = {
    "an interim response": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a line break": b"\r\n",
    "one byte": b"x",
    "the rest of a body that was longer than its length": b" and more",
    "trailers": b"X-T: 1\r\n\r\n",
    "a chunk": b"5\r\nhello\r\n0\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst",
        b"HTTP/1.1 204 None\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
    ],
    ids=["length", "204", "chunked"],
)
@pytest.mark.parametrize("stray", BETWEEN.values(), ids=BETWEEN.keys())
def test_data_on_an_idle_connection_closes_it(first: bytes, stray: bytes) -> None:
    strays = Strays(first=first, stray=stray)
    with RawUpstream(strays) as upstream, proxied(upstream.origin) as proxy:
        assert fetch(proxy.port)[2] in (b"first", b"")
        until(lambda: proxy.pool.idle == 1)
        strays.now.set()
        until(lambda: proxy.pool.size == 0)
        assert fetch(proxy.port)[2] == b"right"
        assert upstream.connections == 2


LENGTH, CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
)


@pytest.mark.parametrize(
    ("pieces", "reused"),
    [
        ([LENGTH % 5 + b"first\r\n"], False),
        ([LENGTH % 5 + b"first\r"], False),
        ([LENGTH % 5, b"first\n"], False),
        ([LENGTH % 3 + b"a\r\n\r\n"], False),
        ([LENGTH % 2 + b"\r\n\r\n"], False),
        ([LENGTH % 0 + b"\r\n"], False),
        ([CHUNKED + b"1\r\na\r\n0\r\n\r\n\r\n"], False),
        ([CHUNKED + b"1\r\na\r\n0\r\n\r", b"\n\r\n"], False),
        ([b"HTTP/1.1 204 None\r\n\r\n\n"], False),
        ([b"HTTP/1.1 304 None\r\nETag: a\r\n\r\n\r\n\r\n"], False),
        ([LENGTH % 2, b"a\n"], True),
        ([b"HTTP/1.1 200 OK\r\ncontent-length:3\r\n\r\na\r\n"], True),
        ([CHUNKED + b"1\r\n\n\r\n0\r\n\r\n"], True),
        ([CHUNKED, b"1\r\na\r\n", b"0\r\n\r\n"], True),
        ([LENGTH % 2 + b"\r\n"], True),
        ([LENGTH % 2 + b"\r", b"\n"], True),
        ([LENGTH % 40 + b"a" + b"\r\n" * 10, b"\r\n" * 9 + b"\n"], True),
        ([LENGTH % 40 + b"a" + b"\r\n" * 10, b"\r\n" * 10], False),
        ([LENGTH % 40 + b"a" + b"\n" * 39 + b"\n"], False),
        ([b"HTTP/1.1 204 None\r\n", b"ETag: a\r\n\r", b"\n"], True),
    ],
)
def test_line_breaks_after_a_response_close_the_connection_as_other_bytes_do(pieces: list[bytes], reused: bool) -> None:
    """The parser skips line breaks before a response, and the rest of a body that is too long may begin with them."""
    connection, holder, transport = new_connection()
    connection.start(b"GET / HTTP/1.1\r\n\r\n", holder)
    for piece in pieces:
        connection.data_received(piece)
    assert holder.diary[-1] == "end"
    assert (holder.idle, transport.closed) == ((1, False) if reused else (0, True))


@pytest.mark.parametrize(
    ("first", "trusted"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", False),
        (b"HTTP/1.1 204 No Content\r\nContent-Type: a/b\r\n\r\nbody", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n", True),
    ],
    ids=["204", "304", "204 with its body", "length", "chunked"],
)
def test_origin_that_sent_a_body_with_a_bodiless_response_is_not_trusted_with_such_responses_again(
    first: bytes, trusted: bool
) -> None:
    """Nothing in the head of such a response indicates that a body follows."""

    def handler(caller: Caller) -> None:
        if caller.number > 1:
            forever(lambda caller: caller.send(b"HTTP/1.1 204 No Content\r\n\r\n"))(caller)
        caller.head()
        caller.send(first)
        if not first.endswith(b"body"):
            stray.wait(60)
            caller.send(EVIL)
        caller.closed_by_peer()

    stray = threading.Event()
    with RawUpstream(handler) as upstream, proxied(upstream.origin) as proxy:
        assert fetch(proxy.port)[0] in (200, 204, 304)
        until(lambda: proxy.pool.idle == proxy.pool.size)
        stray.set()
        until(lambda: proxy.pool.size == 0)
        for _ in range(3):
            assert fetch(proxy.port)[0] == 204
            until(lambda: proxy.pool.idle == proxy.pool.size)
        assert upstream.connections == (2 if trusted else 4)


def test_upstream_that_responds_without_reading_the_body_gets_no_other_request_on_that_connection() -> None:
    """The upstream would parse the rest of the body as the next request."""
    body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n" * 400_000

    def early(caller: Caller) -> None:
        if caller.head().startswith(b"POST"):
            caller.respond(b"early")
            time.sleep(0.1)
            caller.closed_by_peer()
        caller.respond(b"right")

    with RawUpstream(early) as upstream, proxied(upstream.origin) as proxy:
        with Client(proxy.port) as client:
            sender = threading.Thread(
                target=lambda: _send(
                    client, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )
            )
            sender.start()
            assert client.response().body == b"early"
            client.sock.close()
            sender.join(60)
        assert fetch(proxy.port)[2] == b"right"
        assert upstream.connections == 2


def _send(client: Client, data: bytes) -> None:
    try:
        client.send(data)
    except OSError:
        return
