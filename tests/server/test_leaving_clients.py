"""Tests that a disconnected client is noticed, whatever it has sent after the request that is being served."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from akoya_gateway.config.model import Listen
from akoya_gateway.server.listeners import KEEPALIVE, bind
from tests.server.descriptors import HANDSHAKE, open_descriptors
from tests.support.raw_http import Caller, Client, RawUpstream
from tests.support.sidecar import Running
from tests.support.waiting import until

STREAM = b"GET /public/stream HTTP/1.1\r\nHost: a\r\n\r\n"
STREAM_GENERAL = b"GET /public/stream HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
"""A `Content-Length` header keeps this request off the fast lane."""
NEXT = b"GET /public/next HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST /public/next HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + bytes(300_000)


class Streams:
    """An upstream with an event stream that is silent after its first event. Counts the open streams."""

    def __init__(self) -> None:
        self.open = 0
        self.give_up = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, caller: Caller) -> None:
        while True:
            if not caller.head().split(b" ")[1].endswith(b"/stream"):
                caller.respond()
                continue
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            self._count(1)
            try:
                caller.send(head + b"6\r\n:hi\r\n\n\r\n")
                caller.sock.settimeout(60)
                # Do not read the request body: an app need not.
                while caller.sock.recv(1) and not self.give_up.wait(0.05):
                    pass
            finally:
                self._count(-1)
            return

    def _count(self, change: int) -> None:
        with self._lock:
            self.open += change


@pytest.fixture(scope="module", params=[(), ("--no-fast-lane",)], ids=["lane", "general"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, Streams]]:
    streams = Streams()
    with RawUpstream(streams) as upstream:
        changes = {"upstream": {"url": f"http://127.0.0.1:{upstream.origin.port}", "timeout": {"read": "60s"}}}
        with Running(tmp_path_factory.mktemp("gateway"), *request.param, changes=changes) as run:
            with Client(run.port) as client:
                client.send(NEXT)
                client.response()
            yield run, streams


def reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()


BEHIND = {
    "nothing": b"",
    "a request": NEXT,
    "many requests": NEXT * 30,
    "half a request": NEXT[:20],
    "a body that is not wanted yet": UPLOAD,
    "a handshake": HANDSHAKE,
    "an unknown upgrade": NEXT.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n") + NEXT,
    "no HTTP": b"\0\r\n\r\n",
}


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("first", [STREAM, STREAM_GENERAL], ids=["plain", "general"])
def test_stream_with_pipelined_bytes_ends_when_its_client_disconnects(
    gateway: tuple[Running, Streams], first: bytes, behind: str, leave: str
) -> None:
    run, streams = gateway
    clients = [Client(run.port) for _ in range(3)]
    for client in clients:
        client.send(first + BEHIND[behind])
        client.until(b":hi")
    assert streams.open == len(clients)
    for client in clients:
        reset(client) if leave == "reset" else client.sock.close()
    until(lambda: streams.open == 0, "all streams are closed")


def test_stream_with_an_unread_request_body_ends_when_its_client_disconnects(
    gateway: tuple[Running, Streams],
) -> None:
    """The upstream cannot detect the disconnect either, behind a body it does not read. Check the gateway's open sockets."""
    run, streams = gateway
    before = open_descriptors(run)
    clients = [Client(run.port) for _ in range(5)]
    for client in clients:
        client.send(b"POST /public/stream HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n" + bytes(1000))
        client.until(b":hi")
        client.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while True:
                client.sock.send(bytes(100_000))
    assert open_descriptors(run) > before + len(clients)
    for client in clients:
        # Reset, because a FIN would queue behind bytes that no kernel buffer has room for.
        reset(client)
    until(lambda: open_descriptors(run) <= before + 1)
    streams.give_up.set()
    until(lambda: streams.open == 0)
    streams.give_up.clear()


@pytest.mark.parametrize(
    "behind", [b"\0\r\n\r\n", b"GET / HTTP/9\r\n\r\n", HANDSHAKE, NEXT], ids=["NUL", "version", "handshake", "request"]
)
def test_requests_of_clients_that_leave_or_break_off_write_no_error(
    gateway: tuple[Running, Streams], behind: bytes
) -> None:
    """Each such request used to log a traceback of 2 KB at level error."""
    run, _ = gateway
    before = len(run.log())
    for number in range(40):
        client = Client(run.port)
        client.send(NEXT * 2 + behind)
        if number % 2:
            reset(client)
        else:
            client.sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                client.rest()
            client.sock.close()
    with Client(run.port) as client:
        client.send(NEXT)
        assert client.response().status == 200
    lines = run.log()[before:]
    assert [line for line in lines if line["level"] not in ("info", "debug")] == []
    assert len([line for line in lines if line["event"] != "request"]) <= 3


def test_refused_requests_are_logged_once_a_minute_and_reason(gateway: tuple[Running, Streams]) -> None:
    run, _ = gateway
    for _ in range(50):
        with Client(run.port) as client:
            client.send(b"GET /public/x HTTP/9.9\r\nHost: a\r\n\r\n")
            assert b" 400 " in client.rest() or b" 505 " in client.rest()
    lines = [line for line in run.log() if line["event"] == "requests refused"]
    assert "not valid HTTP: Invalid HTTP version" in {line["reason"] for line in lines}
    assert len({line["reason"] for line in lines}) == len(lines)


def test_running_response_is_completed_before_a_broken_request_behind_it_closes(
    gateway: tuple[Running, Streams],
) -> None:
    run, _ = gateway
    for _ in range(20):
        with Client(run.port) as client:
            client.send(NEXT * 3 + b"NONSENSE\r\n\r\n")
            assert client.rest().count(b"HTTP/1.1 200") == 3


def test_connection_whose_client_vanished_is_probed() -> None:
    """The loss of a network does not reach the gateway without probes."""
    with bind("listen", Listen("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        with listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            options = {option: accepted.getsockopt(socket.IPPROTO_TCP, option) for option in KEEPALIVE}
    assert options == {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 4}
