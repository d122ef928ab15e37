"""What can go wrong on the hop, each with its status and stable code (RFC 9110 section 15.6)."""

from __future__ import annotations

from akoya_gateway.errors import UpstreamError, UserError


class UpstreamUnreachable(UpstreamError):
    """No connection to any origin: refused, reset, no such socket, TLS failure."""

    status = 502
    code = "upstream-unreachable"


class UpstreamTimeout(UpstreamError):
    """Connecting, sending or waiting for bytes took longer than allowed."""

    status = 504
    code = "upstream-timeout"
    title = "The application took too long to answer"


class UpstreamBusy(UpstreamError):
    """Every connection of the pool stayed in use for as long as a request may wait."""

    status = 503
    code = "upstream-busy"
    title = "The application is busy"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, retry_after=1)


class InvalidResponse(UpstreamError):
    """The bytes were not a response that every reader would understand alike (RFC 9112)."""

    status = 502
    code = "upstream-invalid-response"


class ClosedEarly(UpstreamError):
    """The connection ended before the response did. `no_response_bytes`: not one byte of a response had come."""

    status = 502
    code = "upstream-closed"

    def __init__(self, detail: str = "", *, no_response_bytes: bool = False) -> None:
        super().__init__(detail)
        self.no_response_bytes = no_response_bytes


class StreamCancelled(UpstreamError):
    """Somebody ended the exchange from outside (`stream_cancellation.StreamCancellation`): the grant or the session is
    over."""

    status = 502
    code = "exchange-ended"


class RefusedRequest(UserError):
    """A request that must not be sent on. After the answer the client's connection is to be closed
    (`close` is True: send `Connection: close`), because its framing is in doubt."""

    code = "request-refused"
    close = True


class SlowClient(RefusedRequest):
    """The client holds a connection to the upstream and sends nothing more of its body."""

    status = 408
    code = "body-timeout"
    title = "The request took too long to arrive"


class ClientGone(Exception):
    """The client went away: nobody is left to answer."""
