"""A WebSocket whose bytes pass as they are: the client's connection and the upstream's, joined after both handshakes.

Theory of operation. Each `TunnelEnd` is the protocol of one connection. What arrives there goes through the
`FrameValidator` of that direction, and what it lets pass is written to the other end. A side that takes no more stops
the reading of the other, so a direction holds what one transport buffers and one read. A tunnel is in one of two
states:

=======  ====================================================  ====================================================
state    meaning                                               bytes that arrive
=======  ====================================================  ====================================================
PASSING  both sides talk, or one has closed and the other has  pass; behind a close frame nothing does
         not yet answered
LEAVING  we end it: broken rules, idleness, the end of a       finish the frame that has passed in part, then our
         grant, a drain, or one side is gone                   close frame goes out; the rest is only overheard
=======  ====================================================  ====================================================

An end is closed when it has both been told goodbye (`said`) and answered (`heard`), by whichever of the two sides. Who
is gone without a close frame is not given one on the other side either: an abnormal end stays one (RFC 6455 section
7.1.5). Whatever is not over in time is cut.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from akoya_gateway.config.model import WebSocketBounds
from akoya_gateway.upstream.websocket.client_handshake import ClientHandshake
from akoya_gateway.upstream.websocket.close_frames import BAD_GATEWAY, GOING_AWAY, TOO_BIG, close_frame
from akoya_gateway.upstream.websocket.frame_validator import FrameValidator

EXTENSION = "akoya.tunnel"
"""ASGI scope extension, private: a `ClientConnection` of a server in the same process that can be had whole."""

CLOSE_TIMEOUT = 10.0
"""Seconds for a closing handshake that has begun."""
FINISH_TIMEOUT = 1.0
"""Seconds for a frame that has passed in part, when the tunnel is to end."""


class ClientConnection(Protocol):
    """The client's side of a WebSocket whose handshake is complete, as the server in front offers it."""

    @property
    def transport(self) -> asyncio.Transport: ...

    def detach_to(self, successor: asyncio.Protocol, tunnel: Tunnel) -> None:
        """From now on `successor` has the connection, but for `connection_lost`, which the server hears of through it.
        It ends the tunnel when it has to close."""

    def connection_lost(self, exc: Exception | None) -> None: ...


class TunnelEnd(asyncio.Protocol):
    """One of the two sides. `close_sent`: a close frame went to it, ours or the other side's; `close_received`: it sent
    one; `pending_close`: our close frame that waits until the frame before it is complete; `is_lost`: its connection is
    no more."""

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
        """`server`: to be told when the connection is lost."""
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
        # There are no half-closed WebSockets: the event loop closes the connection now.
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
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def send_close(self) -> None:
        """Our close frame, if it has one to be told and no frame is half passed."""
        if self.pending_close and not self.other.reader.remaining:
            self.write(self.pending_close)
            self.pending_close = b""
            self.close_sent = True
            # What comes from there passes no more, and its own close is to be heard.
            self.other.resume()


class Tunnel:
    """See the module's text."""

    def __init__(self, client: ClientConnection, handshake: ClientHandshake, bounds: WebSocketBounds) -> None:
        self.is_closing = False
        self._wait_for_close = True
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._idle_timeout = bounds.idle_timeout
        self.last = self._loop.time()
        """When something came, by the event loop's clock."""
        most = bounds.max_message
        self._client = TunnelEnd(self, client.transport, FrameValidator(masked=True, max_message=most), client)
        self._upstream = TunnelEnd(self, handshake.transport, FrameValidator(masked=False, max_message=most))
        self._client.other, self._upstream.other = self._upstream, self._client
        self._timer = self._loop.call_later(self._idle_timeout, self._check_idle)
        handshake.transfer_to(self._upstream)
        client.detach_to(self._client, self)

    async def run(self) -> None:
        """Until the client's connection is no more, or nobody is to wait for that. The rest goes on by itself."""
        try:
            await self._finished
        except BaseException:
            self._cut()
            raise

    def end(self, code: int, reason: str, *, wait: bool = True) -> None:
        """Close both sides with this code. `wait`: for their answers."""
        self._wait_for_close = wait
        if self.is_closing:
            self._settle()
        else:
            self._start_close(close_frame(code, reason, masked=False), close_frame(code, reason, masked=True))

    # -- for its ends

    def on_close_frame(self, end: TunnelEnd) -> None:
        """Nothing more passes from there: its close frame did, or what it sent broke a rule."""
        fault = end.reader.close_code
        if fault is None:
            end.close_received = end.other.close_sent = True
            self._set_deadline(CLOSE_TIMEOUT)
            self._settle()
        elif end is self._client:
            self._start_close(close_frame(fault, masked=False), close_frame(fault, masked=True))
        else:
            told = fault if fault == TOO_BIG else BAD_GATEWAY
            self._start_close(close_frame(told, masked=False), close_frame(fault, masked=True))

    def on_frame_data(self, end: TunnelEnd, data: bytes) -> None:
        """Bytes that come while we leave."""
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
        """It has ended its connection, in order or not."""
        if not self.is_closing:
            self.is_closing = True
            self._set_deadline(CLOSE_TIMEOUT)
        # A frame that is half passed will never be complete, nor can anything stand behind it.
        end.pending_close = end.other.pending_close = b""
        other = end.other
        if other.close_sent and not other.close_received:
            other.resume()
        else:
            other.transport.close()

    def on_lost(self, end: TunnelEnd) -> None:
        self.on_gone(end)
        if end is self._client:
            # What the upstream still has to say is for nobody.
            self._finish()
        if end.other.is_lost:
            self._timer.cancel()

    # -- inside

    def _start_close(self, to_client: bytes, to_upstream: bytes) -> None:
        self.is_closing = True
        for end, words in ((self._client, to_client), (self._upstream, to_upstream)):
            if not end.close_sent:
                end.pending_close = words
        self._set_deadline(FINISH_TIMEOUT)
        self._send_pending_closes()
        self._settle()

    def _send_pending_closes(self) -> None:
        self._client.send_close()
        self._upstream.send_close()
        if not (self._client.pending_close or self._upstream.pending_close):
            self._set_deadline(CLOSE_TIMEOUT)

    def _settle(self) -> None:
        """Close whom nothing more is expected from."""
        for end in (self._client, self._upstream):
            # Also who broke a rule: nothing it says can be read any more.
            end.close_received = end.close_received or end.reader.is_closed
            if end.close_sent and (end.close_received or not self._wait_for_close):
                end.transport.close()
        if not (self._wait_for_close or self._client.pending_close or self._upstream.pending_close):
            self._finish()

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

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
