"""Client of event streams and WebSockets, run as a separate process.

    python -m benchmarks.rig.clients events|echo URL COUNT SECONDS HEADERS-AS-JSON

Prints its results as JSON. `requests` counts events or round trips; latencies are in microseconds. The first second is
a warm-up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

WARM_UP = 1.0
TEXT = b"0123456789abcdef" * 4
FRAME = bytes((0x81, 0x80 | len(TEXT))) + b"\0\0\0\0" + TEXT


class Counting(asyncio.Protocol):
    """Send a request and count the responses. Records `latencies` in nanoseconds while `measuring` is set."""

    measuring = False

    def __init__(self, request: bytes, latencies: list[int], failures: list[str]) -> None:
        self.request = request
        self.latencies = latencies
        self.failures = failures
        self.buffer = b""
        self.ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.failures.append("closed")

    def data_received(self, data: bytes) -> None:
        if self.ready:
            self.took(data)
            return
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if found:
            self.buffer = b""
            if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")):
                self.failures.append(head.decode("latin-1")[:200])
                self.transport.close()
                return
            self.ready = True
            self.begin(rest)

    def begin(self, rest: bytes) -> None:
        raise NotImplementedError

    def took(self, data: bytes) -> None:
        raise NotImplementedError


class Events(Counting):
    """Client of an event stream. Each event contains the time at which it was sent."""

    def begin(self, rest: bytes) -> None:
        self.took(rest)

    def took(self, data: bytes) -> None:
        now = time.monotonic_ns()
        for piece in data.split(b"data: ")[1:]:
            if Counting.measuring:
                self.latencies.append(now - int(piece.partition(b" ")[0]))


class Echo(Counting):
    """WebSocket client that sends a message, waits for its echo, and sends the next one."""

    def begin(self, rest: bytes) -> None:
        self.send_request()

    def send_request(self) -> None:
        self.sent_at = time.monotonic_ns()
        self.transport.write(FRAME)

    def took(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) >= len(TEXT) + 2:
            if self.buffer[2:] != TEXT:
                self.failures.append("not what was sent")
            self.buffer = b""
            if Counting.measuring:
                self.latencies.append(time.monotonic_ns() - self.sent_at)
            self.send_request()


async def run(kind: str, url: str, count: int, seconds: float, headers: dict[str, str]) -> dict[str, float]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    if kind == "echo":
        headers = {
            **headers,
            "origin": f"http://{parts.netloc}",
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n{lines}\r\n".encode()
    latencies: list[int] = []
    failures: list[str] = []
    make = Echo if kind == "echo" else Events
    loop = asyncio.get_running_loop()
    for _ in range(count):
        await loop.create_connection(lambda: make(request, latencies, failures), parts.hostname, parts.port)
    await asyncio.sleep(WARM_UP)
    if failures:
        raise SystemExit(f"{len(failures)} of {count} failed: {failures[0]}")
    Counting.measuring = True
    print("measuring", file=sys.stderr, flush=True)
    began = time.monotonic()
    await asyncio.sleep(seconds)
    Counting.measuring = False
    took = time.monotonic() - began
    latencies.sort()
    return {
        "requests": len(latencies),
        "micros": took * 1e6,
        "bytes": len(latencies) * len(TEXT),
        "errors": len(failures),
        **{name: _at(latencies, part) / 1e3 for name, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))},
    }


def _at(ordered: list[int], part: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * part))]) if ordered else 0.0


if __name__ == "__main__":
    kind, url, count, seconds, headers = sys.argv[1:]
    print(json.dumps(uvloop.run(run(kind, url, int(count), float(seconds), json.loads(headers)))))
