"""Tests that every WebSocket handshake and upgrade gets a response, and that a client still sending receives its refusal."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.server.descriptors import HANDSHAKE, open_descriptors
from tests.support.raw_http import Caller, Client, RawUpstream
from tests.support.sidecar import Running
from tests.support.waiting import until

FIELDS = HANDSHAKE.partition(b"\r\n")[2][:-2]
FIRST = b"GET /public/x HTTP/1.1\r\n"
GET = FIRST + b"Host: a\r\n\r\n"


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    """Start an upstream that accepts every WebSocket and responds to every request."""

    def handler(caller: Caller) -> None:
        while True:
            head = caller.head()
            key = re.search(rb"\r\nsec-websocket-key: (\S+)", head)
            if key is None or b"\r\nupgrade: websocket\r\n" not in head.lower():
                caller.respond(b"done")
                continue
            accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            caller.send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
            )
            caller.closed_by_peer()
            return

    with RawUpstream(handler) as upstream:
        yield upstream


@pytest.fixture(scope="module", params=[(), ("--no-fast-lane",)], ids=["lane", "general"])
def run(
    request: pytest.FixtureRequest, upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    changes = {
        "upstream": {"url": f"http://127.0.0.1:{upstream.origin.port}", "max_header_bytes": "128KiB"},
        "limits": {"body_bytes": 1000},
    }
    with Running(tmp_path_factory.mktemp("gateway"), *request.param, changes=changes) as run:
        yield run


ANSWERS = {
    "plain": (FIRST + FIELDS, 101),
    "Content-Length: 0": (FIRST + FIELDS + b"Content-Length: 0\r\n", 101),
    "cookie of 9 KiB": (FIRST + FIELDS + b"Cookie: a=" + b"v" * 9000 + b"\r\n", 101),
    "cookie of 60 KiB": (FIRST + FIELDS + b"Cookie: a=" + b"v" * 60_000 + b"\r\n", 101),
    "query of 9 KiB": (FIRST.replace(b"x HTTP", b"x?" + b"q" * 9000 + b" HTTP") + FIELDS, 101),
    "200 fields": (FIRST + FIELDS + b"".join(b"X-%d: y\r\n" % number for number in range(195)), 101),
    "bytes beyond ASCII in a value": (FIRST + FIELDS + b"X-A: \xe9\xff\r\n", 101),
    "HTTP/1.0": (FIRST.replace(b"/1.1", b"/1.0") + FIELDS, 200),
    "HTTP/1.0 with keep-alive": (
        FIRST.replace(b"/1.1", b"/1.0") + FIELDS.replace(b": Upgrade", b": keep-alive, Upgrade"),
        200,
    ),
    "300 fields": (FIRST + FIELDS + b"".join(b"X-%d: y\r\n" % number for number in range(300)), 431),
    "70 KiB": (FIRST + FIELDS + b"Cookie: a=" + b"v" * 70_000 + b"\r\n", 431),
    "Content-Length: 5": (FIRST + FIELDS + b"Content-Length: 5\r\n", 400),
    "chunked": (FIRST + FIELDS + b"Transfer-Encoding: chunked\r\n", 400),
    "POST": (FIRST.replace(b"GET", b"POST") + FIELDS, 400),
    "no key": (FIRST + FIELDS.replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
    "two keys": (FIRST + FIELDS + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
    "key beyond ASCII": (FIRST + FIELDS.replace(b"dGhl", b"\xe9Ghl"), 400),
    "version 12": (FIRST + FIELDS.replace(b": 13", b": 12"), 400),
    "odd subprotocol": (FIRST + FIELDS + b"Sec-WebSocket-Protocol: a b,,\r\n", 400),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_handshake_in_any_form_gets_a_response(run: Running, name: str) -> None:
    handshake, status = ANSWERS[name]
    with Client(run.port) as client:
        client.sock.settimeout(60)
        client.send(handshake + b"\r\n")
        head = client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), head[:200]
        if status >= 400:
            client.rest()


def test_handshake_brings_every_header_byte_to_the_upstream(run: Running, upstream: RawUpstream) -> None:
    """Headers that the WebSocket library does not parse must reach the upstream unchanged."""
    with Client(run.port) as client:
        client.send(FIRST + FIELDS + b"Cookie: a=" + b"v" * 9000 + b"\r\nX-A: \xe9 b\r\n\r\n")
        assert client.until(b"\r\n").startswith(b"HTTP/1.1 101")
    assert b"\r\ncookie: a=" + b"v" * 9000 + b"\r\n" in upstream.heads[-1]
    assert b"\r\nx-a: \xe9 b\r\n" in upstream.heads[-1]


def test_refused_handshakes_leave_no_connection_open(run: Running) -> None:
    before = open_descriptors(run)
    clients = []
    for name in ("Content-Length: 5", "chunked", "300 fields"):
        for _ in range(10):
            client = Client(run.port)
            client.send(ANSWERS[name][0] + b"\r\n")
            clients.append(client)
    until(lambda: open_descriptors(run) <= before + 2, "the gateway closes the connections although the clients do not")
    for client in clients:
        assert client.buffer or client.rest().startswith(b"HTTP/1.1 4")
        client.sock.close()


@pytest.mark.parametrize("upgrade", [b"foo", b"h2c", b"websocket/13", b"foo, websocket"])
@pytest.mark.parametrize("pause", [0.0, 0.1], ids=["one segment", "two segments"])
def test_request_after_an_unknown_upgrade_is_served(run: Running, upgrade: bytes, pause: float) -> None:
    first = FIRST + b"Host: a\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n"
    with Client(run.port) as client:
        for piece in (first, GET, first + GET) if pause else (first + GET + first + GET,):
            client.send(piece)
            time.sleep(pause)
        for _ in range(4):
            assert client.response().body == b"done"


def test_body_of_a_request_with_an_unknown_upgrade_is_no_request(run: Running) -> None:
    """The other side may disagree on where this request ends (RFC 9110 section 7.8)."""
    body = b"GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    head = (
        b"POST /public/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    with Client(run.port) as client:
        client.send(head + body + GET)
        response = client.rest()
        assert response.startswith(b"HTTP/1.1 400 ")
        assert response.count(b"HTTP/1.1 ") == 1


def test_bytes_after_connect_get_no_response(run: Running) -> None:
    with Client(run.port) as client:
        client.send(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + GET)
        response = client.rest()
        assert response.count(b"HTTP/1.1 ") == 1
        assert b" 200 " not in response[:20]


@pytest.mark.parametrize(
    "first",
    [b"GET / HTTP/1.1\r\nX-A: " + b"a" * 100_000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 300, b"\0"],
    ids=["size", "fields", "NUL"],
)
def test_refusal_reaches_a_client_that_is_still_sending(run: Running, first: bytes) -> None:
    """An immediate close would reset the connection, and the client would lose the refusal."""
    for _ in range(10):
        with Client(run.port) as client:
            client.send(first)
            for _ in range(5):
                client.send(b"a" * 20_000)
                time.sleep(0.005)
            client.sock.shutdown(socket.SHUT_WR)
            assert client.rest().startswith(b"HTTP/1.1 4")


def test_refused_upload_gets_a_response_while_the_client_is_still_sending(run: Running) -> None:
    head = b"POST /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 500000\r\n\r\n"
    for _ in range(10):
        with Client(run.port) as client:
            client.send(head)
            for _ in range(50):
                client.send(bytes(10_000))
            response = client.rest()
            assert response.startswith(b"HTTP/1.1 413")
            assert b"connection: close" in response


def test_client_that_never_stops_sending_is_cut_off(run: Running) -> None:
    deadline = time.monotonic() + 30
    with Client(run.port) as client, pytest.raises(ConnectionError):
        client.send(b"\0")
        while time.monotonic() < deadline:
            client.send(bytes(100_000))


@pytest.mark.parametrize(
    "first",
    [FIRST + b"Host: a\r\n", b"POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"],
    ids=["GET", "POST"],
)
def test_more_header_fields_than_allowed_are_431(run: Running, first: bytes) -> None:
    for count, status in ((255, 200), (257, 431), (9000, 431)):
        lines = b"a:b\r\n" * (count - first.count(b"\r\n") + 1)
        with Client(run.port) as client:
            client.send(first + lines + b"\r\n")
            assert client.response().status == status, count


def test_more_trailer_fields_than_allowed_end_the_request(run: Running) -> None:
    with Client(run.port) as client:
        client.send(
            b"POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
            + b"a:b\r\n" * 300
        )
        assert b" 431 " in client.until(b"\r\n")


@pytest.mark.parametrize("path", [b"/public/ws", b"/nowhere"], ids=["accepted", "refused"])
@pytest.mark.parametrize(
    "behind", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x81\x85\0\0\0\0hello"], ids=["nothing", "no frame", "frame"]
)
def test_bytes_behind_a_handshake_write_no_error(run: Running, path: bytes, behind: bytes) -> None:
    for leaves in (False, True):
        with Client(run.port) as client:
            client.send(b"GET " + path + b" HTTP/1.1\r\n" + FIELDS + b"\r\n" + behind)
            if not leaves:
                assert client.until(b"\r\n").split()[1] == (b"101" if path == b"/public/ws" else b"403")
    until(lambda: run.fetch_admin("/livez").status_code == 200)
    assert [line for line in run.log() if line["level"] in ("error", "critical")] == []


@pytest.mark.parametrize("hosts", [b"Host: a b\r\n", b"Host: [x\r\n"])
def test_handshake_that_cannot_be_passed_on_is_400_and_writes_no_error(run: Running, hosts: bytes) -> None:
    with Client(run.port) as client:
        client.send(FIRST + FIELDS.replace(b"Host: a\r\n", hosts) + b"\r\n")
        assert client.until(b"\r\n").split()[1] == b"400"
    assert [line for line in run.log() if line["level"] in ("error", "critical")] == []
