"""Trailers named like gateway headers: which of them reach the app behind a proxy."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.forward_auth import ProxiedEnv, raw
from tests.support.proxies import PROXIES, ProxyMissing, program
from tests.support.waiting import WITHIN


def is_complete(request: bytes) -> bool:
    """Return whether the bytes end where the request does, including its trailers."""
    head, end, body = request.partition(b"\r\n\r\n")
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        return body.endswith(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


class RawApp:
    """Records the bytes of one request and responds to it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.received = b""

    def __enter__(self) -> RawApp:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(WITHIN)
            while not is_complete(self.received) and (chunk := connection.recv(65536)):
                self.received += chunk
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                self.received += chunk


def passes_trailers(proxy: str) -> bool:
    """Return True if this proxy forwards trailers.

    HAProxy can drop them from 3.2 on (`http-drop-request-trailers`).
    """
    if proxy != "haproxy":
        return False
    output = subprocess.run([program("haproxy"), "-v"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"version (\d+)\.(\d+)", output)
    assert version is not None, output
    return (int(version[1]), int(version[2])) < (3, 2)


@pytest.mark.parametrize("proxy", list(PROXIES))
def test_trailer_with_the_gateway_prefix_does_not_reach_the_app(tmp_path: Path, proxy: str) -> None:
    app = RawApp()
    try:
        env = ProxiedEnv(tmp_path, proxy, upstream=app)
        if passes_trailers(proxy):
            pytest.skip("this HAProxy cannot drop trailers, as docs/forward-auth.md says")
    except ProxyMissing as missing:
        pytest.skip(str(missing))
    with env:
        head = f"POST /public/x HTTP/1.1\r\nHost: 127.0.0.1:{env.port}\r\nConnection: close\r\nTrailer: Akoya-Owner\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert raw(env.port, head + "2\r\nhi\r\n0\r\nAkoya-Owner: spoofed\r\nSignature: akoya=:AAAA:\r\n\r\n")[0] == 200
        assert b"hi" in app.received
        assert b"spoofed" not in app.received
        assert b"AAAA" not in app.received
