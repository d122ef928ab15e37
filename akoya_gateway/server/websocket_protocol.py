"""uvicorn's WebSocket protocol with fixes, and a variant whose connection can be taken over after the handshake.

The handshake response, its refusals and the ASGI messages are uvicorn's. An app that knows the scope extension
`akoya.tunnel` may accept the handshake and then take over the client's connection with `detach_to`, to tunnel it to a
connection of its own. No frames are parsed here then.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.protocol import CLOSING, OPEN

EXTENSION = "akoya.tunnel"
_SERVICE_RESTART = 1012
_HANDSHAKE_FIELDS = frozenset({b"connection", b"upgrade", b"origin"})
_SEND_TIMEOUT = 60.0
"""Seconds for a client to take the rest of a response."""
_MAX_EARLY_BYTES = 65_536
"""Bytes that a client may send before its handshake is accepted, after which reading is paused."""


class JoinedTunnel(Protocol):
    """The tunnel that has taken over the connection."""

    def end(self, code: int, reason: str, *, wait: bool = True) -> None:
        """Close the tunnel with this close code. If `wait` is true, wait for the close frames in return."""


class GuardedWebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket protocol that reuses the handshake as the HTTP protocol has parsed it.

    uvicorn serializes the request and has the websockets library parse it again. That parser has its own limits
    (8 KiB per line, 128 fields) and refuses bodies. If it refuses a request, uvicorn neither responds nor closes the
    connection.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._holding = True
        """Hold back data received after the handshake until the app reads messages or takes over the connection.

        The library would parse the data as frames, fail, and then be unable to send its handshake response.
        """
        self._early = b""

    def open(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Process the handshake. The method must be GET, and the request must have no body."""
        # The library's parser must have parsed a request before it accepts frames; give it an empty one.
        self.conn.receive_data(b"GET / HTTP/1.1\r\n\r\n")
        self.conn.events_received()
        # The library needs no other fields. The app gets all of them as the client sent them, see below.
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
            if len(self._early) > _MAX_EARLY_BYTES:
                # Not before: while reading is paused, a client that disconnects is not noticed.
                self.transport.pause_reading()
        else:
            super().data_received(data)

    async def receive(self) -> ASGIReceiveEvent:
        # Not `handshake_complete`, which uvicorn also sets when the connection is lost during the handshake.
        if self._holding and self.conn.state is OPEN:
            # The app reads messages and does not take over the connection.
            early = self._release()
            if early:
                super().data_received(early)
        return await super().receive()

    async def send(self, message: ASGISendEvent) -> None:
        if not self.handshake_complete and self.transport.is_closing():
            # uvicorn would drop the message and then log an error because the handshake was not completed.
            self.handshake_complete = True
            raise ClientDisconnected
        await super().send(message)
        if self._holding and self.conn.state is CLOSING:
            # The app has closed the WebSocket without receiving. Parse the close frame of the client: otherwise the
            # connection would stay open until the timer.
            early = self._release()
            if early:
                super().data_received(early)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # Otherwise uvicorn logs an error for each refused handshake.
            self.handshake_complete = True

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if self.transport.get_write_buffer_size():
            # Otherwise a client that does not read its response would keep the connection open indefinitely.
            self.loop.call_later(_SEND_TIMEOUT, self.transport.abort)

    def _release(self) -> bytes:
        """Return the data that was held back, and resume reading."""
        self._holding = False
        early, self._early = self._early, b""
        if len(early) > _MAX_EARLY_BYTES and not self.transport.is_closing():
            self.transport.resume_reading()
        return early


class DetachableWebSocketProtocol(GuardedWebSocketProtocol):
    """WebSocket protocol whose connection an app can take over (scope extension `akoya.tunnel`)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tunnel: JoinedTunnel | None = None

    def detach_to(self, successor: asyncio.Protocol, tunnel: JoinedTunnel) -> None:
        """Hand the connection over to `successor`.

        Args:
            successor: protocol of the connection from now on. It must forward `connection_lost` to this protocol.
            tunnel: closed when the server stops.
        """
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
        # If an extension (compression) was negotiated with the client, frames cannot be passed on: the upstream has not
        # negotiated it.
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
