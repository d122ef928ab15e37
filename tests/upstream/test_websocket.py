"""Tests of WebSockets through the proxy: messages, closing, refusals, many at once, and hostile frames on either side.

Each runs in both modes: relayed message by message, as under any server, and as a tunnel of bytes. Behaviour that only
a tunnel has is tested in `test_tunnel.py`.

The frame tests follow the classes of the Autobahn test suite (1 framing, 2 pings, 3 reserved bits, 4 opcodes,
5 fragmentation, 6 UTF-8, 7 closing, 9 sizes), once with the gateway behind a server and once with it as the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from akoya_gateway.config.model import Bytes, Seconds, Upstream, UpstreamTLS, WebSocketBounds
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.reverse_proxy import ReverseProxy
from tests.support.cancellation import cut, ended
from tests.support.certificates import Authority, server_context
from tests.support.raw_http import Caller, Client, Proxied, RawUpstream, proxied, silent_for, standstill
from tests.support.waiting import until
from tests.support.websocket_app import App, accept, key_of, origin_of, serving
from tests.support.websocket_frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    frame,
    frames,
    read_frame,
    read_until_closed,
    request,
)


@pytest.fixture(scope="module", params=[False, True], ids=["messages", "tunnel"])
def tunnel(request: pytest.FixtureRequest) -> bool:
    """Return whether to tunnel or to relay messages."""
    return bool(request.param)


@pytest.fixture(scope="module")
def echo(tunnel: bool) -> Iterator[tuple[App, Proxied]]:
    app = App()
    # The timeouts are long, because two hundred connections at once take a while on a busy machine.
    with serving(app) as server, proxied(origin_of(server), connect=20, read=20, tunnel=tunnel) as proxy:
        yield app, proxy


def dial(proxy: Proxied, path: str = "/", **options: Any) -> ClientConnection:
    connection: ClientConnection = connect(
        f"ws://127.0.0.1:{proxy.port}{path}", max_size=None, open_timeout=60, close_timeout=60, **options
    )
    return connection


@contextlib.contextmanager
def connected(handler: Callable[[Caller], None], *, tunnel: bool) -> Iterator[Client]:
    """Run an upstream with this handler behind a proxy, and yield a client whose handshake is complete."""
    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.origin, tunnel=tunnel) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(request())
        client.until(b"\r\n\r\n")
        yield client


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1_000_000, 4_000_000])
def test_messages_of_every_size_come_back_as_they_went(echo: tuple[App, Proxied], size: int) -> None:
    binary, text = os.urandom(size), "ä" * (size // 2) + "x" * (size % 2)
    with dial(echo[1]) as socket:
        socket.send(binary)
        assert socket.recv(60) == binary
        socket.send(text)
        assert socket.recv(60) == text


def test_fragmented_message_arrives_whole(echo: tuple[App, Proxied]) -> None:
    with dial(echo[1]) as socket:
        socket.send(iter(["Hel", "lo ", "", "wörld"]))
        assert socket.recv(60) == "Hello wörld"
        socket.send(iter([b"\xff", b"\xfe"]))
        assert socket.recv(60) == b"\xff\xfe"


def test_many_messages_keep_their_order(echo: tuple[App, Proxied]) -> None:
    with dial(echo[1]) as socket:
        for number in range(500):
            socket.send(str(number))
        assert [socket.recv(60) for _ in range(500)] == [str(number) for number in range(500)]


def test_ping_gets_a_pong(echo: tuple[App, Proxied]) -> None:
    with dial(echo[1]) as socket:
        assert socket.ping().wait(60)


def test_upstream_chooses_among_the_subprotocols_of_the_client(echo: tuple[App, Proxied], tunnel: bool) -> None:
    with (
        serving(App(), subprotocols=["chat.v2", "chat.v1"]) as server,
        proxied(origin_of(server), tunnel=tunnel) as proxy,
        dial(proxy, subprotocols=["chat.v1", "chat.v2"]) as socket,
    ):
        assert socket.subprotocol == "chat.v2"
    with dial(echo[1], subprotocols=["chat.v1"]) as socket:
        assert socket.subprotocol is None


def test_handshake_has_headers_path_and_owner(echo: tuple[App, Proxied]) -> None:
    app, proxy = echo
    headers = {"Cookie": "a=1", "X-Forwarded-For": "6.6.6.6", "X_Forwarded_For": "6.6.6.6", "Akoya-Connector": "mikomo"}
    with dial(proxy, "/a%2Fb?c=d%20e", additional_headers=headers, origin="https://app.example") as socket:
        socket.send("x")
        socket.recv(30)
    request = next(request for request in app.requests if request.path == "/a%2Fb?c=d%20e")
    assert request.headers["Cookie"] == "a=1"
    assert request.headers["Origin"] == "https://app.example"
    assert request.headers["Akoya-Connector"] == "mikomo"
    assert request.headers.get_all("X-Forwarded-For") == ["127.0.0.1"]
    assert request.headers.get_all("Host") == [f"127.0.0.1:{proxy.port}"]
    assert request.headers.get_all("X-Forwarded-Proto") == ["http"]
    assert "X_Forwarded_For" not in request.headers
    assert "Sec-WebSocket-Extensions" not in request.headers


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1009, 1011, 1012, 3000, 4401, 4999])
def test_upstreams_close_code_reaches_the_client(echo: tuple[App, Proxied], code: int) -> None:
    with dial(echo[1], f"/close/{code}") as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(30)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "as asked")


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4000])
def test_clients_close_code_reaches_the_upstream(echo: tuple[App, Proxied], code: int) -> None:
    app, proxy = echo
    until(lambda: app.open == 0)
    app.closed.clear()
    with dial(proxy) as socket:
        socket.send("x")
        socket.recv(30)
        socket.close(code, "bye")
    until(lambda: app.closed == [(code, "bye")], "the upstream sees the close code and the reason")


def test_client_that_vanishes_closes_the_upstreams_socket(echo: tuple[App, Proxied]) -> None:
    app, proxy = echo
    with Client(proxy.port) as client:
        client.send(request())
        client.until(b"\r\n\r\n")
        until(lambda: app.open == 1)
    until(lambda: app.open == 0)


def test_upstream_that_vanishes_closes_the_clients_socket(tunnel: bool) -> None:
    def handler(caller: Caller) -> None:
        accept(caller)
        caller.reset()

    with RawUpstream(handler) as upstream, proxied(upstream.origin, tunnel=tunnel) as proxy, dial(proxy) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        # A tunnel adds no close frame, so the client sees the same abnormal end.
        assert (closed.value.rcvd and closed.value.rcvd.code) == (None if tunnel else 1014)


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 503])
def test_refusal_reaches_the_client_with_its_body(status: int, tunnel: bool) -> None:
    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(
            b"HTTP/1.1 %d No\r\nContent-Length: 4\r\nX-Why: because\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
            # uvicorn fails to respond if it gets these twice.
            b"Content-Type: text/plain\r\nContent-Type: text/html\r\nDate: a\r\nDate: b\r\n\r\nnope" % status
        )
        caller.closed_by_peer()

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.origin, tunnel=tunnel) as proxy,
        pytest.raises(InvalidStatus) as refused,
    ):
        dial(proxy)
    response = refused.value.response
    assert response.status_code == status
    assert response.body == b"nope"
    assert response.headers["X-Why"] == "because"
    assert "X-Hop" not in response.headers
    assert response.headers.get_all("Content-Type") == ["text/plain"]


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n"


@pytest.mark.parametrize("pieces", [False, True], ids=["at_once", "byte_by_byte"])
def test_interim_responses_before_the_handshake_response_are_skipped(pieces: bool, tunnel: bool) -> None:
    """The library takes the first one for the response, and the client got 403."""

    def handler(caller: Caller) -> None:
        head = caller.head()
        switching = b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
        response = INTERIM + switching % key_of(head) + frame(TEXT, b"hello")
        if b" /refused " in head:
            response = INTERIM + b"HTTP/1.1 409 No\r\nContent-Length: 4\r\n\r\nnope"
        for piece in [bytes([byte]) for byte in response] if pieces else [response]:
            caller.send(piece)
        caller.closed_by_peer()

    with RawUpstream(handler) as upstream, proxied(upstream.origin, tunnel=tunnel) as proxy:
        with Client(proxy.port) as client:
            client.send(request())
            assert client.head().startswith(b"HTTP/1.1 101 ")
            assert read_frame(client) == (TEXT, b"hello")
        with pytest.raises(InvalidStatus) as refused:
            dial(proxy, "/refused")
        assert (refused.value.response.status_code, refused.value.response.body) == (409, b"nope")


BAD_HANDSHAKES = {
    "wrong_accept": b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n",
    "no_accept": b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "no_upgrade": b"HTTP/1.1 101 Up\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n",
    "another_upgrade": b"HTTP/1.1 101 Up\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n",
    "an_extension_nobody_offered": b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Accept: %b\r\n\r\n",
    "a_subprotocol_nobody_offered": b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Protocol: evil\r\nSec-WebSocket-Accept: %b\r\n\r\n",
    "not_http": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "nothing": b"",
    "endless_interim_responses": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40,
    "an_endless_interim_response": b"HTTP/1.1 103 Early Hints\r\nX: " + b"a" * 200_000,
    "an_endless_header": b"HTTP/1.1 101 Up\r\nX: " + b"a" * 200_000,
}


@pytest.mark.parametrize("response", BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES.keys())
def test_bad_handshake_of_the_upstream_is_502(response: bytes, tunnel: bool) -> None:
    def handler(caller: Caller) -> None:
        key = key_of(caller.head())
        caller.send(response.replace(b"%b", key))
        if response:
            caller.closed_by_peer(2)

    with RawUpstream(handler) as upstream, proxied(upstream.origin, tunnel=tunnel) as proxy:
        with pytest.raises(InvalidStatus) as refused:
            dial(proxy)
        assert refused.value.response.status_code == 502


def test_upstream_that_is_down_is_502_and_one_that_is_silent_is_504(tunnel: bool) -> None:
    with RawUpstream(lambda caller: None) as gone:
        origin = gone.origin
    with proxied(origin, tunnel=tunnel) as proxy, pytest.raises(InvalidStatus) as refused:
        dial(proxy)
    assert refused.value.response.status_code == 502
    with (
        RawUpstream(silent_for(2)) as silent,
        proxied(silent.origin, read=0.2, tunnel=tunnel) as proxy,
    ):
        with pytest.raises(InvalidStatus) as refused:
            dial(proxy)
        assert refused.value.response.status_code == 504


@pytest.mark.parametrize("behind", [b"", frame(TEXT, b"hello", mask=True)], ids=["nothing", "a message"])
def test_client_that_leaves_while_the_upstream_is_silent_about_its_handshake_is_noticed(
    behind: bytes, tunnel: bool
) -> None:
    asked, left = threading.Event(), threading.Event()

    def handler(caller: Caller) -> None:
        caller.head()
        asked.set()
        if caller.closed_by_peer(60):
            left.set()

    with RawUpstream(handler) as upstream, proxied(upstream.origin, read=60, tunnel=tunnel) as proxy:
        with Client(proxy.port) as client:
            client.send(request() + behind)
            assert asked.wait(30)
        assert left.wait(30)


def test_message_of_the_upstream_beyond_the_limit_closes_both_sides(tunnel: bool) -> None:
    app = App()
    bounds = WebSocketBounds(max_message=Bytes(1000))
    with (
        serving(app) as server,
        proxied(origin_of(server), websocket=bounds, tunnel=tunnel) as proxy,
        dial(proxy, "/big") as socket,
    ):
        socket.send("1000")
        assert len(socket.recv(30)) == 1000
        socket.send("1001")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        until(lambda: [code for code, _ in app.closed] == [1009])


def test_message_of_a_client_beyond_the_limit_closes_both_sides(tunnel: bool) -> None:
    """uvicorn itself would accept 16 MB here."""
    app = App()
    bounds = WebSocketBounds(max_message=Bytes(1000))
    with (
        serving(app) as server,
        proxied(origin_of(server), websocket=bounds, tunnel=tunnel) as proxy,
        dial(proxy) as socket,
    ):
        socket.send(b"x" * 1000)
        assert len(socket.recv(30)) == 1000
        socket.send(b"x" * 1001)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        until(lambda: [code for code, _ in app.closed] == [1009])
        assert app.received == 1


def test_idle_websocket_is_closed(tunnel: bool) -> None:
    app = App()
    bounds = WebSocketBounds(idle_timeout=Seconds(3.0))
    with (
        serving(app) as server,
        proxied(origin_of(server), websocket=bounds, tunnel=tunnel) as proxy,
        dial(proxy) as socket,
    ):
        for _ in range(33):
            time.sleep(0.1)
            socket.send("alive")
            assert socket.recv(30) == "alive"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


@pytest.mark.parametrize(
    ("last", "code"), [(frame(CLOSE, b"\x0b\xb8", mask=True), 3000), (frame(0x3, b"", mask=True), 1002)]
)
def test_client_disconnect_before_the_relay_notices_is_no_error(last: bytes, code: int) -> None:
    """uvicorn handles a close frame or protocol error itself, then accepts no message. Only `receive` reports this."""
    raised: list[BaseException] = []

    def wrap(proxy: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            async def late() -> Any:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    await asyncio.sleep(0.3)
                return message

            try:
                await proxy(scope, late, send)
            except Exception as error:
                raised.append(error)

        return wrapped

    app = App()
    with serving(app) as server, proxied(origin_of(server), wrap=wrap) as proxy, Client(proxy.port) as client:
        client.send(request(b"/ticks"))
        client.until(b"tick")
        client.send(last)
        until(lambda: app.closed != [])
    assert ([code for code, _ in app.closed], raised) == ([code], [])


def test_close_frame_reaches_an_upstream_that_is_still_sending_when_the_client_leaves() -> None:
    """A connection closed with unread data is reset, and the upstream then cannot read the close frame."""
    client_left, closes = threading.Event(), list[bytes]()

    def handler(caller: Caller) -> None:
        accept(caller)
        while not client_left.is_set():
            caller.send(frame(TEXT, b"tick"))
            time.sleep(0.01)
        # Send for a while without reading.
        for _ in range(100):
            caller.send(frame(TEXT, b"tick"))
            time.sleep(0.01)
        closes.append(caller.exactly(8))

    def wrap(proxy: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            async def received() -> Any:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    await send_failed.wait()
                return message

            async def sent(message: Any) -> None:
                if client_left.is_set():
                    send_failed.set()
                    raise OSError
                await send(message)

            send_failed = asyncio.Event()
            await proxy(scope, received, sent)

        return wrapped

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.origin, wrap=wrap) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(request())
        client.until(b"tick")
        client_left.set()
        client.send(frame(CLOSE, b"\x0b\xb8", mask=True))
        until(lambda: closes)
    first, length, *rest = closes[0]
    code = bytes(byte ^ rest[n % 4] for n, byte in enumerate(rest[4:]))
    assert (first, length, code) == (0x88, 0x82, b"\x0b\xb8")


@pytest.mark.parametrize("code", [1008, 4401])
def test_websocket_cancelled_from_outside_is_closed_on_both_sides(code: int, tunnel: bool) -> None:
    sends: list[Any] = []

    def wrap(proxy: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                sends.append(send)
            await proxy(scope, receive, send)

        return wrapped

    app = App()
    with serving(app) as server, proxied(origin_of(server), wrap=wrap, tunnel=tunnel) as proxy, dial(proxy) as socket:
        socket.send("x")
        assert socket.recv(30) == "x"
        loop = proxy.pool._loop
        assert loop is not None
        closing = {"type": "websocket.close", "code": code, "reason": "disconnected"}
        asyncio.run_coroutine_threadsafe(sends[0](closing), loop)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "disconnected")
        until(lambda: app.closed == [(code, "disconnected")])


def test_client_that_does_not_read_stops_the_upstream(tunnel: bool) -> None:
    app = App()
    with serving(app) as server, proxied(origin_of(server), tunnel=tunnel) as proxy, Client(proxy.port) as client:
        client.send(request(b"/flood"))
        client.until(b"\r\n\r\n")
        held = standstill(lambda: app.received)
        assert held < 200, "the proxy accepted far more than the client read"


def test_messages_go_on_coming_however_many_of_their_characters_are_longer_than_a_byte(
    echo: tuple[App, Proxied],
) -> None:
    text = "äöü€" * 50_000
    with dial(echo[1]) as socket:
        for _ in range(6):
            socket.send(text)
            assert socket.recv(60) == text


def test_client_that_does_not_read_stops_empty_messages_too(tunnel: bool) -> None:
    """An empty message is two bytes on the wire, but takes some hundred bytes in memory."""
    empty = bytes([0x80 | BINARY, 0]) * 2_000_000

    def handler(caller: Caller) -> None:
        accept(caller)
        caller.sock.settimeout(2)
        caller.send(empty)

    with (
        RawUpstream(handler) as upstream,
        proxied(upstream.origin, tunnel=tunnel) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(request(b"/"))
        client.until(b"\r\n\r\n")
        before = sys.getallocatedblocks()
        time.sleep(3)
        assert sys.getallocatedblocks() - before < 1_000_000


def fill(client: Client, most: int) -> int:
    """Send messages until the connection blocks. Return how many bytes were accepted."""
    block, sent = frame(BINARY, b"x" * 65_536, mask=True), 0
    client.sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while sent < most:
            client.send(block)
            sent += len(block)
    return sent


def test_upstream_that_does_not_read_stops_the_client(tunnel: bool) -> None:
    done = threading.Event()

    def handler(caller: Caller) -> None:
        accept(caller)
        done.wait(60)

    with connected(handler, tunnel=tunnel) as client:
        assert fill(client, 64 << 20) < 32 << 20
        done.set()


def test_upstream_that_closes_and_takes_nothing_any_more_is_let_go(
    monkeypatch: pytest.MonkeyPatch, tunnel: bool
) -> None:
    monkeypatch.setattr("akoya_gateway.upstream.websocket.message_relay._CLOSE_TIMEOUT", 0.5)
    monkeypatch.setattr("akoya_gateway.upstream.websocket.tunnel.CLOSE_TIMEOUT", 0.5)
    full, done = threading.Event(), threading.Event()

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def handler(caller: Caller) -> None:
        accept(caller)
        full.wait(60)
        caller.send(frame(CLOSE, b"\x03\xe8"))
        done.wait(60)

    with RawUpstream(handler) as upstream, proxied(upstream.origin, tunnel=tunnel) as proxy:
        with Client(proxy.port) as client:
            client.send(request())
            client.until(b"\r\n\r\n")
            fill(client, 64 << 20)
            before = open_files()
            full.set()
            client.sock.settimeout(60)
            assert read_until_closed(client) == ([], 1000)
        # The client's socket and the gateway's two. Connections left by an earlier test may close meanwhile, too.
        until(lambda: open_files() <= before - 3)
        done.set()


async def test_two_hundred_sockets_at_once(echo: tuple[App, Proxied]) -> None:
    async def one(number: int) -> None:
        async with async_connect(f"ws://127.0.0.1:{echo[1].port}/", open_timeout=60) as socket:
            for turn in range(5):
                await socket.send(f"{number}:{turn}")
                assert await asyncio.wait_for(socket.recv(), 60) == f"{number}:{turn}"

    await asyncio.gather(*[one(number) for number in range(200)])


# -- raw frames


GOOD = {
    "1_text": ([(TEXT, b"hello", {})], [(TEXT, b"hello")]),
    "1_empty_text": ([(TEXT, b"", {})], [(TEXT, b"")]),
    "1_binary_65536": ([(BINARY, b"\xfe" * 65536, {})], [(BINARY, b"\xfe" * 65536)]),
    "2_ping_between_messages": ([(PING, b"p", {}), (TEXT, b"a", {})], [(TEXT, b"a")]),
    "2_unsolicited_pong": ([(PONG, b"p", {}), (TEXT, b"a", {})], [(TEXT, b"a")]),
    "2_ten_pings": ([(PING, b"%d" % n, {}) for n in range(10)] + [(TEXT, b"a", {})], [(TEXT, b"a")]),
    "2_ping_of_125_bytes": ([(PING, b"p" * 125, {}), (TEXT, b"a", {})], [(TEXT, b"a")]),
    "5_two_fragments": ([(TEXT, b"he", {"fin": False}), (0, b"llo", {})], [(TEXT, b"hello")]),
    "5_a_ping_inside_fragments": (
        [(TEXT, b"he", {"fin": False}), (PING, b"p", {}), (0, b"llo", {})],
        [(TEXT, b"hello")],
    ),
    "5_empty_fragments": ([(TEXT, b"", {"fin": False}), (0, b"", {"fin": False}), (0, b"", {})], [(TEXT, b"")]),
    "6_a_character_cut_by_fragments": (
        [(TEXT, b"\xce\xba\xe1", {"fin": False}), (0, b"\xbd\xb9\xcf\x83", {})],
        [(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83")],
    ),
    "6_four_byte_characters": ([(TEXT, "\U0010ffff".encode(), {})], [(TEXT, "\U0010ffff".encode())]),
    "9_a_megabyte_in_fragments": (
        [(BINARY, b"a" * 65536, {"fin": False})] + [(0, b"a" * 65536, {"fin": False})] * 14 + [(0, b"a" * 65536, {})],
        [(BINARY, b"a" * 65536 * 16)],
    ),
}

BAD = {
    "2_a_ping_of_126_bytes": [(PING, b"p" * 126, {})],
    "2_a_fragmented_ping": [(PING, b"p", {"fin": False})],
    "3_rsv1": [(TEXT, b"a", {"rsv": 4})],
    "3_rsv2": [(TEXT, b"a", {"rsv": 2})],
    "3_rsv3_on_ping": [(PING, b"a", {"rsv": 1})],
    "3_all_reserved_bits": [(BINARY, b"a", {"rsv": 7})],
    **{f"4_opcode_{opcode}": [(opcode, b"a", {})] for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "5_a_continuation_of_nothing": [(0, b"a", {})],
    "5_a_message_inside_a_message": [(TEXT, b"a", {"fin": False}), (TEXT, b"b", {})],
    "5_a_continuation_after_the_end": [(TEXT, b"a", {"fin": False}), (0, b"b", {}), (0, b"c", {})],
    "6_invalid_utf8": [(TEXT, b"\xff", {})],
    "6_an_overlong_form": [(TEXT, b"\xc0\xaf", {})],
    "6_a_surrogate": [(TEXT, b"\xed\xa0\x80", {})],
    "6_beyond_unicode": [(TEXT, b"\xf4\x90\x80\x80", {})],
    "6_an_unfinished_character": [(TEXT, b"\xce", {})],
    "7_a_close_of_one_byte": [(CLOSE, b"\x03", {})],
    **{
        f"7_close_code_{code}": [(CLOSE, struct.pack("!H", code), {})]
        for code in (0, 999, 1004, 1005, 1006, 1016, 2000, 2999, 5000, 65535)
    },
    "7_invalid_utf8_in_a_reason": [(CLOSE, b"\x03\xe8\xff", {})],
    "7_a_close_of_126_bytes": [(CLOSE, b"\x03\xe8" + b"a" * 124, {})],
    "9_a_frame_beyond_the_limit": [(BINARY, b"", {"length": b"\x7f\x00\x00\x00\x7f\xff\xff\xff\xff"})],
    "9_a_frame_of_a_negative_length": [(BINARY, b"", {"length": b"\x7f" + b"\xff" * 8})],
}

INVALID_TEXT = [name for name in BAD if name.startswith("6_")]


@pytest.mark.parametrize(("sent", "expected"), GOOD.values(), ids=GOOD.keys())
@pytest.mark.parametrize("pieces", [False, True], ids=["at_once", "byte_by_byte"])
def test_frames_of_a_client_that_are_right(echo: tuple[App, Proxied], sent: Any, expected: Any, pieces: bool) -> None:
    data = frames(sent, mask=True)
    with Client(echo[1].port) as client:
        client.send(request())
        client.until(b"\r\n\r\n")
        if pieces and len(data) < 200:
            for at in range(len(data)):
                client.send(data[at : at + 1])
        else:
            client.send(data)
        found: list[tuple[int, bytes]] = []
        while len(found) < len(expected):
            opcode, payload = read_frame(client)
            if opcode in (TEXT, BINARY):
                found.append((opcode, payload))
        assert found == expected


@pytest.mark.parametrize("sent", BAD.values(), ids=BAD.keys())
def test_frames_of_a_client_that_are_wrong_close_both_sides(echo: tuple[App, Proxied], sent: Any) -> None:
    app, proxy = echo
    with Client(proxy.port) as client:
        client.send(request())
        client.until(b"\r\n\r\n")
        client.send(frames(sent, mask=True))
        found, code = read_until_closed(client)
        assert code in (None, 1002, 1007, 1009)
        assert (TEXT, b"\xff") not in found
    until(lambda: app.open == 0)


@pytest.mark.parametrize(("sent", "expected"), GOOD.values(), ids=GOOD.keys())
def test_frames_of_an_upstream_that_are_right(sent: Any, expected: Any, tunnel: bool) -> None:
    def handler(caller: Caller) -> None:
        accept(caller)
        caller.send(frames(sent, mask=False))
        caller.send(frame(CLOSE, b"\x03\xe8"))
        caller.closed_by_peer()

    with connected(handler, tunnel=tunnel) as client:
        assert read_until_closed(client) == (expected, 1000)


@pytest.mark.parametrize("name", BAD)
def test_frames_of_an_upstream_that_are_wrong_close_both_sides(name: str, tunnel: bool) -> None:
    if tunnel and name in INVALID_TEXT:
        pytest.skip("a tunnel does not validate UTF-8: the two ends do")
    sent, closed = BAD[name], []

    def handler(caller: Caller) -> None:
        accept(caller)
        caller.send(frames(sent, mask=False))
        closed.append(caller.closed_by_peer(8))

    with connected(handler, tunnel=tunnel) as client:
        found, code = read_until_closed(client)
        assert code in (1009, 1014)
        assert not [data for _, data in found if data not in (b"ab",)]
        until(lambda: closed == [True])


def test_length_in_more_bytes_than_needed_is_taken_apart_or_refused(echo: tuple[App, Proxied], tunnel: bool) -> None:
    """RFC 6455 section 5.2 forbids it. A relayed message does not show it to the upstream; a tunnel would forward it."""
    with Client(echo[1].port) as client:
        client.send(request())
        client.until(b"\r\n\r\n")
        client.send(frame(TEXT, b"hi", mask=True, length=b"\x7e\x00\x02"))
        assert read_frame(client) == ((CLOSE, struct.pack("!H", 1002)) if tunnel else (TEXT, b"hi"))


def test_masked_frame_of_an_upstream_is_refused(tunnel: bool) -> None:
    def handler(caller: Caller) -> None:
        accept(caller)
        caller.send(frame(TEXT, b"hello", mask=True))
        caller.closed_by_peer()

    with connected(handler, tunnel=tunnel) as client:
        assert read_until_closed(client) == ([], 1014)


def test_unix_socket_and_a_tls_upstream_carry_websockets_too(tmp_path: Path, tunnel: bool) -> None:
    def handler(caller: Caller) -> None:
        accept(caller)
        caller.send(frame(TEXT, b"hello") + frame(CLOSE, b"\x03\xe8"))
        caller.closed_by_peer()

    authority = Authority(tmp_path)
    tls = UpstreamTLS(ca=authority.file)
    with (
        RawUpstream(handler, path=str(tmp_path / "app.sock")) as unix,
        RawUpstream(handler, tls=server_context(authority)) as secure,
        proxied(unix.origin, tunnel=tunnel) as first,
        proxied(secure.origin, tls=tls, tunnel=tunnel) as second,
    ):
        for proxy in (first, second):
            with dial(proxy) as socket:
                assert socket.recv(30) == "hello"


def test_message_that_comes_together_with_the_handshake_is_not_lost(tunnel: bool) -> None:
    def handler(caller: Caller) -> None:
        head = b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
        caller.send(head % key_of(caller.head()) + frame(TEXT, b"first") + frame(CLOSE, b"\x03\xe8"))
        caller.closed_by_peer()

    with connected(handler, tunnel=tunnel) as client:
        assert read_until_closed(client) == ([(TEXT, b"first")], 1000)


async def conversation(proxy: ReverseProxy, path: str) -> None:
    """Act as an ASGI server that relays messages: send three, receive the responses, and disconnect."""
    outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    incoming = [{"type": "websocket.connect"}, *({"type": "websocket.receive", "text": str(n)} for n in range(3))]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop(0)
        for _ in range(4):
            if (await outgoing.get())["type"] == "websocket.close":
                break
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        outgoing.put_nowait(message)

    scope = {
        "type": "websocket", "http_version": "1.1", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"app.example.com")], "scheme": "ws", "client": ("127.0.0.1", 4000), "subprotocols": [],
    }  # fmt: skip
    await proxy(scope, receive, send)


@pytest.mark.parametrize("path", ["/", "/close/1000", "/flood"])
async def test_relay_that_is_cancelled_anywhere_leaves_nothing_open(path: str) -> None:
    app, faults = App(), []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    with serving(app) as server:
        pool = ConnectionPool(Upstream((origin_of(server),), Seconds(5), Seconds(5), 1))
        proxy, before = ReverseProxy(pool), asyncio.all_tasks()
        for turns in (None, 0, 1, 2, 3):
            for at in range(60):
                done, _ = await cut(conversation(proxy, path), at, turns)
                if done:
                    break
            else:
                pytest.fail("the work was cancelled at every suspension")
        await asyncio.to_thread(until, lambda: app.open == 0)
        await ended(lambda: asyncio.all_tasks() - before)
        assert pool.size == 0
        await pool.close()
    gc.collect()
    await asyncio.sleep(0)
    assert faults == []
