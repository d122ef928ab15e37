"""A raw client connection."""

from __future__ import annotations

import socket

from tests.support.environment import Browser


class Wire:
    """A keep-alive connection to a gateway."""

    def __init__(self, port: int) -> None:
        self._raw = socket.create_connection(("127.0.0.1", port), 60)
        self._data = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def send(self, data: bytes) -> None:
        self._raw.sendall(data)

    def head(self) -> bytes:
        """Return the head of the next response."""
        while b"\r\n\r\n" not in self._data:
            self._read()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        return head

    def answer(self) -> tuple[int, bytes, bytes]:
        """Return status, head and body of the next response, framed by Content-Length or chunks."""
        head = self.head()
        while head.startswith(b"HTTP/1.1 100 "):
            # Whether a 100 comes before the response to a GET without a body is up to the server, and a race.
            head = self.head()
        status = int(head.split(b" ", 2)[1])
        lines = [line.partition(b": ")[::2] for line in head.split(b"\r\n")[1:]]
        length = next((int(value) for name, value in lines if name == b"content-length"), None)
        if status in (204, 304):
            return status, head, b""
        if length is None:
            while not self._data.endswith(b"0\r\n\r\n"):
                self._read()
            body, self._data = self._data, b""
            return status, head, body
        while len(self._data) < length:
            self._read()
        body, self._data = self._data[:length], self._data[length:]
        return status, head, body

    def ask(self, data: bytes) -> tuple[int, bytes, bytes]:
        self.send(data)
        return self.answer()

    def closed(self) -> bool:
        try:
            return not self._data and self._raw.recv(65536) == b""
        except ConnectionError:
            return True

    def _read(self) -> None:
        more = self._raw.recv(65536)
        if not more:
            raise EOFError(self._data)
        self._data += more


def cookies_of(browser: Browser) -> bytes:
    return b"Cookie: " + "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items()).encode() + b"\r\n"
