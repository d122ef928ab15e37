"""A WebSocket echo server behind the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.support.shutdown import served


@contextmanager
def echo_server() -> Iterator[int]:
    """Yield the port of an echo server from the `websockets` library."""

    def handler(socket: ServerConnection) -> None:
        try:
            for message in socket:
                socket.send(message)
        except ConnectionClosed:
            pass

    server = serve(handler, "127.0.0.1", 0, compression=None, max_size=16 << 20, close_timeout=2)
    with served(server):
        yield int(server.socket.getsockname()[1])
