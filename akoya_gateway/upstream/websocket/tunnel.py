"""Tunnels a WebSocket: copies bytes between the client's and the upstream's connection after both handshakes.

Theory of operation. Each `TunnelEnd` is the asyncio protocol of one connection. Bytes that arrive on it go through the
`FrameValidator` of their direction, and the bytes that it returns are written to the other end. When the write buffer
of one end is full, reading from the other end is paused, so the memory per direction is limited to one transport
buffer and one read. A tunnel is in one of two states (`is_closing`):

=======  ====================================================  ====================================================
state    meaning                                               bytes that arrive
=======  ====================================================  ====================================================
OPEN     both sides send, or one side has sent a close frame   are forwarded, except after a close frame
         and the other has not yet replied
CLOSING  the gateway closes the tunnel (protocol violation,    complete the frame that was forwarded in part, after
         idle timeout, ended grant, shutdown), or one side     which the gateway's close frame is sent; the rest is
         has disconnected                                      only parsed to detect the peer's close frame
=======  ====================================================  ====================================================

An end is closed once a close frame has been sent to it (`close_sent`) and one received from it (`close_received`). The
frame sent to it may come from the other side or from the gateway. If one side disconnects without a close frame, the
other side gets none either, so that it also sees an abnormal closure (RFC 6455 section 7.1.5). Connections that are not
closed in time are aborted.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from akoya_gateway.config.model import WebSocketBounds
from akoya_gateway.upstream.websocket.client_handshake import ClientHandshake
from akoya_gateway.upstream.websocket.close_frames import BAD_GATEWAY, GOING_AWAY, TOO_BIG, close_frame
from akoya_gateway.upstream.websocket.frame_validator import FrameValidator

EXTENSION = "akoya.tunnel"
"""Private ASGI scope extension: a `ClientConnection` of a server in the same process, which can be taken over."""

CLOSE_TIMEOUT = 10.0
"""Seconds for the closing handshake."""
FINISH_TIMEOUT = 1.0
"""Seconds for the rest of a frame that was forwarded in part when the gateway closes the tunnel."""


class ClientConnection(Protocol):
    """The client's connection after the handshake, as the ASGI server provides it."""

    @property
    def transport(self) -> asyncio.Transport: ...

    def detach_to(self, successor: asyncio.Protocol, tunnel: Tunnel) -> None:
        """Hand the connection over to `successor`.

        The successor must forward `connection_lost` to this object. The server ends `tunnel` when it shuts down.
        """

    def connection_lost(self, exc: Exception | None) -> None: ...


