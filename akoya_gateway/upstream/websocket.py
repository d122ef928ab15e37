"""WebSockets passed through (RFC 6455): the server in front ends the client's socket, this one speaks to the upstream,
and whole messages are relayed. Framing is the `websockets` library's sans-I/O ClientProtocol.

One task and one timer a socket; none a message. Each side answers its own pings.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from akoya_gateway.config.model import WebSocketBounds
from akoya_gateway.errors import UpstreamError
from akoya_gateway.upstream.ending import Ending
from akoya_gateway.upstream.failures import ClosedEarly, InvalidResponse, TimedOut
from akoya_gateway.upstream.forwarded import VIA
from akoya_gateway.upstream.handshake import end_to_end, handshake, sendable, shortened
from akoya_gateway.upstream.pool import Pool
from akoya_gateway.upstream.request import RequestWriter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HIGH_WATER = 131_072
"""Bytes of messages held for a slow client before the upstream is read no further."""

_CLOSE_TIMEOUT = 5.0

_GOING_AWAY, _NO_STATUS, _INVALID_DATA, _TOO_BIG, _BAD_GATEWAY = 1001, 1005, 1007, 1009, 1014
_ANY_URI = WebSocketURI(secure=False, host="upstream", port=80, path="/", query="")


class Refusal(Exception):
    """The upstream answered the handshake with an ordinary response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class UpstreamSocket(asyncio.Protocol):
    """One WebSocket to the upstream. `next()` gives ASGI `websocket.send` events until it is closed; then `verdict` is
    the close code and reason for the client."""

    _transport: asyncio.Transport

    def __init__(self, subprotocols: list[str], bounds: WebSocketBounds) -> None:
        self.verdict: tuple[int, str] = (_BAD_GATEWAY, "")
        self._loop = asyncio.get_running_loop()
        self._protocol = ClientProtocol(
            _ANY_URI,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            max_size=bounds.max_message,
        )
        self._opened: asyncio.Future[Response] = self._loop.create_future()
        self._messages: deque[Message] = deque()
        self._buffered = 0
        self._fragments: list[bytes] = []
        self._opcode = Opcode.BINARY
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._congested = self._paused = self._closed = self._decided = False
        self._max_message = bounds.max_message
        self._idle_timeout = bounds.idle_timeout
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # -- for the relay

    async def open(self, writer: RequestWriter, scope: Scope, timeout: float) -> Response:
        """The handshake (RFC 6455 section 4.1). Raises Refusal, UpstreamError or RefusedRequest."""
        self._transport.write(handshake(writer, scope, self._protocol.key))
        self._timer = self._loop.call_later(timeout, self._handshake_failed, TimedOut("no answer to the handshake"))
        response = await self._opened
        self._timer.cancel()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(self._idle_timeout, self._check_idle)
        return response

    @property
    def subprotocol(self) -> str | None:
        return self._protocol.subprotocol

    async def next(self) -> Message | None:
        """The next message for the client; None: closed."""
        while not self._messages:
            if self._closed:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        message = self._messages.popleft()
        self._buffered -= len(message.get("bytes") or message.get("text") or b"")
        if self._paused and self._buffered < HIGH_WATER:
            self._paused = False
            self._transport.resume_reading()
        return message

    async def send(self, message: Message) -> None:
        """A message of the client (`websocket.receive`). Waits while the upstream takes no more."""
        if self._protocol.state is not OPEN:
            return
        self._last = self._loop.time()
        data = message.get("bytes")
        payload: bytes = message["text"].encode() if data is None else data
        if len(payload) > self._max_message:
            # The server in front has one limit for all upstreams.
            self.end(_TOO_BIG, "")
            return
        if data is None:
            self._protocol.send_text(payload)
        else:
            self._protocol.send_binary(payload)
        self._flush()
        while self._congested and not self._closed:
            self._writable = self._loop.create_future()
            await self._writable

    def leave(self, code: int, reason: str) -> None:
        """The client closed: say the same to the upstream."""
        if self._protocol.state is OPEN and not self._transport.is_closing():
            if code == _NO_STATUS:
                self._protocol.send_close()
            else:
                self._protocol.send_close(code if sendable(code) else _GOING_AWAY, shortened(reason))
            self._flush()
            self._wind_down()

    def end(self, code: int, reason: str) -> None:
        """Close both sides with this code, at once: what is held is no longer delivered."""
        self._decide(code, reason)
        self._messages.clear()
        self.leave(code, reason)
        self._finish()

    def release(self) -> None:
        """The relay is done with it: a farewell that was begun is sent, anything else is cut."""
        if self._closed:
            # An upstream that takes nothing any more would keep it open: `_wind_down` has set a time for that.
            self._transport.close()
        else:
            self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        if protocol.reader.eof:
            return
        protocol.receive_data(data)
        self._last = self._loop.time()
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._on_frame(event)
            elif isinstance(event, Response):
                self._on_response(event)
        self._flush()
        if protocol.handshake_exc is not None:
            self._handshake_failed(InvalidResponse("the upstream's answer to the WebSocket handshake is not valid"))
        elif protocol.parser_exc is not None:
            sent = protocol.close_sent
            self._decide(sent.code if sent is not None and sent.code == _TOO_BIG else _BAD_GATEWAY, "")
            self._finish()
            self._wind_down()

    def eof_received(self) -> None:
        if not self._protocol.reader.eof:
            self._protocol.receive_eof()
            for event in self._protocol.events_received():
                if isinstance(event, Response):
                    self._on_response(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._handshake_failed(ClosedEarly("the upstream closed the connection during the WebSocket handshake"))
        if self._timer is not None:
            self._timer.cancel()
        self._finish()

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self._wake_writer()

    # -- inside

    def _on_response(self, response: Response) -> None:
        if self._opened.done():
            return
        error = self._protocol.handshake_exc
        if error is None:
            self._opened.set_result(response)
        elif isinstance(error, InvalidStatus):
            self._opened.set_exception(Refusal(response))

    def _handshake_failed(self, error: UpstreamError) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)

    def _on_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._opcode = opcode
            self._fragments = [frame.data]  # type: ignore[list-item]
        elif opcode is Opcode.CONT:
            self._fragments.append(frame.data)  # type: ignore[arg-type]
        elif opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            assert received is not None
            self._decide(received.code if sendable(received.code) else 1000, received.reason)
            self._finish()
            self._wind_down()
            return
        else:
            return
        if frame.fin:
            self._on_message()

    def _on_message(self) -> None:
        data = b"".join(self._fragments)
        self._fragments = []
        if self._closed:
            return
        if self._opcode is Opcode.BINARY:
            self._messages.append({"type": "websocket.send", "bytes": data})
        else:
            try:
                self._messages.append({"type": "websocket.send", "text": data.decode()})
            except UnicodeDecodeError:
                self._decide(_BAD_GATEWAY, "")
                if self._protocol.state is OPEN:
                    self._protocol.fail(_INVALID_DATA)
                self._finish()
                self._wind_down()
                return
        self._buffered += len(data)
        if self._buffered >= HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _decide(self, code: int, reason: str) -> None:
        """The first reason to close is the one the client hears."""
        if not self._decided:
            self._decided = True
            self.verdict = (code, shortened(reason))

    def _finish(self) -> None:
        self._closed = True
        self._wake()
        self._wake_writer()

    def _wind_down(self) -> None:
        """The closing handshake has begun: the upstream closes the connection (RFC 6455 section 7.1.1), or we do."""
        if self._timer is not None:
            self._timer.cancel()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._timer = self._loop.call_later(_CLOSE_TIMEOUT, self._transport.abort)

    def _check_idle(self) -> None:
        left = self._last + self._idle_timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_idle)
        else:
            self.end(_GOING_AWAY, "idle for too long")

    def _flush(self) -> None:
        writes = self._protocol.data_to_send()
        if writes and not self._transport.is_closing():
            data = b"".join(writes)
            if data:
                self._transport.write(data)
            if not writes[-1]:
                # SEND_EOF: nothing more to say.
                self._transport.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)


