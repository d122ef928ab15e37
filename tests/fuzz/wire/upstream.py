"""The app behind each entry point: parses requests strictly, records them and echoes them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

from tests.support.ports import free_port

_START = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-~]*|\*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")


class Malformed(Exception):
    """A request that no upstream may ever receive."""


@dataclass(frozen=True)
class Seen:
    """A request as an app received it, with the entry point (`entrypoint`) and the upstream (`app`)."""

    entrypoint: str
    app: str
    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    wire: bytes

    def get(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.headers if each == name]


class Apps:
    """Two apps per entry point, all in one thread.

    `on_request` is called with each valid request, `on_malformed` with each malformed one.
    """

    def __init__(
        self,
        entrypoints: tuple[str, ...],
        on_request: Callable[[Seen], None],
        on_malformed: Callable[[str, str, bytes], None],
    ) -> None:
        self.ports = {(entrypoint, app): free_port() for entrypoint in entrypoints for app in ("main", "other")}
        self.open_streams = dict.fromkeys(entrypoints, 0)
        """Number of event streams and WebSockets that are still open, per entry point."""
        self._on_request = on_request
        self._on_malformed = on_malformed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def url(self, entrypoint: str, app: str = "main") -> str:
        return f"http://127.0.0.1:{self.ports[entrypoint, app]}"

    def __enter__(self) -> Self:
        self._thread.start()
        for (entrypoint, app), port in self.ports.items():
            start = asyncio.start_server(partial(self._serve, entrypoint, app), "127.0.0.1", port, limit=2**20)
            asyncio.run_coroutine_threadsafe(start, self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(
        self, entrypoint: str, app: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        read = b""
        try:
            while True:
                read = await reader.readuntil(b"\r\n\r\n")
                method, target, headers = parse_head(read)
                body = await self._body(headers, reader)
                read += body
                self._on_request(Seen(entrypoint, app, method, target, headers, read))
                key = [value for name, value in headers if name == b"sec-websocket-key"]
                if key:
                    writer.write(_accepted(key[0]))
                    await self._until_closed(entrypoint, reader)
                    return
                if target.partition(b"?")[0].endswith(b"/sse"):
                    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                    writer.write(head + (b"" if method == b"HEAD" else b"6\r\n:hi\r\n\n\r\n"))
                    await self._until_closed(entrypoint, reader)
                    return
                head = (
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nAkoya-Echo: 1\r\nContent-Length: %d\r\n\r\n"
                    % len(read)
                )
                writer.write(head + (b"" if method == b"HEAD" else read))
                await writer.drain()
        except Malformed as error:
            self._on_malformed(entrypoint, str(error), read)
        except (asyncio.IncompleteReadError, OSError):
            # A client may disconnect in the middle of a request.
            pass
        except asyncio.LimitOverrunError:
            self._on_malformed(entrypoint, "head without end", read)
        finally:
            writer.close()

    async def _until_closed(self, entrypoint: str, reader: asyncio.StreamReader) -> None:
        self.open_streams[entrypoint] += 1
        try:
            while (data := await reader.read(65536)) and data[:1] != b"\x88":
                pass  # a close frame of the WebSocket ends it too
        finally:
            self.open_streams[entrypoint] -= 1

    async def _body(self, headers: tuple[tuple[bytes, bytes], ...], reader: asyncio.StreamReader) -> bytes:
        lengths = [value for name, value in headers if name == b"content-length"]
        codings = [value for name, value in headers if name == b"transfer-encoding"]
        if len(lengths) + len(codings) > 1:
            raise Malformed("more than one framing")
        if codings:
            if codings != [b"chunked"]:
                raise Malformed("transfer coding")
            body = b""
            while True:
                line = await reader.readuntil(b"\r\n")
                if not re.fullmatch(rb"[0-9a-fA-F]{1,8}\r\n", line):
                    raise Malformed("chunk size")
                chunk = await reader.readexactly(int(line, 16) + 2)
                if chunk[-2:] != b"\r\n":
                    raise Malformed("end of chunk, or a trailer")
                if not int(line, 16):
                    return body
                body += chunk[:-2]
        if lengths and not re.fullmatch(rb"\d{1,9}", lengths[0]):
            raise Malformed("content-length")
        return await reader.readexactly(int(lengths[0])) if lengths else b""


def parse_head(head: bytes) -> tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...]]:
    """Return method, target and headers. Raise `Malformed` if the head is invalid."""
    start, *lines = head[:-4].split(b"\r\n")
    found = _START.fullmatch(start)
    if found is None:
        raise Malformed("request line")
    headers = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Malformed("header line")
        headers.append((field[1].lower(), field[2]))
    if [name for name, _ in headers].count(b"host") != 1:
        raise Malformed("host")
    return found[1], found[2], tuple(headers)


def _accepted(key: bytes) -> bytes:
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # RFC 6455
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
