"""An upstream fast enough never to be the bottleneck. The body of each response is the Akoya-Id-Token it received."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import threading
from typing import Any

import uvloop

from tests.support.ports import free_port
from tests.support.processes import wait_for_port

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(rb"\r\nakoya-id-token: *([^\r]*)\r\n", re.IGNORECASE)
_KEY = re.compile(rb"\r\nsec-websocket-key: *([^\r]*)\r\n", re.IGNORECASE)


class EchoServer:
    """Runs in a thread with its own event loop. Accepts WebSockets too: it sends one message and keeps them open."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.slow = 0.0
        """Delay of each response, in seconds."""
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stop = asyncio.Event()

    def __enter__(self) -> EchoServer:
        self._thread.start()
        wait_for_port(self.port)
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await self._loop.create_server(lambda: _Echo(self), "127.0.0.1", self.port, backlog=1024)
        await self._stop.wait()
        server.close()


class _Echo(asyncio.Protocol):
    """Handles requests without a body only."""

    def __init__(self, server: EchoServer) -> None:
        self._server = server
        self._got = bytearray()
        self._upgraded = False
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            if data[0] == 0x88:  # a close frame
                self._transport.write(b"\x88\x00")
                self._transport.close()
            return
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._got[: end + 2])
            del self._got[: end + 4]
            self._response(head)

    def _response(self, head: bytes) -> None:
        key = _KEY.search(head)
        if key is not None:
            self._upgraded = True
            accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n\x81\x05hello"
            )
            return
        token = _TOKEN.search(head)
        body = token[1] if token is not None else b""
        response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        if self._server.slow:
            self._server._loop.call_later(self._server.slow, self._transport.write, response)
        else:
            self._transport.write(response)