class WebSocketRelay:
    """Relays ASGI websocket scopes. `scope["akoya.ending"]` may end one from outside, with its close code."""

    def __init__(self, pool: Pool, writer: RequestWriter) -> None:
        self._pool = pool
        self._writer = writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises RefusedRequest or UpstreamError before anything was sent to the client."""
        message = await receive()
        if message["type"] != "websocket.connect":
            return
        socket = await self._pool.dial(self._make(scope))
        ending: Ending | None = scope.get("akoya.ending")
        try:
            try:
                response = await socket.open(self._writer, scope, self._pool.upstream.read_timeout)
            except Refusal as refusal:
                await _refuse(refusal.response, scope, send)
                return
            await send(
                {
                    "type": "websocket.accept",
                    "subprotocol": socket.subprotocol,
                    "headers": [*end_to_end(response), (b"via", VIA)],
                }
            )
            if ending is not None:
                ending.listen(socket.end)
            await _relay(socket, receive, send)
        finally:
            if ending is not None:
                ending.forget(socket.end)
            socket.release()

    def _make(self, scope: Scope) -> Callable[[], UpstreamSocket]:
        return lambda: UpstreamSocket(scope.get("subprotocols") or [], self._pool.upstream.websocket)


async def _relay(socket: UpstreamSocket, receive: Receive, send: Send) -> None:
    left = False

    async def from_client() -> None:
        nonlocal left
        code, reason = _GOING_AWAY, ""
        try:
            while (message := await receive())["type"] != "websocket.disconnect":
                await socket.send(message)
            code, reason = message.get("code", _NO_STATUS), message.get("reason") or ""
        finally:
            left = True
            socket.leave(code, reason)

    task = asyncio.get_running_loop().create_task(from_client())
    try:
        while (message := await socket.next()) is not None:
            if not left:
                await send(message)
        if not left:
            code, reason = socket.verdict
            await send({"type": "websocket.close", "code": code, "reason": reason})
    except OSError:
        # The client's socket broke while we were sending (ASGI 2.4): the upstream hears of it.
        socket.leave(_GOING_AWAY, "")
    finally:
        task.cancel()


async def _refuse(response: Response, scope: Scope, send: Send) -> None:
    """The upstream said no: pass its answer on where the server can, else ASGI's plain 403."""
    if "websocket.http.response" in (scope.get("extensions") or ()) and 200 <= response.status_code <= 599:
        body = bytes(response.body)
        headers = [*end_to_end(response), (b"content-length", b"%d" % len(body))]
        await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1008})