class TunnelEnd(asyncio.Protocol):
    """One side of a tunnel.

    Attributes:
        close_sent: A close frame was sent to this side, by the gateway or by the other side.
        close_received: This side has sent a close frame, or has violated the protocol so that none can be parsed.
        pending_close: The gateway's close frame for this side while it waits for the frame before it to be complete.
        is_lost: The connection is closed.
    """

    __slots__ = (
        "_feed",
        "_loop",
        "_server",
        "_tunnel",
        "close_received",
        "close_sent",
        "is_lost",
        "other",
        "pending_close",
        "reader",
        "transport",
        "write",
    )

    other: TunnelEnd

    def __init__(
        self,
        tunnel: Tunnel,
        transport: asyncio.Transport,
        reader: FrameValidator,
        server: ClientConnection | None = None,
    ) -> None:
        """Create one side. `server` is notified when the connection is lost."""
        self._tunnel = tunnel
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._feed = reader.feed
        self.transport = transport
        self.write = transport.write
        self.reader = reader
        self.pending_close = b""
        self.close_sent = self.close_received = self.is_lost = False

    def data_received(self, data: bytes) -> None:
        tunnel = self._tunnel
        if tunnel.is_closing:
            tunnel.on_frame_data(self, data)
            return
        tunnel.last = self._loop.time()
        passed = self._feed(data)
        if passed:
            self.other.write(passed)
        if self.reader.is_closed and not self.close_received:
            tunnel.on_close_frame(self)

    def eof_received(self) -> None:
        # WebSockets cannot be half-closed. Returning None makes the event loop close the connection.
        self._tunnel.on_gone(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._server is not None:
            self._server.connection_lost(exc)
        self._tunnel.on_lost(self)

    def pause_writing(self) -> None:
        if not self._tunnel.is_closing or self.pending_close:
            self.other.pause()

    def resume_writing(self) -> None:
        self.other.resume()

    def pause(self) -> None:
        """Pause reading from this side."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Resume reading from this side."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def send_close(self) -> None:
        """Send the pending close frame, if there is one and no frame to this side is incomplete."""
        if self.pending_close and not self.other.reader.remaining:
            self.write(self.pending_close)
            self.pending_close = b""
            self.close_sent = True
            # The other side's data is no longer forwarded, but must be read to receive its close frame.
            self.other.resume()


class Tunnel:
    """A tunnel between a client and an upstream (see the module docstring)."""

    def __init__(self, client: ClientConnection, handshake: ClientHandshake, bounds: WebSocketBounds) -> None:
        """Take over both connections and start to copy."""
        self.is_closing = False
        self._wait_for_close = True
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self._idle_timeout = bounds.idle_timeout
        self.last = self._loop.time()
        """Time of the last received data, on the event loop's clock."""
        max_message = bounds.max_message
        self._client = TunnelEnd(self, client.transport, FrameValidator(masked=True, max_message=max_message), client)
        self._upstream = TunnelEnd(self, handshake.transport, FrameValidator(masked=False, max_message=max_message))
        self._client.other, self._upstream.other = self._upstream, self._client
        self._timer = self._loop.call_later(self._idle_timeout, self._check_idle)
        handshake.transfer_to(self._upstream)
        client.detach_to(self._client, self)

    async def run(self) -> None:
        """Wait until the client's connection is closed, or until `end` was called with `wait=False`.

        The upstream's connection may still be open then. It is closed in the background. If this is cancelled, both
        connections are aborted.
        """
        try:
            await self._finished.wait()
        except BaseException:
            self._cut()
            raise

    def end(self, code: int, reason: str, *, wait: bool = True) -> None:
        """Close both sides with this code. If `wait` is True, wait for their close frames."""
        self._wait_for_close = wait
        if self.is_closing:
            self._settle()
        else:
            self._start_close(close_frame(code, reason, masked=False), close_frame(code, reason, masked=True))

    # -- called by the tunnel ends

    def on_close_frame(self, end: TunnelEnd) -> None:
        """Handle a close frame of `end`, which was forwarded, or a violation of the protocol by `end`."""
        fault = end.reader.close_code
        if fault is None:
            end.close_received = end.other.close_sent = True
            self._set_deadline(CLOSE_TIMEOUT)
            self._settle()
        elif end is self._client:
            self._start_close(close_frame(fault, masked=False), close_frame(fault, masked=True))
        else:
            client_code = fault if fault == TOO_BIG else BAD_GATEWAY
            self._start_close(close_frame(client_code, masked=False), close_frame(fault, masked=True))

    def on_frame_data(self, end: TunnelEnd, data: bytes) -> None:
        """Handle bytes that arrive while the tunnel is closing."""
        reader = end.reader
        if end.other.pending_close:
            rest = data[: reader.remaining]
            data = data[len(rest) :]
            end.other.write(reader.feed(rest))
            self._send_pending_closes()
        if data:
            reader.feed(data)
        self._settle()

    def on_gone(self, end: TunnelEnd) -> None:
        """Handle the end of the connection of `end`, with or without a closing handshake."""
        if not self.is_closing:
            self.is_closing = True
            self._set_deadline(CLOSE_TIMEOUT)
        # A frame that was forwarded in part will never be completed, so no close frame can follow it.
        end.pending_close = end.other.pending_close = b""
        other = end.other
        if other.close_sent and not other.close_received:
            other.resume()
        else:
            other.transport.close()

    def on_lost(self, end: TunnelEnd) -> None:
        """Handle the loss of the connection of `end`."""
        self.on_gone(end)
        if end is self._client:
            # The client has disconnected. Further upstream data is discarded.
            self._finished.set()
        if end.other.is_lost:
            self._timer.cancel()

    # -- internals

    def _start_close(self, to_client: bytes, to_upstream: bytes) -> None:
        self.is_closing = True
        for end, frame in ((self._client, to_client), (self._upstream, to_upstream)):
            if not end.close_sent:
                end.pending_close = frame
        self._set_deadline(FINISH_TIMEOUT)
        self._send_pending_closes()
        self._settle()

    def _send_pending_closes(self) -> None:
        self._client.send_close()
        self._upstream.send_close()
        if not (self._client.pending_close or self._upstream.pending_close):
            self._set_deadline(CLOSE_TIMEOUT)

    def _settle(self) -> None:
        """Close each end from which nothing more is expected."""
        for end in (self._client, self._upstream):
            # This includes an end that violated the protocol, because its frames can no longer be parsed.
            end.close_received = end.close_received or end.reader.is_closed
            if end.close_sent and (end.close_received or not self._wait_for_close):
                end.transport.close()
        if not (self._wait_for_close or self._client.pending_close or self._upstream.pending_close):
            self._finished.set()

    def _set_deadline(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._cut)

    def _cut(self) -> None:
        for end in (self._client, self._upstream):
            if not end.is_lost:
                end.transport.abort()

    def _check_idle(self) -> None:
        left = self.last + self._idle_timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_idle)
        else:
            self.end(GOING_AWAY, "idle for too long")
