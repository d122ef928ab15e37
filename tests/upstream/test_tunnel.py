"""Tests of behaviour that only a tunnel has.

Bytes pass unchanged, the gateway sends its close frames only between frames, and an abnormal end stays abnormal. The
tests control the client and the upstream as raw sockets. They are named after what one of them attempts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import queue
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import connect as async_connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as async_serve

from akoya_gateway.config.model import Bytes, Origin, Seconds, WebSocketBounds
from akoya_gateway.server.websocket_protocol import DetachableWebSocketProtocol
from akoya_gateway.upstream.websocket.tunnel import TunnelEnd
from tests.support.processes import AppServer
from tests.support.raw_http import BARE, Caller, Client, Proxied, RawUpstream, proxied
from tests.support.waiting import until
from tests.support.websocket_app import accept, key_of
from tests.support.websocket_frames import BINARY, CLOSE, PING, PONG, TEXT, frame, request

BYE = b"\x03\xe8"


@dataclass
class Scene:
    """A client and an upstream joined by a tunnel. `end(code)` does what the gateway does when the grant ends."""

    client: Client
    app: Caller
    proxy: Proxied
    sends: list[Any]

    def end(self, code: int = 4401) -> None:
        """Close the WebSocket as the gateway does when the grant has ended."""
        loop = self.proxy.pool._loop
        assert loop is not None
        asyncio.run_coroutine_threadsafe(
            self.sends[0]({"type": "websocket.close", "code": code, "reason": "gone"}), loop
        )


@contextlib.contextmanager
def scene(welcome: Callable[[Caller], None] = accept, **options: Any) -> Iterator[Scene]:
    """Join a client and an upstream. `welcome` responds to the handshake."""
    callers: queue.Queue[Caller] = queue.Queue()
    done = threading.Event()
    sends: list[Any] = []

    def handler(caller: Caller) -> None:
        welcome(caller)
        callers.put(caller)
        done.wait(60)

    def wrap(proxy: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                sends.append(send)
            await proxy(scope, receive, send)

        return wrapped

    with RawUpstream(handler) as upstream, proxied(upstream.origin, tunnel=True, wrap=wrap, **options) as proxy:
        with Client(proxy.port) as client:
            client.sock.setsockopt(6, 1, 1)
            client.send(request())
            client.until(b"\r\n\r\n")
            yield Scene(client, callers.get(timeout=60), proxy, sends)
        done.set()


def exactly(side: Client | Caller, size: int, timeout: float = 5) -> bytes:
    side.sock.settimeout(timeout)
    while len(side.buffer) < size:
        data = side.sock.recv(65536)
        if not data:
            raise EOFError(side.buffer)
        side.buffer += data
    data, side.buffer = side.buffer[:size], side.buffer[size:]
    return data


def rest(side: Client | Caller, timeout: float = 5) -> bytes:
    """Return everything up to the end of the connection. Fail if it does not end."""
    side.sock.settimeout(timeout)
    data, side.buffer = side.buffer, b""
    with contextlib.suppress(ConnectionResetError):
        while piece := side.sock.recv(65536):
            data += piece
    return data


def nothing_comes(side: Client | Caller, seconds: float = 0.2) -> bool:
    side.sock.settimeout(seconds)
    try:
        side.buffer += side.sock.recv(65536)
    except TimeoutError:
        return not side.buffer
    return False


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """Return the gateway's close frame to a client."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


def expect_close(side: Client | Caller, code: int) -> None:
    """Assert that a peer gets a close frame with this code, and that its connection ends after its reply."""
    if isinstance(side, Client):
        assert exactly(side, 4) == close_frame(code)
        side.send(frame(CLOSE, struct.pack("!H", code), mask=True))
    else:
        assert close_to_app(exactly(side, 8)) == code
        side.send(close_frame(code))
    assert rest(side) == b""


def close_to_app(data: bytes) -> int:
    """Assert that the data is exactly one masked close frame, and return its code."""
    assert data[0] == 0x80 | CLOSE
    assert data[1] & 0x80
    assert len(data) == 6 + (data[1] & 0x7F)
    code = bytes(byte ^ key for byte, key in zip(data[6:8], data[2:4], strict=True))
    return int(struct.unpack("!H", code)[0])


