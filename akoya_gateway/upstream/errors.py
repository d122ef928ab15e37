"""Errors of the upstream hop, with their HTTP status (RFC 9110 section 15.6) and stable error code."""

from __future__ import annotations

from akoya_gateway.errors import UpstreamError, UserError


class UpstreamUnreachable(UpstreamError):
    """No origin could be connected to: connection refused or reset, missing unix socket, or TLS failure."""

    status = 502
    code = "upstream-unreachable"


class UpstreamTimeout(UpstreamError):
    """Connecting to the upstream, or sending to or receiving from it, exceeded a timeout."""

    status = 504
    code = "upstream-timeout"
    title = "The application took too long to respond"


class UpstreamBusy(UpstreamError):
    """No connection of the pool became free before the wait timeout, or the pool is shutting down."""

    status = 503
    code = "upstream-busy"
    title = "The application is busy"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, retry_after=1)


class InvalidResponse(UpstreamError):
    """The response is malformed, or ambiguous so that two HTTP parsers could interpret it differently (RFC 9112)."""

    status = 502
    code = "upstream-invalid-response"


class ClosedEarly(UpstreamError):
    """The connection was closed before the response was complete.

    `no_response_bytes` is True if not a single byte of the response was received.
    """

    status = 502
    code = "upstream-closed"

    def __init__(self, detail: str = "", *, no_response_bytes: bool = False) -> None:
        super().__init__(detail)
        self.no_response_bytes = no_response_bytes


class StreamCancelled(UpstreamError, OSError):
    """The gateway has ended the stream or WebSocket, because the grant or the session has ended.

    It is an OSError, because an app in the same process gets it from `send` as it gets the error for a client that has
    disconnected (ASGI version 2.4).
    """

    status = 502
    code = "exchange-ended"


class RefusedRequest(UserError):
    """The request must not be forwarded.

    `close` is True: the response must be sent with `Connection: close`, because the framing of the request is
    ambiguous and the next request on the connection could be misread.
    """

    code = "request-refused"
    close = True


class SlowClient(RefusedRequest):
    """The client occupies an upstream connection but does not send the rest of its body, or sends it too slowly."""

    status = 408
    code = "body-timeout"
    title = "The request took too long to arrive"


class ClientGone(Exception):
    """The client has disconnected, so no response can be sent."""
