"""uvicorn's WebSocket protocol, whose connection can be had whole after the handshake.

The handshake, its refusals and the ASGI messages are uvicorn's. An app that knows the scope's extension `akoya.tunnel`
may accept, and then `join` the client's connection to another of its own: no frame is taken apart here.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

EXTENSION = "akoya.tunnel"
_SERVICE_RESTART = 1012


class Joined(Protocol):
    """What the connection has become a part of."""

    def end(self, code: int, reason: str, *, wait: bool = True) -> None:
        """Close it in order, with this close code. `wait`: for the answer."""


class JoinableProtocol(WebSocketsSansIOProtocol):
    """See the module's text."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._joined: Joined | None = None
        self._holding = True
        """What comes behind the handshake is held until it is known who reads it."""
        self._early = b""

    def join(self, end: asyncio.Protocol, tunnel: Joined) -> None:
        """`end` has the connection from now on, and tells `connection_lost` here; `tunnel` is ended when we stop."""
        self.stop_keepalive()
        self._joined = tunnel
        self.transport.set_protocol(end)
        early = self._release()
        if early:
            end.data_received(early)
        if self.disconnected:
            end.connection_lost(None)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        # What is compressed has a meaning for us alone: with an extension of ours, frames cannot be passed on.
        if self.response.status_code == 101 and not self.conn.extensions:
            cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self

    def data_received(self, data: bytes) -> None:
        if self._holding and self.handshake_initiated:
            self._early += data
            self.transport.pause_reading()
        else:
            super().data_received(data)

    async def receive(self) -> ASGIReceiveEvent:
        if self._holding and self.handshake_complete and self._joined is None:
            # The app wants messages after all.
            early = self._release()
            if early:
                super().data_received(early)
        return await super().receive()

    async def send(self, message: ASGISendEvent) -> None:
        if self._joined is None:
            await super().send(message)
        elif message["type"] == "websocket.close":
            self._joined.end(message.get("code", 1000), message.get("reason") or "")
        else:
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}', the connection has been joined.")

    def shutdown(self) -> None:
        if self._joined is None:
            super().shutdown()
        else:
            self._joined.end(_SERVICE_RESTART, "", wait=False)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.disconnected:
            super().connection_lost(exc)

    def _release(self) -> bytes:
        """What was held; reading goes on."""
        self._holding = False
        early, self._early = self._early, b""
        if early and not self.transport.is_closing():
            self.transport.resume_reading()
        return early