class TestPassing:
    def test_frames_pass_byte_for_byte_both_ways_masks_included(self) -> None:
        up = frame(TEXT, b"hello", mask=True) + frame(BINARY, bytes(70_000), mask=True)
        down = frame(TEXT, b"a", fin=False) + frame(PING, b"p") + frame(0, b"b") + frame(BINARY, bytes(70_000))
        with scene() as s:
            s.client.send(up)
            assert exactly(s.app, len(up)) == up
            s.app.send(down)
            assert exactly(s.client, len(down)) == down

    def test_pings_and_pongs_are_the_business_of_the_two_ends(self) -> None:
        with scene() as s:
            s.client.send(frame(PING, b"are you there", mask=True))
            assert exactly(s.app, 19) == frame(PING, b"are you there", mask=True)
            assert nothing_comes(s.client)
            s.app.send(frame(PONG, b"yes"))
            assert exactly(s.client, 5) == frame(PONG, b"yes")

    def test_large_message_passes_as_it_comes(self) -> None:
        data = frame(BINARY, bytes(1_000_000), mask=True)
        with scene() as s:
            s.client.send(data[:1000])
            assert exactly(s.app, 1000) == data[:1000]
            s.client.send(data[1000:])
            assert exactly(s.app, len(data) - 1000) == data[1000:]

    def test_closing_handshake_passes_and_then_both_connections_end(self) -> None:
        with scene() as s:
            s.client.send(frame(CLOSE, BYE + b"bye", mask=True))
            assert exactly(s.app, 11) == frame(CLOSE, BYE + b"bye", mask=True)
            s.app.send(frame(TEXT, b"one more") + frame(CLOSE, BYE))
            assert rest(s.client) == frame(TEXT, b"one more") + frame(CLOSE, BYE)
            assert rest(s.app) == b""

    def test_upstream_close_is_forwarded_and_the_client_replies(self) -> None:
        with scene() as s:
            s.app.send(frame(CLOSE, struct.pack("!H", 4999) + b"enough"))
            assert exactly(s.client, 10) == frame(CLOSE, struct.pack("!H", 4999) + b"enough")
            s.client.send(frame(TEXT, b"x", mask=True) + frame(CLOSE, struct.pack("!H", 4999), mask=True))
            assert rest(s.app) == frame(TEXT, b"x", mask=True) + frame(CLOSE, struct.pack("!H", 4999), mask=True)
            assert rest(s.client) == b""

    def test_client_data_sent_before_the_upstream_handshake_is_not_lost(self) -> None:
        requested, go = threading.Event(), threading.Event()

        def slow(caller: Caller) -> None:
            head = caller.head()
            requested.set()
            go.wait(60)
            response = (
                b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
            )
            caller.send(response % key_of(head))

        early = frame(TEXT, b"early", mask=True) + frame(BINARY, bytes(300_000), mask=True)

        class Eager(Client):
            def until(self, mark: bytes) -> bytes:
                assert requested.wait(60)
                threading.Thread(target=self.send, args=(early,), daemon=True).start()
                time.sleep(0.2)
                go.set()
                return super().until(mark)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.upstream.test_tunnel.Client", Eager)
            with scene(slow) as s:
                assert exactly(s.app, len(early)) == early

    def test_messages_received_with_the_handshake_response_are_not_lost(self) -> None:
        greeting = frame(TEXT, b"welcome") * 1000

        def eager(caller: Caller) -> None:
            response = (
                b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
            )
            caller.send(response % key_of(caller.head()) + greeting)

        with scene(eager) as s:
            assert exactly(s.client, len(greeting)) == greeting

    @pytest.mark.parametrize("cut", [10, 17, 60, 130])
    def test_upstream_response_in_two_pieces_is_complete(self, cut: int) -> None:
        def halting(caller: Caller) -> None:
            response = (
                b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
            )
            data = response % key_of(caller.head()) + frame(TEXT, b"a") + frame(TEXT, b"b")
            caller.send(data[:cut])
            time.sleep(0.05)
            caller.send(data[cut:])

        with scene(halting) as s:
            assert exactly(s.client, 6) == frame(TEXT, b"a") + frame(TEXT, b"b")

    async def test_five_hundred_sockets_at_once(self) -> None:
        async def echo(socket: ServerConnection) -> None:
            async for message in socket:
                await socket.send(message)

        async def one(port: int, number: int) -> None:
            async with async_connect(f"ws://127.0.0.1:{port}/", open_timeout=60, compression=None) as socket:
                for turn in range(5):
                    text = f"{number}:{turn}" * (number % 50 + 1)
                    await socket.send(text)
                    assert await asyncio.wait_for(socket.recv(), 60) == text

        async with async_serve(echo, "127.0.0.1", 0, compression=None) as server:
            origin = Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
            with proxied(origin, tunnel=True, connect=30, read=30) as proxy:
                await asyncio.gather(*[one(proxy.port, number) for number in range(500)])
                await asyncio.to_thread(until, lambda: not tunnels())


