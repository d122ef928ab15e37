"""An upstream app with WebSockets, and how to serve it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from akoya_gateway.config.model import Origin
from tests.support.raw_http import Caller
from tests.support.shutdown import served


class App:
    """An upstream app that echoes, with special behaviour on some paths. `closed` holds the close codes it received."""

    def __init__(self) -> None:
        self.closed: list[tuple[int | None, str]] = []
        self.requests: list[Any] = []
        self.received = 0
        self.open = 0

    def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.requests.append(socket.request)
        self.open += 1
        path = socket.request.path
        try:
            if path.startswith("/close/"):
                socket.close(int(path.rpartition("/")[2]), "as asked")
            elif path == "/flood":
                for _ in range(400):
                    socket.send(b"x" * 262_144)
                    self.received += 1
            elif path == "/ticks":
                while True:
                    socket.send("tick")
                    time.sleep(0.02)
            elif path.endswith("/big"):
                for message in socket:
                    socket.send(b"x" * int(message))
            else:
                for message in socket:
                    self.received += 1
                    socket.send(message)
        except ConnectionClosed:
            pass
        finally:
            self.open -= 1
            self.closed.append((socket.protocol.close_code, socket.protocol.close_reason or ""))


@contextlib.contextmanager
def serving(app: Any, **options: Any) -> Iterator[Server]:
    server = serve(app, "127.0.0.1", 0, max_size=None, **options)
    with served(server):
        yield server


def origin_of(server: Server) -> Origin:
    return Origin("http", "127.0.0.1", server.socket.getsockname()[1])


def key_of(head: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept value for the key in a request head (RFC 6455 section 4.2.2)."""
    key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def accept(caller: Caller) -> None:
    caller.send(
        b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
        % key_of(caller.head())
    )
