"""An upstream of raw bytes: it keeps what it received and answers what its script says for the path."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import BinaryIO

Script = Callable[[socket.socket, bytes], None]
"""Gets the connection and the request's bytes; what it does is the answer."""


def plain(answer: bytes) -> Script:
    return lambda connection, request: connection.sendall(answer)


def then_close(answer: bytes) -> Script:
    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(answer)
        # Not close(): the stream that reads the requests would keep it open.
        connection.shutdown(socket.SHUT_RDWR)

    return script


def in_pieces(*pieces: bytes, pause: float = 0.03) -> Script:
    def script(connection: socket.socket, request: bytes) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)

    return script


def silent(connection: socket.socket, request: bytes) -> None:
    """Answer nothing until the peer closes."""
    connection.settimeout(3)
    with contextlib.suppress(OSError):
        while connection.recv(65_536):
            pass


class RawUpstream:
    """`scripts` by the last segment of the path. The head of every request lands in `received`,
    what followed it in `bodies`. `early`: those that answer before they have read the body."""

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
