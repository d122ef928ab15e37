"""Upstream on plain asyncio: event streams, WebSocket echo, endless downloads, and a slow reader.

python -m benchmarks.rig.streams PORT
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
import time
from typing import cast

import uvloop

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PER_SECOND = 10
PIECE = bytes(65536)


class Upstream(asyncio.Protocol):
    """Serve `/bench/events`, `/bench/echo`, `/bench/gigabyte` and `/bench/sink`. Any other path returns `hello`."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = b""
        self.echo = False
        self.sinking = -1
        self.writable = asyncio.Event()
        self.writable.set()
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        if self.echo:
            self.transport.write(unmasked(data))
        elif self.sinking >= 0:
            self.sink(len(data))
        else:
            self.buffer += data
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if found:
                self.buffer = b""
                self.respond(head, rest)

    def respond(self, head: bytes, rest: bytes) -> None:
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        loop = asyncio.get_running_loop()
        if path == b"/bench/events":
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self.task = loop.create_task(self.events())
        elif path == b"/bench/echo":
            key = _field(head, b"sec-websocket-key")
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            self.echo = True
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                b"sec-websocket-accept: " + accept + b"\r\n\r\n"
            )
        elif path == b"/bench/gigabyte":
            self.task = loop.create_task(self.gigabyte())
        elif path == b"/bench/sink":
            self.sinking = int(_field(head, b"content-length"))
            self.sink(len(rest))
        else:
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

    async def events(self) -> None:
        while True:
            event = b"data: %d %b\n\n" % (time.monotonic_ns(), b"x" * 80)
            self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(1 / PER_SECOND)
            await self.writable.wait()

    async def gigabyte(self) -> None:
        left = 1 << 30
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % left)
        while left:
            self.transport.write(PIECE)
            left -= len(PIECE)
            await self.writable.wait()

    def sink(self, size: int) -> None:
        """Count received body bytes, then pause reading: about 100 MB per second."""
        self.sinking -= size
        if self.sinking <= 0:
            self.sinking = -1
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        else:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(size / 100e6, self.transport.resume_reading)


def unmasked(data: bytes) -> bytes:
    """Convert short masked client frames to the same frames as a server sends them."""
    out = bytearray()
    at = 0
    while at < len(data):
        length = data[at + 1] & 0x7F
        mask, body = data[at + 2 : at + 6], data[at + 6 : at + 6 + length]
        key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        out += bytes((data[at], length)) + (int.from_bytes(body, "big") ^ key).to_bytes(length, "big")
        at += 6 + length
    return bytes(out)


def _field(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    raise ValueError(f"no {name.decode()}")


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
