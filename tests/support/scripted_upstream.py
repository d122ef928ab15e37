"""An upstream that responds with the bytes that its script for the path sends."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Collection, Mapping

from tests.support.raw_http import Caller, RawUpstream

Script = Callable[[socket.socket, bytes], None]
"""Called with the connection and the request's bytes. It sends the response."""


def plain(response: bytes) -> Script:
    return lambda connection, request: connection.sendall(response)


def then_close(response: bytes) -> Script:
    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(response)
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
    connection.settimeout(60)
    with contextlib.suppress(OSError):
        while connection.recv(65_536):
            pass


class ScriptedUpstream(RawUpstream):
    """A raw upstream. `scripts` maps the last segment of a path to the script that responds.

    `heads` holds the head of every request and `bodies` the body. The scripts named in `early` respond before the body
    is read.
    """

    def __init__(self, scripts: Mapping[str, Script], early: Collection[str] = ()) -> None:
        super().__init__(self._response)
        self._scripts = scripts
        self._early = early
        self.url = f"http://127.0.0.1:{self.origin.port}"
        self.bodies: list[bytes] = []

    def _response(self, caller: Caller) -> None:
        caller.sock.settimeout(None)  # The gateway keeps connections open without using them.
        while True:
            head = caller.head()
            name = head.split(b" ", 2)[1].partition(b"?")[0].rpartition(b"/")[2].decode()
            if name in self._early:
                self._scripts[name](caller.sock, head)
            self.bodies.append(_body(caller, head))
            if name not in self._early:
                self._scripts[name](caller.sock, head)


def _body(caller: Caller, head: bytes) -> bytes:
    if b"\r\ntransfer-encoding: chunked\r\n" in head:
        return caller.until(b"0\r\n\r\n")
    announced = re.search(rb"\r\ncontent-length: (\d+)", head)
    return caller.exactly(int(announced[1])) if announced else b""
