"""Relays a WebSocket message by message, under any ASGI server.

The server terminates the client's WebSocket, and `UpstreamWebSocket` is the client of the upstream. Framing is done by
the sans-I/O ClientProtocol of the `websockets` library. There is one task and one timer per WebSocket, and none per
message. Pings are not relayed: each side responds to its own.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import Message, Receive, Send
from websockets.frames import DATA_OPCODES, Frame, Opcode
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

HIGH_WATER_MARK = 131_072
"""Bytes of messages buffered for a slow client before reading from the upstream is paused."""
MESSAGE_OVERHEAD = 256
"""Bytes counted for each message in addition to its content, so that empty messages are limited too."""

_CLOSE_TIMEOUT = 5.0


class UpstreamWebSocket(asyncio.Protocol):
    """A WebSocket to the upstream.

    `next()` returns ASGI `websocket.send` events until the WebSocket is closed. Then `verdict` contains the close code
    and reason for the client.
    """

    def __init__(self, handshake: ClientHandshake, bounds: WebSocketBounds) -> None:
        """Take over the connection of a completed handshake."""
        self.verdict: tuple[int, str] | None = None
        self._loop = asyncio.get_running_loop()
        self._transport = handshake.transport
        self._protocol = handshake.protocol
        self._messages: deque[tuple[int, Message]] = deque()
        """Messages for the client, each with the number of bytes that it counts in `_buffered`."""
        self._buffered = 0
        self._fragments: list[bytes] = []
        self._opcode = Opcode.BINARY
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False
        self._max_message = bounds.max_message
        self._idle_timeout = bounds.idle_timeout
        self._last = self._loop.time()
        self._timer = self._loop.call_later(self._idle_timeout, self._check_idle)
        handshake.transfer_to(self)

    # -- for the relay

    async def next(self) -> Message | None:
        """Return the next message for the client, or None if the WebSocket is closed."""
        while not self._messages:
            if self.verdict is not None:
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
        """Send a message of the client (an ASGI `websocket.receive` event). Waits while the transport is congested."""
        if self._protocol.state is not OPEN:
            return
        self._last = self._loop.time()
        data = message.get("bytes")
        payload: bytes = message["text"].encode() if data is None else data
        if len(payload) > self._max_message:
            # The ASGI server enforces only one limit for all upstreams.
            self.end(TOO_BIG, "")
            return
        if data is None:
            self._protocol.send_text(payload)
        else:
            self._protocol.send_binary(payload)
        self._flush()
        if not self._writable.is_set():
            await self._writable.wait()

    def start_close(self, code: int, reason: str) -> None:
        """Forward the client's close to the upstream."""
        if self._protocol.state is OPEN and not self._transport.is_closing():
            if code == NO_STATUS:
                self._protocol.send_close()
            else:
                self._protocol.send_close(code if is_sendable_code(code) else GOING_AWAY, truncate_reason(reason))
            self._flush()
            self._start_closing()

    def end(self, code: int, reason: str) -> None:
        """Close both sides with this code immediately. Buffered messages are discarded."""
        self._finish(code, reason)
        self._messages.clear()
        self.start_close(code, reason)

    def release(self) -> None:
        """Close the connection when the relay has finished.

        If the WebSocket is closed, data that is still buffered, such as a close frame, is sent first. Otherwise the
        connection is aborted.
        """
        if self.verdict is not None:
            # An upstream that no longer reads would keep it open. The timer set by `_start_closing` aborts it then.
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
            self._finish(sent.code if sent is not None and sent.code == TOO_BIG else BAD_GATEWAY, "")
            self._start_closing()

    def eof_received(self) -> None:
        if not self._protocol.reader.eof:
            self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._finish(BAD_GATEWAY, "")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- internals

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            assert received is not None
            self._finish(received.code if is_sendable_code(received.code) else NORMAL, received.reason)
            self._start_closing()
        elif frame.opcode in DATA_OPCODES:
            if frame.opcode is not Opcode.CONT:
                self._opcode = frame.opcode
            self._fragments.append(frame.data)  # type: ignore[arg-type]
            if frame.fin:
                self._on_message()

    def _on_message(self) -> None:
        data = b"".join(self._fragments)
        self._fragments = []
        if self.verdict is not None:
            return
        size = len(data) + MESSAGE_OVERHEAD
        if self._opcode is Opcode.BINARY:
            self._messages.append((size, {"type": "websocket.send", "bytes": data}))
        else:
            try:
                self._messages.append((size, {"type": "websocket.send", "text": data.decode()}))
            except UnicodeDecodeError:
                if self._protocol.state is OPEN:
                    self._protocol.fail(INVALID_DATA)
                self._finish(BAD_GATEWAY, "")
                self._start_closing()
                return
        self._buffered += size
        if self._buffered >= HIGH_WATER_MARK and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _finish(self, code: int, reason: str) -> None:
        """Close the WebSocket for the client with the code and reason of the first call."""
        self.verdict = self.verdict or (code, truncate_reason(reason))
        self._wake()
        self._writable.set()

    def _start_closing(self) -> None:
        """Wait a limited time for the upstream to close the connection (RFC 6455 section 7.1.1), then abort it."""
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
                # An empty entry is SEND_EOF: the protocol has nothing more to send.
                self._transport.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def relay(socket: UpstreamWebSocket, receive: Receive, send: Send) -> None:
    """Relay messages in both directions until either side has closed, and release the socket."""
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
            assert socket.verdict is not None
            code, reason = socket.verdict
            await send({"type": "websocket.close", "code": code, "reason": reason})

    task = asyncio.get_running_loop().create_task(from_client())
    try:
        await to_client()
    except (OSError, RuntimeError) as error:
        # OSError: the client has disconnected (ASGI 2.4). RuntimeError: the client violated the protocol, uvicorn has
        # closed the WebSocket by itself and accepts no more messages. `receive` is about to return the close code.
        await asyncio.wait({task}, timeout=_CLOSE_TIMEOUT)
        disconnected = left
        socket.start_close(GOING_AWAY, "")
        # Read what the upstream is still sending until it closes, for a limited time. If the connection were closed
        # with unread data, the kernel would send a reset, and the upstream could lose the close frame.
        while await socket.next() is not None:
            pass
        if not disconnected and isinstance(error, RuntimeError):
            raise
    finally:
        task.cancel()
        socket.release()