def tunnels() -> list[TunnelEnd]:
    """Return the tunnel ends with an open connection whose event loop is still running."""
    return [
        each for each in gc.get_objects() if type(each) is TunnelEnd and not each.is_lost and not each._loop.is_closed()
    ]


class TestHostileClients:
    def test_smuggling_frames_behind_a_close(self) -> None:
        bye = frame(CLOSE, BYE, mask=True)
        with scene() as s:
            s.client.send(bye + frame(TEXT, b"smuggled", mask=True) + bye)
            s.client.send(frame(TEXT, b"smuggled", mask=True))
            assert exactly(s.app, len(bye)) == bye
            assert nothing_comes(s.app)
            s.app.send(close_frame(1000))
            assert rest(s.app) == b""

    def test_sending_without_a_mask(self) -> None:
        with scene() as s:
            s.client.send(frame(TEXT, b"hello"))
            assert rest(s.client) == close_frame(1002)
            expect_close(s.app, 1002)

    def test_frame_that_is_wrong_behind_some_that_are_right(self) -> None:
        right = frame(TEXT, b"right", mask=True)
        with scene() as s:
            s.client.send(right * 3 + frame(TEXT, b"wrong", rsv=4, mask=True) + right)
            assert rest(s.client) == close_frame(1002)
            assert exactly(s.app, 3 * len(right)) == right * 3
            expect_close(s.app, 1002)

    def test_header_that_is_dripped_and_never_complete(self) -> None:
        with scene() as s:
            for byte in frame(PING, b"p" * 125, mask=True)[:-1]:
                s.client.send(bytes([byte]))
            assert nothing_comes(s.app)
            s.end()
            assert exactly(s.client, 8) == close_frame(4401, b"gone")
            assert close_to_app(exactly(s.app, 12)) == 4401

    def test_breaking_a_rule_while_a_frame_to_it_is_half_passed(self) -> None:
        """The gateway must not insert its close frame into that frame. It waits until the frame is complete."""
        data = frame(BINARY, bytes(1000))
        with scene() as s:
            s.app.send(data[:100])
            assert exactly(s.client, 100) == data[:100]
            s.client.send(frame(TEXT, b"x"))
            assert nothing_comes(s.client)
            assert close_to_app(exactly(s.app, 8)) == 1002
            s.app.send(data[100:] + frame(TEXT, b"too late"))
            assert rest(s.client) == data[100:] + close_frame(1002)

    def test_message_too_large_in_its_last_fragment(self) -> None:
        bounds = WebSocketBounds(max_message=Bytes(1000))
        first = frame(BINARY, bytes(900), fin=False, mask=True)
        with scene(websocket=bounds) as s:
            s.client.send(first + frame(0, bytes(101), mask=True))
            assert rest(s.client) == close_frame(1009)
            assert exactly(s.app, len(first)) == first
            expect_close(s.app, 1009)

    def test_leaving_without_a_word_is_not_made_a_clean_end(self) -> None:
        with scene() as s:
            s.client.send(frame(TEXT, b"last", mask=True))
            s.client.sock.close()
            assert rest(s.app) == frame(TEXT, b"last", mask=True)

    def test_leaving_within_a_frame(self) -> None:
        data = frame(BINARY, bytes(1000), mask=True)
        with scene() as s:
            s.client.send(data[:500])
            assert exactly(s.app, 500) == data[:500]
            s.client.sock.setsockopt(1, 13, struct.pack("ii", 1, 0))
            s.client.sock.close()
            assert rest(s.app) == b""

    def test_close_without_waiting_for_the_response(self) -> None:
        with scene() as s:
            s.client.send(frame(CLOSE, BYE, mask=True))
            s.client.sock.close()
            assert exactly(s.app, 8) == frame(CLOSE, BYE, mask=True)
            assert nothing_comes(s.app), "the connection must stay open for the upstream's close frame"
            s.app.send(close_frame(1000))
            assert rest(s.app) == b""
            until(lambda: not tunnels())

    def test_endpoint_that_never_responds_to_a_close_is_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("akoya_gateway.upstream.websocket.tunnel.CLOSE_TIMEOUT", 0.5)
        with scene() as s:
            began = time.monotonic()
            s.app.send(close_frame(1000))
            assert rest(s.client) == close_frame(1000)
            assert time.monotonic() - began > 0.3
            assert rest(s.app) == b""

    def test_frames_after_the_gateways_close_are_discarded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("akoya_gateway.upstream.websocket.tunnel.CLOSE_TIMEOUT", 3.0)
        with scene() as s:
            s.end()
            assert exactly(s.client, 8) == close_frame(4401, b"gone")
            for _ in range(5):
                s.client.send(frame(TEXT, b"still here", mask=True))
                time.sleep(0.05)
            assert close_to_app(rest(s.app)) == 4401
            assert rest(s.client) == b""


