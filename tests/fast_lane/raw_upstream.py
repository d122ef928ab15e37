"""An upstream of raw bytes: it keeps what it received and answers what its script says for the path."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping

Script = Callable[[socket.socket, bytes], None]
"""Gets the connection and the request's bytes; what it does is the answer."""


def plain(answer: bytes) -> Script:
    return lambda connection, request: connection.sendall(answer)


def then_close(answer: bytes) -> Script:
    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(answer)
        connection.close()

    return script


def in_pieces(*pieces: bytes, pause: float = 0.03) -> Script:
    def script(connection: socket.socket, request: bytes) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)

    return script


def silent(connection: socket.socket, request: bytes) -> None:
    time.sleep(3)


class RawUpstream:
    """`scripts` by the last segment of the path. Every request's bytes land in `received`."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.received: list[bytes] = []

    def __enter__(self) -> RawUpstream:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        buffered = b""
        while True:
            while b"\r\n\r\n" not in buffered:
                try:
                    data = connection.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                buffered += data
            request, _, buffered = buffered.partition(b"\r\n\r\n")
            self.received.append(request + b"\r\n\r\n")
            name = request.split(b" ", 2)[1].partition(b"?")[0].rpartition(b"/")[2].decode()
            try:
                self._scripts[name](connection, request)
            except OSError:
                return
