"""An upstream of raw bytes that records what it receives and responds as its script for the path says."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import BinaryIO

Script = Callable[[socket.socket, bytes], None]
"""Called with the connection and the request's bytes. It sends the response."""


def plain(answer: bytes) -> Script:
    return lambda connection, request: connection.sendall(answer)


def then_close(answer: bytes) -> Script:
    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(answer)
        # Shut down instead of close(), because the stream that reads the requests would keep the socket open.
        connection.shutdown(socket.SHUT_RDWR)

    return script


def in_pieces(*pieces: bytes, pause: float = 0.03) -> Script:
    def script(connection: socket.socket, request: bytes) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)

    return script


def silent(connection: socket.socket, request: bytes) -> None:
    """Send nothing until the peer closes."""
    connection.settimeout(3)
    with contextlib.suppress(OSError):
        while connection.recv(65_536):
            pass


class RawUpstream:
    """A scripted upstream. `scripts` maps the last segment of the path to its script.

    `received` holds the head of every request and `bodies` the body. The scripts named in `early` respond before the body
    is read.
    """

    def __init__(self, scripts: Mapping[str, Script], early: Collection[str] = ()) -> None:
        self._scripts = scripts
        self._early = early
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.received: list[bytes] = []
        self.bodies: list[bytes] = []

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
        with contextlib.suppress(OSError, EOFError), connection.makefile("rb") as stream:
            while True:
                request = _until(stream, b"\r\n\r\n")
                self.received.append(request)
                name = request.split(b" ", 2)[1].partition(b"?")[0].rpartition(b"/")[2].decode()
                if name in self._early:
                    self._scripts[name](connection, request)
                self.bodies.append(_body(stream, request))
                if name not in self._early:
                    self._scripts[name](connection, request)


def _body(stream: BinaryIO, request: bytes) -> bytes:
    if b"\r\ntransfer-encoding: chunked\r\n" in request:
        return _until(stream, b"0\r\n\r\n")
    announced = re.search(rb"\r\ncontent-length: (\d+)", request)
    return stream.read(int(announced[1])) if announced else b""


def _until(stream: BinaryIO, end: bytes) -> bytes:
    read = b""
    while not read.endswith(end):
        line = stream.readline()
        if not line:
            raise EOFError
        read += line
    return read
