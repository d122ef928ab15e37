"""Tests of the fast lane in `akoya-gateway run` when the client or the upstream is slow, disconnects or is down."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fast_lane.requests import send_request, warm
from tests.support.raw_http import Caller, RawUpstream
from tests.support.sidecar import Running
from tests.support.waiting import until

OK = b"HTTP/1.1 200 OK\r\n"
PIECE = 1 << 20
PAGE = OK + b"Content-Length: 30000\r\n\r\n" + bytes(30_000)
SPECIAL = OK + b"Akoya-Any: 1\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)
"""The gateway removes a header of this response, so it writes head and body separately."""


class Upstream:
    """An upstream that responds as the last segment of the path says."""

    def __init__(self) -> None:
        self.left = 0
        self.pieces = 0

    def __call__(self, caller: Caller) -> None:
        served = 0
        while True:
            name = caller.head().split(b" ")[1].rpartition(b"/")[2]
            if name == b"stale" and served:
                return
            if name == b"kill":
                return
            if name == b"slow":
                time.sleep(0.2)
            if name == b"hang":
                self.left += caller.closed_by_peer()
                return
            if name == b"big":
                caller.send(OK + b"Content-Length: %d\r\n\r\n" % (256 * PIECE))
                for _ in range(256):
                    caller.send(bytes(PIECE))
                    self.pieces += 1
            elif name == b"page":
                caller.send(PAGE)
            elif name == b"special":
                caller.send(SPECIAL)
            else:
                caller.send(OK + b"Content-Length: %d\r\n\r\n%b" % (len(name), name))
            served += 1


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, RawUpstream, Upstream]]:
    app = Upstream()
    with RawUpstream(app) as upstream:
        changes = {"upstream": {"url": f"http://127.0.0.1:{upstream.origin.port}", "timeout": {"read": "20s"}}}
        with Running(tmp_path_factory.mktemp("gateway"), changes=changes) as run:
            yield run.port, upstream, app


def test_connection_that_was_just_closing_costs_an_idempotent_request_nothing(
    lane: tuple[int, RawUpstream, Upstream],
) -> None:
    port, upstream, _ = lane
    with warm(port) as client:
        send_request(client, "stale")
        assert client.response().body == b"stale"
    assert sum(b"/public/stale" in head for head in upstream.heads) == 2


def test_request_that_kills_two_connections_is_not_sent_a_third_time(lane: tuple[int, RawUpstream, Upstream]) -> None:
    """There are enough idle connections for it to close more than two (RFC 9110 section 9.2.2)."""
    port, upstream, _ = lane
    with contextlib.ExitStack() as crowd:
        clients = [crowd.enter_context(warm(port)) for _ in range(4)]
        for client in clients:
            send_request(client, "slow")
        for client in clients:
            assert client.response().body == b"slow"
        send_request(clients[0], "kill")
        assert clients[0].response().status == 502
    assert sum(b"/public/kill" in head for head in upstream.heads) == 2


def test_request_that_may_have_had_an_effect_is_not_sent_again(lane: tuple[int, RawUpstream, Upstream]) -> None:
    port, upstream, _ = lane
    before = sum(b"/public/stale" in head for head in upstream.heads)
    with warm(port) as client:
        client.send(b"POST /public/stale HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().status == 502
    assert sum(b"/public/stale" in head for head in upstream.heads) == before + 1


def test_client_that_leaves_is_noticed_by_the_upstream(lane: tuple[int, RawUpstream, Upstream]) -> None:
    port, upstream, app = lane
    with warm(port) as client:
        send_request(client, "hang")
        until(lambda: any(b"/public/hang" in head for head in upstream.heads))
    until(lambda: app.left == 1)


def test_slow_reader_stops_the_upstream(lane: tuple[int, RawUpstream, Upstream]) -> None:
    port, _, app = lane
    with warm(port) as client:
        send_request(client, "big")
        client.until(b"\r\n\r\n")
        time.sleep(1)
        assert app.pieces < 64
        held = app.pieces
        taken = len(client.buffer)
        while taken < 100 * PIECE:
            taken += len(client.sock.recv(PIECE))
        assert app.pieces > held


class NeverReads:
    """A client that sends one request at a time and reads no response."""

    def __init__(self, port: int, upstream: RawUpstream) -> None:
        self._upstream = upstream
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.connect(("127.0.0.1", port))

    def __enter__(self) -> NeverReads:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def fetch(self, name: str) -> bool:
        """Send a request. Return whether the upstream has received it."""
        before = len(self._upstream.heads)
        self._sock.sendall(b"GET /public/%b HTTP/1.1\r\nHost: a\r\n\r\n" % name.encode())
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline and len(self._upstream.heads) == before:
            time.sleep(0.01)
        return len(self._upstream.heads) > before


def test_client_that_pipelines_without_reading_is_kept_waiting(lane: tuple[int, RawUpstream, Upstream]) -> None:
    """The kernel buffers some megabytes. Without back pressure the gateway would hold the rest in memory."""
    port, upstream, _ = lane
    with NeverReads(port, upstream) as client:
        assert not all(client.fetch("page") for _ in range(500))


def test_connection_with_an_unread_response_does_not_hold_up_others(lane: tuple[int, RawUpstream, Upstream]) -> None:
    """The connection returns to the pool before the response is written. A client that does not read must not block it."""
    port, upstream, _ = lane
    with NeverReads(port, upstream) as client, warm(port) as other:
        while client.fetch("special"):
            send_request(other, "hi")
            assert other.response().body == b"hi"


def test_cached_results_are_dropped_with_their_configuration(tmp_path: Path) -> None:
    """This tests connections opened before the reload, for both directions of the change and under load."""
    with RawUpstream(Upstream()) as upstream:
        changes = {"upstream": {"url": f"http://127.0.0.1:{upstream.origin.port}"}}
        with Running(tmp_path, changes=changes) as run, warm(run.port) as client, warm(run.port) as other:
            text = run.gateway.config_path.read_text()
            for rule, status in (("/other/*", 403), ("/public/*", 200), ("/other/*", 403)):
                run.gateway.config_path.write_text(text.replace("/public/*", rule))
                run.signal(signal.SIGHUP)
                seen: list[int] = []
                deadline = time.monotonic() + 60
                while seen[-20:] != [status] * 20:
                    send_request(other, "hi")
                    seen.append(other.response().status)
                    assert time.monotonic() < deadline, "the reload did not take effect"
                for _ in range(3):
                    send_request(client, "hi")
                    assert client.response().status == status
                assert seen == sorted(seen, reverse=status < 300), "the old rules were in force again"
