"""A WebSocket relayed message by message, under any ASGI server: the server in front ends the client's socket, this one
speaks to the upstream. Framing is the `websockets` library's sans-I/O ClientProtocol.

One task and one timer a socket; none a message. Each side answers its own pings.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from akoya_gateway.config.model import WebSocketBounds
from akoya_gateway.upstream.websocket.client_handshake import ClientHandshake
from akoya_gateway.upstream.websocket.close_frames import (
    BAD_GATEWAY,
    GOING_AWAY,
    INVALID_DATA,
    NO_STATUS,
    NORMAL,
    TOO_BIG,
    is_sendable_code,
    truncate_reason,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HIGH_WATER_MARK = 131_072
"""Bytes of messages held for a slow client before the upstream is read no further."""
MESSAGE_OVERHEAD = 256
"""Bytes that a message counts for beside its content: there are empty ones."""

_CLOSE_TIMEOUT = 5.0


class UpstreamWebSocket(asyncio.Protocol):
    """One WebSocket to the upstream. `next()` gives ASGI `websocket.send` events until it is closed; then `verdict` is
    the close code and reason for the client."""

    def __init__(self, handshake: ClientHandshake, bounds: WebSocketBounds) -> None:
        self.verdict: tuple[int, str] = (BAD_GATEWAY, "")
        self._loop = asyncio.get_running_loop()
        self._transport = handshake.transport
        self._protocol = handshake.protocol
        self._messages: deque[tuple[int, Message]] = deque()
        """Each with what it counts for in `_buffered`."""
        self._buffered = 0
        self._fragments: list[bytes] = []
        self._opcode = Opcode.BINARY
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._congested = self._paused = self._closed = self._decided = False
        self._max_message = bounds.max_message
        self._idle_timeout = bounds.idle_timeout
        self._last = self._loop.time()
        self._timer = self._loop.call_later(self._idle_timeout, self._check_idle)
        handshake.transfer_to(self)

    # -- for the relay

    async def next(self) -> Message | None:
        """The next message for the client; None: closed."""
        while not self._messages:
            if self._closed:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        size, message = self._messages.popleft()
        self._buffered -= size
        if self._paused and self._buffered < HIGH_WATER_MARK:
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
            self.end(TOO_BIG, "")
            return
        if data is None:
            self._protocol.send_text(payload)
        else:
            self._protocol.send_binary(payload)
        self._flush()
        while self._congested and not self._closed:
            self._writable = self._loop.create_future()
            await self._writable

    def start_close(self, code: int, reason: str) -> None:
        """The client closed: say the same to the upstream."""
        if self._protocol.state is OPEN and not self._transport.is_closing():
            if code == NO_STATUS:
                self._protocol.send_close()
            else:
                self._protocol.send_close(code if is_sendable_code(code) else GOING_AWAY, truncate_reason(reason))
            self._flush()
            self._start_closing()

    def end(self, code: int, reason: str) -> None:
        """Close both sides with this code, at once: what is held is no longer delivered."""
        self._set_close(code, reason)
        self._messages.clear()
        self.start_close(code, reason)
        self._finish()

    def release(self) -> None:
        """The relay is done with it: a farewell that was begun is sent, anything else is cut."""
        if self._closed:
            # An upstream that takes nothing any more would keep it open: `_start_closing` has set a time for that.
            self._transport.close()
        else:
            self._transport.abort()

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        if protocol.reader.eof:
            return
        protocol.receive_data(data)
        self._last = self._loop.time()
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._on_frame(event)
        self._flush()
        if protocol.parser_exc is not None:
            sent = protocol.close_sent
            self._set_close(sent.code if sent is not None and sent.code == TOO_BIG else BAD_GATEWAY, "")
            self._finish()
            self._start_closing()

    def eof_received(self) -> None:
        if not self._protocol.reader.eof:
            self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._finish()

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self._wake_writer()

    # -- inside

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
            self._set_close(received.code if is_sendable_code(received.code) else NORMAL, received.reason)
            self._finish()
            self._start_closing()
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
        size = len(data) + MESSAGE_OVERHEAD
        if self._opcode is Opcode.BINARY:
            self._messages.append((size, {"type": "websocket.send", "bytes": data}))
        else:
            try:
                self._messages.append((size, {"type": "websocket.send", "text": data.decode()}))
            except UnicodeDecodeError:
                self._set_close(BAD_GATEWAY, "")
                if self._protocol.state is OPEN:
                    self._protocol.fail(INVALID_DATA)
                self._finish()
                self._start_closing()
                return
        self._buffered += size
        if self._buffered >= HIGH_WATER_MARK and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _set_close(self, code: int, reason: str) -> None:
        """The first reason to close is the one the client hears."""
        if not self._decided:
            self._decided = True
            self.verdict = (code, truncate_reason(reason))

    def _finish(self) -> None:
        self._closed = True
        self._wake()
        self._wake_writer()

    def _start_closing(self) -> None:
        """The closing handshake has begun: the upstream closes the connection (RFC 6455 section 7.1.1), or we do."""
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
            self.end(GOING_AWAY, "idle for too long")

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


async def relay(socket: UpstreamWebSocket, receive: Receive, send: Send) -> None:
    """Until either side has closed."""
    left = False

    async def from_client() -> None:
        nonlocal left
        code, reason = GOING_AWAY, ""
        try:
            while (message := await receive())["type"] != "websocket.disconnect":
                await socket.send(message)
            code, reason = message.get("code", NO_STATUS), message.get("reason") or ""
        finally:
            left = True
            socket.start_close(code, reason)

    async def to_client() -> None:
        while (message := await socket.next()) is not None:
            if not left:
                await send(message)
        if not left:
            code, reason = socket.verdict
            await send({"type": "websocket.close", "code": code, "reason": reason})

    task = asyncio.get_running_loop().create_task(from_client())
    try:
        await to_client()
    except (OSError, RuntimeError) as error:
        # The client is gone (OSError, ASGI 2.4), or has broken a rule, for which uvicorn closes by itself and takes no
        # more (RuntimeError). `receive` is about to tell with which code.
        await asyncio.wait({task}, timeout=_CLOSE_TIMEOUT)
        if not left:
            socket.start_close(GOING_AWAY, "")
            if isinstance(error, RuntimeError):
                raise
    finally:
        task.cancel()
