"""The opening handshake with an upstream (RFC 6455 section 4.1). Whoever goes on from there takes the connection."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from akoya_gateway.errors import UpstreamError
from akoya_gateway.upstream.errors import ClosedEarly, InvalidResponse, UpstreamTimeout
from akoya_gateway.upstream.http.request_head import RequestWriter
from akoya_gateway.upstream.websocket.handshake_headers import handshake

Scope = MutableMapping[str, Any]

_ANY_URI = WebSocketURI(secure=False, host="upstream", port=80, path="/", query="")
_END_OF_HEAD = b"\r\n\r\n"


class HandshakeRejected(Exception):
    """The upstream answered the handshake with an ordinary response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class ClientHandshake(asyncio.Protocol):
    """`protocol` has seen the upstream's answer and no byte behind it: those are held for who comes next."""

    transport: asyncio.Transport

    def __init__(self, subprotocols: list[str], max_message: int) -> None:
        """`max_message` in bytes."""
        self.protocol = ClientProtocol(
            _ANY_URI,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            max_size=max_message,
        )
        self._opened: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._tail: bytes | None = b""
        """The last bytes of an answer whose head has not ended."""
        self._early_data = b""
        self._lost = False

    async def open(self, writer: RequestWriter, scope: Scope, timeout: float) -> Response:
        """`timeout` in seconds. Raises Refusal, UpstreamError or RefusedRequest."""
        self.transport.write(handshake(writer, scope, self.protocol.key))
        try:
            async with asyncio.timeout(timeout):
                return await self._opened
        except TimeoutError:
            raise UpstreamTimeout("no answer to the handshake") from None

    @property
    def subprotocol(self) -> str | None:
        return self.protocol.subprotocol

    def transfer_to(self, successor: asyncio.Protocol) -> None:
        """From now on the connection is the successor's, who hears of all that has happened since the handshake."""
        self.transport.set_protocol(successor)
        if not self.transport.is_closing():
            self.transport.resume_reading()
        if self._early_data:
            successor.data_received(self._early_data)
        if self._lost:
            successor.connection_lost(None)

    def abort(self) -> None:
        """Nobody goes on from here."""
        self._opened.cancel()
        self.transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.protocol.state is OPEN:
            # It was read before reading was paused.
            self._early_data += data
            return
        end = self._end_of_head(data)
        self._parse(data[:end])
        if self.protocol.state is OPEN:
            self._early_data = data[end:]
            self.transport.pause_reading()
        elif end < len(data):
            self._parse(data[end:])

    def eof_received(self) -> None:
        if not self._opened.done() and not self.protocol.reader.eof:
            self.protocol.receive_eof()
            self._check_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._fail(ClosedEarly("the upstream closed the connection during the WebSocket handshake"))

    # -- inside

    def _end_of_head(self, data: bytes) -> int:
        """How much of `data` belongs to the head; all of it as long as the head goes on, and once it is behind us."""
        if self._tail is None:
            return len(data)
        before, self._tail = self._tail, None
        found = (before + data).find(_END_OF_HEAD)
        if found >= 0:
            return found + len(_END_OF_HEAD) - len(before)
        self._tail = (before + data)[-3:]
        return len(data)

    def _parse(self, data: bytes) -> None:
        if not self.protocol.reader.eof:
            self.protocol.receive_data(data)
            self._check_complete()

    def _check_complete(self) -> None:
        error = self.protocol.handshake_exc
        for event in self.protocol.events_received():
            if isinstance(event, Response) and not self._opened.done():
                if error is None:
                    self._opened.set_result(event)
                elif isinstance(error, InvalidStatus):
                    self._opened.set_exception(HandshakeRejected(event))
        if error is not None:
            self._fail(InvalidResponse("the upstream's answer to the WebSocket handshake is not valid"))

    def _fail(self, error: UpstreamError) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()  # Whoever waits has it; the dialling may have been cancelled.
