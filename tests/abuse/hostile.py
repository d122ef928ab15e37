"""Loopback server that returns a malformed, oversized or stalled response, chosen by the request path."""

from __future__ import annotations

import contextlib
import gzip
import socket
import socketserver
import threading
from collections.abc import Callable
from typing import Self

from tests.support.shutdown import done

Misbehave = Callable[[socket.socket, threading.Event], None]

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def send(*pieces: bytes) -> Misbehave:
    def respond(peer: socket.socket, _: threading.Event) -> None:
        for piece in pieces:
            peer.sendall(piece)

    return respond


def endless(head: bytes, piece: bytes, pause: float = 0.0) -> Misbehave:
    """Send `piece` repeatedly until the client closes the connection or the server stops."""

    def respond(peer: socket.socket, over: threading.Event) -> None:
        peer.sendall(head)
        while not over.wait(pause):
            peer.sendall(piece)

    return respond


def never(_: socket.socket, over: threading.Event) -> None:
    over.wait(60)


def redirect(to: str) -> Misbehave:
    return send(b"HTTP/1.1 302 Found\r\nLocation: " + to.encode() + b"\r\nContent-Length: 0\r\n\r\n")


ANSWERS: dict[str, Misbehave] = {
    "html": send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 26\r\n\r\n<html>captive portal</html>"[:-1]
        + b">"
    ),
    "fifty-megabytes": send(JSON + b"Content-Length: 52428800\r\n\r\n", *[b'{"keys":[' + b" " * 1048567] * 50),
    "gigabytes": endless(JSON + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "bomb": send(JSON + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n", gzip.compress(b" " * 200_000_000, 1)),
    "endless-head": endless(b"HTTP/1.1 200 OK\r\n", b"X-Pad: " + b"x" * 8000 + b"\r\n"),
    "dribble": endless(JSON + b"Content-Length: 100000\r\n\r\n", b" ", 0.1),
    "dribbled-head": endless(b"HTTP/1.1 200 OK\r\n", b"X", 0.1),
    "elsewhere": redirect("http://169.254.169.254/latest/meta-data/"),
    "loop": redirect("/loop"),
    "never": never,
    "nothing": send(),
    "garbage": send(b"\x00\xff\x16\x03\x01" * 100),
    "deep": send(JSON + b"Connection: close\r\n\r\n" + b"[" * 60_000),
    "switching": send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n" + b"x" * 1000),
    "interim": endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.005),
}


class Hostile:
    """A context manager that runs the server. `counts` counts the requests per path."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._over = threading.Event()
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                head = b""
                with contextlib.suppress(OSError):
                    while b"\r\n\r\n" not in head:
                        more = self.request.recv(65536)
                        if not more:
                            return
                        head += more
                    path = head.split(b" ", 2)[1].decode().strip("/")
                    outer.counts[path] = outer.counts.get(path, 0) + 1
                    ANSWERS[path](self.request, outer._over)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                """Ignore errors: the client is expected to hang up."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        done(self._server.shutdown, "the hostile server has stopped")
        self._server.server_close()