class TestHostileUpstreams:
    def test_masking_its_frames(self) -> None:
        with scene() as s:
            s.app.send(frame(TEXT, b"hello", mask=True))
            expect_close(s.client, 1014)
            assert close_to_app(rest(s.app)) == 1002

    def test_close_code_that_no_wire_may_carry(self) -> None:
        with scene() as s:
            s.app.send(frame(TEXT, b"a") + close_frame(1006))
            assert exactly(s.client, 3) == frame(TEXT, b"a")
            expect_close(s.client, 1014)

    def test_unnegotiated_compression_is_refused(self) -> None:
        with scene() as s:
            s.app.send(frame(TEXT, b"\xf2\x48\xcd", rsv=4))
            expect_close(s.client, 1014)

    def test_message_larger_than_allowed(self) -> None:
        with scene(websocket=WebSocketBounds(max_message=Bytes(1000))) as s:
            s.app.send(frame(BINARY, bytes(1000)))
            assert exactly(s.client, 1004) == frame(BINARY, bytes(1000))
            s.app.send(frame(BINARY, bytes(1001)))
            expect_close(s.client, 1009)
            assert close_to_app(rest(s.app)) == 1009

    def test_talking_behind_its_close(self) -> None:
        with scene() as s:
            s.app.send(close_frame(1000) + frame(TEXT, b"smuggled"))
            s.app.send(frame(TEXT, b"smuggled"))
            assert exactly(s.client, 4) == close_frame(1000)
            assert nothing_comes(s.client)
            s.client.send(frame(CLOSE, BYE, mask=True))
            assert rest(s.client) == b""

    def test_vanishing_is_not_made_a_clean_end(self) -> None:
        with scene() as s:
            s.app.send(frame(TEXT, b"last"))
            assert exactly(s.client, 6) == frame(TEXT, b"last")
            s.app.reset()
            assert rest(s.client) == b""

    def test_vanishing_within_a_frame(self) -> None:
        data = frame(BINARY, bytes(1000))
        with scene() as s:
            s.app.send(data[:500])
            s.app.sock.shutdown(1)
            assert rest(s.client) == data[:500]

    def test_closing_its_connection_right_behind_its_close(self) -> None:
        with scene() as s:
            s.app.send(close_frame(4000))
            s.app.sock.shutdown(1)
            assert exactly(s.client, 4) == close_frame(4000)
            s.client.send(frame(CLOSE, struct.pack("!H", 4000), mask=True))
            assert rest(s.client) == b""
            until(lambda: not tunnels())

    def test_endpoint_that_never_responds_to_a_close_is_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An unclean end must not look like a clean one."""
        monkeypatch.setattr("akoya_gateway.upstream.websocket.tunnel.CLOSE_TIMEOUT", 0.5)
        with scene() as s:
            s.client.send(frame(CLOSE, BYE, mask=True))
            assert rest(s.client) == b""
            assert rest(s.app) == frame(CLOSE, BYE, mask=True)


class TestEndingFromOutside:
    def test_cancellation_between_frames_sends_close_frames_to_both_sides(self) -> None:
        with scene() as s:
            s.client.send(frame(TEXT, b"a", mask=True))
            assert exactly(s.app, 7) == frame(TEXT, b"a", mask=True)
            s.end()
            assert exactly(s.client, 8) == close_frame(4401, b"gone")
            assert close_to_app(exactly(s.app, 12)) == 4401
            s.client.send(frame(TEXT, b"b", mask=True) + frame(CLOSE, struct.pack("!H", 4401), mask=True))
            s.app.send(frame(TEXT, b"c") + close_frame(4401))
            assert rest(s.client) == rest(s.app) == b""

    def test_cancellation_within_a_client_frame_sends_the_upstreams_close_after_it(self) -> None:
        data = frame(BINARY, bytes(1000), mask=True)
        with scene() as s:
            s.client.send(data[:500])
            assert exactly(s.app, 500) == data[:500]
            s.end()
            assert exactly(s.client, 8) == close_frame(4401, b"gone")
            assert nothing_comes(s.app)
            s.client.send(data[500:] + frame(TEXT, b"too late", mask=True))
            assert exactly(s.app, len(data) - 500) == data[500:]
            assert close_to_app(exactly(s.app, 12)) == 4401
            assert nothing_comes(s.app)

    def test_upstream_is_cut_without_a_gateway_byte_inside_an_incomplete_client_frame(self) -> None:
        data = frame(BINARY, bytes(1000), mask=True)
        with scene() as s:
            s.client.send(data[:500])
            assert exactly(s.app, 500) == data[:500]
            s.end()
            assert rest(s.app) == b""
            assert rest(s.client) == close_frame(4401, b"gone")

    def test_cancellation_within_an_upstream_frame_sends_the_clients_close_after_it(self) -> None:
        data = frame(BINARY, bytes(100_000))
        with scene() as s:
            s.app.send(data[:50_000])
            assert exactly(s.client, 50_000) == data[:50_000]
            s.end()
            assert close_to_app(exactly(s.app, 12)) == 4401
            assert nothing_comes(s.client)
            s.app.send(data[50_000:] + frame(TEXT, b"too late"))
            assert exactly(s.client, len(data) - 50_000 + 8) == data[50_000:] + close_frame(4401, b"gone")
            assert nothing_comes(s.client)

    def test_client_is_cut_without_a_gateway_byte_inside_an_incomplete_upstream_frame(self) -> None:
        data = frame(BINARY, bytes(1000))
        with scene() as s:
            s.app.send(data[:500])
            assert exactly(s.client, 500) == data[:500]
            s.end()
            assert rest(s.client) == b""
            assert close_to_app(rest(s.app)) == 4401

    def test_cancellation_between_fragments_sends_close_frames_to_both_sides(self) -> None:
        """A control frame is allowed there (RFC 6455 section 5.4)."""
        with scene() as s:
            s.app.send(frame(TEXT, b"a", fin=False))
            assert exactly(s.client, 3) == frame(TEXT, b"a", fin=False)
            s.end()
            assert exactly(s.client, 8) == close_frame(4401, b"gone")

    def test_shutdown_while_the_client_waits_for_a_close_frame(self) -> None:
        with scene() as s:
            s.client.send(frame(CLOSE, BYE, mask=True))
            assert exactly(s.app, 8) == frame(CLOSE, BYE, mask=True)
            s.end()
            assert rest(s.client) == close_frame(4401, b"gone")
            s.app.send(close_frame(1000))
            assert rest(s.app) == b"", "the upstream must not get a second close frame"

    def test_client_that_does_not_read_is_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("akoya_gateway.upstream.websocket.tunnel.CLOSE_TIMEOUT", 0.5)
        with scene() as s:
            block = frame(BINARY, bytes(65_000))
            s.app.sock.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while True:
                    s.app.send(block)
            s.end()
            until(lambda: not tunnels())


class TestIdleness:
    def test_any_byte_of_either_side_is_a_sign_of_life(self) -> None:
        with scene(websocket=WebSocketBounds(idle_timeout=Seconds(3.0))) as s:
            for _ in range(33):
                time.sleep(0.1)
                s.client.send(frame(PING, b"", mask=True))
            for _ in range(33):
                time.sleep(0.1)
                s.app.send(frame(PONG, b""))
            assert exactly(s.app, 6 * 33) == frame(PING, b"", mask=True) * 33
            assert exactly(s.client, 2 * 33) == frame(PONG, b"") * 33
            assert exactly(s.client, 2) == bytes([0x88, 19])
            assert exactly(s.client, 19) == struct.pack("!H", 1001) + b"idle for too long"
            assert close_to_app(exactly(s.app, 25)) == 1001


class TestBackPressure:
    """For a slow reader, the gateway holds at most one transport buffer and one read, whatever is sent."""

    BOUND = 65_536 + 262_144

    def flood(self, sender: Caller | Client, block: bytes) -> int:
        """Send until the connection blocks. Return the largest number of bytes held meanwhile."""
        held = []
        sender.sock.settimeout(2.0)
        with contextlib.suppress(TimeoutError):
            while True:
                held.append(self.held())
                sender.send(block)
        return max(*held, self.held())

    def held(self) -> int:
        return max(end.transport.get_write_buffer_size() for end in tunnels())

    @pytest.mark.parametrize("size", [100, 1_000_000])
    def test_client_that_does_not_read(self, size: int) -> None:
        with scene() as s:
            block = frame(BINARY, bytes(size)) * (2_000_000 // size)
            assert 0 < self.flood(s.app, block) <= self.BOUND

    @pytest.mark.parametrize("size", [100, 1_000_000])
    def test_upstream_that_does_not_read(self, size: int) -> None:
        with scene() as s:
            block = frame(BINARY, bytes(size), mask=True) * (2_000_000 // size)
            assert 0 < self.flood(s.client, block) <= self.BOUND

    def test_client_that_does_not_read_does_not_keep_its_upstream_when_it_ends(self) -> None:
        with scene() as s:
            # A control frame is forwarded only as a whole, so the flow always stops between two frames.
            self.flood(s.app, frame(PING, bytes(125)) * 2_000)
            s.end()
            assert close_to_app(exactly(s.app, 12)) == 4401
            s.app.send(close_frame(4401))
            assert rest(s.app) == b""

    def test_client_that_resumes_reading_gets_everything_in_order(self) -> None:
        blocks = [frame(BINARY, struct.pack("!I", number) * 20_000) for number in range(300)]
        with scene() as s:

            def send_all() -> None:
                for block in blocks:
                    s.app.send(block)

            sender = threading.Thread(target=send_all, daemon=True)
            sender.start()
            time.sleep(1.0)
            assert sender.is_alive(), "the sender was not paused"
            for block in blocks:
                assert exactly(s.client, len(block)) == block


class TestTheServer:
    """The detachable WebSocket protocol, with an app that does not detach the connection."""

    @staticmethod
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        assert (await receive())["type"] == "websocket.connect"
        await asyncio.sleep(0.3)
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    def test_without_the_extension_messages_are_relayed(self) -> None:
        with (
            AppServer(self.echo, **(BARE | {"ws": DetachableWebSocketProtocol, "lifespan": "off"})) as server,
            Client(server.port) as client,
        ):
            client.send(request())
            time.sleep(0.1)
            client.send(frame(TEXT, b"early", mask=True))
            client.until(b"\r\n\r\n")
            assert exactly(client, 7) == frame(TEXT, b"early")
            client.send(frame(TEXT, b"a", mask=True))
            assert exactly(client, 3) == frame(TEXT, b"a")
            client.send(frame(CLOSE, BYE, mask=True))
            assert rest(client) == close_frame(1000)

    def test_connection_that_the_app_closed_without_receiving_is_closed_after_the_clients_close_frame(self) -> None:
        class Patient(DetachableWebSocketProtocol):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                self.close_timeout = 3600.0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})

        with (
            AppServer(app, **(BARE | {"ws": Patient, "lifespan": "off"})) as server,
            Client(server.port) as client,
        ):
            client.send(request())
            client.until(b"\r\n\r\n")
            assert exactly(client, 4) == close_frame(1000)
            client.send(frame(CLOSE, BYE, mask=True))
            assert rest(client, 30) == b""

    def test_bytes_of_a_client_that_left_before_the_response_are_discarded(self) -> None:
        received: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            while not scope["extensions"]["akoya.tunnel"].disconnected:
                await asyncio.sleep(0.01)
            while len(received) < 2:
                try:
                    received.append((await receive())["type"])
                except AssertionError as error:
                    received.append(repr(error))

        with AppServer(app, **(BARE | {"ws": DetachableWebSocketProtocol, "lifespan": "off"})) as server:
            with Client(server.port) as client:
                client.send(request())
                time.sleep(0.1)
                client.send(b"no frame")
            until(lambda: len(received) == 2)
        assert received == ["websocket.connect", "websocket.disconnect"]

    def test_it_keeps_a_connection_on_which_compression_was_agreed_upon(self) -> None:
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["extensions"])
            await receive()
            await send({"type": "websocket.close"})

        plain = request()
        deflate = plain[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        with AppServer(app, **(BARE | {"ws": DetachableWebSocketProtocol, "lifespan": "off"})) as server:
            for requested in (plain, deflate):
                with Client(server.port) as client:
                    client.send(requested)
                    client.rest()
        assert [("akoya.tunnel" in extensions) for extensions in seen] == [True, False]
