"""The opening handshake with an upstream (RFC 6455 section 4.1). The connection is then handed to another protocol."""

from __future__ import annotations

import asyncio

from starlette.types import Scope
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from akoya_gateway.deadline import running_timeout
from akoya_gateway.trusted_proxies import peer_of
from akoya_gateway.upstream.errors import ClosedEarly, InvalidResponse, UpstreamTimeout
from akoya_gateway.upstream.http.connection import MAX_HEAD_BYTES, MAX_INFORMATIONAL
from akoya_gateway.upstream.http.request_head import Hop, RequestWriter, target_of
from akoya_gateway.upstream.http.response_head import HOP_BY_HOP, Headers, tokens

_ANY_URI = WebSocketURI(secure=False, host="upstream", port=80, path="/", query="")
_END_OF_HEAD = b"\r\n\r\n"
_INTERIM, _SWITCHING = b"HTTP/1.1 1", b"HTTP/1.1 101"
_NOT_FORWARDED = HOP_BY_HOP | {
    b"content-length",
    b"sec-websocket-accept",
    b"sec-websocket-extensions",
    b"sec-websocket-protocol",
}


class HandshakeRejected(Exception):
    """The upstream did not switch protocols but sent an ordinary HTTP response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class ClientHandshake(asyncio.Protocol):
    """asyncio protocol of an upstream connection during the handshake.

    `protocol` is fed the upstream's response, but none of the bytes after it. Those are kept for the successor.
    """

    transport: asyncio.Transport

    def __init__(self, subprotocols: list[str], max_message: int) -> None:
        """Create the protocol. `max_message` is the largest message in bytes."""
        self.protocol = ClientProtocol(
            _ANY_URI,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            max_size=max_message,
        )
        self._opened: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._tail: bytes | None = b""
        """The last bytes received of an incomplete response head, or None once it is complete."""
        self._held = b""
        """Bytes before the final response that are not complete enough to be skipped."""
        self._informational = 0
        self._is_final = False
        self._early_data = b""
        self._lost = False

    async def open(self, writer: RequestWriter, scope: Scope, timeout: float) -> Response:
        """Send the handshake request and return the upstream's response.

        Args:
            writer: Writes the request head.
            scope: The ASGI websocket scope.
            timeout: Seconds to wait for the response.

        Raises:
            HandshakeRejected: The upstream sent an ordinary response.
            UpstreamError: There was no valid response in time.
            RefusedRequest: The handshake request must not be forwarded.
        """
        self.transport.write(_request(writer, scope, self.protocol.key))
        try:
            async with running_timeout(timeout):
                return await self._opened
        except TimeoutError:
            raise UpstreamTimeout("no response to the WebSocket handshake") from None

    def transfer_to(self, successor: asyncio.Protocol) -> None:
        """Hand the connection over to `successor`.

        Bytes received after the handshake, and the loss of the connection, are delivered to it now.
        """
        self.transport.set_protocol(successor)
        if not self.transport.is_closing():
            self.transport.resume_reading()
        if self._early_data:
            successor.data_received(self._early_data)
        if self._lost:
            successor.connection_lost(None)

    def fail(self, error: Exception) -> None:
        """Make `open` raise the error, unless the response has arrived."""
        if not self._opened.done():
            self._opened.set_exception(error)
            # Mark the exception as retrieved, so that asyncio does not log it if `open` was cancelled.
            self._opened.exception()

    def abort(self) -> None:
        """Abort the connection. It will not be handed over."""
        self._opened.cancel()
        self.transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.protocol.state is OPEN:
            # These bytes were read before reading was paused.
            self._early_data += data
            return
        data = self._without_interim(data)
        if not data:
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
        self.fail(ClosedEarly("the upstream closed the connection during the WebSocket handshake"))

    # -- internals

    def _without_interim(self, data: bytes) -> bytes:
        """Return the bytes from the final response on. Until it begins, return nothing.

        The library would take an interim response (RFC 9110 section 15.2) for the final one.
        """
        if self._is_final:
            return data
        held = self._held + data
        while _INTERIM.startswith(held[: len(_INTERIM)]) and not held.startswith(_SWITCHING):
            # Until the status is complete, `held` may still be a part of _SWITCHING.
            end = held.find(_END_OF_HEAD) + len(_END_OF_HEAD)
            if end < len(_END_OF_HEAD):
                self._held = held
                if len(held) > MAX_HEAD_BYTES:
                    self.fail(InvalidResponse("its header section is too large"))
                return b""
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                self.fail(InvalidResponse("too many interim responses"))
                return b""
            held = held[end:]
        self._is_final = True
        return held

    def _end_of_head(self, data: bytes) -> int:
        """Return how many bytes of `data` belong to the response head.

        Return its whole length if the head does not end in `data`, or has ended before.
        """
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
            self.fail(InvalidResponse("the upstream's response to the WebSocket handshake is invalid"))


def _request(writer: RequestWriter, scope: Scope, key: str) -> bytes:
    """Return the handshake request with the client's headers and the gateway's own `key` (RFC 6455 section 4.1).

    Raises:
        RefusedRequest: The request must not be forwarded.
    """
    peer, is_forwarded = peer_of(scope.get("client"))
    extra = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: %b\r\n"
    headers = [header for header in scope["headers"] if not header[0].lower().startswith(b"sec-websocket-")]
    if scope.get("subprotocols"):
        headers.append((b"sec-websocket-protocol", ", ".join(scope["subprotocols"]).encode("latin-1")))
    hop = Hop(peer, is_forwarded, "https" if scope.get("scheme") in ("wss", "https") else "http")
    return writer.write("GET", target_of(scope), headers, hop, extra=extra % key.encode("ascii")).head


def end_to_end(response: Response) -> Headers:
    """Return the headers of a handshake response that may be forwarded to the client."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.raw_items()
    ]
    named = [token for name, value in headers if name == b"connection" for token in tokens(value)]
    return [(name, value) for name, value in headers if name not in _NOT_FORWARDED and name not in named]
