"""uvicorn's WebSocket protocol as we run it, and one whose connection can be had whole after the handshake.

The handshake's answer, its refusals and the ASGI messages are uvicorn's. An app that knows the scope's extension
`akoya.tunnel` may accept, and then `join` the client's connection to another of its own: no frame is taken apart here.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.http11 import Request

EXTENSION = "akoya.tunnel"
_SERVICE_RESTART = 1012
_HANDSHAKE_FIELDS = frozenset({b"connection", b"upgrade", b"origin"})
_SEND_TIMEOUT = 60.0
"""Seconds for a client to take the rest of a response."""


class JoinedTunnel(Protocol):
    """What the connection has become a part of."""

    def end(self, code: int, reason: str, *, wait: bool = True) -> None:
        """Close it in order, with this close code. `wait`: for the answer."""


class GuardedWebSocketProtocol(WebSocketsSansIOProtocol):
    """Takes the handshake as the HTTP protocol has parsed it.

    uvicorn writes the request out and has the websockets library parse it again. That parser has limits of its own
    (8 KiB a line, 128 fields) and refuses bodies; uvicorn neither answers what it refuses nor closes the connection.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._holding = True
        """What comes behind the handshake is held until it is known who reads it. The library would parse it as frames,
        fail, and then could not send its response to the handshake."""
        self._early = b""

    def open(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer the handshake. The method is GET, and the request has no body."""
        # The library's parser has to be past a request; it gets an empty one.
        self.conn.receive_data(b"GET / HTTP/1.1\r\n\r\n")
        self.conn.events_received()
        # The library needs no other fields. The app gets all of them, below, as the client sent them.
        needed = [
            (name.decode("ascii"), value.decode("ascii", "backslashreplace"))
            for name, value in headers
            if name in _HANDSHAKE_FIELDS or name.startswith(b"sec-websocket-")
        ]
        self.handle_connect(Request(target.decode("ascii"), Headers(needed)))
        if self.response.status_code == 101:
            self.scope["headers"] = headers

    def data_received(self, data: bytes) -> None:
        if self._holding and self.handshake_initiated:
            self._early += data
            self.transport.pause_reading()
        else:
            super().data_received(data)

    async def receive(self) -> ASGIReceiveEvent:
        if self._holding and self.handshake_complete:
            # The app wants messages after all.
            early = self._release()
            if early:
                super().data_received(early)
        return await super().receive()

    async def send(self, message: ASGISendEvent) -> None:
        if not self.handshake_complete and self.transport.is_closing():
            # uvicorn would drop the message, and then log an error because the handshake was never completed.
            self.handshake_complete = True
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # uvicorn would log an error for each refused handshake.
            self.handshake_complete = True

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if self.transport.get_write_buffer_size():
            # A client that does not read its response would keep the connection for ever.
            self.loop.call_later(_SEND_TIMEOUT, self.transport.abort)

    def _release(self) -> bytes:
        """What was held; reading goes on."""
        self._holding = False
        early, self._early = self._early, b""
        if early and not self.transport.is_closing():
            self.transport.resume_reading()
        return early


class DetachableWebSocketProtocol(GuardedWebSocketProtocol):
    """See the module's text."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tunnel: JoinedTunnel | None = None

    def detach_to(self, successor: asyncio.Protocol, tunnel: JoinedTunnel) -> None:
        """`successor` has the connection from now on, and tells `connection_lost` here; `tunnel` is ended when we
        stop."""
        self.stop_keepalive()
        self._tunnel = tunnel
        self.transport.set_protocol(successor)
        early = self._release()
        if early:
            successor.data_received(early)
        if self.disconnected:
            successor.connection_lost(None)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        # What is compressed has a meaning for us alone: with an extension of ours, frames cannot be passed on.
        if self.response.status_code == 101 and not self.conn.extensions:
            cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self

    async def send(self, message: ASGISendEvent) -> None:
        if self._tunnel is None:
            await super().send(message)
        elif message["type"] == "websocket.close":
            self._tunnel.end(message.get("code", 1000), message.get("reason") or "")
        else:
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}', the connection has been joined.")

    def shutdown(self) -> None:
        if self._tunnel is None:
            super().shutdown()
        else:
            self._tunnel.end(_SERVICE_RESTART, "", wait=False)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.disconnected:
            super().connection_lost(exc)
