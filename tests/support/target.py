"""The attacked system: an entry point of this gateway or any gateway by URL. Requests are sent byte for byte."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.environment import GatewayEnv

TIMEOUT = 30.0


@dataclass(frozen=True)
class Reply:
    """A response. `status` 0: the connection was closed without one.

    `seen`: what the test app received, or None if the request did not reach it.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    after: bytes = b""
    """Data received after the response."""

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def seen(self) -> dict[str, Any] | None:
        try:
            document = json.loads(self.body)
        except ValueError:
            return None
        return (
            document if isinstance(document, dict) and "raw_headers" not in document and "headers" in document else None
        )

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def let_in(self) -> bool:
        """True if the app responded, or anything responded with success."""
        return self.seen is not None or 200 <= self.status < 300


class Target:
    """A gateway under attack.

    `protected` must not return success without a session; `public` must. Neither ends in a slash.
    """

    def __init__(
        self,
        entrypoint: str,
        url: str,
        protected: str,
        public: str,
        connect: str = "",
        callback: str = "",
        env: GatewayEnv | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.entrypoint = entrypoint
        self.url = url.rstrip("/")
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.authority = parts.netloc
        self._tls = parts.scheme == "https"
        self.protected = protected
        self.public = public
        self.connect = connect
        self.callback = callback
        self.env = env

    def __repr__(self) -> str:
        return self.entrypoint

    def fetch(
        self,
        path: str,
        *lines: str,
        method: str = "GET",
        host: str | None = None,
        body: bytes = b"",
        length: bool = True,
    ) -> Reply:
        """Send one request with exactly this target and these header lines (latin-1)."""
        head = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.authority if host is None else host}",
            "Connection: close",
            *lines,
        ]
        if body and length:
            head.append(f"Content-Length: {len(body)}")
        return self.raw("\r\n".join([*head, "", ""]).encode("latin-1") + body, head_only=method == "HEAD")

    def navigate(self, path: str, *lines: str) -> Reply:
        """Request a page as a browser does when it navigates."""
        return self.fetch(path, "Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", *lines)

    def raw(self, request: bytes, *, head_only: bool = False, timeout: float = TIMEOUT) -> Reply:
        """Send these bytes and read until the connection is closed."""
        data = bytearray()
        with self.open() as connection:
            connection.settimeout(timeout)
            try:
                connection.sendall(request)
                while chunk := connection.recv(65536):
                    data += chunk
            except (TimeoutError, ConnectionError):
                pass
        return parse(bytes(data), head_only=head_only)

    def open(self) -> socket.socket:
        plain = socket.create_connection((self.host, self.port), TIMEOUT)
        if not self._tls:
            return plain
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(plain, server_hostname=self.host)

    @property
    def needs_connect(self) -> str:
        if not self.connect:
            pytest.skip("this gateway's login route is not known: --connect-path")
        return self.connect

    @property
    def needs_callback(self) -> str:
        if not self.callback:
            pytest.skip("this gateway's callback is not known: --callback-path")
        return self.callback


def parse(data: bytes, *, head_only: bool = False) -> Reply:
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1."):
        return Reply(0, after=data)
    lines = head.decode("latin-1").split("\r\n")
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:]))
    status = int(lines[0].split(" ", 2)[1])
    if 100 <= status < 200 and status != 101:
        return parse(rest, head_only=head_only)
    reply = Reply(status, headers)
    if head_only or status in (101, 204, 304):
        return Reply(status, headers, after=rest)
    if "chunked" in reply.header("transfer-encoding").lower():
        body, after = unchunked(rest)
    else:
        length = reply.header("content-length")
        end = int(length) if length else len(rest)
        body, after = rest[:end], rest[end:]
    return Reply(status, headers, body, after)


def unchunked(data: bytes) -> tuple[bytes, bytes]:
    whole = bytearray()
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size.split(b";")[0] or b"0", 16)
        if length == 0:
            return bytes(whole), data.partition(b"\r\n")[2]
        whole += data[:length]
        data = data[length + 2 :]
    return bytes(whole), b""
