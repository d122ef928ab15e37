"""A WebSocket handshake, and the number of open file descriptors of a process."""

from __future__ import annotations

from tests.support.sidecar import Running

HANDSHAKE = (
    b"GET /public/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def open_descriptors(run: Running) -> int:
    lines = run.fetch_admin("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("process_open_fds")).split()[1]))
